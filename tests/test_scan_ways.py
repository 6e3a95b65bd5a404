"""A walk of directories alone, to some paths and below them, lists each directory on the way once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3bu.filters import Filters
from s3bu.scan import Scan
from s3bu.scan.ways import outermost, ways_to
from s3bu.selection import Selection

NAMES = st.sampled_from([b"a", b"b", b"a-b", b"a.b"])
PATHS = st.lists(NAMES, max_size=4).map(b"/".join)


class Met:
    """Keeps the directories that it is told of."""

    def __init__(self) -> None:
        self.paths: list[bytes] = []

    def directory(self, path: bytes, descriptor: int, status: os.stat_result, /) -> None:
        assert os.fstat(descriptor).st_ino == status.st_ino
        self.paths.append(path)

    def linked(self, path: bytes, /) -> None:
        raise AssertionError(f"{path!r} is no directory")


def met(root: Path, *tops: bytes, filters: Filters | None = None) -> list[bytes]:
    witness = Met()
    Scan(os.fsencode(root), filters or Filters(), witness=witness).directories(*tops)
    return witness.paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for path in ("a/b/c", "a/d", "e/f", "g"):
        (root / path).mkdir(parents=True)
        (root / path / "file").touch()
    os.link(root / "g" / "file", root / "e" / "linked")
    return root


def test_below_the_source_all_directories_are_met(root: Path) -> None:
    assert met(root, b"") == [b"", b"a", b"a/b", b"a/b/c", b"a/d", b"e", b"e/f", b"g"]


def test_to_one_path_the_way_and_all_below_it_are_met(root: Path) -> None:
    assert met(root, b"a/b") == [b"", b"a", b"a/b", b"a/b/c"]


def test_to_several_paths_what_they_share_is_met_once(root: Path) -> None:
    assert met(root, b"e", b"a/d", b"a/b/c") == [b"", b"a", b"a/b", b"a/b/c", b"a/d", b"e", b"e/f"]


def test_a_path_below_another_one_adds_nothing(root: Path) -> None:
    assert met(root, b"a", b"a/b/c") == [b"", b"a", b"a/b", b"a/b/c", b"a/d"]


@pytest.mark.parametrize("path", [b"nowhere", b"a/nowhere/b", b"g/file", b"e/linked"])
def test_what_is_no_directory_is_not_met(root: Path, path: bytes) -> None:
    assert path not in met(root, path, b"e")
    assert b"e/f" in met(root, path, b"e")


@pytest.mark.parametrize(
    ("filters", "file"),
    [
        (Filters(skip_dir_items=(b"mark",)), "mark"),
        (Filters(selection=Selection(ignore_files=(b"mark",))), "mark"),
        (Filters(selection=Selection(has_cachedir_tag=True)), "CACHEDIR.TAG"),
    ],
)
def test_files_that_decide_are_seen_though_files_are_not(root: Path, filters: Filters, file: str) -> None:
    (root / "a" / file).write_text("Signature: 8a477f597d28d172789f06886806bc55\nb\nd\n")
    assert met(root, b"", filters=filters) == [b"", b"a", b"e", b"e/f", b"g"]


@given(st.lists(PATHS, min_size=1))
def test_the_outermost_of_some_paths_hold_all_others_and_not_each_other(paths: list[bytes]) -> None:
    found = outermost(paths)
    assert all(any(is_at_or_below(path, top) for top in found) for path in paths)
    assert not any(one != other and is_at_or_below(one, other) for one in found for other in found)


@given(st.lists(PATHS, min_size=1))
def test_the_ways_lead_to_each_of_the_outermost_paths(paths: list[bytes]) -> None:
    ways, waiting, reached = ways_to(paths), [b""], []
    while waiting:
        path = waiting.pop()
        if path not in ways:
            reached.append(path)
        waiting += [path + b"/" + name if path else name for name in ways.get(path, ())]
    assert sorted(reached) == sorted(outermost(paths))


def is_at_or_below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")
