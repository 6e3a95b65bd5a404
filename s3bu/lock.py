"""Locks between the processes of this machine, that end with the process that holds them.

One run of a job at a time, and one watcher of a source. Several machines may run one job, whose manifests never
collide, and two jobs of one repository may run at once. They share the index; who takes snapshots into it, or out of
it, has it alone. The files stay where they are: whoever removed one while another process waits for it would let two
in.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from s3bu.errors import LockedError, S3buError
from s3bu.progress import Progress

_USE = ".use"
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_PID_BOUND = 1 << 31


@contextmanager
def hold(home: Path, identity: str, job: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of a job of the repository of that `Storage.identity`; `LockedError` tells who has it.

    Where the file system has no locks, the run goes on without one, with a warning.
    """
    what = _What(f"job '{job}'", "is being backed up by", "see to it that the job runs only once")
    with _held(home, f"{identity}\0{job}", what, progress):
        yield


@contextmanager
def hold_watch(home: Path, identity: str, job: str, label: str, progress: Progress) -> Iterator[None]:
    """Hold a source of a job for one watcher alone; `LockedError` tells who has it."""
    what = _What(f"source '{job}/{label}'", "is being watched by", "see to it that one process watches it", False)
    with _held(home, f"{identity}\0{job}\0{label}\0watch", what, progress):
        yield


class _What(NamedTuple):
    """What is locked, what its holder does, what to mind where there are no locks, and whether it comes to an end."""

    noun: str
    doing: str
    advice: str
    ends: bool = True


@contextmanager
def _held(home: Path, key: str, what: _What, progress: Progress) -> Iterator[None]:
    path = home / "locks" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.lock"
    descriptor = _open(path)
    try:
        _lock(descriptor, path, what, progress)
        _sign(descriptor, what)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait for a short turn that one process has at a time; where the file system has no locks, do not wait."""
    descriptor = _open(path)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def sharing(index: Path, progress: Progress) -> Iterator[None]:
    """Use an index together with other backups, each of its own source; one who has it alone is waited for."""
    descriptor = _open(index.with_suffix(_USE))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.phase("waiting for another process that brings the index up to date")
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:
            progress.warning(f"{index}: no locks on this file system; do not sync the index while a backup runs")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(index: Path, progress: Progress) -> Iterator[None]:
    """Have an index to oneself: a backup puts together what it compared with it and what it says then.

    `LockedError` when somebody uses it; a backup may take hours, and takes in what is newest itself.
    """
    descriptor = _open(index.with_suffix(_USE))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{index}: the index is in use by a backup, or by another process that brings it up to date",
                hint="run again when that is done",
            ) from error
        except OSError:
            progress.warning(f"{index}: no locks on this file system; see to it that no backup runs")
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise S3buError(
            f"{path}: the lock cannot be opened ({(error.strerror or str(error)).lower()})",
            hint="set S3BU_HOME to a directory that can be written",
        ) from error


def _lock(descriptor: int, path: Path, what: _What, progress: Progress) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _locked(descriptor, what) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise S3buError(f"{path}: {what.noun} cannot be locked ({(error.strerror or '').lower()})") from error
        progress.warning(f"{path}: no locks on this file system; {what.advice}")


def _locked(descriptor: int, what: _What) -> LockedError:
    """Return who holds the lock, as far as that is written there."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        pid, started = int(holder["pid"]), str(holder["started"])[:40]
        if not 1 < pid < _PID_BOUND:
            raise ValueError("not a process")  # above all, nobody must be told to `kill -1`
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        hint = "wait until it is done" if what.ends else "stop that one first"
        return LockedError(f"{what.noun} {what.doing} another process", hint=hint)
    # What comes to an end is left to itself by systemd too, and a service it may run in, as cron, has other work.
    hint = (
        f"wait until it is done, or stop it with `kill {pid}`"
        if what.ends
        else f"stop it with `{_command_to_stop(pid)}`"
    )
    return LockedError(f"{what.noun} {what.doing} process {pid} since {started}", hint=hint)


def _command_to_stop(pid: int) -> str:
    """Return what stops a process for good: systemd starts a service again that was killed."""
    with contextlib.suppress(OSError):
        return command_to_stop(pid, Path(f"/proc/{pid}/cgroup").read_text())
    return f"kill {pid}"


def command_to_stop(pid: int, groups: str) -> str:
    """Return the same for a process of these control groups: what /proc/PID/cgroup says (cgroups(7))."""
    for path in groups.splitlines():
        names = [one for one in path.split("/") if one.endswith(".service")]
        if names and path.endswith(names[-1]) and not names[-1].startswith("user@"):
            is_of_user = any(one.startswith("user@") for one in names)
            return f"systemctl {'--user ' if is_of_user else ''}stop {names[-1]}"
    return f"kill {pid}"


def _sign(descriptor: int, what: _What) -> None:
    """Write who holds the lock; that this fails on a full disk is no reason not to back up."""
    text = json.dumps({"pid": os.getpid(), "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "what": what.noun})
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError:
        return
