"""What the watcher, as a program, makes good by itself: what could not be watched, or written down, for a while."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.running import Scene, without_override, write_file, write_job
from tests.test_watch.test_gaps import flood
from tests.test_watch.watching import watching


def open_journal(scene: Scene) -> sqlite3.Connection:
    (path,) = (scene.keys / "journals").glob("*.db")
    return sqlite3.connect(path, isolation_level=None)


@contextmanager
def unwritable(scene: Scene) -> Iterator[None]:
    """Let the journal take no other source for a block, as on a full disk."""
    holder = open_journal(scene)
    refusal = "SELECT RAISE(ABORT, 'database or disk is full')"
    holder.execute(f"CREATE TRIGGER full BEFORE UPDATE OF watch_rules ON source BEGIN {refusal}; END")
    try:
        yield
    finally:
        holder.execute("DROP TRIGGER full")
        holder.close()


def test_a_source_that_could_not_be_watched_anew_is_tried_again(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        time.sleep(2)
        with unwritable(scene):
            write_job(scene.job, {"src": "source"}, "exclude_extensions: [.o]\n")
            watcher.await_line("home/src: not watched")
        write_file(scene.source / "c", "content of c")
        write_file(scene.source / "c.o", "content of c.o")
        watcher.await_line("home/src: snapshot of 3 files: 1 path new")


def test_a_journal_that_cannot_be_begun_anew_ends_nothing(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        time.sleep(2)
        with unwritable(scene):
            (cookies,) = (scene.keys / "journals").glob("*.cookies")
            cookies.rename(scene.root / "cookies")
            watcher.await_line("beginning anew")
            watcher.await_line("home/src: watching 0 directories; all is scanned each time, since the journal cannot")
        watcher.await_line("home/src: watching 2 directories")
        write_file(scene.source / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files: 1 path new")


def test_what_could_not_be_stored_is_tried_again_though_nothing_changes(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        time.sleep(2)
        in_the_way = scene.object_of("content of c").parent
        in_the_way.write_bytes(b"a file where a directory belongs")
        write_file(scene.source / "c", "content of c")
        watcher.await_line("1 path failed")
        in_the_way.unlink()
        watcher.await_line("home/src: snapshot of 3 files")


def test_a_queue_that_overflowed_is_said_with_the_line_that_raises_it(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        time.sleep(2)
        watcher.send(signal.SIGSTOP)
        flood(scene.source)
        watcher.send(signal.SIGCONT)
        watcher.await_line("the kernel's queue of events overflowed")
        watcher.await_line("sysctl fs.inotify.max_queued_events=")


def test_a_directory_that_may_be_entered_again_is_watched_again(scene: Scene) -> None:
    write_file(scene.source / "directory" / "inner" / "d", "content of d")
    (scene.source / "directory").chmod(0o644)
    with watching(scene, prefix=without_override()) as watcher:
        watcher.await_line("home/src: snapshot")
        time.sleep(2)
        (scene.source / "directory").chmod(0o755)
        watcher.await_line("home/src: snapshot of 3 files")
        watcher.await_line("directories were met that nobody watched")
        time.sleep(2)
        write_file(scene.source / "directory" / "inner" / "d", "other content")
        watcher.await_line("home/src: snapshot of 3 files: 0 paths new, 1 changed")
