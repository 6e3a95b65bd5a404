"""Walking a tree by descriptors, so that no symbolic link is ever followed, and making what was done there durable."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from s3bu.errors import StorageError
from s3bu.storage import ObjectStat

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP))

_REASONS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a file or a symbolic link stands where a directory should",
    errno.EISDIR: "a directory stands where a file should",
    errno.ELOOP: "a symbolic link stands in the way",
    errno.ENAMETOOLONG: "a part of the name is too long for the file system",
}


def encoded(key: str) -> bytes:
    """Return a key as the bytes of file names; what is no Unicode comes back as it was."""
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise StorageError(f"no key that a directory can hold: {key!r}") from error


def is_name(name: bytes) -> bool:
    """Say whether this can be the name of a file."""
    return name not in (b"", b".", b"..") and b"\0" not in name


def is_there(name: bytes, directory: int) -> bool:
    """Say whether a directory has anything of that name."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def stepped(here: int, name: bytes, *, make: bool) -> int:
    """Open the directory of that name, made first where `make` asks for it; a symbolic link is refused by ELOOP."""
    try:
        return os.open(name, _FLAGS, dir_fd=here)
    except NotADirectoryError:
        if stat.S_ISLNK(os.lstat(name, dir_fd=here).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=here)
    sync(here)
    return os.open(name, _FLAGS, dir_fd=here)


@contextmanager
def below(directory: int, name: bytes) -> Iterator[int]:
    """Give a descriptor of the directory of that name."""
    descriptor = os.open(name, _FLAGS, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sweep(directory: int, oldest: float) -> None:
    """Remove the files of a directory that were last written before that time."""
    for name in os.listdir(directory):
        # Another run may remove it first, or it may be another user's.
        with suppress(FileNotFoundError, PermissionError, IsADirectoryError):
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime < oldest:
                os.unlink(name, dir_fd=directory)


def removed(etag: str, parent: int, name: bytes, aside: int) -> bool:
    """Remove the file of that ETag by way of a name of its own in another directory; say whether it was that one."""
    if _etag(os.stat(name, dir_fd=parent, follow_symlinks=False)) != etag:
        return False
    own = b"%d-%s" % (os.getpid(), secrets.token_hex(8).encode())
    os.rename(name, own, src_dir_fd=parent, dst_dir_fd=aside)
    is_same = _etag(os.stat(own, dir_fd=aside, follow_symlinks=False)) == etag
    if is_same:
        os.unlink(own, dir_fd=aside)
    else:
        os.rename(own, name, src_dir_fd=aside, dst_dir_fd=parent)  # over yet another one, which is as good
    sync(parent)
    return is_same


def sync(directory: int) -> None:
    """Make what was done to a directory durable."""
    try:
        os.fsync(directory)
    except OSError as error:
        # Some network and user-space file systems cannot sync a directory, and need not.
        if error.errno not in _NO_SYNC:
            raise


def make_tree(path: bytes) -> None:
    """Make a directory for its owner alone, with what is missing above it, durably."""
    path = os.path.abspath(path)
    fresh: list[bytes] = []
    while not os.path.lexists(path):
        fresh.append(path)
        path = os.path.dirname(path)
    for path in reversed(fresh):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync(above)
        finally:
            os.close(above)


def sorted_entries(directory: int, above: bytes) -> Sequence[tuple[bytes, os.DirEntry[str]]]:
    """Return files and directories with their keys, in byte order; a directory's key ends in a slash and sorts so."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            key = above + os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                found.append((key + b"/", entry))
            elif entry.is_file(follow_symlinks=False):
                found.append((key, entry))
    return sorted(found, key=lambda pair: pair[0])


def object_stat(key: bytes, status: os.stat_result) -> ObjectStat:
    """Return what a listing says of a file."""
    return ObjectStat(key.decode("utf-8", "surrogateescape"), status.st_size, time_of(status), _etag(status))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def time_of(status: os.stat_result) -> datetime:
    """Return when a file was last written."""
    return datetime.fromtimestamp(status.st_mtime, tz=UTC)


def why(error: OSError) -> str:
    """Return in a few words why the system refused."""
    return (_REASONS.get(error.errno or 0) or error.strerror or type(error).__name__).lower()
