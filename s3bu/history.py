"""Snapshots in the index: how a manifest is taken in, also one that came late, and how one that vanished is let go.

Every snapshot is applied as its changes against the one before it. The order in which they are taken in makes no
difference: the rows of the index always say of each snapshot exactly what its manifest says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from s3bu.index import AT, Index, IndexedSnapshot
from s3bu.manifest import Entry, FailedPath, Header, sort_key
from s3bu.manifest.reader import ManifestReader
from s3bu.repository.layout import ManifestKey

Row = tuple[object, ...]
"""The sort key and the columns of one entry, as `Index.row` makes them."""

_INSERT = (
    "INSERT INTO version (source, sort_key, first, last, kind, nbytes, mtime, nanos, mode, hash, target, owner) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_CLOSE = "local_nanos = NULL, ctime_ns = NULL, inode = NULL, device = NULL"
_COMPARED = ("kind", "nbytes", "mtime", "nanos", "mode", "hash", "target", "owner")
_SAME = " AND ".join(f"{column} IS ?" for column in _COMPARED)
_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept of a manifest besides its entries."""

    key: ManifestKey
    etag: str
    created: datetime
    header: Header | None = None
    failed: Sequence[FailedPath] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a snapshot stands in the row of its source: its number, and the numbers before and after it."""

    source: int
    number: int
    before: int | None
    after: int | None


def number_of(key: ManifestKey) -> int:
    """Return what orders the snapshots of a source: the key's date and seconds in one number."""
    return key.day.toordinal() * 100_000 + key.second


def whole(
    reader: ManifestReader, known: AbstractSet[bytes] = frozenset(), lines: set[bytes] | None = None
) -> Iterator[Entry | FailedPath]:
    """Yield what a manifest holds; one that turns out to be cut ends with a failure of the source itself.

    With `lines` only what differs from `known` lines, as `ManifestReader.differing` does it.
    """
    yield from reader if lines is None else reader.differing(known, lines)
    if reader.is_truncated:
        yield FailedPath(b"", "the manifest is cut: what stood behind its end is not known", "")


def take_in(index: Index, facts: Facts, items: Iterable[Entry | FailedPath]) -> int:
    """Take in a whole manifest, in one transaction; when reading it fails, nothing of it stays.

    Entries may come in any order, and of equal paths the last counts. Return the number of different paths.
    """
    with index.transaction():
        place = _place(index, facts.key)
        failed = _stage(index, items)
        totals = _staged_totals(index)
        if place.before is None:
            _apply(index, place, _staged(index), ())
        else:
            _apply(index, place, *_changes(index, place.source, place.before))
        _note(index, place, replace(facts, failed=failed), totals)
        return int(index.connection.execute("SELECT count(*) FROM staged").fetchone()[0])


def take_in_changes(index: Index, facts: Facts, items: Iterable[Entry | FailedPath], removed: Iterable[bytes]) -> None:
    """Take in a manifest by what differs from the snapshot that stands before it in the index.

    `items` are the entries that are new or different and all failures, `removed` the paths that are gone.
    """
    with index.transaction():
        failed = _stage(index, items)
        _take_in_staged(index, replace(facts, failed=failed), removed)


def record(
    index: Index, facts: Facts, changed: Iterable[Entry], removed: Iterable[bytes], seen: Iterable[Entry]
) -> None:
    """Take in the snapshot that this machine has just made, by what differs from the one before it.

    Of the entries in `seen`, changed or not, what this machine saw is kept too.
    """
    with index.transaction():
        _stage(index, changed)
        source = _take_in_staged(index, facts, removed)
        _keep_seen(index, source, seen)


def _take_in_staged(index: Index, facts: Facts, removed: Iterable[bytes]) -> int:
    place = _place(index, facts.key)
    keys = [sort_key(path) for path in removed]
    totals = _changed_totals(index, place, keys)
    _apply(index, place, _staged(index), keys)
    _note(index, place, facts, totals)
    return place.source


def take_in_failed(index: Index, facts: Facts) -> None:
    """Keep that a manifest is there and cannot be taken in."""
    with index.transaction():
        _note(index, _place(index, facts.key), facts, (0, 0))


