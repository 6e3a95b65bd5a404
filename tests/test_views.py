"""The views of the index, held to a small model: whatever the history of the snapshots, a row says what is true.

The model knows of each snapshot its entries, and nothing of intervals: what a view says is worked out anew from that.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from s3bu.history import Facts, let_go, record, take_in, take_in_changes, take_in_failed
from s3bu.index import Index, open_passing_index
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath, Header, Owner, sort_key
from s3bu.repository.layout import ManifestKey
from s3bu.views import FUNCTIONS, VIEWS, path_head, path_key, path_raw, path_text, raw_of_text
from tests.rounds import rounds

Row = dict[str, object]
Key = tuple[str, str, int]
"""A snapshot of the model: job, label, and the second of its day."""

OWNER = Owner(1, 2, "me", "\udcff")
VERSIONS = [
    Entry(b"", FILE, 1, 5_000_000_000, 0o644, "aa" * 32),
    Entry(b"", FILE, 1, 5_000_000_000, 0o600, "aa" * 32),
    Entry(b"", FILE, 2, 0, 0o644, "bb" * 32),
    Entry(b"", FILE, 2, 1_000_000_000, 0o644),
    Entry(b"", FILE, 0, -1_000_000_000, 0o644, "cc" * 32),
    Entry(b"", FILE, 2**48, 10**18 * 9, 0o644, "dd" * 32),
    Entry(b"", DIRECTORY, 0, 5_000_000_001, 0o755, owner=OWNER),
    Entry(b"", SYMLINK, 0, -1, 0, target=b"x\\\xff", owner=OWNER._replace(uid=3, user="you\\")),
    Entry(b"", SPECIAL, 0, 7_000_000_000, 0o600, target=b"fifo"),
]
PATHS = [b"a", b"a/x", b"a b", b"\xff\n", b"\\xff\n", "ö".encode()]
SOURCES = [("home", "docs"), ("home", "photos"), ("work", "docs")]
TREES = st.dictionaries(st.sampled_from(PATHS), st.integers(0, len(VERSIONS) - 1))
FAILED = st.lists(st.sampled_from([FailedPath(b"\xfe", "no", ""), FailedPath(b"b", "never", "")]), max_size=2)


@dataclass(slots=True)
class Snapshot:
    """A snapshot as its manifest has it; one with an `error` could not be read."""

    entries: dict[bytes, Entry]
    failed: list[FailedPath] = field(default_factory=list)
    error: str | None = None


class Model:
    """The snapshots that are there, by source and in order of time, and what follows from them."""

    def __init__(self) -> None:
        self.snapshots: dict[Key, Snapshot] = {}

    def of_source(self, source: tuple[str, str]) -> list[tuple[Key, Snapshot]]:
        found = sorted((key, one) for key, one in self.snapshots.items() if key[:2] == source)
        return [(key, one) for key, one in found if one.error is None]

    def runs(self) -> Iterator[tuple[list[Key], list[Key], Entry]]:
        """Yield each version of each path: the snapshots in a row that have it, those that follow, and what it is."""
        for source in SOURCES:
            row = self.of_source(source)
            for path in sorted({path for _, one in row for path in one.entries}):
                start = 0
                for end in range(1, len(row) + 1):
                    entry = row[start][1].entries.get(path)
                    if end == len(row) or row[end][1].entries.get(path) != entry:
                        if entry is not None:
                            yield [key for key, _ in row[start:end]], [key for key, _ in row[end:]], entry
                        start = end


def manifest_key(key: Key) -> ManifestKey:
    return ManifestKey(key[0], key[1], date(2026, 5, 1), key[2])


def created(key: Key) -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(seconds=key[2], microseconds=7)


def facts_of(key: Key, one: Snapshot) -> Facts:
    header = Header(str(manifest_key(key)), key[0], key[1], "here", created(key), "parent") if key[2] % 2 else None
    return Facts(manifest_key(key), f"etag{key}", created(key), header, one.failed, one.error)


# --- what the model says of each view


def iso(seconds: int) -> str | None:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return None


def moment(name: str, seconds: int) -> Row:
    return {name: seconds, f"{name}_text": iso(seconds)}


def time_of(name: str, key: Key) -> Row:
    return moment(name, int(created(key).timestamp()))


def shown(raw: bytes) -> str:
    r"""Return the text of bytes: another way than the program's, byte by byte."""
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(
        "\\\\" if one == "\\" else f"\\x{ord(one) - 0xDC00:02x}" if "\udc80" <= one <= "\udcff" else one for one in text
    )


