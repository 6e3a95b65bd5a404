"""Which snapshot a source is compared with: the newest one in the repository that can be read.

One that was made elsewhere is taken into the index first. What the index has and the repository has not any more, or
not as it was, is let go of: a bucket may have been emptied, or made anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from s3bu.errors import IntegrityError, PassphraseNotFoundError, S3buError
from s3bu.history import Facts, let_go, take_in, whole
from s3bu.index import Index, IndexedSnapshot
from s3bu.known import Known
from s3bu.progress import Progress
from s3bu.repository import Repository, StoredManifest
from s3bu.repository.layout import parse_manifest_key

_HOST_SEARCH = 10
"""How many manifests are read back to find this machine's own, where several share a label."""


class Parent(NamedTuple):
    """What a source is compared with: its newest snapshot in the index, and whether a newer one cannot be read."""

    snapshot: IndexedSnapshot | None
    has_broken: bool


@dataclass(frozen=True, slots=True)
class Parents:
    """The snapshots of one source, which has the number `source` in the index; `relist` lists what is stored."""

    repository: Repository
    index: Index
    known: Known
    progress: Progress
    job: str
    label: str
    source: int
    relist: Callable[[str], None]

    def newest(self) -> Parent:
        """Take in a newer snapshot made elsewhere, and return the newest.

        `PassphraseNotFoundError` when there are snapshots and this machine has the passphrase of none.
        """
        self.progress.phase("looking for newer snapshots")
        known = self.index.newest(self.source)
        after = parse_manifest_key(known.key) if known else None
        listed = self.repository.manifests(self.job, self.label, since=after)
        if known is None:
            # No manifest vouches for what the index knows to be stored.
            self.relist("the index knows no snapshot of the source")
        elif not _stands(known, listed):
            listed = self._let_go_changed()
        errors: list[S3buError] = []
        for manifest in reversed(listed):
            found = self._taken_in(manifest, errors)
            if found is not None:
                return Parent(found, bool(errors))
        if listed and all(isinstance(error, PassphraseNotFoundError) for error in errors):
            raise errors[0]
        return Parent(None, bool(errors))

    def last_of(self, host: str, newest: IndexedSnapshot) -> IndexedSnapshot | None:
        """Return a machine's own last snapshot where another one made the newest: two may back up under one label."""
        if newest.host in (None, host):
            return newest
        listed = self.repository.manifests(self.job, self.label)
        for manifest in reversed(listed[-_HOST_SEARCH - 1 : -1]):
            self._taken_in(manifest, [])
            found = self._snapshot(manifest)
            if found is not None and found.host == host:
                return found
        return None

    def _snapshot(self, manifest: StoredManifest) -> IndexedSnapshot | None:
        return next((one for one in self.index.snapshots(self.source) if one.key == str(manifest.key)), None)

    def _let_go_changed(self) -> list[StoredManifest]:
        """Let go the snapshots that are gone or altered; then nothing is known of the contents either."""
        listed = self.repository.manifests(self.job, self.label)
        for snapshot in self.index.snapshots(self.source):
            if not _stands(snapshot, listed):
                self.progress.warning(
                    f"{snapshot.key}: gone from the repository, or altered, since it was read; was it meant to be?"
                )
                let_go(self.index, snapshot)
        self.relist("snapshots are gone from the repository, or altered")
        return listed

    def _taken_in(self, manifest: StoredManifest, errors: list[S3buError]) -> IndexedSnapshot | None:
        """Return the snapshot of a manifest, taken in if it is new; one that is broken is told, and costs only time."""
        known = self._snapshot(manifest)
        if known is not None and known.error is None:
            return known
        self.progress.phase("reading the last snapshot")
        try:
            self._take_in(manifest)
        except (IntegrityError, PassphraseNotFoundError) as error:
            errors.append(error)
            self.progress.warning(f"{error.message}; comparing with an older snapshot instead")
            return None
        return self.index.newest(self.source)

    def _take_in(self, manifest: StoredManifest) -> None:
        with self.repository.open_manifest(manifest.key) as (reader, created):
            self.known.doubt(self.source)
            take_in(self.index, Facts(manifest.key, manifest.etag, created, reader.header), whole(reader))
            for warning in reader.warnings:
                self.progress.warning(warning)


def _stands(snapshot: IndexedSnapshot, listed: list[StoredManifest]) -> bool:
    """Say whether a snapshot's manifest is listed, as it was when it was read."""
    return any(str(manifest.key) == snapshot.key and manifest.etag == snapshot.etag for manifest in listed)
