"""Questions that people ask of their snapshots, as SQL over the views: find, history, diff, du.

Each is a query that `s3bu query` could be given as well.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from s3bu.compare import CHANGED, NEW, REMOVED, Trust, compare
from s3bu.errors import UsageError
from s3bu.index import Index, IndexedSnapshot
from s3bu.manifest import Entry
from s3bu.moment import parse_moment
from s3bu.progress import Failure
from s3bu.query import Query, Row, Value
from s3bu.scan.found import Regular, entries
from s3bu.views import path_text

QUERY_SECONDS = 120.0
"""Statements of our own end, on whatever machine; so long may a restore wait for what it is to bring back."""
_SOURCE = "job, label"
_HEAD = "path_head(path_key, CAST(:depth AS INTEGER))"
_VERSION = f"{_SOURCE}, path, path_raw, kind, size, mtime, mode, hash"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to find: paths that match `pattern`, and of these what the other fields name, where they are given.

    `since` and `until` bound the snapshots that have it; `larger` is in bytes; `is_deleted`: only what is gone.
    """

    pattern: str
    since: datetime | None = None
    until: datetime | None = None
    label: str | None = None
    larger: int | None = None
    is_deleted: bool = False


def find(wanted: Wanted) -> Query:
    """Ask for the versions of the paths that match, those of one path in order of time."""
    literal = _longest_literal(wanted.pattern)
    conditions: list[tuple[str, str, Value]] = [
        ("instr(path_key, CAST(:literal AS BLOB))", "literal", literal or None),
        ("path_matches(:pattern, path_raw)", "pattern", wanted.pattern),
        # Cast, so that the same statement finds the same with parameters that are given as text.
        ("last_seen >= CAST(:since AS INTEGER)", "since", int(wanted.since.timestamp()) if wanted.since else None),
        ("first_seen <= CAST(:until AS INTEGER)", "until", int(wanted.until.timestamp()) if wanted.until else None),
        ("label = :label", "label", wanted.label),
        ("kind = 'file' AND size >= CAST(:larger AS INTEGER)", "larger", wanted.larger),
    ]
    given = [(condition, name, value) for condition, name, value in conditions if value is not None]
    ended = "EXISTS (SELECT 1 FROM deleted d WHERE d.path_key = v.path_key AND d.job = v.job AND d.label = v.label)"
    where = " AND ".join([condition for condition, _, _ in given] + ([ended] if wanted.is_deleted else []))
    columns = f"{_VERSION}, first_seen, last_seen, last_snapshot, is_current, ended"
    sql = f"SELECT {columns} FROM versions v WHERE {where} ORDER BY job, label, path_key, first_snapshot"
    return Query(sql, {name: value for _, name, value in given}, QUERY_SECONDS)


def _longest_literal(pattern: str) -> str:
    """Return the longest text that every path has that a glob matches, within one name: SQLite finds it quickly."""
    if pattern.startswith("re:"):
        return ""
    return max(re.split(r"[*?/]|\[.*", pattern.removeprefix("./"), flags=re.DOTALL), key=len)


def history(path: str) -> Query:
    """Ask for all versions of one path, in each source in order of time."""
    columns = f"{_VERSION}, first_seen, last_seen, first_snapshot, last_snapshot, is_current, ended"
    sql = f"SELECT {columns} FROM versions WHERE path_key = path_key(:path) ORDER BY job, label, first_snapshot"
    return Query(sql, {"path": path.removeprefix("./").rstrip("/")}, QUERY_SECONDS)


def diff(earlier: str, later: str) -> Query:
    """Ask what the later of two snapshots of one source has differently; both are keys, which sort by time."""
    gone = "first_snapshot <= :earlier AND last_snapshot >= :earlier AND last_snapshot < :later"
    come = "first_snapshot > :earlier AND first_snapshot <= :later AND last_snapshot >= :later"
    source = "job = :job AND label = :label"
    # What was different only in between is the same in both.
    state = 'json_array(kind, size, mtime, mode, hash, target, uid, gid, user, "group") AS state'
    _, job, label = later.rsplit("/", 1)[0].split("/", 2)
    sql = f"""
        SELECT CASE WHEN max(is_come) AND max(is_gone) THEN 'changed' WHEN max(is_come) THEN 'new' ELSE 'removed' END
        AS status, path, path_raw, coalesce(max(CASE WHEN is_come THEN kind END), max(kind)) AS kind,
        sum(size * is_gone) AS size_before, sum(size * is_come) AS size
        FROM (
            SELECT path, path_raw, path_key, kind, size, {state}, 0 AS is_come, 1 AS is_gone
            FROM versions WHERE {source} AND {gone}
            UNION ALL
            SELECT path, path_raw, path_key, kind, size, {state}, 1, 0 FROM versions WHERE {source} AND {come}
        ) GROUP BY path_key HAVING count(*) = count(DISTINCT state) ORDER BY path_key
    """
    return Query(sql, {"earlier": earlier, "later": later, "job": job, "label": label}, QUERY_SECONDS)


def _held(snapshot: str | None) -> tuple[str, dict[str, Value]]:
    """Return where to look: in a snapshot, or in the newest one of each source."""
    if snapshot is None:
        return "files WHERE kind = 'file'", {}
    return "entries WHERE kind = 'file' AND snapshot = :snapshot", {"snapshot": snapshot}


