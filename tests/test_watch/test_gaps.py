"""Where something may have been missed, the source has to be looked at whole, with a reason, and is watched anew."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.watch import inotify, seen
from s3bu.watch.inotify import Event
from s3bu.watch.tree import Tree
from tests.test_watch.living import SECONDS, Living, living, watching

OVERFLOW = "the kernel's queue of events overflowed"


def flood(directory: Path) -> None:
    """Make more events than the kernel keeps."""
    nevents = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(nevents // 2 + 1000):
        (directory / f"{number % 100}").touch()
        (directory / f"{number % 100}").unlink()


def test_an_overflow_of_the_kernels_queue(idle: Living, root: Path) -> None:
    idle.add()
    idle.take()
    flood(root / "a")
    (root / "a" / "b").rename(root / "c")
    (root / "c" / "new").mkdir()
    idle.journal.freeze(1)
    idle.tree.start()
    deadline = time.monotonic() + SECONDS
    while not any(one.reason == OVERFLOW for one in idle.journal.dirty(1)):
        idle.take()
        assert time.monotonic() < deadline
    idle.check()
    (root / "c" / "new" / "file").write_text("x")
    idle.dirty()
    (root / "c" / "new" / "file").write_text("y")
    assert idle.dirty() == {b"c/new/file": False}


def test_all_sources_are_in_doubt_after_an_overflow(idle: Living, root: Path) -> None:
    idle.add()
    inner = idle.add(root / "a", label="inner")
    idle.tree.start()
    idle.dirty()
    idle.dirty(inner)
    idle.tree._inotify.put(Event(-1, inotify.OVERFLOW, b""))
    idle.settle()
    assert [one.reason for number in (1, inner) for one in idle.journal.dirty(number)] == [OVERFLOW, OVERFLOW]
    idle.check()


def test_a_line_that_gets_too_long_while_a_walk_is_under_way(
    watched: Living, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "_MOST_NBYTES", 1000)
    line = watched.tree._inotify
    with watched.tree._lock:
        deadline = time.monotonic() + SECONDS
        while len(line._line) < 2 or line._line[-1] != Event(-1, inotify.OVERFLOW, b""):
            (root / "a" / f"{time.monotonic_ns()}").mkdir()
            assert time.monotonic() < deadline
        length = len(line._line)
        (root / "a" / "one more").mkdir()
        time.sleep(0.1)
        assert len(line._line) == length
    while line._line:  # a cookie would find no place in it either
        time.sleep(0.01)
    watched.settle()
    assert OVERFLOW in watched.reasons()
    watched.check()


def test_between_the_doubt_and_the_end_of_the_walk_nothing_counts_as_watched(watched: Living) -> None:
    watched.settle()
    with watched.tree._lock:
        watched.tree._sources.doubt_all("a doubt")
        watched.take()
        assert watched.journal.watched(1) == {}
        assert [one.reason for one in watched.journal.dirty(1)] == ["a doubt"]
        watched.journal.freeze(1)
    watched.tree._inotify.poke()
    watched.settle()
    watched.check()
    assert watched.reasons() == ["a doubt"]


def test_a_source_is_in_doubt_once_more_when_the_walk_is_done(watched: Living) -> None:
    with watched.tree._lock:
        watched.tree._sources.doubt_all("a doubt")
        watched.take()
        epoch, _ = watched.journal.freeze(1)
    watched.tree._inotify.poke()
    watched.settle()
    statement = "SELECT epoch FROM dirty WHERE source = 1 AND reason = 'a doubt'"
    assert watched.journal._connection.execute(statement).fetchone()[0] == epoch


def test_an_event_of_an_unknown_kind(watched: Living) -> None:
    number = watched.tree._sources._sources[1].top.watch
    watched.tree._inotify.put(Event(number, 0x00010000, b"x"))
    assert watched.reasons() == ["an event of an unknown kind came (0x10000)"]
    watched.check()


def test_the_source_moves_away_and_comes_back(watched: Living, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "away")
    assert watched.reasons() == ["the directory of the source was moved or deleted"]
    assert watched.watched() == {}
    (tmp_path / "away").rename(root)
    watched.look_again()
    assert watched.reasons() == ["the directory of the source was not there before"]
    watched.check()


def test_the_source_is_deleted_and_made_anew(watched: Living, root: Path) -> None:
    shutil.rmtree(root)
    assert b"" in watched.dirty()
    assert watched.watched() == {}
    assert watched.tree.counts(1)[:4] == (0, 0, None, "not there")
    watched.look_again()
    assert watched.dirty() == {}
    (root / "new").mkdir(parents=True)
    watched.look_again()
    assert watched.dirty() == {b"": True}
    watched.check()


def test_another_directory_takes_the_place_of_the_source(watched: Living, root: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "inner").mkdir(parents=True)
    root.rename(tmp_path / "away")
    (tmp_path / "other").rename(root)
    watched.settle()
    watched.look_again()
    assert watched.dirty()[b""]
    watched.check()
    (tmp_path / "away" / "new").touch()
    assert watched.dirty() == {}


def test_a_directory_above_the_source_moves(tmp_path: Path) -> None:
    root = tmp_path / "above" / "source"
    (root / "a").mkdir(parents=True)
    with watching(tmp_path / "home", root) as watched:
        (tmp_path / "above").rename(tmp_path / "elsewhere")
        watched.look_again()
        assert watched.reasons() == ["the directory of the source was moved or deleted"]
        (root / "b").mkdir(parents=True)
        watched.look_again()
        assert watched.dirty()[b""]
        watched.check()


def test_a_link_in_the_path_of_the_source_leads_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("one")
    with watching(tmp_path / "home", tmp_path / "link") as watched:
        watched.check()
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("two")
        watched.look_again()
        assert watched.reasons() == ["the directory of the source is another one than before"]
        watched.check(root=tmp_path / "two")


def test_a_source_that_is_missing_is_watched_as_soon_as_it_is_there(tmp_path: Path) -> None:
    root = tmp_path / "source"
    with living(tmp_path / "home", root) as watched:
        watched.tree.start()
        watched.add()
        watched.dirty()
        watched.look_again()
        assert watched.dirty() == {}
        root.write_text("no directory yet")
        watched.look_again()
        assert watched.dirty() == {}
        root.unlink()
        (root / "a").mkdir(parents=True)
        watched.look_again()
        assert watched.reasons() == ["the directory of the source was not there before"]
        watched.check()


def test_to_look_again_where_nothing_happened_makes_nothing_dirty(watched: Living) -> None:
    for _ in range(3):
        watched.look_again()
    assert watched.dirty() == {}
    watched.check()


def test_a_fault_in_the_thread_that_works_is_a_doubt_and_no_end(tmp_path: Path, root: Path) -> None:
    faults = ["no more"]

    def wake() -> None:
        if faults:
            raise ValueError(faults.pop())

    with living(tmp_path / "home", root) as watched:
        watched.tree.close()
        watched.tree = Tree(watched.journal.cookies, wake)
        faults.clear()
        watched.add()
        watched.tree.start()
        watched.dirty()
        faults.append("no more")
        (root / "new").touch()
        assert watched.reasons() == ["the watcher met a fault (no more)"]
        watched.check()


def test_threads_that_ended_are_told(watched: Living) -> None:
    watched.tree._inotify._reader.stop()
    watched.tree._inotify._reader.join(SECONDS)
    with pytest.raises(S3buError, match="no longer reads what changes"):
        watched.tree.look_again()


def test_more_changes_than_can_be_kept_are_one(watched: Living, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_MOST_CHANGED", 100)
    watched.take()
    threading.Event().wait(0.05)
    for number in range(500):
        os.close(os.open(root / f"{number}", os.O_CREAT))
    (watched.journal.cookies / "cookie").touch()
    deadline = time.monotonic() + SECONDS
    while "cookie" not in watched.tree._seen._batch.cookies:  # and so all before it, of which nothing was taken
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watched.await_cookie("cookie")
    assert watched.reasons() == ["too many paths changed before they could be written down"]


def test_what_is_added_while_it_is_closed_is_no_fault(tmp_path: Path, root: Path, idle: Living) -> None:
    tree = Tree(idle.journal.cookies, lambda: None)
    tree.start()
    tree.close()
    tree.add(1, os.fsencode(root), Filters(), {})
    assert tree.counts(1).nwatched == 0
