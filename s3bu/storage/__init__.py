"""What s3bu asks of a storage: keys to bytes, and nothing of what they mean.

The protocol is small so that it can be kept whole by S3, by a local directory and by the fake in memory; one contract
suite holds all of them to it (`tests/test_storage_contract/`). All calls are synchronous and safe from any thread,
and every failure is an error of `s3bu.errors` that names the key.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from s3bu.errors import StorageError, StorageStopped

PART_BOUND = 8 * 1024 * 1024
"""Bodies up to this many bytes are put in one request; longer ones go through `Storage.writer`."""
PARTS_IN_FLIGHT = 3
"""Parts of one large object that are under way at once, while a further one is being filled."""
_PARTS_PLANNED = 9000
_MIB = 1024 * 1024


def part_nbytes(nbytes: int) -> int:
    """Return the size of a part of an object of that length, in whole MiB: S3 allows 10,000 parts."""
    return max(PART_BOUND, math.ceil(nbytes / _PARTS_PLANNED / _MIB) * _MIB)


def memory_of_writer(nbytes: int) -> int:
    """Return the bytes that `Storage.writer` holds at most for an object of that length."""
    return (PARTS_IN_FLIGHT + 1) * part_nbytes(nbytes)


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a listing says of one object; `etag` is opaque and changes when the object does.

    `version` is the id of one of its versions, in a listing of these and where the storage keeps them.
    """

    key: str
    nbytes: int
    modified: datetime
    etag: str
    is_archived: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload in parts that was begun and neither ended nor aborted; it takes room until it is."""

    key: str
    id: str
    begun: datetime


@dataclass(frozen=True, slots=True)
class Put:
    """One small object to be stored, as `Storage.put` takes it."""

    key: str
    body: bytes
    metadata: Mapping[str, str]
    create: bool = False


class Download(Protocol):
    """One object being read; a binary stream that also knows what it reads.

    `metadata` has lower-case names without the `x-amz-meta-` prefix. `nbytes` is the length of the whole object.
    """

    metadata: Mapping[str, str]
    nbytes: int
    modified: datetime

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left when negative, `b""` at the end."""

    def close(self) -> None:
        """Give the connection back; reading on is an error."""

    def __enter__(self) -> Self:
        """Enter a block at whose end it is closed."""

    def __exit__(self, *exc_info: object) -> None:
        """Close."""


class Upload(Protocol):
    """One large object being written; the object appears whole at `commit`, or never."""

    def write(self, chunk: bytes, /) -> int:
        """Take the next bytes, and say how many that were (all); waits while too much is in flight."""

    def flush(self) -> None:
        """Do nothing; writers of age call it."""

    def commit(self) -> None:
        """Make the object appear."""

    def abort(self) -> None:
        """Leave nothing behind; harmless after `commit` and when called again."""


class Storage(Protocol):
    """Keys to bytes. `url` names it for people (`s3://bucket/prefix`, `/path`), without secrets.

    `identity` is the same string for the same place however it was spelled (endpoint, bucket and prefix, or the real
    path). `has_conditional_writes` is `None` until `probe` has found out.
    """

    url: str
    identity: str
    has_conditional_writes: bool | None

    def exists(self) -> bool:
        """Say whether the bucket or directory is there."""

    def create(self) -> None:
        """Make the bucket or directory; one that is there already is left as it is."""

    def probe(self, key: str) -> bool:
        """Find out, by writing to `key` (which holds nothing of value), whether creates are conditional."""

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        """Store `body`, durably before it returns.

        With `create` an object that is there stays, and `ObjectExists` is raised: atomically where the storage has
        conditional writes, else after a look just before.
        """

    def put_all(self, puts: Sequence[Put]) -> list[StorageError | None]:
        """Store several bodies at once, and return for each the error that kept it from being stored.

        What concerns them all is raised: that there is no such bucket, or that requests are given up.
        """

    def writer(
        self, key: str, nbytes: int, metadata: Mapping[str, str], *, create: bool = False
    ) -> AbstractContextManager[Upload]:
        """Return a writer for a body of about `nbytes` (an upper bound); leaving the block without `commit` aborts."""

    def open(self, key: str, *, start: int = 0) -> Download:
        """Begin to read the object from byte `start`; at or past its end there is nothing to read.

        `ObjectNotFound`, `ObjectArchived` and `AccessDenied` come here, not with the first `read`.
        """

    def open_all(self, keys: Sequence[str], *, bound: int) -> "Sequence[Download | StorageError]":
        """Begin to read several small objects at once, and return for each what `open` would return or raise.

        Of an object that is longer than `bound` bytes no more than that is held before it is read. What concerns them
        all is raised, as by `put_all`.
        """

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return the object's metadata, as `Download` has it, without reading the object."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        """Yield the objects whose keys begin with `prefix` and come after `after`, in byte order of their keys."""

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""

    def now(self) -> datetime:
        """Return what time it is by the storage's own clock, from which `modified` comes."""

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield all versions of what lies under a prefix, those of a key together and the newest first.

        They have a `version` where the storage keeps versions; where it does not, this is `list`.
        """

    def remove(self, stat: ObjectStat) -> bool:
        """Remove the very object, or version, of a listing, for good; say whether it was still that one.

        One that was put under its key meanwhile stays. Some servers have no means for that: there a look just before
        is all there is.
        """

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the uploads in parts that nobody ended."""

    def abandon(self, upload: Unfinished) -> None:
        """Abort one of them; its parts are gone then."""

    def stop(self) -> None:
        """Give up all requests under way and to come, from any thread: they raise `StorageStopped` at once."""

    def close(self) -> None:
        """Let go of threads and connections."""


def put_one_by_one(storage: Storage, puts: Sequence[Put]) -> list[StorageError | None]:
    """Do what `Storage.put_all` does where putting together gains nothing."""
    return [_put_caught(storage, one) for one in puts]


def _put_caught(storage: Storage, one: Put) -> StorageError | None:
    try:
        storage.put(one.key, one.body, one.metadata, create=one.create)
    except StorageStopped:
        raise
    except StorageError as error:
        return error
    return None


def open_one_by_one(storage: Storage, keys: Sequence[str]) -> list[Download | StorageError]:
    """Do what `Storage.open_all` does where opening together gains nothing."""
    return [_open_caught(storage, key) for key in keys]


def _open_caught(storage: Storage, key: str) -> Download | StorageError:
    try:
        return storage.open(key)
    except StorageStopped:
        raise
    except StorageError as error:
        return error
