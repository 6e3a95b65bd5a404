"""What the kernel lets one user watch, and how to raise it."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from s3bu.errors import S3buError

_SETTINGS = Path("/proc/sys/fs/inotify")
_OF_NAMESPACE = Path("/proc/sys/user")
_FILE = "/etc/sysctl.d/60-s3bu.conf"
_LEAST_WATCHES = 524_288
_LEAST_QUEUE = 131_072
_LEAST_INSTANCES = 1_024
_MOST_WATCHES = 2**31 - 1


class Limits(NamedTuple):
    """How many directories, queues and waiting events the kernel allows; `None` where it does not tell."""

    nwatches: int | None
    ninstances: int | None
    nevents: int | None


def read_limits() -> Limits:
    """Return the limits that hold for this process's user."""
    return Limits(
        _smaller(_number(_SETTINGS / "max_user_watches"), _number(_OF_NAMESPACE / "max_inotify_watches")),
        _smaller(_number(_SETTINGS / "max_user_instances"), _number(_OF_NAMESPACE / "max_inotify_instances")),
        _number(_SETTINGS / "max_queued_events"),
    )


def warning_of_watches(ndirectories: int, nunwatched: int, limits: Limits) -> str | None:
    """Return what to say where more directories are to be watched than can be; `nunwatched` of them are not.

    Before anything is watched that number is not known, and 0.
    """
    if not nunwatched and (limits.nwatches is None or ndirectories <= limits.nwatches):
        return None
    allowed = "fewer" if limits.nwatches is None else f"{limits.nwatches:,}"
    if limits.nwatches is not None and ndirectories <= limits.nwatches:
        allowed += " in all, of which other programs have some"
    setting = f"fs.inotify.max_user_watches={_enough(ndirectories)}"
    return f"{ndirectories:,} directories, and the kernel watches {allowed}: {_remedy(setting)}; {_INSTEAD}"


_INSTEAD = "what cannot be watched is scanned each time"


def hint_of_queue(limits: Limits) -> str:
    """Return how to keep the kernel's queue from overflowing."""
    return _remedy(f"fs.inotify.max_queued_events={max(_LEAST_QUEUE, 4 * (limits.nevents or 0))}")


def refused(error: OSError) -> S3buError:
    """Return why there is no queue of changes to be had."""
    if error.errno == errno.EMFILE:
        limit = read_limits().ninstances
        setting = f"fs.inotify.max_user_instances={max(_LEAST_INSTANCES, 2 * (limit or 0))}"
        allowed = "" if limit is None else f", which are {limit:,}"
        return S3buError(f"the kernel gives this user no more queues of changes{allowed}", hint=_remedy(setting))
    why = (error.strerror or os.strerror(error.errno or 0)).lower()
    return S3buError(f"the kernel gives no queue of changes ({why})")


def _remedy(setting: str) -> str:
    return f"raise it with `sysctl {setting}`, and to keep it write that into {_FILE}"


def _enough(ndirectories: int) -> int:
    """Return a power of two that leaves room for twice as many."""
    return min(_MOST_WATCHES, max(_LEAST_WATCHES, 1 << (2 * ndirectories - 1).bit_length()))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _smaller(one: int | None, other: int | None) -> int | None:
    known = [number for number in (one, other) if number is not None]
    return min(known, default=None)
