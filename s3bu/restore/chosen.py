"""What the rows of a query choose to be restored: versions of paths, found again in the index by path and hash.

A row says which path and which content; mode, time and kind come from the newest version that has both. Directories
above what was chosen come along, with the modes that they had last.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from s3bu.errors import UsageError
from s3bu.index import ROW, Index
from s3bu.manifest import DIRECTORY, Entry, FailedPath, sort_key
from s3bu.moment import instant
from s3bu.query import Value
from s3bu.views import path_text, raw_of_text

_SHOWN = 20
_HINT = "choose fewer rows, or yield `job` and `label` too"


class Version(NamedTuple):
    """A version of a path: its source (job and label), its entry, and the time of the first snapshot that has it."""

    source: tuple[str, str]
    entry: Entry
    seen: datetime


@dataclass(slots=True)
class Chosen:
    """What is to be restored, like a snapshot that holds just that."""

    entries: list[Entry]
    failed: list[FailedPath] = field(default_factory=list)
    is_truncated: bool = False


class _Asked(NamedTuple):
    """What a row asks for; `None` stands for whatever there is."""

    path: bytes
    hash: str | None
    job: str | None
    label: str | None
    kind: str | None


def choose(index: Index, columns: Sequence[str], rows: Iterable[Sequence[Value]], *, keeps_all: bool) -> Chosen:
    """Return what the rows choose; `UsageError` names what cannot be decided: which source, which of several versions.

    Rows have `path` (as the views write it) or `path_raw`, and `hash`; where they have `job`, `label` or `kind`,
    these count.
    With `keeps_all` several versions of a path are all chosen, and named by the time of their first snapshots.
    """
    asked = dict.fromkeys(_asked(columns, rows))
    versions = {one: _found(index, one) for one in asked}
    _refuse({one for one, found in versions.items() if not found}, "the index has no version of", "of that content")
    newest = [_newest(one, found) for one, found in versions.items()]
    entries = _named(newest) if keeps_all else _single(newest)
    known = {entry.path for entry in entries}
    above = [entry for entry in _directories_above(index, newest) if entry.path not in known]
    return Chosen(sorted([*above, *entries], key=lambda entry: sort_key(entry.path)))


def _asked(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> Iterable[_Asked]:
    places = {name: number for number, name in enumerate(columns)}
    if "hash" not in places or not {"path", "path_raw"} & places.keys():
        raise UsageError(
            "the query must yield `path` or `path_raw`, and `hash`", hint=f"it yields {', '.join(columns)}"
        )
    for row in rows:
        values = {name: row[number] for name, number in places.items()}
        said = [values.get(name) for name in ("hash", "job", "label", "kind")]
        yield _Asked(_path(values), *(None if value is None else str(value) for value in said))


def _path(values: dict[str, Value]) -> bytes:
    value = values["path_raw"] if "path_raw" in values else values["path"]
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UsageError(f"a row whose path is no path: {value!r}")
    return raw_of_text(value) if "path_raw" not in values else value.encode("utf-8", "surrogateescape")


def _found(index: Index, asked: _Asked) -> list[Version]:
    """Return the versions of the path with that content, the newest first."""
    digest = _digest(asked.hash)
    seen = "(SELECT created_us FROM snapshot n WHERE n.source = v.source AND n.number = v.first) AS seen"
    rows = index.connection.execute(
        f"SELECT so.job, so.label, {seen}, {ROW} FROM source so CROSS JOIN version v "
        "ON v.source = so.id AND v.sort_key = :key WHERE v.hash IS :digest AND coalesce(:job, so.job) = so.job "
        "AND coalesce(:label, so.label) = so.label ORDER BY seen DESC, v.first DESC",
        {"key": sort_key(asked.path), "digest": digest, "job": asked.job, "label": asked.label},
    )
    found = (Version((job, label), index.entry(row), instant(created_us)) for job, label, created_us, *row in rows)
    return [version for version in found if asked.kind in (None, version.entry.kind)]


def _digest(text: str | None) -> bytes | None:
    try:
        return bytes.fromhex(text) if text else None
    except ValueError as error:
        raise UsageError(f"'{text}' is no hash", hint="the views have it as 64 hex digits") from error


def _newest(asked: _Asked, found: list[Version]) -> Version:
    sources = sorted({"/".join(version.source) for version in found})
    if len(sources) > 1:
        raise UsageError(f"'{path_text(asked.path)}' is in several sources: {', '.join(sources)}", hint=_HINT)
    return found[0]


def _single(versions: list[Version]) -> list[Entry]:
    """Return the entries, of which no two may have one path."""
    by_path: dict[bytes, list[Version]] = {}
    for version in versions:
        by_path.setdefault(version.entry.path, []).append(version)
    several = [version for found in by_path.values() if len(found) > 1 for version in found]
    if several:
        lines = ", ".join(f"{path_text(one.entry.path)} ({_stamp(one.seen)})" for one in several[:_SHOWN])
        more = f" and {len(several) - _SHOWN:,} more" if len(several) > _SHOWN else ""
        raise UsageError(
            f"several versions of one path: {lines}{more}",
            hint="--all-versions restores them all, named by time; or choose one in the query",
        )
    return [version.entry for version in versions]


def _named(versions: list[Version]) -> list[Entry]:
    """Return the entries; where several have one path, each is named by its time."""
    times = Counter(version.entry.path for version in versions)
    taken = {path for path, count in times.items() if count == 1}
    entries = []
    for version in versions:
        entry = version.entry
        if times[entry.path] > 1:
            entry = entry._replace(path=_free(_stamped(entry.path, version.seen), taken))
        taken.add(entry.path)
        entries.append(entry)
    return entries


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H%M%SZ")


def _stamped(path: bytes, moment: datetime) -> bytes:
    """Put a time before the suffix of a name: `letters/anna@2026-05-01T120000Z.odt`."""
    directory, slash, name = path.rpartition(b"/")
    stem, dot, suffix = name.rpartition(b".")
    if not stem:
        stem, dot, suffix = name, b"", b""
    return directory + slash + stem + b"@" + _stamp(moment).encode() + dot + suffix


def _free(path: bytes, taken: set[bytes]) -> bytes:
    """Return a path that is not taken yet: versions of two sources may be of the same second."""
    number = 1
    found = path
    while found in taken:
        number += 1
        found = path + b"-%d" % number
    return found


def _directories_above(index: Index, versions: list[Version]) -> list[Entry]:
    """Return the directories above what was chosen, each as it was last."""
    wanted: dict[tuple[tuple[str, str], bytes], None] = {}
    for version in versions:
        parent = version.entry.path.rpartition(b"/")[0]
        while parent and (version.source, parent) not in wanted:
            wanted[version.source, parent] = None
            parent = parent.rpartition(b"/")[0]
    found: dict[bytes, Entry] = {}
    for (job, label), path in wanted:
        for last in _found(index, _Asked(path, None, job, label, DIRECTORY))[:1]:
            found.setdefault(path, last.entry)
    return list(found.values())


def _refuse(missing: set[_Asked], what: str, of_what: str) -> None:
    if missing:
        names = ", ".join(sorted(str(path_text(one.path)) for one in missing)[:_SHOWN])
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise UsageError(f"{what} {names}{more} {of_what}", hint="take path and hash from one row of a view")
