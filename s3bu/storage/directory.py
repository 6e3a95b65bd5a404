"""A local directory as storage: keys are files below it, each put there whole and made durable first.

A body is written to a temporary file in a private directory of the same file system, synced, then renamed (or linked,
for a create, which fails where a name is taken), and then the directory is synced. Directories are walked by
descriptor and symbolic links are never followed, so that nothing outside the root is read or written. User metadata
is not kept.
"""

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from s3bu.errors import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    RepositoryNotFoundError,
    StorageError,
    StorageStopped,
)
from s3bu.storage import Download, ObjectStat, Put, Unfinished, open_one_by_one, put_one_by_one
from s3bu.storage.directory_download import DirectoryDownload
from s3bu.storage.directory_tree import (
    below,
    encoded,
    is_name,
    is_there,
    make_tree,
    object_stat,
    removed,
    sorted_entries,
    stepped,
    sweep,
    sync,
    time_of,
    why,
)

_TEMPORARY = b".s3bu-tmp"
_LEFTOVER_SECONDS = 24 * 3600
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, since a FIFO in an object's place would be waited for.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


class DirectoryStorage:
    """A directory; each part of a key between slashes is a name in it.

    It cannot hold a key and another that goes on below it (`a` and `a/b`), nor empty parts, `.` and `..`.
    """

    def __init__(self, path: str) -> None:
        self.url = path
        self.identity = os.path.realpath(path)
        self.has_conditional_writes: bool | None = None
        self._path = os.fsencode(path)
        self._lock = threading.Lock()
        self._has_swept = False
        self._has_links = True
        self._is_stopped = False

    def exists(self) -> bool:
        """Say whether the directory is there; one that may not be looked at is `AccessDenied`."""
        self.refuse_when_stopped()
        try:
            return stat.S_ISDIR(os.stat(self._path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self.fault(error, "") from error

    def create(self) -> None:
        """Make the directory for its owner alone, and what is missing above it."""
        self.refuse_when_stopped()
        try:
            make_tree(self._path)
        except OSError as error:
            raise self.fault(error, "") from error
        if not self.exists():
            raise StorageError(f"{self.url} is not a directory")

    def probe(self, key: str) -> bool:
        """Find out whether the file system has hard links, without which a create is a look and a rename."""
        try:
            self.delete(key)
            with suppress(ObjectExists):
                self.put(key, b"", {}, create=True)
        except AccessDenied:
            self.has_conditional_writes = None
            return False
        self.has_conditional_writes = self._has_links
        return self._has_links

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        """Store a body; it is on the disk when this returns."""
        with self.writer(key, len(body), metadata, create=create) as upload:
            upload.write(body)
            upload.commit()

    def put_all(self, puts: Sequence[Put]) -> list[StorageError | None]:
        """Store bodies one after the other."""
        return put_one_by_one(self, puts)

    def writer(
        self,
        key: str,
        nbytes: int,  # noqa: ARG002 - a file grows as it is written
        metadata: Mapping[str, str],  # noqa: ARG002 - a file has none
        *,
        create: bool = False,
    ) -> "DirectoryUpload":
        """Return a writer to a temporary file."""
        self.refuse_when_stopped()
        return DirectoryUpload(self, key, create=create)

    def open(self, key: str, *, start: int = 0) -> "DirectoryDownload":
        """Begin to read a file."""
        self.refuse_when_stopped()
        *parents, name = self.segments(key)
        try:
            with self.directory(parents) as parent:
                descriptor = os.open(name, _READ_FLAGS, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectNotFound(f"there is no file {self.url}/{key}") from error
        except OSError as error:
            raise self.fault(error, key) from error
        return DirectoryDownload(self, key, descriptor, start)

    def open_all(self, keys: Sequence[str], *, bound: int) -> Sequence[Download | StorageError]:  # noqa: ARG002 - nothing is held
        """Begin to read objects one after the other."""
        return open_one_by_one(self, keys)

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return what a file that is there has: none."""
        with self.open(key) as download:
            return download.metadata

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        """Yield the files under a prefix; one directory's names are held at a time, and links are passed over."""
        parents = encoded(prefix).split(b"/")[:-1]
        if not all(map(is_name, parents)):
            return
        try:
            with self.directory(parents) as base:
                root = b"".join(name + b"/" for name in parents)
                yield from self._walk(base, root, encoded(prefix), encoded(after))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self.fault(error, prefix) from error

    def delete(self, key: str) -> None:
        """Remove a file; its directory stays, since another may just be put there."""
        self.refuse_when_stopped()
        *parents, name = self.segments(key)
        try:
            with self.directory(parents) as parent:
                os.unlink(name, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise self.fault(error, key) from error

    def now(self) -> datetime:
        """Return the time of the file system, as a file has it that is written now."""
        try:
            directory, name, file = self.temporary()
            try:
                return time_of(os.fstat(file))
            finally:
                os.unlink(name, dir_fd=directory)
                os.close(file)
                os.close(directory)
        except OSError as error:
            raise self.fault(error, "") from error

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the files under a prefix, of which there is one version."""
        return self.list(prefix)

    def remove(self, stat: ObjectStat) -> bool:
        """Remove the very file of a listing.

        It is moved aside and looked at there, since one of another run could take its name after any look at the
        name; that one is moved back.
        """
        self.refuse_when_stopped()
        *parents, name = self.segments(stat.key)
        try:
            with self.directory(parents) as parent, self.directory((_TEMPORARY,), make=True) as aside:
                return removed(stat.etag, parent, name, aside)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self.fault(error, stat.key) from error

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield nothing: a file that was not published is removed by a later run."""
        self.refuse_when_stopped()
        return iter(())

    def abandon(self, upload: Unfinished) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Refuse all that is to come; a single system call that is under way ends first."""
        self._is_stopped = True

    def close(self) -> None:
        """Stop."""
        self.stop()

    def refuse_when_stopped(self) -> None:
        """Raise `StorageStopped` after a stop."""
        if self._is_stopped:
            raise StorageStopped("the request was given up because the run is being stopped")

    def segments(self, key: str) -> Sequence[bytes]:
        """Return the names that a key is made of; `StorageError` where they could not be names of files."""
        names = encoded(key).split(b"/")
        if not all(map(is_name, names)) or names[0] == _TEMPORARY:
            raise StorageError(f"no key that a directory can hold: {key!r}")
        return names

    @contextmanager
    def directory(self, names: Sequence[bytes], *, make: bool = False) -> Iterator[int]:
        """Give a descriptor of the directory below the root; with `make`, of one that is durably there."""
        self.refuse_when_stopped()
        here = self._opened_root()
        try:
            for name in names:
                deeper = stepped(here, name, make=make)
                os.close(here)
                here = deeper
            yield here
        finally:
            os.close(here)

    def temporary(self) -> tuple[int, bytes, int]:
        """Make a temporary file: the descriptor of its directory, its name, and its own descriptor."""
        name = b"%d-%s" % (os.getpid(), secrets.token_hex(8).encode())
        with self.directory((_TEMPORARY,), make=True) as directory:
            self._sweep(directory)
            descriptor = os.open(name, _NEW_FLAGS, 0o600, dir_fd=directory)
            try:
                return os.dup(directory), name, descriptor
            except OSError:
                os.close(descriptor)
                os.unlink(name, dir_fd=directory)
                raise

    def publish(self, directory: int, name: bytes, key: str, *, create: bool) -> None:
        """Give a synced temporary file its final name, durably."""
        *parents, last = self.segments(key)
        with self.directory(parents, make=True) as parent:
            if not (create and self._linked(directory, name, parent, last)):
                if create and is_there(last, parent):
                    raise FileExistsError(errno.EEXIST, "there already")
                os.rename(name, last, src_dir_fd=directory, dst_dir_fd=parent)
            sync(parent)

    def fault(self, error: OSError, key: str) -> StorageError:
        """Return our error for one of the system's."""
        where = f"{self.url}/{key}" if key else self.url
        if isinstance(error, FileExistsError):
            return ObjectExists(f"{where} is there already")
        if isinstance(error, PermissionError):
            return AccessDenied(f"access to {where} is denied", hint="check owner and permissions of the directory")
        return StorageError(f"cannot use {where}: {why(error)}")

    def _opened_root(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RepositoryNotFoundError(f"there is no directory {self.url}", hint="`s3bu init` makes it") from error

    def _linked(self, directory: int, name: bytes, parent: int, last: bytes) -> bool:
        """Link the file to its final name and drop the first one; false where links are unknown."""
        try:
            os.link(name, last, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._has_links = False
            return False
        os.unlink(name, dir_fd=directory)
        return True

    def _sweep(self, directory: int) -> None:
        """Remove, once, what a killed run left a day ago or earlier; a file being written is younger."""
        with self._lock:
            if self._has_swept:
                return
            self._has_swept = True
        sweep(directory, time.time() - _LEFTOVER_SECONDS)

    def _walk(self, directory: int, above: bytes, prefix: bytes, after: bytes) -> Iterator[ObjectStat]:
        for key, entry in sorted_entries(directory, above):
            self.refuse_when_stopped()
            if key == _TEMPORARY + b"/" or not key.startswith(prefix):
                continue
            if key.endswith(b"/"):
                if key > after or after.startswith(key):
                    with suppress(FileNotFoundError), below(directory, os.fsencode(entry.name)) as deeper:
                        yield from self._walk(deeper, key, prefix, after)
            elif key > after:
                with suppress(FileNotFoundError):
                    yield object_stat(key, entry.stat(follow_symlinks=False))


class DirectoryUpload:
    """A file being written beside where it will lie."""

    def __init__(self, storage: DirectoryStorage, key: str, *, create: bool) -> None:
        self._storage = storage
        self._key = key
        self._create = create
        storage.segments(key)
        try:
            self._directory, self._name, self._file = storage.temporary()
        except OSError as error:
            raise storage.fault(error, key) from error
        self._is_over = False

    def write(self, chunk: bytes, /) -> int:
        """Write the next bytes."""
        self._refuse_when_over()
        self._storage.refuse_when_stopped()
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._storage.fault(error, self._key) from error
        return len(chunk)

    def flush(self) -> None:
        """Do nothing; `commit` syncs."""

    def commit(self) -> None:
        """Sync the file and give it its name; `ObjectExists` where it was to be created and is there."""
        self._refuse_when_over()
        try:
            os.fsync(self._file)
            self._storage.publish(self._directory, self._name, self._key, create=self._create)
        except OSError as error:
            raise self._storage.fault(error, self._key) from error
        self._end()

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._is_over:
            return
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)
        except OSError as error:
            raise self._storage.fault(error, self._key) from error
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.abort()
        except StorageError as left:
            if error is None:
                raise
            error.add_note(left.message)

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise ValueError(f"the upload of {self._key} is over")

    def _end(self) -> None:
        self._is_over = True
        os.close(self._file)
        os.close(self._directory)
