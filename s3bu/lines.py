"""The lines of one source's next manifest, a stretch at a time; those of a span without changes as they were kept.

Each stretch is packed as one member of a gzipped stream, and members one behind the other are one stream. So the index
keeps the member of each span, and a snapshot costs what changed: the rest is neither formatted nor compressed again.

Invariant: kept lines say what the rows of their span say. They are kept in the transaction that records the snapshot,
hold nothing that is true of that snapshot alone (failures, entries carried forward), and count for nothing once a
trigger of the index has dropped the digest of their span.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from s3bu import spans
from s3bu.compare import CARRIED
from s3bu.compression import gunzip_member, gzip_member
from s3bu.draft import Draft, Settled
from s3bu.index import Index
from s3bu.manifest import Entry, FailedPath, count_files, format_entry, format_failed, sort_key, split_entries
from s3bu.spans import Packed, Span


class Stretch(NamedTuple):
    """Lines of a manifest, and the same as a gzip member."""

    lines: bytes
    packed: bytes


class Lines:
    """The lines between header and trailer; `packed` is what of them may be kept, once they have been read."""

    def __init__(self, index: Index, source: int, draft: Draft, failed: Mapping[bytes, FailedPath]) -> None:
        self._index = index
        self._source = source
        self._draft = draft
        self._failed = failed
        self.packed: dict[bytes, Packed] = {}

    def __iter__(self) -> Iterator[Stretch]:
        self.packed.clear()
        start = b""
        for span in spans.spans(self._index, self._source):
            yield from self._of_span(start, span)
            start = span.last_key
        yield from self._formatted(self._draft.over(self._rows(start, None), after=start))

    def _of_span(self, start: bytes, span: Span) -> Iterator[Stretch]:
        packed = spans.kept_lines(self._index, self._source, span)
        if packed is None:
            rows: Iterable[tuple[bytes, bytes | Entry]] = self._rows(start, span.last_key)
        else:
            lines = _unpacked(packed, span)
            if not self._draft.has_any(after=start, until=span.last_key):
                yield Stretch(lines, packed)
                return
            rows = self._kept_rows(start, span, lines)
        yield from self._formatted(self._draft.over(rows, after=start, until=span.last_key))

    def _rows(self, start: bytes, until: bytes | None) -> Iterator[tuple[bytes, Entry]]:
        """Yield sort key and entry of the newest ones; those that the draft replaces may have no lines at all."""
        for entry in self._index.currents(self._source, after=start, until=until):
            yield sort_key(entry.path), entry

    def _kept_rows(self, start: bytes, span: Span, lines: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Return sort key and kept lines of the same; only the keys are read."""
        keys = self._index.current_keys(self._source, after=start, until=span.last_key)
        found = split_entries(lines)
        if len(keys) != len(found):
            raise _damaged(span)
        return zip(keys, found, strict=True)

    def _formatted(self, found: Iterable[tuple[bytes, bytes | Entry | Settled]]) -> Iterator[Stretch]:
        """Yield stretches of as many entries as a new span has, and note those that may be kept."""
        open_one = _Open()
        for key, one in found:
            if isinstance(one, Settled):
                self._add_settled(open_one, key, one)
            else:
                open_one.add(key, format_entry(one) if isinstance(one, Entry) else one)
            if open_one.nentries == spans.COUNT:
                yield self._closed(open_one)
                open_one = _Open()
        if open_one.lines:
            yield self._closed(open_one)

    def _add_settled(self, open_one: "_Open", key: bytes, one: Settled) -> None:
        if one.path in self._failed:
            open_one.add_passing(format_failed(self._failed[one.path]))
        if one.entry is not None:
            is_carried = one.status == CARRIED
            open_one.add(key, format_entry(one.entry, is_carried_forward=is_carried), is_lasting=not is_carried)

    def _closed(self, open_one: "_Open") -> Stretch:
        lines = b"".join(open_one.lines)
        packed = gzip_member(lines)
        if open_one.is_lasting:
            self.packed[open_one.last_key] = Packed(open_one.nentries, packed)
        return Stretch(lines, packed)


class _Open:
    """A stretch that is being filled; `is_lasting` as long as the next snapshot may say the same."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.nentries = 0
        self.last_key = b""
        self.is_lasting = True

    def add(self, key: bytes, lines: bytes, *, is_lasting: bool = True) -> None:
        self.lines.append(lines)
        self.nentries += 1
        self.last_key = key
        self.is_lasting &= is_lasting

    def add_passing(self, lines: bytes) -> None:
        self.lines.append(lines)
        self.is_lasting = False


def _unpacked(packed: bytes, span: Span) -> bytes:
    try:
        lines = gunzip_member(packed)
    except zlib.error as error:
        raise _damaged(span) from error
    if count_files(lines) != span.nfiles:
        raise _damaged(span)
    return lines


def _damaged(span: Span) -> sqlite3.DatabaseError:
    """Return what `index.held` takes for damage: the file is moved aside, and the run begins again without it."""
    return sqlite3.DatabaseError(f"kept lines do not belong to their entries, up to {span.last_key!r}")
