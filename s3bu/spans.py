"""Spans: stretches of a source's newest entries that are known again by one digest, without looking at each.

A span says: from the entry behind the span before it up to `last_key` there are `count` entries, and if a scan sees
files of just those names, modes, sizes, times and inodes, and else what the index has, then the digest is this one.
Where it holds, nothing there is different, and neither a row is read nor an entry made: a run without changes costs
little more than the scan. Where it does not, the rows are compared one by one.

Invariant: a digest tells what the rows of its span say now. The index's own triggers drop it when one of them changes
(`migrations/m002_spans.py`), and a span without a digest is compared row by row until it is renewed. With a digest that
holds, what a manifest says of the span is still what was kept of it (`lines`).
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from s3bu.compare import Difference, Trust, compare
from s3bu.index import Index
from s3bu.manifest import FILE, Entry, sort_key
from s3bu.progress import Failure
from s3bu.scan.found import Regular, entries

Item: TypeAlias = Regular | Entry | Failure
"""What a scan yields."""

COUNT = 500
"""Entries in a new span."""
_MOST_TAKEN = 20 * COUNT
_FILE = struct.Struct("=cIqqqQQ").pack
_UNSIGNED = 2**64 - 1
_DIGEST_NBYTES = 24


class Unmodified(NamedTuple):
    """So many entries in a row of which nothing is different, and the files among them."""

    nentries: int
    nfiles: int
    nbytes: int


class Packed(NamedTuple):
    """What so many entries in a row say in a manifest, as a gzip member."""

    nentries: int
    lines: bytes


class Span(NamedTuple):
    """One row of the table; `digest` is `None` where nothing is known of the entries."""

    last_key: bytes
    digest: bytes | None
    nentries: int
    nfiles: int
    nbytes: int


def compare_spans(
    index: Index, source: int, scanned: Iterable[Item], trust: Trust
) -> Iterator[Unmodified | Difference | Failure]:
    """Yield what `compare` does for the newest entries of a source, but whole spans where nothing is different.

    There are no spans from the first failure of the scan on, since what is below its path ends in a later one.
    """
    items, start = iter(scanned), b""
    taken: list[Item] = []
    for span in spans(index, source):
        taken.extend(islice(items, max(span.nentries - len(taken), 0)))
        if len(taken) == span.nentries and _digest(taken) == span.digest:
            yield Unmodified(span.nentries, span.nfiles, span.nbytes)
            taken = []
        else:
            count = _count_inside(taken, items, span.last_key)
            if count is None:
                break
            current = index.currents(source, after=start, until=span.last_key)
            yield from compare(entries(taken[:count]), current, trust)
            del taken[:count]
        start = span.last_key
    yield from compare(entries(chain(taken, items)), index.currents(source, after=start), trust)


def _count_inside(taken: list[Item], items: Iterator[Item], last_key: bytes) -> int | None:
    """Take items until one lies beyond a key, and return how many of those taken do not.

    `None` stands for too many, or for a failure among them.
    """
    while not (taken and sort_key(taken[-1].path) > last_key) and len(taken) < _MOST_TAKEN:
        following = list(islice(items, 1))
        if not following:
            break
        taken += following
    if len(taken) >= _MOST_TAKEN or any(isinstance(item, Failure) for item in taken):
        return None
    return bisect_right(taken, last_key, key=lambda item: sort_key(item.path))


def renew(index: Index, source: int, packed: Mapping[bytes, Packed] = MappingProxyType({})) -> None:
    """Make spans for all newest entries of a source that have none, or whose span has lost its digest.

    `packed` is by its last sort key what a manifest says of the entries as they are now; it is kept with their span.
    """
    with index.transaction():
        known = spans(index, source)
        total = sum(span.nentries for span in known)
        if len(known) * COUNT > 2 * total + 10 * COUNT:
            known = []  # they became too short to be of use
            index.connection.execute("DELETE FROM span WHERE source = ?", (source,))
        start = b""
        for span in known:
            if span.digest is None:
                index.connection.execute("DELETE FROM span WHERE source = ? AND last_key = ?", (source, span.last_key))
                _make(index, source, index.currents(source, after=start, until=span.last_key), packed)
            elif lines := _lines_of(packed, span.last_key, span.nentries):
                statement = "UPDATE span SET lines = ? WHERE source = ? AND last_key = ?"
                index.connection.execute(statement, (lines, source, span.last_key))
            start = span.last_key
        _make(index, source, index.currents(source, after=start), packed)


def _make(index: Index, source: int, current: Iterator[Entry], packed: Mapping[bytes, Packed]) -> None:
    # All are read before the first is written: SQLite leaves open what a reader sees of rows written meanwhile.
    while found := list(islice(current, COUNT)):
        files = [entry for entry in found if entry.kind == FILE]
        nbytes = sum(entry.nbytes for entry in files)
        last_key = sort_key(found[-1].path)
        lines = _lines_of(packed, last_key, len(found))
        values = (source, last_key, _digest(found), len(found), len(files), nbytes, lines)
        index.connection.execute("INSERT OR REPLACE INTO span VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _lines_of(packed: Mapping[bytes, Packed], last_key: bytes, nentries: int) -> bytes | None:
    found = packed.get(last_key)
    return found.lines if found and found.nentries == nentries else None


def spans(index: Index, source: int) -> list[Span]:
    """Return the spans of a source in order."""
    statement = "SELECT last_key, digest, nentries, nfiles, nbytes FROM span WHERE source = ? ORDER BY last_key"
    return [Span(*row) for row in index.connection.execute(statement, (source,))]


def kept_lines(index: Index, source: int, span: Span) -> bytes | None:
    """Return what a manifest says of a span, as a gzip member, if it was kept and is still true."""
    statement = "SELECT lines FROM span WHERE source = ? AND last_key = ? AND digest NOT NULL"
    row = index.connection.execute(statement, (source, span.last_key)).fetchone()
    return row[0] if row else None


def _digest(items: Iterable[Item]) -> bytes:
    """Return what scanned items and the same entries of the index have in common, and no others."""
    records: list[bytes] = []
    for item in items:
        if isinstance(item, Regular):
            path, status = item
            seen = (status.st_mode & 0o777, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            records.append(path)
            records.append(_FILE(b"\0", *seen, status.st_ino, status.st_dev))
        else:
            records.append(_record(item))
    return hashlib.blake2b(b"".join(records), digest_size=_DIGEST_NBYTES).digest()


def _record(item: Entry | Failure) -> bytes:
    """Return the same bytes for an entry as for what the scan saw of a file."""
    if isinstance(item, Entry) and item.kind == FILE and item.seen is not None and item.hash:
        ctime_ns, inode, device = item.seen
        seen = (item.mode, item.nbytes, item.mtime_ns, ctime_ns, inode & _UNSIGNED, device & _UNSIGNED)
        return item.path + _FILE(b"\0", *seen)
    if isinstance(item, Entry) and item.kind != FILE:
        return b"\0%r" % ((item.path, item.kind, item.mtime_ns, item.mode, item.target, item.owner),)
    # Never the same for what a scan found and for what the index has: a file that failed once may fail again.
    return b"\0failed" if isinstance(item, Failure) else b"\0never seen"
