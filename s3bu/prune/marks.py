"""What a prune leaves below `repo/`: marks that name the objects to be deleted, the epoch, and its own claim.

A mark names a hash a line, as every backup reads it; behind each stands, as a comment, the ETag of the object that was
there, so that a sweep deletes that very object and none that was put since, whatever clocks say.
"""

import io
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from s3bu.errors import IntegrityError, LockedError, ObjectExists, StorageError
from s3bu.repository import Repository
from s3bu.repository.layout import EPOCH, MARKS, SWEEP
from s3bu.repository.state import read_marks
from s3bu.storage import ObjectStat, Storage

_ETAG = "#="
_HEADING = "# contents that no snapshot names, each with the ETag of its object; not deleted before 72 hours are over\n"
_HASHES = 40_000
"""In one object, which stays well below what one put takes."""
_MARK_BOUND = 64 * 1024 * 1024
_STALE = timedelta(hours=24)
"""A claim so old is one of a prune that was killed: a living one gives up long before."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One object of marks: when it was put, and the ETag of each content's object by hash, 32 bytes each."""

    stat: ObjectStat
    etags: Mapping[bytes, str]


def read_all(repository: Repository, stats: Iterable[ObjectStat]) -> list[Mark]:
    """Return what the objects below `repo/marks/` in a listing of `repo/` say."""
    return [_read(repository.storage, stat) for stat in stats if stat.key.startswith(MARKS)]


def _read(storage: Storage, stat: ObjectStat) -> Mark:
    if stat.nbytes > _MARK_BOUND:
        raise IntegrityError(
            f"{stat.key}: is larger than any mark; nothing was deleted", hint="find out who wrote the object"
        )
    with storage.open(stat.key) as download:
        text = download.read()
        if download.modified.replace(microsecond=0) != stat.modified.replace(microsecond=0):
            raise StorageError(f"{stat.key}: was replaced while it was read; nothing was deleted", hint="run again")
    digests = list(read_marks(io.BytesIO(text), stat.key))
    return Mark(stat, dict.fromkeys(digests, "") | dict(_etags(text)))


def _etags(text: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield each hash with the ETag behind it; a hash without one is never deleted."""
    digest = b""
    for line in text.decode("utf-8", "replace").split("\n"):  # at no other end of a line, as backups read it
        if line.startswith(_ETAG) and digest:
            yield digest, line.removeprefix(_ETAG)
        digest = bytes.fromhex(line) if len(line) == 64 and not line.startswith("#") else b""


def put_marks(storage: Storage, contents: Sequence[tuple[bytes, str]], now: datetime) -> None:
    """Put marks for contents, by hash and by the ETag of their objects, each object of marks a second later."""
    for start in range(0, len(contents), _HASHES):
        lines = (f"{digest.hex()}\n{_ETAG}{etag}\n" for digest, etag in contents[start : start + _HASHES])
        now = _put_free(storage, (_HEADING + "".join(lines)).encode(), now) + timedelta(seconds=1)


def _put_free(storage: Storage, body: bytes, now: datetime) -> datetime:
    """Put an object of marks under that time, or the next that no other one has; return the time."""
    for _ in range(_HASHES):
        try:
            storage.put(f"{MARKS}{now:%Y-%m-%dT%H:%M:%SZ}", body, {}, create=True)
        except ObjectExists:
            now += timedelta(seconds=1)
        else:
            return now
    raise StorageError(f"{MARKS}: no name is free for further marks", hint="run again later")


def bump_epoch(storage: Storage, now: datetime) -> None:
    """Replace the epoch by a text that was never there before, so that every backup under way looks again."""
    storage.put(EPOCH, f"{now.isoformat()} {os.urandom(16).hex()}\n".encode(), {})


# --- one sweep at a time


@contextmanager
def claimed(storage: Storage, now: datetime) -> Iterator[ObjectStat]:
    """Hold the right to sweep, which one prune of all machines has at a time; `LockedError` when another has it.

    Two at once could undo what makes either safe: one drops a mark that the other still deletes by. A claim that was
    left by a prune that was killed is taken over after a day, by its own machine at once.
    """
    body = f"{_host()} {os.getpid()} {os.urandom(8).hex()}\n".encode()
    try:
        storage.put(SWEEP, body, {}, create=True)
    except ObjectExists:
        _take_over(storage, now)
        with _as_lock():
            storage.put(SWEEP, body, {}, create=True)
    own = _own(storage, body)
    try:
        yield own
    finally:
        with suppress(StorageError):  # it is stopping; what stays is taken over
            storage.remove(own)


@contextmanager
def _as_lock() -> Iterator[None]:
    try:
        yield
    except ObjectExists as error:
        raise LockedError("another prune has begun to delete just now", hint="run again when it is done") from error


def _own(storage: Storage, body: bytes) -> ObjectStat:
    """Return the claim as it is listed, having made sure that it is our own."""
    found = next(storage.list(SWEEP), None)
    with storage.open(SWEEP) as download:
        if found is None or found.key != SWEEP or download.read() != body:
            raise LockedError("another prune has begun to delete just now", hint="run again when it is done")
    return found


def _take_over(storage: Storage, now: datetime) -> None:
    """Remove a claim whose owner is dead; `LockedError` where it may be alive."""
    found = next(storage.list(SWEEP), None)
    if found is None or found.key != SWEEP:
        return
    with storage.open(SWEEP) as download:
        host, pid = [*download.read(1000).decode("utf-8", "replace").split(), "", ""][:2]
    is_dead = host == _host() and pid.isdecimal() and not _is_alive(int(pid))
    if not is_dead and now - found.modified < _STALE:
        raise LockedError(
            f"another prune deletes since {found.modified:%Y-%m-%d %H:%M:%S} UTC, process {pid[:10]} of {host[:60]}",
            hint="wait until it is done; what one that was killed left behind is taken over after 24 hours",
        )
    storage.remove(found)


def _host() -> str:
    return socket.gethostname().replace(" ", "-") or "-"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def check_readable(mark: Mark) -> None:
    """Refuse a mark that names a hash without an object; nobody but a later version writes one."""
    if "" in mark.etags.values():
        raise IntegrityError(
            f"{mark.stat.key}: names contents without their objects; nothing was deleted",
            hint="update s3bu if a newer version pruned here; else remove that object",
        )
