"""Large files that change all the time: they are taken at most so often, and stay as they were in between."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from s3bu.backup.view import View
from s3bu.compare import CHANGED, UNMODIFIED, Difference
from s3bu.index import Index
from s3bu.journal import Dirty
from s3bu.manifest import FILE, sort_key
from s3bu.progress import Failure
from s3bu.spans import Unmodified

if TYPE_CHECKING:
    from s3bu.backup.deciding import Ground

LARGE_NBYTES = 256 * 1024**2
_Found = Unmodified | Difference | Failure


def without_large(ground: "Ground", number: int, view: View, found: Iterable[_Found]) -> Iterator[_Found]:
    """Yield what was found, with each large file that was taken too shortly before as the last snapshot has it."""
    for one in found:
        if isinstance(one, Difference) and _is_large_change(one):
            until_us = _until_us(ground, number, one)
            if until_us > time.time_ns() // 1000:
                assert one.entry is not None
                view.deferred.append(
                    Dirty(one.entry.path, is_tree=False, since_us=view.began_ns // 1_000, not_before_us=until_us)
                )
                yield Difference(UNMODIFIED, one.previous, one.previous)
                continue
        yield one


def _is_large_change(one: Difference) -> bool:
    entry, previous = one.entry, one.previous
    return (
        one.status == CHANGED
        and entry is not None
        and previous is not None
        and previous.kind == entry.kind == FILE
        and entry.nbytes > LARGE_NBYTES
        and bool(previous.hash)
    )


def _until_us(ground: "Ground", number: int, one: Difference) -> int:
    """Return until when the last snapshot's content of a file is to stand, in microseconds since 1970."""
    seconds = ground.options.large_seconds
    assert one.entry is not None
    if not seconds:
        return 0
    taken = taken_us(ground.index, number, one.entry.path)
    # A snapshot of the future is one of a clock that was ahead, and nothing to wait for.
    return 0 if taken > time.time_ns() // 1000 else taken + seconds * 1_000_000


def taken_us(index: Index, number: int, path: bytes) -> int:
    """Return when the content was taken that the newest snapshot has of a path."""
    row = index.connection.execute(
        "SELECT s.created_us FROM version v JOIN snapshot s ON s.source = v.source AND s.number = v.first "
        "WHERE v.source = ? AND v.sort_key = ? AND v.last IS NULL",
        (number, sort_key(path)),
    ).fetchone()
    return int(row[0]) if row else 0
