"""What says what is left out lies in the tree itself: when it changes, what is watched does too."""

import os
from pathlib import Path

import pytest

from s3bu.filters import Filters
from s3bu.selection import Selection
from tests.test_watch.living import watching

IGNORING = Filters(selection=Selection(ignore_files=(b".ignore",)))
TAGGED = Filters(selection=Selection(has_cachedir_tag=True))
SKIPPING = Filters(skip_dir_items=(b".nobackup",))
TAG = "Signature: 8a477f597d28d172789f06886806bc55"


def test_an_ignore_file_decides_about_what_is_watched_below_it(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, IGNORING) as watched:
        (root / "a" / ".ignore").write_text("b/\n")
        assert watched.dirty() == {b"a": True, b"a/.ignore": False}
        watched.check(without=("b",))
        (root / "a" / ".ignore").unlink()
        assert watched.dirty()[b"a"]
        watched.check()


def test_an_ignore_file_of_the_source_itself_decides_about_all_of_it(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, IGNORING) as watched:
        (root / ".ignore").write_text("b/\n")
        assert watched.reasons() == ["'.ignore' changed, by which paths are left out"]
        watched.check(without=("b",))
        (root / ".ignore").write_text("nothing\n")
        assert watched.dirty()[b""]
        watched.check()


def test_an_ignore_file_that_an_editor_renames_into_its_place_decides(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, IGNORING) as watched:
        (root / "a" / "temporary").write_text("b/\n")
        (root / "a" / "temporary").rename(root / "a" / ".ignore")
        assert watched.dirty()[b"a"]
        watched.check(without=("b",))


@pytest.mark.parametrize("kind", ["file", "directory", "link", "moved directory"])
def test_an_item_for_which_a_directory_is_skipped_decides_whatever_it_is(tmp_path: Path, root: Path, kind: str) -> None:
    item = root / "a" / ".nobackup"
    (root / "elsewhere").mkdir()
    with watching(tmp_path / "home", root, SKIPPING) as watched:
        match kind:
            case "file":
                item.write_text("")
            case "directory":
                item.mkdir()
            case "link":
                item.symlink_to("nowhere")
            case "moved directory":
                (root / "elsewhere").rename(item)
        assert watched.dirty()[b"a"]
        assert b"a/b" not in watched.watched()
        if item.is_dir():
            item.rmdir()
        else:
            item.unlink()
        assert watched.dirty()[b"a"]
        watched.check()


def test_what_is_written_into_such_an_item_does_not_decide(tmp_path: Path, root: Path) -> None:
    (root / "a" / ".nobackup").touch()
    with watching(tmp_path / "home", root, SKIPPING) as watched:
        (root / "a" / ".nobackup").write_text("x")
        assert watched.dirty() == {b"a/.nobackup": False}


def test_an_item_in_the_source_itself_leaves_nothing_until_it_is_gone(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, SKIPPING) as watched:
        (root / ".nobackup").touch()
        assert watched.reasons() == ["'.nobackup' changed, by which paths are left out"]
        assert set(watched.watched()) <= {b""}
        (root / ".nobackup").unlink()
        assert watched.dirty()[b""]
        watched.check()


def test_the_tag_of_a_cache_decides(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, TAGGED) as watched:
        (root / "a" / "CACHEDIR.TAG").write_text(TAG)
        assert watched.dirty()[b"a"]
        assert b"a/b" not in watched.watched()
        with open(root / "a" / "CACHEDIR.TAG", "r+") as file:
            file.write("no longer")
        assert watched.dirty()[b"a"]
        watched.check()


def test_names_that_decide_nothing_are_files_like_others(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root) as watched:
        for name in (".ignore", ".nobackup", "CACHEDIR.TAG"):
            (root / "a" / name).write_text(TAG)
        assert not any(watched.dirty().values())
        watched.check()


def test_directories_that_are_left_out_by_name_are_not_watched(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, Filters(skip_dirs=(b"b",))) as watched:
        (root / "x" / "b" / "y").mkdir(parents=True)
        watched.dirty()
        watched.check(without=("b",))


def test_a_directory_that_a_pattern_leaves_out_is_not_watched(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, Filters(selection=Selection(exclude=(b"/a/b",)))) as watched:
        assert set(watched.watched()) == {b"", b"a"}
        os.mkdir(root / "a" / "b" / "new")
        assert watched.dirty() == {}


def test_what_only_the_job_leaves_out_makes_nothing_dirty(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, Filters(selection=Selection(exclude=(b"*.o", b"build/")))) as watched:
        (root / "a" / "x.o").write_text("x")
        (root / "a" / "build").mkdir()
        (root / "a" / "build").chmod(0o700)
        (root / "a" / "build" / "x").write_text("x")
        assert watched.dirty() == {}
        (root / "build").write_text("a file is not left out")
        assert watched.dirty() == {b"build": False}


def test_what_an_ignore_file_might_take_back_in_is_told(tmp_path: Path, root: Path) -> None:
    filters = Filters(selection=Selection(exclude=(b"*.o",), ignore_files=(b".ignore",)))
    (root / "a" / ".ignore").write_text("!x.o\n")
    with watching(tmp_path / "home", root, filters) as watched:
        (root / "a" / "x.o").write_text("x")
        assert watched.dirty() == {b"a/x.o": False}
