"""What a scan finds: regular files as `lstat` tells of them, entries of all else, and what it could not take."""

import grp
import os
import pwd
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeAlias

from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, Owner, Seen
from s3bu.progress import Failure
from s3bu.selection import Rule

_SPECIAL_KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


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


Excluded: TypeAlias = Mapping[tuple[int, int], str]
"""Directories never to enter, by device and inode, and what they are."""


@dataclass(slots=True)
class Left:
    """What a scan could not take whole: special files by kind, and directories that were excluded.

    `odd` says what is wrong with ignore files.
    """

    special: Counter[str] = field(default_factory=Counter)
    excluded: list[tuple[bytes, str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Followed:
    """Where a walk to one path ended: at `path`, which is the one that was asked for or a directory above it.

    `item` is what the walk yields there; `rule` what leaves it out or takes it back in, if one does.
    """

    path: bytes
    item: Regular | Entry | Failure | None = None
    rule: Rule | None = None
    is_there: bool = True


def special_kind(kind: int) -> str:
    """Return how a person calls what is neither file, directory nor link, by the type in its mode."""
    return _SPECIAL_KINDS.get(kind, "file of unknown kind")


def special(path: bytes, status: os.stat_result) -> Entry | None:
    """Return the entry of a FIFO or device; a socket is nothing without the program that listens on it."""
    device = b"%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
    what = {stat.S_IFIFO: b"fifo", stat.S_IFCHR: b"char " + device, stat.S_IFBLK: b"block " + device}
    target = what.get(stat.S_IFMT(status.st_mode))
    if target is None:
        return None
    owner = owner_of(status.st_uid, status.st_gid)
    return Entry(path, SPECIAL, 0, status.st_mtime_ns, status.st_mode & 0o7777, "", target, owner)


def directory_entry(path: bytes, status: os.stat_result) -> Entry:
    """Return the entry of a directory."""
    owner = owner_of(status.st_uid, status.st_gid)
    return Entry(path, DIRECTORY, 0, status.st_mtime_ns, status.st_mode & 0o7777, "", b"", owner)


def symlink(path: bytes, target: bytes, status: os.stat_result) -> Entry:
    """Return the entry of a symbolic link."""
    return Entry(path, SYMLINK, 0, status.st_mtime_ns, 0, "", target, owner_of(status.st_uid, status.st_gid))


def seen_of(status: os.stat_result) -> Seen:
    """Return by what a file is known again; numbers of 64 bits become signed ones."""
    return Seen(status.st_ctime_ns, signed(status.st_ino), signed(status.st_dev))


def signed(number: int) -> int:
    """Return a number of 64 bits as SQLite takes it."""
    return number - ((number >> 63) << 64)


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
