"""Directories that come, go and move: what is watched is what is there, and all below them is dirty."""

import ctypes
import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from tests.rounds import rounds
from tests.test_watch.living import Living

_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Let two paths change places in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _EXCHANGE)
    assert done == 0, os.strerror(ctypes.get_errno())


def test_a_new_directory_is_watched_and_dirty_with_all_below_it(watched: Living, root: Path) -> None:
    (root / "a" / "new").mkdir()
    assert watched.dirty() == {b"a/new": True}
    watched.check()
    (root / "a" / "new" / "file").write_text("x")
    assert watched.dirty() == {b"a/new/file": False}


def test_directories_that_are_made_in_one_go_are_all_watched(watched: Living, root: Path) -> None:
    for number in range(30):
        deep = root / f"{number}" / "x" / "y" / "z"
        deep.mkdir(parents=True)
        (deep / "file").write_text("x")
    dirty = watched.dirty()
    assert all(dirty[f"{number}".encode()] for number in range(30))
    watched.check()


def test_a_thousand_directories_in_one_are_watched_without_listing_it_for_each(watched: Living, root: Path) -> None:
    for number in range(1000):
        (root / "a" / f"{number}").mkdir()
    watched.dirty()
    watched.check()


def test_a_directory_that_moves_is_watched_under_its_new_path_with_all_below_it(watched: Living, root: Path) -> None:
    (root / "a").rename(root / "z")
    dirty = watched.dirty()
    assert dirty == {b"a": True, b"z": True}
    watched.check()
    (root / "z" / "b" / "two.txt").write_text("other")
    assert watched.dirty() == {b"z/b/two.txt": False}


def test_a_directory_that_moves_twice_and_back_is_watched(watched: Living, root: Path) -> None:
    (root / "a").rename(root / "y")
    (root / "y").rename(root / "z")
    watched.dirty()
    watched.check()
    (root / "z").rename(root / "a")
    watched.dirty()
    watched.check()
    (root / "a" / "b" / "two.txt").write_text("other")
    assert watched.dirty() == {b"a/b/two.txt": False}


def test_a_directory_that_moves_into_another_is_watched(watched: Living, root: Path) -> None:
    (root / "c").mkdir()
    (root / "a").rename(root / "c" / "a")
    (root / "c").rename(root / "d")
    watched.dirty()
    watched.check()


def test_a_directory_that_moves_out_is_watched_no_more(watched: Living, root: Path, tmp_path: Path) -> None:
    (root / "a").rename(tmp_path / "outside")
    assert watched.dirty() == {b"a": True}
    watched.check()
    (tmp_path / "outside" / "b" / "two.txt").write_text("other")
    assert watched.dirty() == {}


def test_a_directory_that_moves_in_is_watched_with_all_below_it(watched: Living, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "outside").rename(root / "in")
    assert watched.dirty() == {b"in": True}
    watched.check()


def test_two_directories_that_change_places_are_both_dirty(watched: Living, root: Path) -> None:
    (root / "c" / "inner").mkdir(parents=True)
    watched.dirty()
    exchange(root / "a", root / "c")
    assert watched.dirty() == {b"a": True, b"c": True}
    watched.check()
    (root / "a" / "inner" / "new").write_text("x")
    assert watched.dirty() == {b"a/inner/new": False}


def test_a_directory_and_a_file_that_change_places_are_both_dirty(watched: Living, root: Path) -> None:
    exchange(root / "a", root / "top.txt")
    dirty = watched.dirty()
    assert dirty.keys() == {b"a", b"top.txt"}
    assert dirty[b"top.txt"]
    watched.check()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_directory_that_something_else_takes_the_place_of_is_watched_no_more(
    watched: Living, root: Path, tmp_path: Path, kind: str
) -> None:
    (root / "a").rename(tmp_path / "outside")
    if kind == "file":
        (root / "a").write_text("x")
    else:
        (root / "a").symlink_to(tmp_path / "outside")
    assert watched.dirty() == {b"a": True}
    watched.check()
    (tmp_path / "outside" / "new").write_text("x")
    assert watched.dirty() == {}


def test_a_directory_that_is_removed_is_forgotten_and_watched_again_when_it_comes_again(
    watched: Living, root: Path
) -> None:
    shutil.rmtree(root / "a")
    assert watched.dirty()[b"a"]
    watched.check()
    (root / "a" / "b").mkdir(parents=True)
    assert watched.dirty()[b"a"]
    watched.check()


def test_the_mode_of_a_directory_is_told(watched: Living, root: Path) -> None:
    (root / "a").chmod(0o700)
    assert watched.dirty() == {b"a": False}
    watched.check()


def test_to_let_go_of_a_directory_the_rest_is_not_looked_at(watched: Living, root: Path) -> None:
    node = watched.tree._sources._sources[1].top
    (root / "a" / "deep").mkdir()
    watched.settle()
    found = node.find(b"a/deep")
    assert found is not None
    assert [one.name for one in found.all()] == [b"deep"]


def test_whatever_a_storm_does_what_is_watched_in_the_end_is_what_is_there(
    watched: Living, root: Path, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(rounds(20)):
        threads = [
            threading.Thread(target=_storm, args=(random.Random(chance.random()), root, tmp_path / f"out{number}"))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watched.take()
        for thread in threads:
            thread.join()
        watched.settle()
        try:
            watched.check()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def _storm(chance: random.Random, root: Path, outside: Path) -> None:
    """Make, move and remove directories at random; what does not work does not."""
    outside.mkdir(exist_ok=True)
    names = ["a", "b", "c", "d"]
    for _ in range(150):
        one, other = (
            Path(root if chance.random() < 0.9 else outside, *chance.choices(names, k=chance.randint(1, 4)))
            for _ in range(2)
        )
        try:
            match chance.randrange(6):
                case 0 | 1:
                    one.mkdir(parents=True, exist_ok=True)
                case 2:
                    one.rename(other)
                case 3:
                    exchange(one, other)
                case 4:
                    shutil.rmtree(one)
                case 5:
                    one.write_text("x")
        except (OSError, AssertionError):
            pass
