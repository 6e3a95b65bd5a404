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
from s3bu.index.file import storable
from s3bu.intervals import Place, apply, changes, list_differing, remove, stage, staged
from s3bu.manifest import Entry, FailedPath, Header, sort_key
from s3bu.manifest.reader import ManifestReader
from s3bu.repository.layout import ManifestKey


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept of a manifest besides its entries."""

    key: ManifestKey
    etag: str
    created: datetime
    header: Header | None = None
    failed: Sequence[FailedPath] = ()
    error: str | None = None


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
        _doubt_journal(index, place)
        failed = stage(index, items)
        totals = _staged_totals(index)
        if place.before is None:
            apply(index, place, staged(index), ())
        else:
            apply(index, place, *changes(index, place.source, place.before))
        _note(index, place, replace(facts, failed=failed), totals)
        return int(index.connection.execute("SELECT count(*) FROM staged").fetchone()[0])


def take_in_changes(index: Index, facts: Facts, items: Iterable[Entry | FailedPath], removed: Iterable[bytes]) -> None:
    """Take in a manifest by what differs from the snapshot that stands before it in the index.

    `items` are the entries that are new or different and all failures, `removed` the paths that are gone.
    """
    with index.transaction():
        failed = stage(index, items)
        _doubt_journal(index, _place(index, facts.key))
        _take_in_staged(index, replace(facts, failed=failed), removed)


def record(
    index: Index, facts: Facts, changed: Iterable[Entry], removed: Iterable[bytes], seen: Iterable[Entry]
) -> None:
    """Take in the snapshot that this machine has just made, by what differs from the one before it.

    Of the entries in `seen`, changed or not, what this machine saw is kept too.
    """
    with index.transaction():
        stage(index, changed)
        source = _take_in_staged(index, facts, removed)
        _keep_seen(index, source, seen)


def _take_in_staged(index: Index, facts: Facts, removed: Iterable[bytes]) -> int:
    place = _place(index, facts.key)
    keys = [sort_key(path) for path in removed]
    totals = _changed_totals(index, place, keys)
    apply(index, place, staged(index), keys)
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
            place = _neighbours(index, snapshot.source, snapshot.number)
            _doubt_journal(index, place)
            remove(index, place)
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


def _doubt_journal(index: Index, place: Place) -> None:
    """Let no run go on from what the last one left, when the newest entries become others than it has seen."""
    if place.after is None:
        index.drop_token(place.source)


def _place(index: Index, key: ManifestKey) -> Place:
    return _neighbours(index, index.source(key.job, key.label), number_of(key))


def _neighbours(index: Index, source: int, number: int) -> Place:
    before, after = (
        index.connection.execute(
            f"SELECT {which}(number) FROM snapshot WHERE source = ? AND error IS NULL AND number {relation} ?",
            (source, number),
        ).fetchone()[0]
        for which, relation in (("max", "<"), ("min", ">"))
    )
    return Place(source, number, before, after)


def _note(index: Index, place: Place, facts: Facts, totals: tuple[int, int]) -> None:
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
            storable(facts.header.host) if facts.header else None,
            storable(facts.header.parent) if facts.header else None,
            *totals,
            None if facts.error is None else storable(facts.error),
        ),
    )
    rows = ((cursor.lastrowid, one.path, storable(one.error), storable(one.since)) for one in facts.failed)
    connection.executemany("INSERT INTO failed VALUES (?, ?, ?, ?)", rows)


def microseconds(moment: datetime) -> int:
    """Return a time as microseconds of UTC since 1970, exactly."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _staged_totals(index: Index) -> tuple[int, int]:
    """Return number and bytes of the files that are staged."""
    return _sums(index, "SELECT nbytes FROM staged WHERE kind = 0 AND hash IS NOT NULL")


def _changed_totals(index: Index, place: Place, removed: Iterable[bytes]) -> tuple[int, int]:
    """Return what the snapshot before holds, less what is replaced or removed, and what is staged."""
    nfiles, nbytes = _staged_totals(index)
    if place.before is None:
        return nfiles, nbytes
    list_differing(index, removed)
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
