"""The last two steps of a backup: one manifest is put, and the index is told of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from s3bu.draft import Draft
from s3bu.errors import ObjectExists, StorageError
from s3bu.history import Facts, record
from s3bu.index import Index, IndexedSnapshot
from s3bu.lines import Lines
from s3bu.manifest import FAILED_PATH_BOUND, FailedPath, Header
from s3bu.patience import Stopwatch
from s3bu.progress import Failure
from s3bu.repository import Repository, StoredManifest
from s3bu.repository.layout import ManifestKey, next_manifest_key, parse_manifest_key
from s3bu.spans import renew

_ATTEMPTS = 20
_LOOK_SECONDS = 24 * 3600
"""A prune deletes what it marked after 72 hours: what a run saw not marked a day ago, or marked, is there."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """What a snapshot says of itself: `created` is when the scan began, in whole seconds; `parent` came before it.

    `looked` runs since the last look at marks and epoch began.
    """

    repository: Repository
    index: Index
    job: str
    label: str
    host: str
    created: datetime
    parent: IndexedSnapshot | None
    looked: Stopwatch

    def publish(self, draft: Draft, failures: Iterable[Failure]) -> StoredManifest:
        """Put the manifest under the next free key, tell the index, and return what a listing says of it.

        The label is listed again, since a snapshot that was made elsewhere meanwhile must not come after this one;
        and another machine may take a key in the same second.
        """
        since = parse_manifest_key(self.parent.key) if self.parent else None
        listed = self.repository.manifests(self.job, self.label, since=since)
        newest = listed[-1].key if listed else since
        failed = self._failed(failures)
        source = self.index.source(self.job, self.label)
        lines = Lines(self.index, source, draft, failed)
        for _ in range(_ATTEMPTS):
            key = next_manifest_key(self.job, self.label, newest, datetime.now())
            header = self._header(key)
            try:
                self.repository.put_manifest(header, lines, self._check_look)
            except ObjectExists:
                newest = key
            else:
                with self.index.transaction():
                    stored = self._record(draft, header, key, failed)
                    renew(self.index, source, lines.packed)
                return stored
        raise StorageError(f"{newest}: other runs keep taking the next key", hint="run again a little later")

    def _check_look(self) -> None:
        """Refuse to publish what a prune may have deleted since the last look, because this machine slept meanwhile.

        It is called just before the manifest is sent: what S3 gets later than 15 minutes after that it refuses.
        """
        if self.looked.seconds > _LOOK_SECONDS:
            raise StorageError(
                f"{self.job}/{self.label}: this machine slept, or was stopped, just before it published, and a prune "
                "may have been at it meanwhile; nothing published",
                hint="run again; what was stored is kept",
            )

    def _header(self, key: ManifestKey) -> Header:
        return Header(
            key=str(key),
            job=key.job,
            label=key.label,
            host=self.host,
            created=self.created,
            parent=self.parent.key if self.parent else "",
        )

    def _failed(self, failures: Iterable[Failure]) -> dict[bytes, FailedPath]:
        """Return the failures of the snapshot by path: one that goes on keeps the time when it began."""
        since = {failed.path: failed.since for failed in self.index.failed(self.parent)} if self.parent else {}
        now = self.created.isoformat()
        return {
            failure.path: FailedPath(failure.path, failure.error, since.get(written(failure), now))
            for failure in failures
        }

    def _record(
        self, draft: Draft, header: Header, key: ManifestKey, failed: dict[bytes, FailedPath]
    ) -> StoredManifest:
        """Tell the index of a snapshot, and return its manifest as a listing shows it."""
        listed = self.repository.manifests(key.job, key.label, since=key)
        found = (manifest for manifest in listed if manifest.key == key)
        stored = next(found, StoredManifest(key, header.created, 0))  # gone again: only its key is known
        facts = Facts(key, stored.etag, header.created, header, tuple(_as_written(one) for one in failed.values()))
        record(self.index, facts, draft.changed(), draft.removed(), draft.seen())
        return stored


def written(failure: Failure) -> bytes:
    """Return the path of a failure as the manifest has it."""
    return failure.path[:FAILED_PATH_BOUND]


def _as_written(failed: FailedPath) -> FailedPath:
    """Return a failure as the manifest has it, so that the index says the same."""
    return FailedPath(failed.path[:FAILED_PATH_BOUND], failed.error[:1_000], failed.since[:100])
