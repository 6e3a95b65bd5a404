"""Interval rows: one row a version of a path, with the first and the last snapshot that has it.

A snapshot is applied as its changes against the one before it, wherever in the row of its source it stands, and taken
out again so that its neighbours say what they said before.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from s3bu.index import AT, Index
from s3bu.manifest import Entry, FailedPath

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
class Place:
    """Where a snapshot stands in the row of its source: its number, and the numbers before and after it."""

    source: int
    number: int
    before: int | None
    after: int | None


def stage(index: Index, items: Iterable[Entry | FailedPath]) -> list[FailedPath]:
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


def staged(index: Index) -> Iterator[Row]:
    """Yield the rows that are staged, in order."""
    return iter(index.connection.execute("SELECT * FROM staged ORDER BY sort_key"))


def changes(index: Index, source: int, before: int) -> tuple[list[Row], list[bytes]]:
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


def apply(index: Index, place: Place, changed: Iterable[Row], removed: Iterable[bytes]) -> None:
    """Make the rows say what a snapshot holds that differs so from the one before it."""
    if place.before is None and place.after is None:
        _insert(index, place, changed)
        return
    if place.after is None:
        _append(index, place, changed, removed)
        return
    changed = list(changed)
    list_differing(index, removed, [row[0] for row in changed])
    _extend(index, place)
    for row in changed:
        _set_between(index, place, row)


def _insert(index: Index, place: Place, rows: Iterable[Row]) -> None:
    source, number = place.source, place.number
    index.connection.executemany(_INSERT, ((source, row[0], number, None, *row[1:]) for row in rows))


def _append(index: Index, place: Place, changed: Iterable[Row], removed: Iterable[bytes]) -> None:
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


def list_differing(index: Index, removed: Iterable[bytes], changed: Iterable[object] | None = None) -> None:
    """Fill the table of the keys that differ: those removed, and those changed, which are the staged ones if unsaid."""
    connection = index.connection
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS differing (sort_key BLOB PRIMARY KEY) WITHOUT ROWID")
    connection.execute("DELETE FROM differing")
    if changed is None:
        connection.execute("INSERT INTO differing SELECT sort_key FROM staged")
    for keys in (removed, changed or ()):
        connection.executemany("INSERT OR IGNORE INTO differing VALUES (?)", ((key,) for key in keys))


def _extend(index: Index, place: Place) -> None:
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


def _set_between(index: Index, place: Place, row: Row) -> None:
    """Add a version that begins with a snapshot that is not the newest: the next one may have the very same."""
    moved = index.connection.execute(
        f"UPDATE version SET first = ? WHERE source = ? AND sort_key = ? AND first = ? AND {_SAME}",
        (place.number, place.source, row[0], place.after, *row[1:]),
    )
    if not moved.rowcount:
        values = (place.source, row[0], place.number, place.number, *row[1:])
        index.connection.execute(_INSERT, values)


def remove(index: Index, place: Place) -> None:
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
