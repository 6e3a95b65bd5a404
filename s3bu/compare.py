"""Compare what a scan found with the parent's entries: one merge of two sorted streams.

What could not be looked at is never taken for removed: everything at and below it is carried forward from the parent
(docs/architecture.md, rule 2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from s3bu.manifest import DIRECTORY, FILE, Entry, sort_key
from s3bu.progress import Failure

NEW, CHANGED, UNMODIFIED, REMOVED, CARRIED = "new", "changed", "unmodified", "removed", "carried"


class Difference(NamedTuple):
    """One path: what the next manifest says of it, and what the parent said.

    `entry` has no hash where the content must be read first. `entry` is `None` when the path was removed; `previous`
    is `None` when it is new. A carried entry is the parent's with an mtime of 0, so that nobody trusts it.
    """

    status: str
    entry: Entry | None
    previous: Entry | None


@dataclass(frozen=True, slots=True)
class Trust:
    """When a file counts as unmodified without being read.

    A file that this machine saw before is trusted when all is as it was then. Where only a manifest tells of it, size
    and second must do: `before_ns`: an mtime at or after this is racy, since the file may have been written again
    within the same tick after the parent's run had read it. `is_rehash`: nothing is trusted.
    """

    before_ns: int
    is_rehash: bool = False

    def holds(self, found: Entry, previous: Entry) -> bool:
        """Say whether the content of `found` is the one that the parent's entry names."""
        if self.is_rehash or previous.kind != FILE or not previous.hash or previous.nbytes != found.nbytes:
            return False
        if previous.seen is not None:
            return previous.seen == found.seen and previous.mtime_ns == found.mtime_ns
        return previous.mtime_ns != 0 and _seconds(previous) == _seconds(found) and found.mtime_ns < self.before_ns


def compare(
    scanned: Iterable[Entry | Failure], parent: Iterable[Entry], trust: Trust
) -> Iterator[Difference | Failure]:
    """Yield a difference for every path of either side, and the scan's failures, in order."""
    earlier = iter(parent)
    previous = next(earlier, None)
    for found in scanned:
        if previous is not None and previous.path == found.path and isinstance(found, Entry):
            yield _judge(found, previous, trust)  # nearly always, and without looking at the order
            previous = next(earlier, None)
            continue
        key = sort_key(found.path)
        while previous is not None and sort_key(previous.path) < key:
            yield Difference(REMOVED, None, previous)
            previous = next(earlier, None)
        if isinstance(found, Failure):
            yield found
            while previous is not None and _is_at_or_below(previous.path, found.path):
                yield Difference(CARRIED, carried(previous), previous)
                previous = next(earlier, None)
        elif previous is not None and previous.path == found.path:
            yield _judge(found, previous, trust)
            previous = next(earlier, None)
        else:
            yield Difference(NEW, found, None)
    while previous is not None:
        yield Difference(REMOVED, None, previous)
        previous = next(earlier, None)


def _judge(found: Entry, previous: Entry, trust: Trust) -> Difference:
    if found.kind != FILE:
        return Difference(UNMODIFIED if is_same(found, previous) else CHANGED, found, previous)
    if not trust.holds(found, previous):
        return Difference(CHANGED, found, previous)
    if previous.seen == found.seen and previous.mode == found.mode:
        return Difference(UNMODIFIED, previous, previous)  # nothing that anyone knows of it is different
    entry = found._replace(hash=previous.hash)
    return Difference(UNMODIFIED if found.mode == previous.mode else CHANGED, entry, previous)


def is_same(entry: Entry, previous: Entry) -> bool:
    """Say whether two entries of one path tell a reader the same.

    The mtime of anything but a file is no change alone: a file that comes and goes would make a snapshot each time.
    """
    if entry.kind != previous.kind or entry.mode != previous.mode:
        return False
    if entry.kind == FILE:
        return (entry.nbytes, _seconds(entry), entry.hash) == (previous.nbytes, _seconds(previous), previous.hash)
    if entry.kind == DIRECTORY:
        return entry.owner == previous.owner
    return (entry.target, entry.owner) == (previous.target, previous.owner)


def carried(previous: Entry) -> Entry:
    """Return the last good entry as a run writes it that could not look: a file's with an mtime of 0."""
    return previous._replace(mtime_ns=0, seen=None) if previous.kind == FILE else previous


def _seconds(entry: Entry) -> int:
    return entry.mtime_ns // 1_000_000_000


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")
