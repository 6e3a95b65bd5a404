"""Operations that fail: of the system, of the storage, and of the index, each counted where the program leaves itself.

While faults are armed, the k-th operation of one domain fails, and in the manner `for ever` all those behind it that
are of its sort (reading or writing) too. An operation of the manner `late` has done its work when it fails, as when the
answer to a request is lost. The error is one of several, by the number of the operation.
"""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

import pytest

from s3bu.errors import AccessDenied, CredentialsError, ObjectNotFound, StorageError
from s3bu.restore import target
from s3bu.storage import Download, ObjectStat, Put, Storage, Unfinished, open_one_by_one, place, put_one_by_one

FILES, STORAGE, INDEX = "files", "storage", "index"
DOMAINS = (FILES, STORAGE, INDEX)
ONCE, FOR_EVER, LATE = "once", "for ever", "late"
MANNERS = {FILES: (ONCE, FOR_EVER), STORAGE: (ONCE, FOR_EVER, LATE), INDEX: (ONCE, FOR_EVER)}
READING, WRITING = "reading", "writing"

_READING = ("pread", "read", "scandir", "listdir", "stat", "fstat", "dup", "readlink")
_WRITING = ("write", "pwrite", "fsync", "rename", "replace", "link", "unlink", "mkdir", "utime", "chmod", "fchmod")
_ERRNOS = {READING: (errno.EIO, errno.EACCES), WRITING: (errno.ENOSPC, errno.EIO, errno.EACCES)}
_STORAGE_ERRORS: tuple[type[StorageError], ...] = (StorageError, AccessDenied, CredentialsError, StorageError)
_INDEX_ERRORS = (
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.DatabaseError("database disk image is malformed"),
    sqlite3.OperationalError("database or disk is full"),
)


@dataclass(slots=True)
class Faults:
    """The `number`-th operation of a domain fails; `struck` names those that did."""

    domain: str
    number: int
    manner: str
    count: int = 0
    struck: list[str] = field(default_factory=list)
    _sort: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, domain: str, sort: str, name: str) -> bool:
        """Count an operation, and say whether it is to fail."""
        if domain != self.domain:
            return False
        with self._lock:
            self.count += 1
            if self.count == self.number:
                self._sort = sort
            is_struck = self.count == self.number or (
                self.manner == FOR_EVER and self.count > self.number and sort == self._sort
            )
            if is_struck:
                self.struck.append(name)
        return is_struck

    def os_error(self, sort: str) -> OSError:
        number = _ERRNOS[sort][self.number % len(_ERRNOS[sort])]
        return OSError(number, os.strerror(number))

    def storage_error(self, name: str) -> StorageError:
        kind = _STORAGE_ERRORS[self.number % len(_STORAGE_ERRORS)]
        if name.startswith("open data/") and self.number % 5 == 0:
            kind = ObjectNotFound
        return kind(f"{name}: the server is unwell")

    def index_error(self) -> sqlite3.Error:
        error = _INDEX_ERRORS[self.number % len(_INDEX_ERRORS)]
        return type(error)(*error.args)