def holds_any(index: Index, snapshot: IndexedSnapshot, paths: Iterable[bytes]) -> bool:
    """Say whether a snapshot has one of these paths."""
    statement = f"SELECT 1 FROM version WHERE {AT} AND sort_key = :key"
    values: dict[str, object] = {"source": snapshot.source, "number": snapshot.number}
    return any(index.connection.execute(statement, values | {"key": sort_key(path)}).fetchone() for path in paths)


def before(index: Index, key: ManifestKey) -> IndexedSnapshot | None:
    """Return the snapshot that stands before a key in the index, of those that were taken in."""
    taken = [one for one in index.snapshots(index.source(key.job, key.label)) if one.error is None]
    return next((one for one in reversed(taken) if one.number < number_of(key)), None)


def let_go(index: Index, snapshot: IndexedSnapshot) -> None:
    """Take a snapshot out of the index, because its manifest is gone or is not the same any more."""
    with index.transaction():
        if snapshot.error is None:
            _remove(index, _neighbours(index, snapshot.source, snapshot.number))
        index.connection.execute("DELETE FROM snapshot WHERE id = ?", (snapshot.id,))


def keep_seen(index: Index, source: int, entries: Iterable[Entry]) -> None:
    """Keep what this machine saw of files whose newest version is known."""
    with index.transaction():
        _keep_seen(index, source, entries)


def _keep_seen(index: Index, source: int, entries: Iterable[Entry]) -> None:
    index.connection.executemany(
        "UPDATE version SET local_nanos = ?, ctime_ns = ?, inode = ?, device = ? "
        "WHERE source = ? AND sort_key = ? AND last IS NULL",
        (
            (entry.mtime_ns % 1_000_000_000, *entry.seen, source, sort_key(entry.path))
            for entry in entries
            if entry.seen is not None
        ),
    )


# --- places


def _place(index: Index, key: ManifestKey) -> _Place:
    return _neighbours(index, index.source(key.job, key.label), number_of(key))


def _neighbours(index: Index, source: int, number: int) -> _Place:
    before, after = (
        index.connection.execute(
            f"SELECT {which}(number) FROM snapshot WHERE source = ? AND error IS NULL AND number {relation} ?",
            (source, number),
        ).fetchone()[0]
        for which, relation in (("max", "<"), ("min", ">"))
    )
    return _Place(source, number, before, after)


def _note(index: Index, place: _Place, facts: Facts, totals: tuple[int, int]) -> None:
    """Write the snapshot's own row, which replaces one that said that it could not be taken in."""
    connection = index.connection
    connection.execute("DELETE FROM snapshot WHERE source = ? AND number = ?", (place.source, place.number))
    cursor = connection.execute(
        "INSERT INTO snapshot (source, number, key, etag, created_us, host, parent, nfiles, nbytes, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            place.source,
            place.number,
            str(facts.key),
            facts.etag,
            microseconds(facts.created),
            facts.header.host if facts.header else None,
            facts.header.parent if facts.header else None,
            *totals,
            facts.error,
        ),
    )
    rows = ((cursor.lastrowid, *one) for one in facts.failed)
    connection.executemany("INSERT INTO failed VALUES (?, ?, ?, ?)", rows)


