"""Each condition under which a run may go by the journal: without it, the run looks everywhere and says why.

After a full scan it may go by the journal again, where the condition is not a lasting one.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from s3bu.backup import Options
from s3bu.backup.doubts import Ways, foreign_doubt, ways_of
from s3bu.backup.plan import plan as make_plans
from s3bu.filters import Filters
from s3bu.history import let_go
from s3bu.journal import open_for_watching
from s3bu.journal.batch import Batch
from s3bu.journal.session import start_ticks
from tests.fakes import Listener, World, file_entry
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import COPY, JOURNAL, compare, copy_of, run_by_journal
from tests.test_watch.recorder import Recorder, recording
from tests.test_watch.test_by_journal import fill, rewrite

pytestmark = pytest.mark.usefixtures("quick_scrypt", "quick_ticks")


@pytest.fixture
def recorder(world: World) -> Iterator[Recorder]:
    fill(world)
    with recording(world) as recorder:
        run_by_journal(world)
        let_tick()
        assert run_by_journal(world).why_full is None
        yield recorder


def alter(world: World, statement: str) -> None:
    """Change what stands in the journal, by hand."""
    (path,) = (world.root / JOURNAL / "journals").glob("*.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def swap_root(world: World) -> None:
    world.source.rename(world.root / "aside")
    shutil.copytree(world.root / "aside", world.source, symlinks=True)


def forget_index(world: World) -> None:
    shutil.rmtree(world.root / JOURNAL / "index")


def publish_elsewhere(world: World) -> None:
    key = world.manifest_keys()[-1]
    world.put_manifest([file_entry(b"theirs", b"theirs")], key=replace(key, day=key.day.replace(year=key.day.year + 1)))
    world.put_content(b"theirs")


PASSING: dict[str, tuple[Callable[[World], object], str]] = {
    "a full scan that is too old": (
        lambda world: alter(world, f"UPDATE source SET full_us = {int((time.time() - 86_500) * 1_000_000)}"),
        "the last full scan is over 24 h old",
    ),
    "a full scan that is yet to come": (
        lambda world: alter(world, f"UPDATE source SET full_us = {int((time.time() + 9_000) * 1_000_000)}"),
        "the last full scan is over 24 h old",
    ),
    "a full scan before the watcher": (
        lambda world: alter(world, "UPDATE source SET full_session = 77"),
        "the watcher started after the last full scan",
    ),
    "other mounts": (
        lambda world: alter(world, "UPDATE source SET mounts = 'x'"),
        "something was mounted or unmounted",
    ),
    "other rules": (
        lambda world: alter(world, "UPDATE source SET rules = 'x'"),
        "the job, the program or the users of this machine changed",
    ),
    "another root": (swap_root, "another directory is where the source was"),
    "another index": (forget_index, "the index is not as the last run left it"),
    "a snapshot of another machine": (
        publish_elsewhere,
        "the newest snapshot was not made by the last run on this machine",
    ),
}


@pytest.mark.parametrize("doubt", PASSING)
def test_a_passing_doubt_costs_one_full_scan(world: World, recorder: Recorder, doubt: str) -> None:
    strike, why = PASSING[doubt]
    strike(world)
    assert run_by_journal(world).why_full == why
    recorder.watch_all()
    let_tick()
    assert compare(world).why_full is None


LASTING: dict[str, tuple[str, str]] = {
    "an ended watcher": ("UPDATE session SET is_ended = 1", "the watcher ended since"),
    "a process that is no more": ("UPDATE session SET pid = 4194303", "the watcher ended since"),
    "another process of that number": ("UPDATE session SET ticks = 1", "the watcher ended since"),
    "another boot": ("UPDATE session SET boot = 'x'", "the watcher ended since"),
    "a stopped watcher": ("UPDATE session SET beat_ns = beat_ns - 61000000000", "the watcher gave no sign of life for"),
    "a watcher of another version of the job": (
        "UPDATE source SET watch_rules = 'x'",
        "the watcher goes by another version of the job, or of the program",
    ),
    "a foreign file system": ("UPDATE source SET obstacle = 'it lies elsewhere'", "it lies elsewhere"),
}


@pytest.mark.parametrize("doubt", LASTING)
def test_a_lasting_doubt_costs_each_run_a_full_scan(world: World, recorder: Recorder, doubt: str) -> None:
    statement, why = LASTING[doubt]
    alter(world, statement)
    for _ in range(2):
        assert (run_by_journal(world).why_full or "").startswith(why)


def test_what_the_watcher_says_of_a_whole_source_is_said_by_the_run(world: World, recorder: Recorder) -> None:
    recorder.see("", tree=True, reason="the kernel's queue of events overflowed")
    assert run_by_journal(world).why_full == "the kernel's queue of events overflowed"
    let_tick()
    assert compare(world).why_full is None


def test_a_full_scan_that_began_before_the_watcher_was_ready_counts_for_nothing(
    world: World, recorder: Recorder
) -> None:
    def overflow(phase: str) -> None:
        if phase.startswith("scanning"):
            recorder.see("", tree=True, reason="the watcher started after the last full scan")

    alter(world, "UPDATE source SET rules = 'x'")
    assert (
        run_by_journal(world, on_phase=overflow).why_full == "the job, the program or the users of this machine changed"
    )
    assert run_by_journal(world).why_full == "the watcher started after the last full scan"


def test_a_watcher_that_does_not_answer_is_not_believed(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3bu.backup.doubts._COOKIE_SECONDS", 0)
    monkeypatch.setattr("s3bu.journal.Journal._is_answered", lambda *_: False)
    assert "did not say" in (run_by_journal(world).why_full or "")


def test_neither_cookies_nor_answers_stay_behind(world: World, recorder: Recorder) -> None:
    run_by_journal(world)
    assert os.listdir(recorder.journal.cookies) == []
    assert recorder.journal._rows("SELECT * FROM answer") == [], "nor its answer, of which there would be ever more"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options("here", is_full=True), "--full-scan asks for it"),
        (Options("here", is_rehash=True), "--rehash asks for it"),
    ],
)
def test_who_asks_for_a_full_scan_gets_it(world: World, recorder: Recorder, options: Options, why: str) -> None:
    assert run_by_journal(world, options=options).why_full == why


def test_contents_that_are_gone_are_put_again_by_a_full_scan(world: World, recorder: Recorder) -> None:
    for key in [key for key in world.storage.objects if key.startswith("data/")][:2]:
        del world.storage.objects[key]
    alter_index(world)
    outcome = run_by_journal(world)
    assert outcome.why_full == "contents of the last snapshot are not stored any more"
    world.check_newest()


def alter_index(world: World) -> None:
    """Let the index doubt what is stored, as a week later."""
    with closing(world.index(JOURNAL)) as index:
        index.keep_fact("listed", "0")


def test_entries_that_became_others_than_the_last_run_left_are_not_gone_on_from(
    world: World, recorder: Recorder
) -> None:
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    run_by_journal(world)
    with closing(world.index(JOURNAL)) as index:
        first, newest = index.snapshots()
        let_go(index, first)
        assert index.token(newest.source) is not None
        let_go(index, newest)
        assert index.token(newest.source) is None
    let_tick()
    assert compare(world).why_full == "the index is not as the last run left it"


def test_so_much_that_all_may_be_looked_at(world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3bu.backup.looking._MOST_LOOKS", 2)
    recorder.see("a", "b", "deep/c")
    assert run_by_journal(world).why_full == "4 paths are to be looked at"


def test_more_dirty_paths_than_a_run_has_use_for_become_the_whole_source(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3bu.journal._MOST_DIRTY", 2)
    recorder.see("a", "b", "deep/c")
    (dirty,) = recorder.journal.dirty(recorder.number)
    assert (dirty.path, dirty.is_tree) == (b"", True)
    assert "paths changed" in (run_by_journal(world).why_full or "")


def test_a_journal_that_is_no_database_is_passed_over(world: World) -> None:
    fill(world)
    with recording(world):
        run_by_journal(world)
    (path,) = (world.root / JOURNAL / "journals").glob("*.db")
    path.write_bytes(b"no database" * 1000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with closing(open_for_watching(world.root / JOURNAL, world.storage.identity)) as journal:
        assert journal.find("home", "docs") is None
    assert run_by_journal(world).why_full == "no journal of changes is kept"


def test_a_journal_that_breaks_in_the_middle_costs_a_full_scan(world: World, recorder: Recorder) -> None:
    alter(world, "DROP TABLE linked")
    assert "the journal cannot be read" in (run_by_journal(world).why_full or "")


def test_a_watcher_that_was_killed_is_known_to_be_gone(world: World) -> None:
    fill(world)
    script = (
        "import sys, time; from pathlib import Path; from s3bu.journal import open_for_watching; "
        "journal = open_for_watching(Path(sys.argv[1]), sys.argv[2]); session = journal.begin_session(); "
        "journal.watch_source(session, 'home', 'docs', 9, ''); print(flush=True); time.sleep(99)"
    )
    command = [sys.executable, "-c", script, str(world.root / JOURNAL), world.storage.identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with closing(open_for_watching(world.root / JOURNAL, world.storage.identity)) as journal:
            watched = journal.find("home", "docs")
            assert watched is not None
            assert watched.session.is_running
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for it
            assert start_ticks(process.pid) == -1
    assert run_by_journal(world).why_full == "the watcher ended since"


def test_a_plan_goes_by_the_journal_and_leaves_it_as_it_was(world: World, recorder: Recorder) -> None:
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    let_tick()
    before = recorder.journal.dirty(recorder.number)
    options, job = Options("here", journal=recorder.journal), world.job()
    with closing(copy_of(world).index(COPY)) as index:
        (planned,) = make_plans(world.reopen(JOURNAL), index, job, job.sources, options, Listener())
        assert [(one.action, one.path) for one in planned.paths()] == [("check", b"a")]
    assert planned.why_full is None
    assert recorder.journal.dirty(recorder.number) == before != []
    assert run_by_journal(world).counts["changed"] == 1


# --- where a source lies


def test_a_part_on_an_overlay_is_never_believed() -> None:
    ways = Ways(b"/x", 1, 1, "", "", ((b"", "overlay"), (b"mnt", "nfs4")))
    assert foreign_doubt(ways, {b""}) == "it lies on a file system where changes may come unseen (overlay)"
    assert foreign_doubt(ways, {b"mnt"}) == "mnt lies on a file system where changes may come unseen (nfs4)"
    assert foreign_doubt(ways, {b"other"}) is None


def test_a_source_that_is_not_there_has_no_inode(world: World) -> None:
    world.source.rmdir()
    assert ways_of(os.fsencode(world.source), Filters(), {}).inode == 0


def test_a_batch_keeps_the_first_time_and_the_widest_word_of_a_path() -> None:
    batch = Batch()
    batch.dirty(1, b"a")
    (first,) = batch.changed.values()
    batch.dirty(1, b"a", is_tree=True, reason="why")
    batch.dirty(1, b"a")
    assert batch.changed == {(1, b"a"): (first[0], True, "why")}


def test_cookies_of_runs_that_were_killed_are_swept_when_a_watcher_begins(world: World, recorder: Recorder) -> None:
    old, young = recorder.journal.cookies / "old", recorder.journal.cookies / "young"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7_200, time.time() - 7_200))
    with closing(open_for_watching(world.root / JOURNAL, world.storage.identity)) as journal:
        journal.begin_session()
    assert os.listdir(recorder.journal.cookies) == ["young"]
