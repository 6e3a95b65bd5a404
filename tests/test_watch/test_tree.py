"""What changes in a watched source is told, by its path, and nothing else is."""

import mmap
import os
import shutil
import time
from pathlib import Path

import pytest

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.scan import Scan
from s3bu.watch.tree import Tree
from tests.test_watch.living import SECONDS, Living, watching


def test_a_source_that_begins_to_be_watched_has_to_be_looked_at_whole(idle: Living) -> None:
    idle.tree.start()
    idle.add()
    assert idle.reasons() == ["the watcher started after the last full scan"]
    idle.check()


def test_sources_may_be_added_before_the_tree_is_started(idle: Living, root: Path) -> None:
    idle.add()
    (root / "a" / "new").write_text("x")
    idle.tree.start()
    assert b"a/new" in idle.dirty()
    idle.check()


@pytest.mark.parametrize("directory", ["", "a/", "a/b/"])
def test_a_new_file_is_told_wherever_it_lies(watched: Living, root: Path, directory: str) -> None:
    (root / f"{directory}new").write_text("x")
    assert watched.dirty() == {f"{directory}new".encode(): False}


def test_a_write_is_told_before_the_file_is_closed(watched: Living, root: Path) -> None:
    with open(root / "a" / "one.txt", "ab", buffering=0) as file:
        file.write(b"more")
        assert watched.dirty() == {b"a/one.txt": False}


def test_a_truncation_by_path_is_told(watched: Living, root: Path) -> None:
    os.truncate(root / "a" / "one.txt", 2)
    assert watched.dirty() == {b"a/one.txt": False}


