"""A storage in memory for tests: the whole contract, and objects that can be made to misbehave."""

import io
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from s3bu.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectExists,
    ObjectNotFound,
    RepositoryNotFoundError,
    StorageError,
    StorageStopped,
)
from s3bu.storage import Download, ObjectStat, Put, Unfinished, open_one_by_one, put_one_by_one

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it lies in memory."""

    body: bytes
    metadata: Mapping[str, str]
    etag: str = field(default_factory=lambda: f"etag-{next(_numbers)}")
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


class MemoryStorage:
    """Keys to bytes, gone with the process.

    Keys in `archived` cannot be read, keys in `denied` can be neither read nor written nor removed; `objects` may be
    looked at and changed at will. `is_there` says whether the repository exists.
    """

    def __init__(self, name: str = "memory") -> None:
        self.url = f"memory:{name}"
        self.identity = f"memory:{name}:{next(_numbers)}"
        self.has_conditional_writes: bool | None = None
        self.is_there = True
        self.objects: dict[str, StoredObject] = {}
        self.archived: set[str] = set()
        self.denied: set[str] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def exists(self) -> bool:
        """Say whether the repository is there."""
        self._refuse_when_stopped()
        return self.is_there

    def create(self) -> None:
        """Make the repository."""
        self._refuse_when_stopped()
        self.is_there = True

    def probe(self, key: str) -> bool:
        """Say that creates are conditional, unless `key` is denied."""
        try:
            self.put(key, b"", {})
        except AccessDenied:
            return False
        self.has_conditional_writes = True
        return True

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        """Store a body."""
        self._refuse(key)
        with self._lock:
            if create and key in self.objects:
                raise ObjectExists(f"{self.url}/{key} is there already")
            self.objects[key] = StoredObject(bytes(body), {name.lower(): metadata[name] for name in metadata})

    def put_all(self, puts: Sequence[Put]) -> list[StorageError | None]:
        """Store bodies one after the other."""
        return put_one_by_one(self, puts)

    def writer(self, key: str, nbytes: int, metadata: Mapping[str, str], *, create: bool = False) -> "MemoryUpload":  # noqa: ARG002 - memory grows as it is filled
        """Return a writer that fills a buffer."""
        self._refuse(key)
        return MemoryUpload(self, key, metadata, create=create)

    def open(self, key: str, *, start: int = 0) -> "MemoryDownload":
        """Begin to read an object."""
        self._refuse(key)
        stored = self.objects.get(key)
        if stored is None:
            raise ObjectNotFound(f"there is no object {self.url}/{key}")
        if key in self.archived:
            raise ObjectArchived(f"{self.url}/{key} lies in an archive class", hint="bring it back first")
        return MemoryDownload(stored, start)

    def open_all(self, keys: Sequence[str], *, bound: int) -> Sequence[Download | StorageError]:  # noqa: ARG002 - nothing is held
        """Begin to read objects one after the other."""
        return open_one_by_one(self, keys)

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return an object's metadata."""
        with self.open(key) as download:
            return download.metadata

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        """Yield what lies under a prefix, as it was when the listing began."""
        self._refuse("")
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
            found = [(key, self.objects[key]) for key in keys]
        for key, stored in found:
            self._refuse_when_stopped()
            yield ObjectStat(key, len(stored.body), stored.modified, stored.etag, key in self.archived)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._refuse(key)
        with self._lock:
            self.objects.pop(key, None)

    def now(self) -> datetime:
        """Return the time of the process."""
        self._refuse_when_stopped()
        return datetime.now(UTC)

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield what lies under a prefix, of which there is one version."""
        return self.list(prefix)

    def remove(self, stat: ObjectStat) -> bool:
        """Remove the very object of a listing."""
        self._refuse(stat.key)
        with self._lock:
            found = self.objects.get(stat.key)
            if found is None or found.etag != stat.etag:
                return False
            del self.objects[stat.key]
            return True

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield nothing: an upload is in the memory of whoever makes it."""
        self._refuse("")
        return iter(())

    def abandon(self, upload: Unfinished) -> None:
        """Do nothing."""
        self._refuse(upload.key)

    def stop(self) -> None:
        """Refuse all that is to come."""
        self._is_stopped = True

    def close(self) -> None:
        """Stop; the objects stay."""
        self.stop()

    def _refuse(self, key: str) -> None:
        self._refuse_when_stopped()
        if not self.is_there:
            raise RepositoryNotFoundError(f"there is no repository {self.url}")
        if key in self.denied:
            raise AccessDenied(f"access to {self.url}/{key} is denied")

    def _refuse_when_stopped(self) -> None:
        if self._is_stopped:
            raise StorageStopped("the request was given up because the run is being stopped")


class MemoryDownload:
    """An object being read."""

    def __init__(self, stored: StoredObject, start: int) -> None:
        self.metadata = stored.metadata
        self.nbytes = len(stored.body)
        self.modified = stored.modified
        self._stream = io.BytesIO(stored.body)
        self._stream.seek(start)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        return self._stream.read(size)

    def close(self) -> None:
        """Let go of the bytes."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class MemoryUpload:
    """An object being written."""

    def __init__(self, storage: MemoryStorage, key: str, metadata: Mapping[str, str], *, create: bool) -> None:
        self._storage = storage
        self._key = key
        self._metadata = metadata
        self._create = create
        self._body = bytearray()
        self._is_over = False

    def write(self, chunk: bytes, /) -> int:
        """Take the next bytes."""
        self._refuse_when_over()
        self._body += chunk
        return len(chunk)

    def flush(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Make the object appear."""
        self._refuse_when_over()
        self._storage.put(self._key, bytes(self._body), self._metadata, create=self._create)
        self._is_over = True

    def abort(self) -> None:
        """Forget the bytes."""
        self._is_over = True
        self._body = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abort()

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise ValueError(f"the upload of {self._key} is over")
