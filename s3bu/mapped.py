"""Which files are mapped into the memory of programs, through which they can be written without a word.

No event tells of such a write as long as the file is mapped, and its time changes with the first one at most.
"""

import contextlib
import os
import re
from collections.abc import Iterator

_PROCESSES = "/proc"
# Shared, and not private; also one that may not be written now, since that can be another moment's state.
_SHARED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ...s \S+ \S+ [1-9][0-9]* +/(.*)$", re.MULTILINE)


def mapped_below(root: bytes) -> list[bytes]:
    """Return the files below an absolute path that are mapped, in order and by their paths below it.

    Only those of the processes that this one may look into are known: all of them to root, their own to a user.
    """
    prefix = root.strip(b"/") + b"/" if root.strip(b"/") else b""
    found = {path.replace(rb"\012", b"\n") for maps in _all_maps() for path in _SHARED.findall(maps)}
    return sorted(path[len(prefix) :] for path in found if path.startswith(prefix))


def _all_maps() -> Iterator[bytes]:
    try:
        processes = [name for name in os.listdir(_PROCESSES) if name.isdigit()]
    except OSError:
        return
    for process in processes:
        with contextlib.suppress(OSError), open(f"{_PROCESSES}/{process}/maps", "rb") as file:
            yield file.read()
