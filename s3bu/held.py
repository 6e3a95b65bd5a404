"""Which files programs hold open to write, or have mapped into memory: such a file can change without a word.

No event tells of what is written through memory, or by the kernel's own hand (libaio), before the file is closed.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_PROCESSES = b"/proc"
# Shared, and not private; also one that may not be written now, since that can be another moment's state.
_SHARED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ...s \S+ \S+ ([1-9][0-9]*) +(/.*)$", re.MULTILINE)
_INODE = re.compile(rb"^ino:\s+([0-9]+)$", re.MULTILINE)
_NO_FILES = (b"/dev/", b"/proc/", b"/sys/", b"/memfd:")


class Held(NamedTuple):
    """What programs hold: files below a directory by their paths below it, in order, and the inodes of others.

    One of those may be a file of the directory too, by another path: where that is mounted twice, as in a container.
    """

    paths: list[bytes]
    inodes: set[int]


def held(root: bytes) -> Held:
    """Return which files programs hold so, those below an absolute path by their names.

    Only the processes that this one may look into are known: all of them to root, their own to a user.
    """
    prefix = root.rstrip(b"/") + b"/"
    paths, inodes = set(), set()
    for process in _processes():
        for path, inode in (*_mapped(process), *_open(process, prefix)):
            if path.startswith(prefix):
                paths.add(path[len(prefix) :])
            else:
                inodes.add(inode)
    return Held(sorted(paths - {b""}), inodes)


def _processes() -> list[bytes]:
    with suppress(OSError):
        return [_PROCESSES + b"/" + name for name in os.listdir(_PROCESSES) if name.isdigit()]
    return []


def _mapped(process: bytes) -> Iterator[tuple[bytes, int]]:
    with suppress(OSError), open(process + b"/maps", "rb") as file:
        yield from ((path.replace(rb"\012", b"\n"), int(inode)) for inode, path in _SHARED.findall(file.read()))


def _open(process: bytes, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what a process has open to write; the kernel shows that in the mode of the links.

    Nothing is asked of the file itself: that could wait for a server that is gone.
    """
    with suppress(OSError), os.scandir(process + b"/fd") as listing:
        for one in listing:
            with suppress(OSError):  # closed in this moment
                if one.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                    path = os.readlink(one.path)
                    if path.startswith(prefix):
                        yield path, 0
                    elif path.startswith(b"/") and not path.startswith(_NO_FILES):
                        yield path, _inode(process + b"/fdinfo/" + one.name)


def _inode(path: bytes) -> int:
    """Return the inode of an open file; 0 on a kernel that does not tell it."""
    with open(path, "rb") as file:
        found = _INODE.search(file.read())
    return int(found[1]) if found else 0
