"""Spans: what is found with them is what is found row by row, whatever happened to the tree and to the index."""

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu import spans
from s3bu.compare import NEW, REMOVED, UNMODIFIED, Difference, Trust, compare
from s3bu.filters import Filters
from s3bu.history import Facts, keep_seen, let_go, record
from s3bu.index import Index, open_passing_index
from s3bu.manifest import FILE, Entry
from s3bu.progress import Failure
from s3bu.repository.layout import ManifestKey
from s3bu.scan import Scan
from s3bu.scan.found import entries
from s3bu.spans import Unmodified, compare_spans, renew
from tests.fakes import without_override

_TRUST = Trust(2**62)
_HASH = "ab" * 32


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spans short, so that a small tree has many."""
    monkeypatch.setattr(spans, "COUNT", 3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of 24 files in 3 directories, and a link."""
    root = tmp_path / "source"
    for directory in "bdf":
        (root / directory).mkdir(parents=True)
        for name in "01234567":
            (root / directory / name).write_text(name)
    (root / "e").symlink_to("b")
    return root


@pytest.fixture
def index(root: Path) -> Index:
    """An index that knows the tree as it is."""
    index = open_passing_index("there")
    take(index, root, 1)
    renew(index, 1)
    return index


def scan(root: Path) -> Scan:
    return Scan(os.fsencode(root), Filters())


def key(number: int) -> ManifestKey:
    return ManifestKey("job", "label", date(2026, 1, 1), number)


def take(index: Index, root: Path, number: int) -> None:
    """Record the tree as the snapshot of that number."""
    index.source("job", "label")
    found = [one for one in entries(scan(root)) if isinstance(one, Entry)]
    known = [entry._replace(hash=_HASH) if entry.kind == FILE else entry for entry in found]
    gone = {entry.path for entry in index.currents(1)} - {entry.path for entry in known}
    record(index, Facts(key(number), "", datetime(2026, 1, 1, tzinfo=UTC)), known, gone, known)


def found(index: Index, root: Path) -> tuple[list[Difference | Failure], int]:
    """Return all that differs, and how many entries were never looked at one by one."""
    items = list(compare_spans(index, 1, scan(root), _TRUST))
    skipped = sum(item.nentries for item in items if isinstance(item, Unmodified))
    return [item for item in items if not isinstance(item, Unmodified)], skipped


def different(items: list[Difference | Failure]) -> list[tuple[str, bytes]]:
    return [
        (item.status, (item.entry or item.previous).path)  # type: ignore[union-attr]
        for item in items
        if isinstance(item, Difference) and item.status != UNMODIFIED
    ]


def test_nothing_is_looked_at_where_nothing_is_different(index: Index, root: Path) -> None:
    assert found(index, root) == ([], 28)


def test_what_an_unmodified_span_holds_is_counted(index: Index, root: Path) -> None:
    items = [item for item in compare_spans(index, 1, scan(root), _TRUST) if isinstance(item, Unmodified)]
    assert (sum(item.nfiles for item in items), sum(item.nbytes for item in items)) == (24, 24)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "b" / "3").write_text("another"),
        lambda root: (root / "b" / "3").chmod(0o600),
        lambda root: os.utime(root / "b" / "3", ns=(5, 5)),
        lambda root: (root / "b").chmod(0o700),
        lambda root: ((root / "e").unlink(), (root / "e").symlink_to("d")),
    ],
)
def test_a_change_is_seen_and_the_other_spans_are_not_looked_at(index: Index, root: Path, change: Any) -> None:
    change(root)
    items, skipped = found(index, root)
    assert (len(different(items)), skipped) == (1, 25)


def test_a_file_replaced_by_another_with_the_same_size_and_time_is_seen(index: Index, root: Path) -> None:
    before = (root / "b" / "3").stat()
    (root / "b" / "new").write_text("x")
    os.utime(root / "b" / "new", ns=(before.st_mtime_ns, before.st_mtime_ns))
    (root / "b" / "new").rename(root / "b" / "3")
    items, _ = found(index, root)
    assert different(items) == [("changed", b"b/3")]


