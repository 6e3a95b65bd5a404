"""Walk a source: a sorted stream of what is there, by `lstat` alone.

The order is the manifest's: by path segments as bytes. Directories are walked by descriptors that follow no link, so
a directory that is swapped for a link in mid-run leads nowhere. What could not be looked at comes out as a `Failure`
in its place of the order; what vanished in mid-run is not there. The walk holds one descriptor a level of depth.
"""

import grp
import os
import pwd
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import NamedTuple

from s3bu.errors import JobError, S3buError
from s3bu.filters import Filters
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, Owner, Seen
from s3bu.progress import Failure

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class SourceMissingError(S3buError):
    """The source's directory is not there, or cannot be opened: nothing is known of what it holds."""


class Regular(NamedTuple):
    """One regular file as the scan saw it: most are only looked at, so their entries are made when they are needed."""

    path: bytes
    status: os.stat_result

    def entry(self) -> Entry:
        """Return the file's entry, without a hash."""
        path, status = self
        mode = status.st_mode & 0o777
        return Entry(path, FILE, status.st_size, status.st_mtime_ns, mode, "", b"", None, seen_of(status))


def entries(items: Iterable[Regular | Entry | Failure]) -> Iterator[Entry | Failure]:
    """Yield the same with the entries of regular files."""
    return (item.entry() if isinstance(item, Regular) else item for item in items)


@dataclass(slots=True)
class Left:
    """What a scan could not take whole: special files by kind, and directories that were excluded by identity."""

    special: Counter[str] = field(default_factory=Counter)
    excluded: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Level:
    """One open directory on the way down: its descriptor, its path with a slash, and what is still to be looked at."""

    descriptor: int
    prefix: bytes
    names: Iterator[tuple[bytes, "os.DirEntry[str]"]]


class Scan:
    """One walk of one source.

    `excluded` holds the (device, inode) of directories to leave out: the repository itself, when it lies inside the
    source. `left` fills while the walk goes on.
    """

    def __init__(self, root: bytes, filters: Filters, *, excluded: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.root = os.path.realpath(root)
        self.left = Left()
        self._filters = filters
        self._excluded = excluded
        self._levels: list[_Level] = []

    def __iter__(self) -> Iterator[Regular | Entry | Failure]:
        """Yield what the source holds, in order; a source that cannot be walked raises before the first."""
        try:
            self._enter_root()
            while self._levels:
                level = self._levels[-1]
                for name, found in level.names:
                    item = self._look(level, name, found)
                    if item is not None:
                        yield item
                    if self._levels[-1] is not level:
                        break
                else:
                    os.close(self._levels.pop().descriptor)
        finally:
            for level in self._levels:
                os.close(level.descriptor)
            self._levels.clear()

    def _enter_root(self) -> None:
        try:
            descriptor = os.open(self.root, _DIRECTORY_FLAGS)
        except OSError as error:
            raise SourceMissingError(
                f"{os.fsdecode(self.root)}: the source cannot be opened ({reason(error)})",
                hint="is its disk mounted, and is its path in the job right?",
            ) from error
        try:
            names = _list(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise SourceMissingError(
                f"{os.fsdecode(self.root)}: the source cannot be listed ({reason(error)})"
            ) from error
        self._levels.append(_Level(descriptor, b"", iter(names)))
        item = self._filters.skipping_item(name for name, _ in names)
        if item is not None:
            raise JobError(
                f"{os.fsdecode(self.root)}: skip_dir_items skips the whole source, since it contains "
                f"'{os.fsdecode(item)}'",
                hint="remove that item, or take its name out of skip_dir_items",
            )

    def _look(self, level: _Level, name: bytes, found: "os.DirEntry[str]") -> Regular | Entry | Failure | None:
        path = level.prefix + name
        try:
            status = found.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                return self._descend(level, name, status)
            if not self._filters.wants_file(name):
                return None
            if kind == stat.S_IFREG:
                return Regular(path, status)
            if kind == stat.S_IFLNK:
                return self._read_link(level, name, status)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Failure(path, reason(error)) if self._may_be_wanted(level, name, found) else None
        self.left.special[_SPECIAL.get(kind, "file of unknown kind")] += 1
        return _special(path, status)

    def _may_be_wanted(self, level: _Level, name: bytes, found: "os.DirEntry[str]") -> bool:
        """Say whether what could not be looked at concerns anyone, by the kind that the directory tells of it."""
        try:
            if found.is_dir(follow_symlinks=False):
                return self._filters.wants_directory(name, is_top=not level.prefix)
        except OSError:  # its directory does not tell either
            return True
        return self._filters.wants_file(name)

    def _descend(self, level: _Level, name: bytes, status: os.stat_result) -> Entry | None:
        path = level.prefix + name
        if not self._filters.wants_directory(name, is_top=not level.prefix):
            return None
        if (status.st_dev, status.st_ino) in self._excluded:
            self.left.excluded.append(path)
            return None
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=level.descriptor)
        try:
            names = _list(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if self._filters.skipping_item(name for name, _ in names) is not None:
            os.close(descriptor)
            return None
        self._levels.append(_Level(descriptor, path + b"/", iter(names)))
        owner = owner_of(status.st_uid, status.st_gid)
        return Entry(path, DIRECTORY, 0, status.st_mtime_ns, status.st_mode & 0o7777, "", b"", owner)

    def _read_link(self, level: _Level, name: bytes, status: os.stat_result) -> Entry:
        target = os.readlink(name, dir_fd=level.descriptor)
        owner = owner_of(status.st_uid, status.st_gid)
        return Entry(level.prefix + name, SYMLINK, 0, status.st_mtime_ns, 0, "", target, owner)


def _special(path: bytes, status: os.stat_result) -> Entry | None:
    """Return the entry of a FIFO or device; a socket is nothing without the program that listens on it."""
    device = b"%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
    what = {stat.S_IFIFO: b"fifo", stat.S_IFCHR: b"char " + device, stat.S_IFBLK: b"block " + device}
    target = what.get(stat.S_IFMT(status.st_mode))
    if target is None:
        return None
    owner = owner_of(status.st_uid, status.st_gid)
    return Entry(path, SPECIAL, 0, status.st_mtime_ns, status.st_mode & 0o7777, "", target, owner)


def _list(descriptor: int) -> list[tuple[bytes, "os.DirEntry[str]"]]:
    with os.scandir(descriptor) as listing:
        return sorted(((os.fsencode(found.name), found) for found in listing), key=itemgetter(0))


def seen_of(status: os.stat_result) -> Seen:
    """Return by what a file is known again; numbers of 64 bits become signed ones."""
    inode, device = status.st_ino, status.st_dev
    return Seen(status.st_ctime_ns, inode - ((inode >> 63) << 64), device - ((device >> 63) << 64))


def reason(error: OSError) -> str:
    """Return why, in the system's words and our case: `permission denied`."""
    return (error.strerror or str(error) or type(error).__name__).lower()


@cache
def owner_of(uid: int, gid: int) -> Owner:
    """Return the owner with the names that this machine has for the numbers, empty where it has none."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = ""
    return Owner(uid, gid, user, group)
