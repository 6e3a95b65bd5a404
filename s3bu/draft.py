"""What the next snapshot of a source says differently from the newest one in the index.

The draft is a temporary table, since a first backup has millions of paths: only what differs stands in it, in the
order of the manifest, and everything else is the index's newest state as it is. A path moves through it from what the
scan saw, by what came of reading it, to what the snapshot says of it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from s3bu.compare import CARRIED, CHANGED, NEW, RACY_SEEN, REMOVED, UNMODIFIED, Difference, carried, is_same
from s3bu.index import Index
from s3bu.manifest import FILE, Entry, is_representable, sort_key
from s3bu.progress import Change, Failure, Progress
from s3bu.skips import Skips
from s3bu.spans import Unmodified

FAILED = "failed"
"""The status of a path of which the snapshot can only say that it failed."""
_STATUSES = (NEW, CHANGED, UNMODIFIED, REMOVED, CARRIED, FAILED)
_NUMBERS = {status: number for number, status in enumerate(_STATUSES)}
PRESENT = f"status NOT IN ({_NUMBERS[REMOVED]}, {_NUMBERS[FAILED]})"
_COLUMNS = "sort_key, kind, nbytes, mtime, nanos, mode, hash, target, owner, local_nanos, ctime_ns, inode, device"
_PUT = (
    f"INSERT INTO draft ({_COLUMNS}, status, error, is_wanted, reason, is_meant) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (sort_key) DO UPDATE SET kind = excluded.kind, nbytes = excluded.nbytes, mtime = excluded.mtime, "
    "nanos = excluded.nanos, mode = excluded.mode, hash = excluded.hash, target = excluded.target, "
    "owner = excluded.owner, local_nanos = excluded.local_nanos, ctime_ns = excluded.ctime_ns, "
    "inode = excluded.inode, device = excluded.device, status = excluded.status, "
    "error = coalesce(excluded.error, error), is_wanted = excluded.is_wanted, "
    "reason = coalesce(excluded.reason, reason), is_meant = max(excluded.is_meant, is_meant)"
)
_NOTHING = (None,) * 12
_BATCH = 1_000
RACY_NS = 2_000_000_000
"""A file written this shortly before the scan began may be written again within the same tick of its clock."""
ABSENT, VANISHED = "not stored", "vanished"
"""Why a file is read though it is unmodified, and why a path is removed that no rule leaves out."""


@dataclass(slots=True)
class Tally:
    """What the paths that are not in the draft come to."""

    unmodified: int = 0
    nfiles: int = 0
    nbytes: int = 0


Existing = TypeVar("Existing")
"""What stands for a newest entry where a draft is laid over them."""


class Settled(NamedTuple):
    """One path of the draft: its status, its entry if the snapshot has it, the newest entry, and what failed.

    `reason` says why it has that status, and `is_wanted` whether its content has still to be read.
    """

    path: bytes
    status: str
    entry: Entry | None
    previous: Entry | None
    error: str | None
    reason: str | None = None
    is_wanted: bool = False


class Draft:
    """The draft of one source; only one of a connection can be under way.

    `scanned_ns` is when the scan began. `is_stored` says whether a content lies in the repository, and `skips` is what
    the scan leaves out.
    """

    def __init__(
        self, index: Index, source: int, scanned_ns: int, is_stored: Callable[[str], bool], skips: Skips
    ) -> None:
        self.skips = skips
        self._index = index
        self._source = source
        self._racy_ns = scanned_ns - RACY_NS
        self._is_stored = is_stored
        self.tally = Tally()
        connection = index.connection
        connection.execute("DROP TABLE IF EXISTS draft")
        connection.execute(
            "CREATE TEMP TABLE draft (sort_key BLOB PRIMARY KEY, kind INTEGER, nbytes INTEGER, mtime INTEGER, "
            "nanos INTEGER, mode INTEGER, hash BLOB, target BLOB, owner INTEGER, local_nanos INTEGER, "
            "ctime_ns INTEGER, inode INTEGER, device INTEGER, status INTEGER, error TEXT, is_wanted INTEGER, "
            "reason TEXT, is_meant INTEGER) "
            "WITHOUT ROWID"
        )

    # --- what the scan saw

    def fill(
        self, differences: Iterable[Unmodified | Difference | Failure], absent: set[bytes], progress: Progress
    ) -> None:
        """Take what a comparison found; `absent` are the sort keys of unmodified files whose content is gone."""
        rows, number = [], 0
        for one in differences:
            if isinstance(one, Unmodified):
                self._count_all(one)
                progress.advance(files=one.nentries)
                continue
            number += 1
            if number % _BATCH == 0:
                progress.advance(files=_BATCH)
            if isinstance(one, Difference) and one.status == UNMODIFIED and one.entry is one.previous and not absent:
                self._count(one.entry)  # nearly always: nothing that anyone knows of it is different
                continue
            row = self._failure_row(one) if isinstance(one, Failure) else self._difference_row(one, absent)
            if row is not None:
                rows.append(row)
            if len(rows) == _BATCH:
                self._put(rows)
                rows = []
        self._put(rows)

    def _put(self, rows: list[tuple[object, ...]]) -> None:
        connection = self._index.connection
        connection.execute("BEGIN")
        connection.executemany(_PUT, rows)
        connection.execute("COMMIT")

    def _failure_row(self, failure: Failure) -> tuple[object, ...]:
        return (sort_key(failure.path), *_NOTHING, _NUMBERS[FAILED], failure.error, 0, None, 0)

    def _difference_row(self, one: Difference, absent: set[bytes]) -> tuple[object, ...] | None:
        entry, previous = one.entry, one.previous
        if entry is None:
            assert previous is not None
            rule = self.skips.rule_of(previous.path)
            reason, is_meant = (VANISHED, False) if rule is None else (str(rule), self.skips.is_meant(rule))
            # As bytes, for a pattern and the path of its file need not be text.
            return (sort_key(previous.path), *_NOTHING, _NUMBERS[REMOVED], None, 0, os.fsencode(reason), int(is_meant))
        is_wanted = entry.kind == FILE and self._wants(one, entry, absent)
        if one.status == UNMODIFIED and entry == previous and not is_wanted:
            self._count(entry)
            return None
        why = ABSENT if one.status == UNMODIFIED and is_wanted else one.reason or None
        return self._row(entry, one.status, None, is_wanted and is_representable(entry), why)

    def _wants(self, one: Difference, entry: Entry, absent: set[bytes]) -> bool:
        if one.status == CARRIED:
            return False
        if one.status == UNMODIFIED:
            return bool(absent) and sort_key(entry.path) in absent
        return not (entry.hash and self._is_stored(entry.hash))

    def _count_all(self, found: Unmodified) -> None:
        self.tally.unmodified += found.nentries
        self.tally.nfiles += found.nfiles
        self.tally.nbytes += found.nbytes

    def _count(self, entry: Entry | None) -> None:
        assert entry is not None
        self.tally.unmodified += 1
        if entry.kind == FILE:
            self.tally.nfiles += 1
            self.tally.nbytes += entry.nbytes

    def _row(
        self, entry: Entry, status: str, error: str | None, is_wanted: bool, reason: str | None = None
    ) -> tuple[object, ...]:
        seen: tuple[int | None, ...] = (None, None, None, None)
        if entry.seen is not None:
            is_racy = max(entry.mtime_ns, entry.seen.ctime_ns) >= self._racy_ns
            seen = (entry.mtime_ns % 1_000_000_000, *(RACY_SEEN if is_racy else entry.seen))
        return (*self._index.row(entry), *seen, _NUMBERS[status], error, int(is_wanted), reason, 0)

    # --- what came of reading

    def wanted(self) -> tuple[int, int]:
        """Return number and bytes of the files that must be read."""
        found = self._index.connection.execute("SELECT count(*), total(nbytes) FROM draft WHERE is_wanted").fetchone()
        return int(found[0]), int(found[1])

    def to_read(self) -> Iterator[Entry]:
        """Yield the files that must be read, in order; the draft may change meanwhile."""
        statement = f"SELECT {_COLUMNS} FROM draft WHERE is_wanted AND sort_key > ? ORDER BY sort_key LIMIT {_BATCH}"
        after = b""
        while rows := self._index.connection.execute(statement, (after,)).fetchall():
            yield from map(self._index.entry, rows)
            after = rows[-1][0]

    def keep_read(self, results: Iterable[Entry | Failure]) -> None:
        """Note what came of reading files: the entry with its hash, or why there is none."""
        connection = self._index.connection
        connection.execute("BEGIN")
        for one in results:
            if isinstance(one, Failure):
                statement = "UPDATE draft SET error = ?, is_wanted = 0 WHERE sort_key = ?"
                connection.execute(statement, (one.error, sort_key(one.path)))
            else:
                connection.execute(_PUT, self._row(one, CHANGED, None, False))
        connection.execute("COMMIT")

    def remove(self, path: bytes) -> None:
        """Note that a file was removed after the scan had seen it."""
        key = sort_key(path)
        if self._index.current(self._source, key) is None:
            self._index.connection.execute("DELETE FROM draft WHERE sort_key = ?", (key,))
        else:
            self._put([(key, *_NOTHING, _NUMBERS[REMOVED], None, 0, VANISHED, 0)])

    # --- what the snapshot says

    def settle(self, reasons: dict[str, str]) -> None:
        """Decide what the snapshot says of each path; `reasons` says by hash why a content could not be stored."""
        after = b""
        while rows := self._page(after):
            settled = [self._settle(one, reasons) for one in map(self._settled, rows)]
            self._put([self._settled_row(one) for one in settled])
            after = rows[-1][0]

    def _page(self, after: bytes, until: bytes | None = None) -> list[tuple[Any, ...]]:
        ends, values = ("", ()) if until is None else (" AND d.sort_key <= ?", (until,))
        drafted = ", ".join(f"d.{column}" for column in _COLUMNS.split(", "))
        newest = ", ".join(f"v.{column}" for column in _COLUMNS.split(", "))
        statement = (
            f"SELECT {drafted}, {newest}, d.status, d.error, d.reason, d.is_wanted FROM draft d LEFT JOIN version v "
            "ON v.source = ? AND v.sort_key = d.sort_key AND v.last IS NULL "
            f"WHERE d.sort_key > ?{ends} ORDER BY d.sort_key LIMIT {_BATCH}"
        )
        return self._index.connection.execute(statement, (self._source, after, *values)).fetchall()

    def _settled(self, row: tuple[Any, ...]) -> Settled:
        entry = None if row[1] is None else self._index.entry(row[:13])
        previous = None if row[14] is None else self._index.entry(row[13:26])
        error, reason, is_wanted = row[27:]
        reason = os.fsdecode(reason) if isinstance(reason, bytes) else reason
        return Settled(row[0].replace(b"\0", b"/"), _STATUSES[row[26]], entry, previous, error, reason, bool(is_wanted))

    def _settle(self, one: Settled, reasons: dict[str, str]) -> Settled:
        if one.status in (REMOVED, FAILED):
            return one
        fault = self._fault(one, reasons)
        if one.status == CARRIED and fault is None:
            return one
        error = one.error or fault
        if error is not None:
            previous = one.previous
            if previous is not None and self._can_be_carried(previous):
                return one._replace(status=CARRIED, entry=carried(previous), error=error)
            return one._replace(status=FAILED, entry=None, error=error)
        assert one.entry is not None
        if one.previous is None:
            return one._replace(status=NEW)
        return one._replace(status=UNMODIFIED if is_same(one.entry, one.previous) else CHANGED)

    def _fault(self, one: Settled, reasons: dict[str, str]) -> str | None:
        entry = one.entry
        if entry is None:
            return None
        if not is_representable(entry):
            return "its name is too long for a manifest"
        if entry.kind == FILE and not (entry.hash and self._is_stored(entry.hash)):
            return reasons.get(entry.hash, "its content is not stored any more")
        return None

    def _can_be_carried(self, previous: Entry) -> bool:
        is_stored = bool(previous.hash) and self._is_stored(previous.hash)
        return previous.kind == FILE and is_stored and is_representable(previous)

    def _settled_row(self, one: Settled) -> tuple[object, ...]:
        if one.entry is None:
            return (sort_key(one.path), *_NOTHING, _NUMBERS[one.status], one.error, 0, None, 0)
        return self._row(one.entry, one.status, one.error, False)

    def counts(self) -> dict[str, int]:
        """Return the number of paths by status, those that are not in the draft too."""
        rows = self._index.connection.execute("SELECT status, count(*) FROM draft GROUP BY status")
        found = {_STATUSES[status]: number for status, number in rows}
        return found | {UNMODIFIED: found.get(UNMODIFIED, 0) + self.tally.unmodified}

    def nsettled(self, status: str) -> int:
        """Return how many paths of the draft have a status and need not be read."""
        statement = "SELECT count(*) FROM draft WHERE status = ? AND NOT is_wanted"
        return int(self._index.connection.execute(statement, (_NUMBERS[status],)).fetchone()[0])

    def file_counts(self) -> dict[str, int]:
        """Return the same of files alone; a removed path is what the newest snapshot of the index has it as."""
        before = "(SELECT kind FROM version v WHERE v.source = ? AND v.sort_key = d.sort_key AND v.last IS NULL)"
        kind = f"CASE WHEN d.kind IS NULL THEN {before} ELSE d.kind END"
        rows = self._index.connection.execute(
            f"SELECT status, count(*) FROM draft d WHERE {kind} = 0 GROUP BY status", (self._source,)
        )
        found = {_STATUSES[status]: number for status, number in rows}
        return found | {UNMODIFIED: found.get(UNMODIFIED, 0) + self.tally.nfiles}

    def changes(self) -> Iterator[Change]:
        """Yield the paths that are not as the newest snapshot has them, and what became of each."""
        for one in self.settled():
            entry = one.entry or one.previous
            if entry is not None and one.status in (NEW, CHANGED, REMOVED, CARRIED):
                yield Change(one.status, one.path, entry.kind, entry.nbytes)

    def totals(self) -> tuple[int, int]:
        """Return number and bytes of the files that the snapshot holds."""
        statement = f"SELECT count(*), total(nbytes) FROM draft WHERE kind = 0 AND {PRESENT}"
        nfiles, nbytes = self._index.connection.execute(statement).fetchone()
        return self.tally.nfiles + int(nfiles), self.tally.nbytes + int(nbytes)

    def failures(self) -> Iterator[Failure]:
        """Yield the paths that failed, in order."""
        rows = self._index.connection.execute(
            "SELECT sort_key, error FROM draft WHERE error NOT NULL ORDER BY sort_key"
        )
        return (Failure(key.replace(b"\0", b"/"), error) for key, error in rows)

    def want(self, absent: Iterable[bytes]) -> None:
        """Have files read again, by sort key, whose content turned out to be gone: those of the draft, and others."""
        connection = self._index.connection
        for key in absent:
            if connection.execute("SELECT 1 FROM draft WHERE sort_key = ?", (key,)).fetchone():
                connection.execute("UPDATE draft SET is_wanted = 1 WHERE sort_key = ?", (key,))
                continue
            entry = self._index.current(self._source, key)
            assert entry is not None
            self.tally.unmodified -= 1
            self.tally.nfiles -= 1
            self.tally.nbytes -= entry.nbytes
            self._put([self._row(entry, UNMODIFIED, None, True, ABSENT)])

    def absent(self) -> list[bytes]:
        """Return the sort keys of the files that the snapshot would have without their content being known."""
        is_unknown = "NOT EXISTS (SELECT 1 FROM content c WHERE c.hash = {0}.hash AND NOT c.is_damaged)"
        unchanged = (
            "SELECT v.sort_key FROM version v WHERE v.source = ? AND v.last IS NULL AND v.kind = 0 "
            f"AND v.sort_key NOT IN (SELECT sort_key FROM draft) AND {is_unknown.format('v')}"
        )
        drafted = f"SELECT d.sort_key FROM draft d WHERE d.kind = 0 AND {PRESENT} AND {is_unknown.format('d')}"
        rows = self._index.connection.execute(f"{unchanged} UNION ALL {drafted}", (self._source,)).fetchall()
        return [row[0] for row in rows]

    # --- the snapshot whole, and what it changes in the index

    def over(
        self, current: Iterable[tuple[bytes, Existing]], *, after: bytes, until: bytes | None = None
    ) -> Iterator[tuple[bytes, Existing | Settled]]:
        """Yield by sort key what the snapshot says between two keys: the draft's paths, and the current others.

        `current` is something by sort key for each newest entry between these keys, in order.
        """
        drafted = self.settled(after, until)
        one = next(drafted, None)
        for key, existing in current:
            while one is not None and sort_key(one.path) < key:
                yield sort_key(one.path), one
                one = next(drafted, None)
            if one is not None and sort_key(one.path) == key:
                yield key, one
                one = next(drafted, None)
            else:
                yield key, existing
        while one is not None:
            yield sort_key(one.path), one
            one = next(drafted, None)

    def has_any(self, *, after: bytes, until: bytes) -> bool:
        """Say whether the draft has a path between two keys, the second among them."""
        statement = "SELECT 1 FROM draft WHERE sort_key > ? AND sort_key <= ? LIMIT 1"
        return self._index.connection.execute(statement, (after, until)).fetchone() is not None

    def changed(self) -> Iterator[Entry]:
        """Yield the entries that the newest snapshot of the index does not have so."""
        for one in self.settled():
            if one.entry is not None and not self._is_as_before(one.entry, one.previous):
                yield one.entry

    def _is_as_before(self, entry: Entry, previous: Entry | None) -> bool:
        return previous is not None and self._index.row(entry) == self._index.row(previous)

    def removed(self) -> Iterator[bytes]:
        """Yield the paths that only the newest snapshot of the index has."""
        return (one.path for one in self.settled() if one.entry is None and one.previous is not None)

    def seen(self) -> Iterator[Entry]:
        """Yield the files of which something was seen that the index does not know."""
        return (
            one.entry
            for one in self.settled()
            if one.entry is not None and one.entry.seen is not None and one.status in (NEW, CHANGED, UNMODIFIED)
        )

    def settled(self, after: bytes = b"", until: bytes | None = None) -> Iterator[Settled]:
        """Yield the paths of the draft between two keys, as they stand now."""
        while rows := self._page(after, until):
            yield from map(self._settled, rows)
            after = rows[-1][0]
