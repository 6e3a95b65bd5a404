"""Signals that reach the watcher, and its end: within seconds, whatever it does just then."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.running import (
    Scene,
    program,
    started,
    succeed,
    write_file,
    write_job,
)
from tests.test_watch.watching import (
    QUICK,
    await_run,
    backed_up_again,
    watching,
)


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


def test_a_second_signal_does_not_wait_for_the_runs(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("backup began")
        child = await_run(watcher.pid)
        os.kill(child, signal.SIGSTOP)
        watcher.send(signal.SIGINT)
        watcher.await_line("stopping")
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
        watcher.await_line("home: version 2 of the job holds now")
        watcher.await_line("home/src: not in the job any more")
        watcher.await_line("home/other: watching 1")
        watcher.await_line("home/other: snapshot of 1 file")
        # The local file of the same name still has the old source.
        assert backed_up_again(scene)["full_scan"] == "the watcher does not watch it any more"
