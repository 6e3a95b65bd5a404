"""The watcher as a program: it watches, backs up, answers signals, and outlives what goes wrong around it."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.running import (
    Argument,
    Scene,
    Started,
    check_refusal,
    program,
    run,
    started,
    succeed,
    tree,
    without_override,
    write_file,
    write_job,
)
from tests.test_watch.watching import await_run, children

QUICK = ("--interval", "1s", "--settle", "1s")
NEW_SESSION = "the watcher started after the last full scan"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    write_file(scene.source / "a", "content of a")
    write_file(scene.source / "directory" / "b", "content of b")
    monkeypatch.setenv("JOURNAL_STREAM", "9:9")  # lines begin with the source
    return scene


@contextmanager
def watching(
    scene: Scene, *arguments: Argument, job: Argument | None = None, prefix: Sequence[str] = ()
) -> Iterator[Started]:
    """Watch a job in a block, and hold the watcher to a good end."""
    with started("watch", scene.repository, job or scene.job, *QUICK, *arguments, prefix=prefix) as watcher:
        yield watcher
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def restored(scene: Scene, what: str = "home/src") -> Any:
    shutil.rmtree(scene.target, ignore_errors=True)
    succeed("restore", scene.repository, what, scene.target)
    return tree(scene.target)


def backed_up_again(scene: Scene) -> Any:
    """Back up as cron does, and return the summary."""
    return json.loads(succeed("backup", scene.repository, scene.job, "--json", "-q").out)


# --- what it is for


def test_once_backs_up_each_source_and_ends(scene: Scene) -> None:
    result = program("watch", scene.repository, scene.job, "--once")
    assert (result.code, result.errors) == (0, [])
    assert restored(scene) == tree(scene.source)
    assert "home/src: watching 2 directories\n" in result.err
    assert "home/src: snapshot of 2 files: 2 new, 0 changed, 0 removed" in result.err


def test_once_ends_with_the_worst_exit_code(scene: Scene) -> None:
    write_job(scene.job, {"gone": "gone", "src": "source"})
    result = program("watch", scene.repository, scene.job, "--once")
    assert result.code == 3
    assert "the source cannot be opened" in result.err
    assert restored(scene) == tree(scene.source)


def test_a_change_is_backed_up_and_only_what_changed_is_looked_at(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files", "full scan")
        write_file(scene.source / "directory" / "c", "content of c")
        line = watcher.await_line("home/src: snapshot of 3 files: 1 new, 0 changed, 0 removed")
        assert "full scan" not in line
        (scene.source / "a").unlink()
        assert "full scan" not in watcher.await_line("0 new, 0 changed, 1 removed")
        assert restored(scene) == tree(scene.source)


def test_no_run_begins_as_long_as_nothing_changes(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("home/src: snapshot")
        time.sleep(4)
        assert children(watcher.pid) == []
        watcher.send(signal.SIGTERM)
        result = watcher.end()
    assert result.code == 0
    assert result.err.count("backup began") == 1


def test_a_directory_in_which_a_file_came_and_went_is_backed_up_when_it_goes(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        (scene.source / "directory" / ".lock").touch()
        (scene.source / "directory" / ".lock").unlink()
        watcher.await_line("home/src: no change since the last snapshot")
        (scene.source / "directory").rename(scene.root / "elsewhere")
        watcher.await_line("home/src: snapshot of 1 file: 0 new, 0 changed, 1 removed")


def test_a_backup_from_elsewhere_goes_by_what_is_only_recorded(scene: Scene) -> None:
    with watching(scene, "--record-only") as watcher:
        watcher.await_line("watching 2 directories")
        (first,) = (
            json.loads(line) for line in succeed("backup", scene.repository, scene.job, "--json", "-q").out.splitlines()
        )
        write_file(scene.source / "directory" / "c", "content of c")
        (second,) = (
            json.loads(line) for line in succeed("backup", scene.repository, scene.job, "--json", "-q").out.splitlines()
        )
        assert (first["full_scan"] is None, second["full_scan"], second["files_new"]) == (False, None, 1)
        assert children(watcher.pid) == []


def test_several_jobs_are_watched_by_one_process(scene: Scene) -> None:
    mail = write_file(scene.root / "mail" / "letter", "dear").parent
    other = write_job(scene.root / "mail.yml", {"inbox": mail})
    with watching(scene, "--also", other) as watcher:
        watcher.await_line("mail/inbox: watching 1 director")
        watcher.await_line("snapshot")
        watcher.await_line("snapshot")
        write_file(mail / "answer", "dear too")
        watcher.await_line("mail/inbox: snapshot of 2 files: 1 new")
        assert restored(scene, "mail/inbox") == tree(mail)


def test_the_label_chooses_one_source(scene: Scene) -> None:
    write_job(scene.job, {"other": "other", "src": "source"})
    result = program("watch", scene.repository, scene.job, "src", "--once")
    assert result.code == 0
    assert "other" not in result.err


# --- signals


def test_ctrl_c_ends_it_too(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        watcher.send(signal.SIGINT)
        assert watcher.end().code == 130


def test_a_run_that_does_not_end_is_killed(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("backup began")
        child = await_run(watcher.pid)
        os.kill(child, signal.SIGSTOP)
        watcher.send(signal.SIGTERM)
        result = watcher.end()
    assert (result.code, result.errors) == (0, [])
    assert not Path(f"/proc/{child}").exists()
    assert "failed" not in result.err
    program_again = program("watch", scene.repository, scene.job, "--once")
    assert program_again.code == 0


def test_who_holds_the_journal_does_not_hold_up_the_end(scene: Scene) -> None:
    """As a backup of cron does that was stopped in the midst of its last transaction."""
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        (path,) = (scene.keys / "journals").glob("*.db")
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            write_file(scene.source / "c", "content of c")
            time.sleep(1)
            watcher.send(signal.SIGTERM)
            before = time.monotonic()
            assert watcher.end().code == 0
            assert time.monotonic() - before < 10


def test_ctrl_c_in_a_terminal_does_not_reach_the_runs(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("backup began")
        child = await_run(watcher.pid)
        assert os.getsid(child) == child
        watcher.send(signal.SIGINT)
        assert watcher.end().code == 130
    assert not Path(f"/proc/{child}").exists()


def test_no_signal_is_lost_while_another_one_is_answered(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        for _ in range(50):
            watcher.send(signal.SIGHUP)
        watcher.await_line("the jobs were read again")
        watcher.send(signal.SIGHUP)
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def test_sighup_reads_the_jobs_again(scene: Scene) -> None:
    succeed("job", "upload", scene.repository, "home", write_job(scene.root / "first.yml", {"src": scene.source}))
    other = write_file(scene.root / "other" / "file", "other").parent
    second = write_job(scene.root / "second.yml", {"other": other})
    with watching(scene, job="home") as watcher:
        watcher.await_line("home/src: snapshot")
        succeed("job", "upload", scene.repository, "home", second)
        watcher.send(signal.SIGHUP)
        watcher.await_line("home/src: not in the job any more")
        watcher.await_line("home/other: watching 1")
        watcher.await_line("home/other: snapshot of 1 file")
        # The local file of the same name still has the old source.
        assert backed_up_again(scene)["full_scan"] == "the watcher does not watch it any more"


# --- one watcher, and its death


def test_a_second_watcher_is_told_who_watches(scene: Scene) -> None:
    with watching(scene, "--record-only") as watcher:
        watcher.await_line("watching")
        result = program("watch", scene.repository, scene.job, "--record-only")
        check_refusal(result, 11, f"source 'home/src' is being watched by process {watcher.pid} since")


def test_after_a_kill_the_next_one_scans_in_full_and_says_why(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("home/src: snapshot")
        watcher.send(signal.SIGKILL)
        assert watcher.end().code == -signal.SIGKILL
    write_file(scene.source / "c", "content of c")
    with watching(scene) as watcher:
        line = watcher.await_line("home/src: snapshot of 3 files: 1 new")
        assert f"full scan: {NEW_SESSION}" in line
        assert restored(scene) == tree(scene.source)


# --- what goes wrong around it


def test_a_repository_that_is_away_loses_nothing(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot")
        away = scene.repository.rename(scene.root / "away")
        write_file(scene.source / "c", "content of c")
        line = watcher.await_line("home/src: backup failed:")
        assert "next try in 1" in line
        write_file(scene.source / "d", "content of d")
        away.rename(scene.repository)
        watcher.await_line("home/src: snapshot of 4 files: 2 new")
        assert restored(scene) == tree(scene.source)


def test_a_source_that_is_missing_is_watched_when_it_comes(scene: Scene) -> None:
    away = scene.source.rename(scene.root / "away")
    with watching(scene) as watcher:
        watcher.await_line("home/src: not there; watched as soon as it is")
        watcher.await_line("home/src: ", "the source cannot be opened")
        away.rename(scene.source)
        watcher.await_line("home/src: snapshot of 2 files")
        watcher.await_line("home/src: watching 2 directories")


def test_a_journal_that_somebody_deleted_is_made_anew(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot")
        for path in (scene.keys / "journals").glob("*.db*"):
            path.unlink()
        watcher.await_line("the journal was taken away; beginning a new one")
        assert NEW_SESSION in watcher.await_line("home/src: no change since the last snapshot", "full scan")
        write_file(scene.source / "c", "content of c")
        assert "full scan" not in watcher.await_line("home/src: snapshot of 3 files: 1 new")


def test_a_file_that_cannot_be_read_is_named_once(scene: Scene) -> None:
    write_file(scene.source / "closed", "closed").chmod(0)
    with watching(scene, prefix=without_override()) as watcher:
        assert "incomplete: 1 path failed" in watcher.await_line("home/src: snapshot of 2 files")
        watcher.await_line("home/src: closed: permission denied")
        write_file(scene.source / "c", "content of c")
        assert "incomplete: 1 path failed" in watcher.await_line("home/src: snapshot of 3 files")
        watcher.send(signal.SIGTERM)
        assert watcher.end().err.count("permission denied") == 1


# --- jobs that change


def test_a_local_job_that_changed_is_followed(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        other = write_file(scene.root / "other" / "file", "other").parent
        write_job(scene.job, {"src": "source", "other": other}, "exclude_extensions: [.o]\n")
        watcher.await_line("home/other: watching 1 director")
        write_file(scene.source / "x.o", "not wanted")
        write_file(scene.source / "directory" / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files: 1 new")
        assert set(restored(scene)) == {b"a", b"directory", b"directory/b", b"directory/c"}


def test_a_job_that_is_broken_stands_as_it_was(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        text = scene.job.read_text()
        scene.job.write_text("sources: 3\n")
        watcher.await_line("home: the job cannot be read again, and stands as it was")
        scene.job.write_text(text)
        write_file(scene.source / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files: 1 new")


def test_old_snapshots_go_by_the_rules_of_the_job(scene: Scene) -> None:
    write_job(scene.job, {"src": "source"}, "s3bu:\n  retention:\n    keep_last: 1\n")
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "c", "content of c")
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 3 files: 1 new")
        watcher.await_line("home: forgot 1 old snapshot")
    assert len(scene.manifests()) == 1


# --- usage


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--once", "--record-only"], "--record-only does not"),
        (["--once", "--print-unit"], "a service does not"),
        (["--interval", "0s"], "no length of time"),
        (["--settle=-1s"], "no length of time"),
        (["--interval", "soon"], "no length of time"),
        (["--large-interval", "0h"], "no length of time"),
        (["--manifest-budget", "0"], "--manifest-budget 0"),
        (["--manifest-budget", "much"], "no size"),
        (["--full-scan-every", "8d"], "too seldom"),
        (["--full-scan-every", "0s"], "no length of time"),
        (["--also", "home.yml"], "named twice"),
    ],
)
def test_what_makes_no_sense_is_refused(scene: Scene, options: list[str], word: str) -> None:
    check_refusal(run("watch", scene.repository, scene.job, *options), 2, word)


def test_a_label_that_the_job_does_not_have_is_refused(scene: Scene) -> None:
    check_refusal(run("watch", scene.repository, scene.job, "nothing"), 2, "no source with the label 'nothing'")


def test_a_job_that_is_not_there_ends_it_at_once(scene: Scene) -> None:
    check_refusal(run("watch", scene.repository, "nothing"), 10, "no job 'nothing'")