def test_a_file_that_was_written_through_a_map_is_told_when_it_is_closed(watched: Living, root: Path) -> None:
    with open(root / "a" / "one.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"X"
    assert watched.dirty() == {b"a/one.txt": False}


def test_a_mode_and_a_time_are_told(watched: Living, root: Path) -> None:
    (root / "a" / "one.txt").chmod(0o600)
    assert watched.dirty() == {b"a/one.txt": False}
    os.utime(root / "a" / "b" / "two.txt", (1, 1))
    assert watched.dirty() == {b"a/b/two.txt": False}


def test_a_removed_file_is_told(watched: Living, root: Path) -> None:
    (root / "a" / "one.txt").unlink()
    assert watched.dirty() == {b"a/one.txt": False}


def test_both_ends_of_a_rename_are_told(watched: Living, root: Path) -> None:
    (root / "top.txt").rename(root / "a" / "b" / "bottom.txt")
    assert watched.dirty() == {b"top.txt": False, b"a/b/bottom.txt": False}


def test_an_editor_that_renames_what_it_wrote_over_the_file_is_told(watched: Living, root: Path) -> None:
    with open(root / "a" / ".one.swp", "wb") as file:
        file.write(b"x")
        os.fsync(file.fileno())
    (root / "a" / ".one.swp").rename(root / "a" / "one.txt")
    assert watched.dirty() == {b"a/.one.swp": False, b"a/one.txt": False}


def test_links_and_what_is_no_file_are_told(watched: Living, root: Path) -> None:
    (root / "a" / "link").symlink_to("one.txt")
    os.mkfifo(root / "a" / "pipe")
    os.link(root / "top.txt", root / "a" / "hard")
    assert watched.dirty() == {b"a/link": False, b"a/pipe": False, b"a/hard": False}


def test_names_are_bytes(watched: Living, root: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", "é".encode(), b" ", b"n" * 255]
    for name in names:
        os.close(os.open(os.fsencode(root) + b"/a/" + name, os.O_CREAT | os.O_WRONLY))
    assert watched.dirty() == {b"a/" + name: False for name in names}


def test_reading_makes_no_event(watched: Living, root: Path) -> None:
    for path in (path for path in root.rglob("*") if path.is_file()):
        path.read_bytes()
    list(Scan(os.fsencode(root), Filters()))
    os.listdir(root / "a")
    assert watched.dirty() == {}


def test_nothing_outside_of_the_source_is_told(watched: Living, tmp_path: Path) -> None:
    (tmp_path / "beside").write_text("x")
    assert watched.dirty() == {}


def test_a_cookie_comes_behind_all_that_happened_before_it(watched: Living, root: Path) -> None:
    for number in range(200):
        (root / "a" / f"{number}").write_text("x")
    (watched.journal.cookies / "cookie").touch()
    for number in range(200):
        (root / "a" / f"later{number}").write_text("x")
    watched.await_cookie("cookie")
    told = {one.path for one in watched.journal.dirty(1)}
    assert {f"a/{number}".encode() for number in range(200)} <= told


def test_a_cookie_is_answered_once(watched: Living) -> None:
    (watched.journal.cookies / "cookie").touch()
    os.utime(watched.journal.cookies / "cookie")
    (watched.journal.cookies / "cookie").unlink()
    watched.settle()
    assert [name for batch in watched.taken for name in batch.cookies].count("cookie") == 1


def test_cookies_are_answered_when_their_directory_was_made_anew(watched: Living) -> None:
    shutil.rmtree(watched.journal.cookies)
    watched.tree.look_again()
    watched.journal.cookies.mkdir()
    deadline = time.monotonic() + SECONDS
    while not [name for batch in watched.taken[-50:] for name in batch.cookies if name.startswith("anew")]:
        watched.tree.look_again()
        (watched.journal.cookies / f"anew{time.monotonic_ns()}").touch()
        time.sleep(0.05)
        watched.take()
        assert time.monotonic() < deadline, "no cookie came back"
    watched.settle()


def test_the_caller_is_woken_once_until_it_takes(watched: Living, root: Path) -> None:
    watched.take()
    before = watched.nwoken
    for number in range(50):
        (root / f"{number}").touch()
    deadline = time.monotonic() + SECONDS
    while watched.nwoken == before and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert watched.nwoken == before + 1
    assert not watched.take().is_empty
    (root / "one more").touch()
    watched.settle()
    assert watched.nwoken > before + 1


def test_two_sources_that_overlap_are_both_told(watched: Living, root: Path) -> None:
    inner = watched.add(root / "a", label="inner")
    watched.dirty(inner)
    watched.dirty()
    (root / "a" / "b" / "new").write_text("x")
    assert watched.dirty() == {b"a/b/new": False}
    assert watched.dirty(inner) == {b"b/new": False}
    watched.check()
    watched.check(inner, root / "a")


def test_a_source_that_is_removed_is_watched_no_more_and_others_are(watched: Living, root: Path) -> None:
    inner = watched.add(root / "a", label="inner")
    watched.dirty()
    watched.tree.remove(1)
    (root / "top.txt").write_text("x")
    (root / "a" / "new").write_text("x")
    assert watched.dirty() == {}
    assert b"new" in watched.dirty(inner)
    watched.check(inner, root / "a")
    deadline = time.monotonic() + SECONDS
    while len(watched.heard()) > 3:  # two of the source, and that of the cookies
        assert time.monotonic() < deadline, "the kernel still watches what nobody needs"
        time.sleep(0.01)


def test_the_directory_of_the_cookies_may_lie_in_the_source(tmp_path: Path, root: Path) -> None:
    with watching(root / "home", root) as watched:
        watched.check()
        (watched.journal.cookies / "cookie").touch()
        watched.await_cookie("cookie")
        path = os.path.relpath(watched.journal.cookies / "cookie", root).encode()
        assert path in watched.dirty()
        (watched.journal.cookies / "cookie").write_text("x")
        assert path in watched.dirty()


def test_a_file_that_is_left_out_by_its_name_makes_nothing_dirty(tmp_path: Path, root: Path) -> None:
    filters = Filters(exclude_extensions=(b"tmp",), skip_dirs=(b"cache",))
    (root / "cache").mkdir()
    with watching(tmp_path / "home", root, filters) as watched:
        (root / "a" / "x.tmp").write_text("x")
        (root / "cache" / "x").write_text("x")
        (root / "a" / "cache").mkdir()
        assert watched.dirty() == {}
        watched.check(without=("cache",))


def test_a_directory_is_watched_whatever_a_file_of_its_name_would_be(tmp_path: Path, root: Path) -> None:
    with watching(tmp_path / "home", root, Filters(exclude_extensions=(b"tmp",))) as watched:
        (root / "x.tmp").mkdir()
        assert watched.dirty() == {b"x.tmp": True}
        (root / "x.tmp" / "file").write_text("x")
        assert watched.dirty() == {b"x.tmp/file": False}


def test_it_closes_with_what_it_holds_open_whether_it_was_started_or_not(tmp_path: Path, idle: Living) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for is_started in (True, False):
        tree = Tree(idle.journal.cookies, lambda: None)
        if is_started:
            tree.start()
        tree.add(1, os.fsencode(idle.root), Filters(), {})
        tree.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_closes_in_the_middle_of_a_walk(watched: Living, root: Path) -> None:
    for number in range(3000):
        (root / f"{number}").mkdir()
    watched.settle()
    watched.tree._sources.doubt_all("a doubt")
    watched.tree._inotify.poke()
    deadline = time.monotonic() + SECONDS
    while watched.tree.counts(1).nwatched in (0, 3003):
        assert time.monotonic() < deadline
    watched.tree.close()
    assert not watched.tree._worker.is_alive()
    assert not watched.tree._inotify.is_reading
    assert watched.tree.counts(1).nwatched < 3003


def test_without_a_directory_for_cookies_there_is_no_tree(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(S3buError, match="cannot be opened"):
        Tree(tmp_path / "nowhere", lambda: None)
    assert len(os.listdir("/proc/self/fd")) == before