def entry_row(entry: Entry) -> Row:
    owner = entry.owner
    return {
        "path": shown(entry.path),
        "path_raw": entry.path,
        "path_key": entry.path.replace(b"/", b"\0"),
        "kind": entry.kind,
        "size": entry.nbytes,
        **moment("mtime", entry.mtime_ns // 1_000_000_000),
        "mode": entry.mode,
        "hash": entry.hash or None,
        "target": shown(entry.target) if entry.target else None,
        "uid": owner.uid if owner else None,
        "gid": owner.gid if owner else None,
        "user": shown(owner.user.encode("utf-8", "surrogateescape")) if owner else None,
        "group": shown(owner.group.encode("utf-8", "surrogateescape")) if owner else None,
    }


def source_row(key: Key) -> Row:
    return {"job": key[0], "label": key[1]}


def snapshot_rows(model: Model) -> Iterable[Row]:
    for key, one in model.snapshots.items():
        header = facts_of(key, one).header
        files = [entry for entry in one.entries.values() if entry.kind == FILE and entry.hash]
        yield {
            "snapshot": str(manifest_key(key)),
            **source_row(key),
            **time_of("time", key),
            "host": header.host if header else None,
            "parent": header.parent if header else None,
            "files": len(files),
            "size": sum(entry.nbytes for entry in files),
            "failed": len(one.failed),
            "error": one.error,
        }


def file_rows(model: Model) -> Iterable[Row]:
    for keys, later, entry in model.runs():
        if not later:
            yield {**source_row(keys[0]), **entry_row(entry), **first_row(keys)}


def first_row(keys: list[Key]) -> Row:
    return {"first_snapshot": str(manifest_key(keys[0])), **time_of("first_seen", keys[0])}


def last_row(keys: list[Key]) -> Row:
    return {"last_snapshot": str(manifest_key(keys[-1])), **time_of("last_seen", keys[-1])}


def version_rows(model: Model) -> Iterable[Row]:
    for keys, later, entry in model.runs():
        ended = None
        if later:
            ended = "changed" if entry.path in model.snapshots[later[0]].entries else "deleted"
        is_current = int(not later)
        yield {
            **source_row(keys[0]),
            **entry_row(entry),
            **first_row(keys),
            **last_row(keys),
            "is_current": is_current,
            "ended": ended,
        }


def entry_rows(model: Model) -> Iterable[Row]:
    for key, one in model.snapshots.items():
        for entry in one.entries.values():
            head = {"snapshot": str(manifest_key(key)), **source_row(key), **time_of("time", key)}
            yield {**head, **entry_row(entry)}


def deleted_rows(model: Model) -> Iterable[Row]:
    for keys, later, entry in model.runs():
        if later and not any(entry.path in model.snapshots[key].entries for key in later):
            gone = {"deleted_in": str(manifest_key(later[0])), **time_of("deleted_seen", later[0])}
            yield {**source_row(keys[0]), **entry_row(entry), **last_row(keys), **gone}


def content_rows(model: Model) -> Iterable[Row]:
    found: dict[str, list[tuple[tuple[str, str], Entry]]] = {}
    for keys, _, entry in model.runs():
        if entry.hash:
            found.setdefault(entry.hash, []).append((keys[0][:2], entry))
    for one, versions in found.items():
        paths = {(source, entry.path) for source, entry in versions}
        yield {"hash": one, "size": versions[0][1].nbytes, "paths": len(paths), "versions": len(versions)}


EXPECTED = {
    "snapshots": snapshot_rows,
    "files": file_rows,
    "versions": version_rows,
    "entries": entry_rows,
    "deleted": deleted_rows,
    "contents": content_rows,
}


# --- views against the model


def with_views(index: Index) -> sqlite3.Connection:
    """Make the views in the connection of an index, as each query does in one of its own."""
    for name, (count, function, _) in FUNCTIONS.items():
        index.connection.create_function(name, count, function, deterministic=True)
    for view in VIEWS:
        index.connection.execute(view.statement)
    return index.connection


def rows_of(connection: sqlite3.Connection, view: str) -> list[Row]:
    cursor = connection.execute(f"SELECT * FROM {view}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=repr)


def check(index: Index, connection: sqlite3.Connection, model: Model) -> None:
    for view, expected in EXPECTED.items():
        assert ordered(rows_of(connection, view)) == ordered(expected(model)), view
    assert not index.connection.in_transaction


@settings(max_examples=rounds(100), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.data())
def test_the_views_say_what_the_snapshots_hold_whatever_came_and_went(data: Any) -> None:
    index = open_passing_index("x")
    connection = with_views(index)
    model = Model()
    for _ in range(data.draw(st.integers(1, 9), label="steps")):
        if model.snapshots and data.draw(st.integers(0, 3), label="goes") == 0:
            key = data.draw(st.sampled_from(sorted(model.snapshots)))
            let_go(index, next(one for one in index.snapshots() if one.key == str(manifest_key(key))))
            del model.snapshots[key]
        else:
            job, label = data.draw(st.sampled_from(SOURCES))
            free = [second for second in range(12) if (job, label, second) not in model.snapshots]
            come(data, index, model, (job, label, data.draw(st.sampled_from(free))))
    check(index, connection, model)
    check_anew(data, connection, model)
    index.close()


def come(data: Any, index: Index, model: Model, key: Key) -> None:
    """Take in a snapshot in one of the four ways in which one comes."""
    way = data.draw(st.sampled_from(["whole", "changes", "recorded", "broken"]), label="way")
    if way == "broken":
        model.snapshots[key] = Snapshot({}, error="cut")
        take_in_failed(index, facts_of(key, model.snapshots[key]))
        return
    tree = data.draw(TREES)
    entries = {path: VERSIONS[version]._replace(path=path) for path, version in tree.items()}
    one = model.snapshots[key] = Snapshot(entries, data.draw(FAILED))
    taken = sorted(entries.values(), key=lambda entry: sort_key(entry.path))
    before = [other for earlier, other in model.of_source(key[:2]) if earlier < key]
    earlier = before[-1].entries if before else {}
    changed = [entry for entry in taken if earlier.get(entry.path) != entry]
    removed = [path for path in earlier if path not in entries]
    if way == "whole":
        take_in(index, facts_of(key, one), [*one.failed, *taken])
    elif way == "changes":
        take_in_changes(index, facts_of(key, one), [*one.failed, *changed], removed)
    else:
        record(index, facts_of(key, one), changed, removed, ())


def check_anew(data: Any, connection: sqlite3.Connection, model: Model) -> None:
    """Hold an index that is made anew, in whichever order, to the same answers."""
    anew = open_passing_index("x")
    for key in data.draw(st.permutations(sorted(model.snapshots)), label="anew"):
        one = model.snapshots[key]
        if one.error is not None:
            take_in_failed(anew, facts_of(key, one))
        else:
            take_in(anew, facts_of(key, one), [*one.failed, *one.entries.values()])
    other = with_views(anew)
    for view in VIEWS:
        order = f"SELECT * FROM {view.name} ORDER BY {', '.join(str(n + 1) for n in range(len(view.columns)))}"
        assert other.execute(order).fetchall() == connection.execute(order).fetchall(), view.name
    anew.close()


# --- columns


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_has_the_columns_that_are_told_and_each_is_explained(view: Any) -> None:
    index = open_passing_index("x")
    cursor = with_views(index).execute(f"SELECT * FROM {view.name}")
    assert [column[0] for column in cursor.description] == [column.name for column in view.columns]
    assert len({column.name for column in view.columns}) == len(view.columns)
    assert [column.name for column in view.columns if not column.meaning] == []
    index.close()


def test_the_model_knows_every_view() -> None:
    assert sorted(EXPECTED) == sorted(view.name for view in VIEWS)


# --- paths as text


PATH = st.lists(st.binary(min_size=1, max_size=6).map(lambda raw: raw.replace(b"\0", b"x")), min_size=1).map(b"/".join)


@settings(max_examples=rounds(300))
@given(PATH)
@example(b"\\xff")
@example(b"\xff")
@example(b"\\\\xff\xff")
@example("\\é".encode())
@example(b"\xed\xa0\x80")
def test_the_text_of_a_path_leads_back_to_its_bytes(raw: bytes) -> None:
    text = path_text(sort_key(raw))
    assert text is not None
    assert text == shown(raw)
    assert raw_of_text(text) == raw
    assert path_key(text) == sort_key(raw)
    assert path_raw(sort_key(raw)) == raw
    text.encode()


@settings(max_examples=rounds(300))
@given(st.text(alphabet="\\xf1/aé\udcff"))
def test_any_text_is_some_path(text: str) -> None:
    raw = raw_of_text(text)
    assert raw_of_text(str(path_text(raw))) == raw


@settings(max_examples=rounds(300))
@given(
    st.lists(st.text(alphabet="\\xf0aé\udcff").map(lambda text: text.encode("utf-8", "surrogateescape")), unique=True)
)
def test_no_two_paths_have_one_text(paths: list[bytes]) -> None:
    assert len({path_text(raw) for raw in paths}) == len(paths)


@pytest.mark.parametrize(
    ("path", "depth", "head"),
    [
        (b"a", 1, "."),
        (b"a/b", 0, "."),
        (b"a/b", 1, "a"),
        (b"a/b/c", 1, "a"),
        (b"a/b/c", 2, "a/b"),
        (b"a/b/c", 9, "a/b"),
        (b"\xff/b", 1, "\\xff"),
    ],
)
def test_the_head_of_a_path_is_its_directory_cut_at_a_depth(path: bytes, depth: int, head: str) -> None:
    assert path_head(sort_key(path), depth) == head
