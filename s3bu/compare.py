"""Compare what a scan found with the parent's entries: one merge of two sorted streams.

What could not be looked at is never taken for removed: everything at and below it is carried forward from the parent
(docs/architecture.md, rule 2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from s3bu.manifest import DIRECTORY, FILE, Entry, Seen, sort_key
from s3bu.progress import Failure

NEW, CHANGED, UNMODIFIED, REMOVED, CARRIED = "new", "changed", "unmodified", "removed", "carried"
KIND, SIZE, TIME, MODE, OWNER, TARGET, CONTENT = "kind", "size", "time", "mode", "owner", "target", "content"
RACY, CTIME, INODE, REHASH, UNREAD = "racy", "ctime", "inode", "rehash", "never read"
"""Why a path is not taken for unmodified (docs/json.md, "`plan`")."""
RACY_SEEN = Seen(0, 0, 0)
"""What stands for what was seen of a racy file: nothing is like it, so that the next run reads the file again."""


class Difference(NamedTuple):
    """One path: what the next manifest says of it, and what the parent said.

    `entry` has no hash where the content must be read first. `entry` is `None` when the path was removed; `previous`
    is `None` when it is new. A carried entry is the parent's with an mtime of 0, so that nobody trusts it. `reason` is
    what makes a changed one differ, or be read to find out whether it does.
    """

    status: str
    entry: Entry | None
    previous: Entry | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """When a file counts as unmodified without being read.

    A file that this machine saw before is trusted when all is as it was then. Where only a manifest tells of it, size
    and second must do: `before_ns`: an mtime at or after this is racy, since the file may have been written again
    within the same tick after the parent's run had read it. `is_rehash`: nothing is trusted.
    """

    before_ns: int
    is_rehash: bool = False

    def doubt(self, found: Entry, previous: Entry) -> str | None:
        """Return why the content of `found` may not be the one that the parent's entry names; `None`: it is."""
        if previous.kind != FILE:
            return KIND
        if not previous.hash:
            return UNREAD
        if previous.nbytes != found.nbytes:
            return SIZE
        if previous.seen is not None:
            doubt = _unlike(found, previous, previous.seen)
        elif previous.mtime_ns == 0:
            doubt = UNREAD  # it was carried forward, or is of 1970
        elif _seconds(previous) != _seconds(found):
            doubt = TIME
        else:
            doubt = RACY if found.mtime_ns >= self.before_ns else None
        return REHASH if self.is_rehash and doubt is None else doubt


def _unlike(found: Entry, previous: Entry, seen: Seen) -> str | None:
    """Return what of a file is not as this machine saw it."""
    if previous.mtime_ns != found.mtime_ns:
        return TIME
    if seen == found.seen:
        return None
    if seen == RACY_SEEN:
        return RACY
    return CTIME if found.seen is None or seen.ctime_ns != found.seen.ctime_ns else INODE


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
        reason = difference(found, previous)
        return Difference(CHANGED if reason else UNMODIFIED, found, previous, reason)
    doubt = trust.doubt(found, previous)
    if doubt is not None:
        visible = difference(found._replace(hash=previous.hash), previous)
        return Difference(CHANGED, found, previous, visible or doubt)
    if previous.seen == found.seen and previous.mode == found.mode:
        return Difference(UNMODIFIED, previous, previous)  # nothing that anyone knows of it is different
    entry = found._replace(hash=previous.hash)
    if found.mode == previous.mode:
        return Difference(UNMODIFIED, entry, previous)
    return Difference(CHANGED, entry, previous, MODE)


def is_same(entry: Entry, previous: Entry) -> bool:
    """Say whether two entries of one path tell a reader the same."""
    return not difference(entry, previous)


def difference(entry: Entry, previous: Entry) -> str:
    """Return in what two entries of one path tell a reader something else, or an empty text.

    The mtime of anything but a file is no change alone: a file that comes and goes would make a snapshot each time.
    """
    if entry.kind != previous.kind:
        return KIND
    if entry.kind == FILE:
        if entry.nbytes != previous.nbytes:
            return SIZE
        if _seconds(entry) != _seconds(previous):
            return TIME
        if entry.hash != previous.hash:
            return CONTENT
    elif entry.kind != DIRECTORY and entry.target != previous.target:
        return TARGET
    if entry.mode != previous.mode:
        return MODE
    return OWNER if entry.kind != FILE and entry.owner != previous.owner else ""


def carried(previous: Entry) -> Entry:
    """Return the last good entry as a run writes it that could not look: a file's with an mtime of 0."""
    return previous._replace(mtime_ns=0, seen=None) if previous.kind == FILE else previous


def _seconds(entry: Entry) -> int:
    return entry.mtime_ns // 1_000_000_000


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")
