"""What each snapshot holds and how it differs from the one before it, read from the manifests themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from s3bu.compare import is_same
from s3bu.errors import IntegrityError, PassphraseNotFoundError
from s3bu.manifest import FILE, Entry
from s3bu.progress import Progress
from s3bu.repository import Repository, Snapshot, StoredManifest
from s3bu.repository.layout import ManifestKey
from s3bu.repository.naming import manifests_of


@dataclass(frozen=True, slots=True)
class Line:
    """One snapshot in numbers; with `error`, why it could not be read, for want of a passphrase if `is_locked`."""

    key: ManifestKey
    created: datetime
    host: str = ""
    nfiles: int = 0
    nbytes: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0
    failed: int = 0
    error: str | None = None
    is_locked: bool = False


def summarise(repository: Repository, job: str | None, label: str | None, progress: Progress) -> list[Line]:
    """Return a line for each snapshot, those of one label in order.

    `JobNotFoundError` when a job was named that has none, `UsageError` when it has none of that label.
    """
    chosen = manifests_of(repository, job, label)
    progress.phase("reading snapshots", files=len(chosen))
    lines = list(_lines(repository, chosen, progress))
    if lines and all(line.is_locked for line in lines):
        raise PassphraseNotFoundError(
            f"{repository.storage.url}: no passphrase at hand opens any of these snapshots",
            hint=f"look into {repository.keyring.secrets_path}, or name another file with -s",
        )
    return lines


def _lines(repository: Repository, manifests: list[StoredManifest], progress: Progress) -> Iterator[Line]:
    for _, group in groupby(manifests, key=lambda manifest: (manifest.key.job, manifest.key.label)):
        before: dict[bytes, Entry] = {}
        for manifest in group:
            try:
                snapshot = repository.read_snapshot(manifest.key)
            except (IntegrityError, PassphraseNotFoundError) as error:
                is_locked = isinstance(error, PassphraseNotFoundError)
                yield Line(manifest.key, manifest.modified, error=error.message, is_locked=is_locked)
            else:
                entries = {entry.path: entry for entry in snapshot.entries}
                yield _line(snapshot, entries, before)
                before = entries
            progress.advance(files=1)


def _line(snapshot: Snapshot, entries: dict[bytes, Entry], before: dict[bytes, Entry]) -> Line:
    files = [entry for entry in snapshot.entries if entry.kind == FILE]
    shared = entries.keys() & before.keys()
    return Line(
        snapshot.key,
        snapshot.created,
        host=snapshot.header.host if snapshot.header else "",
        nfiles=sum(bool(entry.hash) for entry in files),
        nbytes=sum(entry.nbytes for entry in files if entry.hash),
        new=len(entries) - len(shared),
        changed=sum(not is_same(entries[path], before[path]) for path in shared),
        removed=len(before) - len(shared),
        failed=len(snapshot.failed) + sum(not entry.hash for entry in files),
    )
