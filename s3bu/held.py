"""Which files programs hold open to write, or have mapped into memory: such a file can change without a word.

No event tells of what is written through memory, or by the kernel's own hand (libaio), before the file is closed.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress

_PROCESSES = b"/proc"
# Shared, and not private; also one that may not be written now, since that can be another moment's state.
_SHARED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ...s \S+ \S+ [1-9][0-9]* +(/.*)$", re.MULTILINE)


def held_below(root: bytes) -> list[bytes]:
    """Return the files below an absolute path that programs hold so, in order and by their paths below it.

    Only the processes that this one may look into are known: all of them to root, their own to a user.
    """
    prefix = root.rstrip(b"/") + b"/"
    found = {path for process in _processes() for path in (*_mapped(process), *_open(process))}
    return sorted(path[len(prefix) :] for path in found if path.startswith(prefix) and path != prefix)


def _processes() -> list[bytes]:
    with suppress(OSError):
        return [_PROCESSES + b"/" + name for name in os.listdir(_PROCESSES) if name.isdigit()]
    return []


def _mapped(process: bytes) -> Iterator[bytes]:
    with suppress(OSError), open(process + b"/maps", "rb") as file:
        yield from (path.replace(rb"\012", b"\n") for path in _SHARED.findall(file.read()))


def _open(process: bytes) -> Iterator[bytes]:
    """Yield what a process has open to write; the kernel shows that in the mode of the links."""
    with suppress(OSError), os.scandir(process + b"/fd") as listing:
        for one in listing:
            with suppress(OSError):  # closed in this moment
                if one.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                    yield os.readlink(one.path)
