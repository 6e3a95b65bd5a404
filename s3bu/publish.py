"""The last two steps of a backup: one manifest is put, and the index is told of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from s3bu.compare import CARRIED
from s3bu.draft import Draft
from s3bu.errors import ObjectExists, StorageError
from s3bu.history import Facts, record
from s3bu.index import Index, IndexedSnapshot
from s3bu.manifest import FAILED_PATH_BOUND, FailedPath, Header, format_entry, format_failed
from s3bu.progress import Failure
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey, next_manifest_key, parse_manifest_key

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Publisher:
    """What a snapshot says of itself: `created` is when the scan began, in whole seconds; `parent` came before it."""

    repository: Repository
    index: Index
    job: str
    label: str
    host: str
    created: datetime
    parent: IndexedSnapshot | None

    def publish(self, draft: Draft, failures: Iterable[Failure]) -> ManifestKey:
        """Put the manifest under the next free key, tell the index, and return the key.

        The label is listed again, since a snapshot that was made elsewhere meanwhile must not come after this one;
        and another machine may take a key in the same second.
        """
        since = parse_manifest_key(self.parent.key) if self.parent else None
        listed = self.repository.manifests(self.job, self.label, since=since)
        newest = listed[-1].key if listed else since
        failed = self._failed(failures)
        for _ in range(_ATTEMPTS):
            key = next_manifest_key(self.job, self.label, newest, datetime.now())
            header = self._header(key)
            try:
                self.repository.put_manifest(header, _lines(draft, failed))
            except ObjectExists:
                newest = key
            else:
                self._record(draft, header, key, failed)
                return key
        raise StorageError(f"{newest}: other runs keep taking the next key", hint="run again a little later")

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

    def _record(self, draft: Draft, header: Header, key: ManifestKey, failed: dict[bytes, FailedPath]) -> None:
        listed = self.repository.manifests(key.job, key.label, since=key)
        etag = next((manifest.etag for manifest in listed if manifest.key == key), "")
        facts = Facts(key, etag, header.created, header, tuple(_as_written(one) for one in failed.values()))
        record(self.index, facts, draft.changed(), draft.removed(), draft.seen())


def written(failure: Failure) -> bytes:
    """Return the path of a failure as the manifest has it."""
    return failure.path[:FAILED_PATH_BOUND]


def _as_written(failed: FailedPath) -> FailedPath:
    """Return a failure as the manifest has it, so that the index says the same."""
    return FailedPath(failed.path[:FAILED_PATH_BOUND], failed.error[:1_000], failed.since[:100])


def _lines(draft: Draft, failed: Mapping[bytes, FailedPath]) -> Iterator[bytes]:
    """Yield the manifest's lines between header and trailer, in order."""
    for path, status, entry in draft.snapshot():
        if path in failed:
            yield format_failed(failed[path])
        if entry is not None:
            yield format_entry(entry, is_carried_forward=status == CARRIED)