@contextmanager
def armed(faults: Faults) -> Iterator[None]:
    """Let operations fail for a block."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _strike_storage(faults, monkeypatch)
        if faults.domain == FILES:
            _strike_files(faults, monkeypatch)
        if faults.domain == INDEX:
            _strike_index(faults, monkeypatch)
        yield


# --- the system


def _strike_files(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    for sort, names in ((READING, _READING), (WRITING, _WRITING)):
        for name in names:
            monkeypatch.setattr(os, name, _struck(faults, sort, name, getattr(os, name)))
    real_open = os.open

    def struck_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        sort = WRITING if flags & os.O_CREAT else READING
        if faults.meet(FILES, sort, f"open {path!r}"):
            raise faults.os_error(sort)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", struck_open)

    def struck_file(*args: Any, **more: Any) -> _StruckFile:
        return _StruckFile(faults, open(*args, **more))

    monkeypatch.setattr(target, "open", struck_file, raising=False)


def _struck(faults: Faults, sort: str, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        if not faults.meet(FILES, sort, name):
            return real(*args, **more)
        if name == "write":  # as on a disk that fills up: some of it is written
            real(args[0], bytes(args[1])[: len(args[1]) // 2])
        raise faults.os_error(sort)

    return call


class _StruckFile:
    """A file whose writes may fail half-way."""

    def __init__(self, faults: Faults, file: BinaryIO) -> None:
        self._faults = faults
        self._file = file
        self.seek = file.seek
        self.truncate = file.truncate

    def __enter__(self) -> "_StruckFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def write(self, chunk: bytes, /) -> int:
        if self._faults.meet(FILES, WRITING, "write of a file"):
            self._file.write(bytes(chunk)[: len(chunk) // 2])
            raise self._faults.os_error(WRITING)
        return self._file.write(chunk)


# --- the storage


def _strike_storage(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    real = place.open_storage
    monkeypatch.setattr(place, "open_storage", lambda *args: StruckStorage(faults, real(*args)))


class StruckStorage:
    """A storage whose calls may fail; all else is that of another one."""

    def __init__(self, faults: Faults, storage: Storage) -> None:
        self._faults = faults
        self._storage = storage
        self.url = storage.url
        self.identity = storage.identity
        self.has_conditional_writes = storage.has_conditional_writes
        self.stop = storage.stop
        self.close = storage.close

    @contextmanager
    def _call(self, sort: str, name: str) -> Iterator[None]:
        is_struck = self._faults.meet(STORAGE, sort, name)
        if is_struck and self._faults.manner != LATE:
            raise self._faults.storage_error(name)
        yield
        if is_struck:
            raise self._faults.storage_error(name)

    def exists(self) -> bool:
        with self._call(READING, "exists"):
            return self._storage.exists()

    def create(self) -> None:
        with self._call(WRITING, "create"):
            self._storage.create()

    def probe(self, key: str) -> bool:
        with self._call(WRITING, "probe"):
            found = self._storage.probe(key)
            self.has_conditional_writes = self._storage.has_conditional_writes
            return found

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        with self._call(WRITING, "put"):
            self._storage.put(key, body, metadata, create=create)

    def put_all(self, puts: Sequence[Put]) -> list[StorageError | None]:
        return put_one_by_one(self, puts)

    @contextmanager
    def writer(
        self, key: str, nbytes: int, metadata: Mapping[str, str], *, create: bool = False
    ) -> Iterator["_StruckUpload"]:
        with self._call(WRITING, "writer"):
            opened = self._storage.writer(key, nbytes, metadata, create=create)
        with opened as upload:
            yield _StruckUpload(self._call, upload)

    def open(self, key: str, *, start: int = 0) -> "_StruckDownload":
        with self._call(READING, f"open {key}"):
            download = self._storage.open(key, start=start)
        return _StruckDownload(self._call, download)

    def open_all(self, keys: Sequence[str], *, bound: int) -> "Sequence[Download | StorageError]":
        return open_one_by_one(self, keys)

    def metadata(self, key: str) -> Mapping[str, str]:
        with self._call(READING, f"metadata of {key}"):
            return self._storage.metadata(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        with self._call(READING, "list"):
            pass
        for found in self._storage.list(prefix, after=after):
            with self._call(READING, "list on"):
                pass
            yield found

    def delete(self, key: str) -> None:
        with self._call(WRITING, "delete"):
            self._storage.delete(key)

    def now(self) -> datetime:
        with self._call(READING, "now"):
            return self._storage.now()

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        with self._call(READING, "versions"):
            pass
        for found in self._storage.versions(prefix):
            with self._call(READING, "versions on"):
                pass
            yield found

    def remove(self, stat: ObjectStat) -> bool:
        with self._call(WRITING, "remove"):
            return self._storage.remove(stat)

    def unfinished(self) -> Iterator[Unfinished]:
        with self._call(READING, "unfinished"):
            return self._storage.unfinished()

    def abandon(self, upload: Unfinished) -> None:
        with self._call(WRITING, "abandon"):
            self._storage.abandon(upload)


class _StruckUpload:
    def __init__(self, call: Callable[[str, str], Any], upload: Any) -> None:
        self._call = call
        self._upload = upload
        self.flush = upload.flush
        self.abort = upload.abort

    def write(self, chunk: bytes, /) -> int:
        with self._call(WRITING, "write of an upload"):
            written: int = self._upload.write(chunk)
        return written

    def commit(self) -> None:
        with self._call(WRITING, "commit"):
            self._upload.commit()


class _StruckDownload:
    def __init__(self, call: Callable[[str, str], Any], download: Download) -> None:
        self._call = call
        self._download = download
        self.metadata = download.metadata
        self.nbytes = download.nbytes
        self.modified = download.modified
        self.close = download.close

    def read(self, size: int = -1, /) -> bytes:
        with self._call(READING, "read"):
            return self._download.read(size)

    def __enter__(self) -> "_StruckDownload":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# --- the index


def _strike_index(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    class StruckConnection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql != "ROLLBACK" and faults.meet(INDEX, WRITING, sql):
                raise faults.index_error()
            return super().execute(sql, *args)

        def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
            if faults.meet(INDEX, WRITING, sql):
                raise faults.index_error()
            return super().executemany(sql, rows)

    real: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(path: Any, *args: Any, **more: Any) -> sqlite3.Connection:
        if path == ":memory:":  # no disk, no failures of one
            return real(path, *args, **more)
        return real(path, *args, factory=StruckConnection, **more)

    monkeypatch.setattr(sqlite3, "connect", connect)