def test_new_and_removed_paths_do_not_disturb_the_spans_behind_them(index: Index, root: Path) -> None:
    (root / "a").write_text("new")
    (root / "d" / "0").unlink()
    (root / "z").write_text("new")
    items, skipped = found(index, root)
    assert different(items) == [(NEW, b"a"), (REMOVED, b"d/0"), (NEW, b"z")]
    assert skipped == 22


def test_a_file_that_was_racy_is_looked_at_again(index: Index, root: Path) -> None:
    (entry,) = (one for one in index.currents(1) if one.path == b"d/4")
    assert entry.seen is not None
    keep_seen(index, 1, [entry._replace(seen=entry.seen._replace(ctime_ns=0, inode=0, device=0))])
    renew(index, 1)
    assert different(found(index, root)[0]) == [("changed", b"d/4")]


def test_what_cannot_be_looked_at_is_carried_beyond_its_span(index: Index, root: Path) -> None:
    (root / "d").chmod(0)
    with without_override():
        items, skipped = found(index, root)
    assert [item for item in items if isinstance(item, Failure)] == [Failure(b"d", "permission denied")]
    assert [path for _, path in different(items)] == [b"d", *(b"d/%d" % number for number in range(8))]
    assert {status for status, _ in different(items)} == {"carried"}
    assert skipped == 9


def test_files_that_fail_again_and_again_are_told_each_time(index: Index, root: Path) -> None:
    (root / "d").chmod(0o444)
    with without_override():
        carried = [item.entry for item in found(index, root)[0] if isinstance(item, Difference) and item.entry]
        record(index, Facts(key(2), "", datetime(2026, 1, 1, tzinfo=UTC)), carried, (), ())
        renew(index, 1)
        items, _ = found(index, root)
    assert [item.path for item in items if isinstance(item, Failure)] == [b"d/%d" % number for number in range(8)]


def test_many_new_paths_in_one_place_are_not_held_in_memory(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "_MOST_TAKEN", 10)
    for number in range(30):
        (root / "b" / f"3.{number:02d}").write_text("new")
    walked = 0

    def counted() -> Iterator[Any]:
        nonlocal walked
        for item in scan(root):
            walked += 1
            yield item

    for item in compare_spans(index, 1, counted(), _TRUST):
        if isinstance(item, Difference) and item.status == NEW:
            break
    assert walked <= 15


def test_an_index_that_changed_by_itself_is_compared_row_by_row(index: Index, root: Path) -> None:
    (root / "b" / "3").write_text("another")
    take(index, root, 2)
    (newest,) = (one for one in index.snapshots() if one.number == max(each.number for each in index.snapshots()))
    renew(index, 1)
    assert found(index, root) == ([], 28)
    let_go(index, newest)
    assert different(found(index, root)[0]) == [("changed", b"b/3")]


def test_spans_are_as_long_again_after_much_was_removed(index: Index, root: Path) -> None:
    for number in range(2, 60):
        (root / f"z{number}").write_text("new")
        take(index, root, number)
        renew(index, 1)
    (count,) = index.connection.execute("SELECT count(*) FROM span").fetchone()
    assert count <= 2 * 86 / 3 + 10
    assert found(index, root) == ([], 86)


_NAMES = st.sampled_from(["a", "a.b", "b", "c", "d", "e"])
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "chmod", "take", "renew", "let go"]),
        st.lists(_NAMES, min_size=1, max_size=3).map("/".join),
    ),
    max_size=25,
)


def change(root: Path, index: Index, step: str, path: Path, number: int) -> None:
    if step == "write" and not any(parent.is_file() for parent in path.parents) and not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    elif step == "remove" and path.is_file():
        path.unlink()
    elif step == "chmod" and path.exists():
        path.chmod(0o700 + number % 8)
    elif step == "take":
        take(index, root, number)
    elif step == "renew":
        renew(index, 1)
    elif step == "let go" and index.snapshots():
        let_go(index, index.snapshots()[number % len(index.snapshots())])


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_with_spans_is_found_what_is_found_without(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(spans, "COUNT", 2)
        root = Path(directory)
        index = open_passing_index("there")
        take(index, root, 0)
        for number, (step, name) in enumerate(steps, 1):
            change(root, index, step, root / name, number)
            items, skipped = found(index, root)
            one_by_one = list(compare(entries(scan(root)), index.currents(1), _TRUST))
            assert different(items) == different(one_by_one)
            assert skipped + len(items) == len(one_by_one)