def microseconds(moment: datetime) -> int:
    """Return a time as microseconds of UTC since 1970, exactly."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _staged_totals(index: Index) -> tuple[int, int]:
    """Return number and bytes of the files that are staged."""
    return _sums(index, "SELECT nbytes FROM staged WHERE kind = 0 AND hash IS NOT NULL")


def _changed_totals(index: Index, place: _Place, removed: Iterable[bytes]) -> tuple[int, int]:
    """Return what the snapshot before holds, less what is replaced or removed, and what is staged."""
    nfiles, nbytes = _staged_totals(index)
    if place.before is None:
        return nfiles, nbytes
    _list_differing(index, removed)
    values = {"source": place.source, "number": place.before}
    replaced = _sums(
        index,
        "SELECT v.nbytes FROM differing d CROSS JOIN version v ON v.sort_key = d.sort_key "
        f"WHERE {AT} AND v.kind = 0 AND v.hash IS NOT NULL",
        values,
    )
    earlier = index.connection.execute(
        "SELECT nfiles, nbytes FROM snapshot WHERE source = :source AND number = :number", values
    ).fetchone()
    return earlier[0] - replaced[0] + nfiles, earlier[1] - replaced[1] + nbytes


def _sums(index: Index, rows: str, values: Mapping[str, int] = MappingProxyType({})) -> tuple[int, int]:
    # The sizes of a hostile manifest add up to more than 64 bits; SQLite's floating sum does not mind.
    found = index.connection.execute(f"SELECT count(*), total(nbytes) FROM ({rows})", dict(values)).fetchone()
    return int(found[0]), min(int(found[1]), 2**62)


# --- changes


def _stage(index: Index, items: Iterable[Entry | FailedPath]) -> list[FailedPath]:
    """Put entries into the staging table, of equal paths the last; return the failures among them."""
    connection = index.connection
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS staged (sort_key BLOB PRIMARY KEY, kind INTEGER, nbytes INTEGER, "
        "mtime INTEGER, nanos INTEGER, mode INTEGER, hash BLOB, target BLOB, owner INTEGER) WITHOUT ROWID"
    )
    connection.execute("DELETE FROM staged")
    failed: list[FailedPath] = []
    insert = "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    connection.executemany(insert, (index.row(entry) for entry in _entries(items, failed)))
    return failed


def _entries(items: Iterable[Entry | FailedPath], failed: list[FailedPath]) -> Iterator[Entry]:
    for item in items:
        if isinstance(item, Entry):
            yield item
        else:
            failed.append(item)


def _staged(index: Index) -> Iterator[Row]:
    return iter(index.connection.execute("SELECT * FROM staged ORDER BY sort_key"))


def _changes(index: Index, source: int, before: int) -> tuple[list[Row], list[bytes]]:
    """Compare what is staged with a snapshot: the rows that differ from it, and the keys that it alone has."""
    at = {"source": source, "number": before}
    same = " AND ".join(f"v.{column} IS s.{column}" for column in _COMPARED)
    changed = index.connection.execute(
        f"SELECT s.* FROM staged s WHERE NOT EXISTS (SELECT 1 FROM version v WHERE {AT} "
        f"AND v.sort_key = s.sort_key AND {same}) ORDER BY s.sort_key",
        at,
    ).fetchall()
    removed = index.connection.execute(
        f"SELECT sort_key FROM version v WHERE {AT} "
        "AND NOT EXISTS (SELECT 1 FROM staged s WHERE s.sort_key = v.sort_key)",
        at,
    ).fetchall()
    return changed, [row[0] for row in removed]


def _apply(index: Index, place: _Place, changed: Iterable[Row], removed: Iterable[bytes]) -> None:
    """Make the rows say what a snapshot holds that differs so from the one before it."""
    if place.before is None and place.after is None:
        _insert(index, place, changed)
        return
    if place.after is None:
        _append(index, place, changed, removed)
        return
    changed = list(changed)
    _list_differing(index, removed, [row[0] for row in changed])
    _extend(index, place)
    for row in changed:
        _set_between(index, place, row)


def _insert(index: Index, place: _Place, rows: Iterable[Row]) -> None:
    source, number = place.source, place.number
    index.connection.executemany(_INSERT, ((source, row[0], number, None, *row[1:]) for row in rows))


def _append(index: Index, place: _Place, changed: Iterable[Row], removed: Iterable[bytes]) -> None:
    """Apply changes on top of the newest snapshot."""
    close = f"UPDATE version SET last = ?, {_CLOSE} WHERE source = ? AND sort_key = ? AND last IS NULL"
    execute = index.connection.executemany
    execute(close, ((place.before, place.source, key) for key in removed))
    for rows in _batched(changed):
        execute(close, ((place.before, place.source, row[0]) for row in rows))
        _insert(index, place, rows)


def _batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _list_differing(index: Index, removed: Iterable[bytes], changed: Iterable[object] | None = None) -> None:
    """Fill the table of the keys that differ: those removed, and those changed, which are the staged ones if unsaid."""
    connection = index.connection
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS differing (sort_key BLOB PRIMARY KEY) WITHOUT ROWID")
    connection.execute("DELETE FROM differing")
    if changed is None:
        connection.execute("INSERT INTO differing SELECT sort_key FROM staged")
    for keys in (removed, changed or ()):
        connection.executemany("INSERT OR IGNORE INTO differing VALUES (?)", ((key,) for key in keys))


def _extend(index: Index, place: _Place) -> None:
    """Make the versions of the snapshot before reach into this one, but for the paths that differ here."""
    connection = index.connection
    if place.before is None:
        return
    values = {"source": place.source, "before": place.before, "number": place.number, "after": place.after}
    connection.execute(
        "UPDATE version SET last = :number WHERE source = :source AND last = :before "
        "AND sort_key NOT IN (SELECT sort_key FROM differing)",
        values,
    )
    spanning = "source = :source AND first <= :before AND (last IS NULL OR last >= :after)"
    columns = "kind, nbytes, mtime, nanos, mode, hash, target, owner, local_nanos, ctime_ns, inode, device"
    connection.execute(
        f"INSERT INTO version SELECT source, sort_key, :after, last, {columns} FROM version "
        f"WHERE {spanning} AND sort_key IN (SELECT sort_key FROM differing)",
        values,
    )
    connection.execute(
        f"UPDATE version SET last = :before, {_CLOSE} "
        f"WHERE {spanning} AND sort_key IN (SELECT sort_key FROM differing)",
        values,
    )


def _set_between(index: Index, place: _Place, row: Row) -> None:
    """Add a version that begins with a snapshot that is not the newest: the next one may have the very same."""
    moved = index.connection.execute(
        f"UPDATE version SET first = ? WHERE source = ? AND sort_key = ? AND first = ? AND {_SAME}",
        (place.number, place.source, row[0], place.after, *row[1:]),
    )
    if not moved.rowcount:
        values = (place.source, row[0], place.number, place.number, *row[1:])
        index.connection.execute(_INSERT, values)


def _remove(index: Index, place: _Place) -> None:
    """Make the rows say nothing of a snapshot any more."""
    values = {"source": place.source, "number": place.number, "before": place.before, "after": place.after}
    alone = "last = :number" if place.after is not None else "last IS NULL"
    statements = [f"DELETE FROM version WHERE source = :source AND first = :number AND {alone}"]
    if place.after is None:
        statements.append("UPDATE version SET last = NULL WHERE source = :source AND last = :before")
    else:
        statements.append("UPDATE version SET last = :before WHERE source = :source AND last = :number")
        statements.append("UPDATE version SET first = :after WHERE source = :source AND first = :number")
    for statement in statements:
        index.connection.execute(statement, values)
    _join(index, values)


def _join(index: Index, values: Mapping[str, int | None]) -> None:
    """Make one row of two that say the same, now that nothing stands between them."""
    same = " AND ".join(f"a.{column} IS b.{column}" for column in _COMPARED)
    connection = index.connection
    pairs = connection.execute(
        "SELECT b.last, b.local_nanos, b.ctime_ns, b.inode, b.device, a.source, a.sort_key, a.first, b.first "
        "FROM version a JOIN version b ON b.source = a.source AND b.sort_key = a.sort_key "
        f"WHERE a.source = :source AND a.last = :before AND b.first = :after AND {same}",
        values,
    ).fetchall()
    gone = ((source, key, first) for *_, source, key, _, first in pairs)
    connection.executemany("DELETE FROM version WHERE source = ? AND sort_key = ? AND first = ?", gone)
    connection.executemany(
        "UPDATE version SET last = ?, local_nanos = ?, ctime_ns = ?, inode = ?, device = ? "
        "WHERE source = ? AND sort_key = ? AND first = ?",
        (pair[:8] for pair in pairs),
    )