def by_directory(snapshot: str | None, depth: int, limit: int) -> Query:
    """Ask for the directories, cut at a depth, that hold most."""
    held, parameters = _held(snapshot)
    sql = (
        f"SELECT {_SOURCE}, {_HEAD} AS directory, count(*) AS files, sum(size) AS size FROM {held} "
        "GROUP BY job, label, directory ORDER BY size DESC, directory LIMIT :limit"
    )
    return Query(sql, {**parameters, "depth": depth, "limit": limit}, QUERY_SECONDS)


def largest(snapshot: str | None, limit: int) -> Query:
    """Ask for the largest files."""
    held, parameters = _held(snapshot)
    sql = f"SELECT {_SOURCE}, path, path_raw, size, mtime FROM {held} ORDER BY size DESC, path_key LIMIT :limit"
    return Query(sql, {**parameters, "limit": limit}, QUERY_SECONDS)


def duplicates(snapshot: str | None, limit: int) -> Query:
    """Ask for contents that several files have, those first whose copies hold most."""
    held, parameters = _held(snapshot)
    sql = (
        "SELECT count(*) AS copies, size, (count(*) - 1) * size AS spare, min(path) AS path, hash "
        f"FROM {held} AND size > 0 AND hash IS NOT NULL GROUP BY hash HAVING count(*) > 1 "
        "ORDER BY spare DESC, path LIMIT :limit"
    )
    return Query(sql, {**parameters, "limit": limit}, QUERY_SECONDS)


def growth(since: datetime, depth: int, limit: int) -> Query:
    """Ask for the directories that grew or shrank most since a time, from the snapshots at that time to the newest."""
    heads = f"{_HEAD} AS directory"
    sql = f"""
        WITH old AS (SELECT max(snapshot) AS snapshot FROM snapshots
                     WHERE time <= CAST(:since AS INTEGER) AND error IS NULL GROUP BY job, label),
        held AS (
            SELECT {_SOURCE}, {heads}, -size AS size, 0 AS is_now FROM entries
            WHERE kind = 'file' AND snapshot IN (SELECT snapshot FROM old)
            UNION ALL
            SELECT {_SOURCE}, {heads}, size, 1 FROM files WHERE kind = 'file'
        )
        SELECT {_SOURCE}, directory, sum(size) AS growth, sum(size * is_now) AS size FROM held
        GROUP BY job, label, directory HAVING growth <> 0 ORDER BY abs(growth) DESC, directory LIMIT :limit
    """
    return Query(sql, {"since": int(since.timestamp()), "depth": depth, "limit": limit}, QUERY_SECONDS)


def entries_where(snapshot: str, condition: str) -> Query:
    """Ask for the entries of a snapshot for which a condition of the user's holds."""
    # On lines of its own, so that a comment in the condition ends with it; and over the snapshot alone, so that one
    # that closes the parenthesis and opens another does not reach further.
    held = "(SELECT * FROM entries WHERE snapshot = :snapshot)"
    sql = f"SELECT path_raw, hash, kind, job, label FROM {held} WHERE (\n{condition}\n)"
    return Query(sql, {"snapshot": snapshot}, QUERY_SECONDS)


def check_label(index: Index, label: str) -> None:
    """Raise `UsageError` for a label that no source in the index has: nothing would be found, and nobody told why."""
    labels = [name for (name,) in index.connection.execute("SELECT DISTINCT label FROM source ORDER BY label")]
    if label not in labels:
        raise UsageError(f"no source in the index has the label '{label}'", hint="there are " + ", ".join(labels[:20]))


# --- snapshots by name, and the source as it is now


def find_indexed(index: Index, text: str, *, now: datetime) -> IndexedSnapshot:
    """Return the snapshot that `text` names (a key, JOB/LABEL, JOB/LABEL@TIME) of those in the index."""
    is_key = text.startswith("manifests/")
    name, at, moment = text.rpartition("@") if "@" in text and not is_key else (text, "", "")
    until = parse_moment(moment, now=now) if at else None
    taken = [one for one in index.snapshots() if one.error is None]
    found = [
        one for one in taken if one.key == text or (_source_of(one) == name and (not until or one.created <= until))
    ]
    if found:
        return found[-1]
    if any(_source_of(one) == name for one in taken):
        raise UsageError(f"no snapshot of {name} in the index is that old", hint="`s3bu snapshots` lists them")
    known = sorted({_source_of(one) for one in taken})
    raise UsageError(f"'{text}' names no snapshot in the index", hint=_SYNC_HINT + "; it has " + ", ".join(known[:20]))


_SYNC_HINT = "`s3bu index sync` takes in those of other machines"


def _source_of(snapshot: IndexedSnapshot) -> str:
    return snapshot.key.rsplit("/", 1)[0].removeprefix("manifests/")


def diff_now(
    index: Index, snapshot: IndexedSnapshot, scan: Iterable[Regular | Entry | Failure], failures: list[Failure]
) -> Iterator[Row]:
    """Yield what is different now from a snapshot, as `diff` does; files are compared by size and time, not read.

    What cannot be looked at is put into `failures`.
    """
    trust = Trust(snapshot.created_us * 1_000)
    for one in compare(entries(scan), index.entries(snapshot.source, snapshot.number), trust):
        if isinstance(one, Failure):
            failures.append(one)
        elif one.status in (NEW, CHANGED, REMOVED):
            entry = one.entry or one.previous
            assert entry is not None
            sizes = [each.nbytes if each else 0 for each in (one.previous, one.entry)]
            yield (one.status, path_text(entry.path), entry.path, entry.kind, *sizes)
