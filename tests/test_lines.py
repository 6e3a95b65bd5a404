"""The lines of a manifest: those that were kept are used as they are, and the manifest is the same without them."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu import spans
from s3bu.compression import gzip_member
from s3bu.manifest import Entry, format_entry
from s3bu.spans import kept_lines
from tests.fakes import OLD, World, without_override
from tests.test_backup.runs import back_up, run

_CROWD = [f"{directory}/{number}" for directory in "bdf" for number in range(8)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spans short, so that a small tree has many."""
    monkeypatch.setattr(spans, "COUNT", 3)


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files as they are, also those written just before the scan: spans of racy ones are compared row by row."""
    monkeypatch.setattr("s3bu.draft.RACY_NS", -(10**13))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A tree of 24 files in 3 directories, backed up."""
    world = World.make(tmp_path)
    for directory in "bdf":
        for number in range(8):
            world.write(f"{directory}/{number}", b"%d" % number)
    back_up(world)
    return world


def formatted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list to which the path of each entry is added that is formatted from now on."""
    paths: list[bytes] = []

    def noted(entry: Entry, *, is_carried_forward: bool = False) -> bytes:
        paths.append(entry.path)
        return format_entry(entry, is_carried_forward=is_carried_forward)

    monkeypatch.setattr("s3bu.lines.format_entry", noted)
    return paths


def newest_lines(world: World) -> list[bytes]:
    return world.manifest_lines(world.manifest_keys()[-1])


def lines_of_all(world: World) -> list[bytes]:
    """Return what the index says of the newest snapshot, formatted anew."""
    with closing(world.index()) as index:
        lines = b"".join(map(format_entry, index.currents(1)))
    return lines.splitlines(keepends=True)


def test_only_what_changed_is_formatted_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories in which something came or went have another time."""
    paths = formatted(monkeypatch)
    world.write("b/new", b"new")
    (world.source / "f" / "2").unlink()
    back_up(world)
    assert paths == [b"b", b"b/new", b"f"]
    assert newest_lines(world) == lines_of_all(world)


def test_lines_are_kept_of_every_span(world: World) -> None:
    with closing(world.index()) as index:
        assert len(spans.spans(index, 1)) == 9
        assert all(kept_lines(index, 1, span) for span in spans.spans(index, 1))


def test_a_failure_is_told_only_as_long_as_it_lasts(world: World) -> None:
    (world.source / "d" / "3").write_text("changed and unreadable")
    (world.source / "d" / "3").chmod(0)
    with without_override():
        (outcome,), _ = run(world)
    assert [failure.path for failure in outcome.failures] == [b"d/3"]
    failed = [line for line in newest_lines(world) if line.startswith(b"@fail")]
    assert [line.split()[1] for line in failed] == [b"path=d%2F3"]
    (world.source / "d" / "3").chmod(0o644)
    back_up(world)
    assert newest_lines(world) == lines_of_all(world)


def test_a_time_of_nought_keeps_its_second_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("b/3", b"of 1970", mtime=0)
    back_up(world)
    paths = formatted(monkeypatch)
    world.write("b/4", b"changed", mtime=OLD + 1)
    back_up(world)
    assert b"b/3" not in paths
    assert newest_lines(world) == lines_of_all(world)
    assert [line for line in newest_lines(world) if line.startswith(b"@meta")] == [
        b"@meta path=b%2F3 mtime=0.000000000\n"
    ]


@pytest.mark.parametrize("spoilt", [b"no gzip", gzip_member(b"1,2,0644,aa,b\n"), gzip_member(b"")])
@pytest.mark.parametrize("name", ["b/3", "f/7"])
def test_kept_lines_that_do_not_belong_there_are_damage_of_the_index(world: World, spoilt: bytes, name: str) -> None:
    with closing(world.index()) as index:
        index.connection.execute("UPDATE span SET lines = ?", (spoilt,))
    world.write(name, b"changed", mtime=OLD + 1)
    with pytest.raises(sqlite3.DatabaseError, match="kept lines do not belong to their entries"):
        run(world)
    assert len(world.manifest_keys()) == 1


_NAMES = st.sampled_from(["a", "a.b", "b", "c", "d", "e"])
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "chmod", "nought", "back up"]),
        st.lists(_NAMES, min_size=1, max_size=2).map("/".join),
    ),
    max_size=15,
)


def change(world: World, step: str, path: Path, number: int) -> None:
    is_free = not any(parent.is_file() for parent in path.parents) and not path.is_dir()
    if step in ("write", "nought") and is_free:
        mtime = 0 if step == "nought" else OLD + number
        world.write(str(path.relative_to(world.source)), b"%d" % number, mtime=mtime)
    elif step == "remove" and path.is_file():
        path.unlink()
    elif step == "chmod" and path.exists():
        path.chmod(0o700 + number % 8)


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_each_manifest_says_what_the_index_says(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(spans, "COUNT", 2)
        world = World.make(Path(directory))
        for number, (step, name) in enumerate(steps, 1):
            change(world, step, world.source / name, number)
            if step == "back up":
                back_up(world)
                assert newest_lines(world) == lines_of_all(world)
