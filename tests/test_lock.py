"""One run of a job at a time on a machine."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from s3bu.errors import LockedError, S3buError
from s3bu.lock import alone, command_to_stop, hold, hold_watch, sharing
from tests.fakes import Listener
from tests.running import Scene, check_refusal, run, started, succeed, write_file

HOLDER = """
import sys, time
from pathlib import Path
from s3bu.lock import alone, hold, sharing
from s3bu.progress import Silent
with hold(Path(sys.argv[1]), "there", "home", Silent()):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path / "scene")
    made.enter(monkeypatch)
    made.make()
    return made


def lock_file(home: Path) -> Path:
    (path,) = (home / "locks").iterdir()
    return path


def test_a_second_run_is_told_who_has_the_job_and_since_when(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    path = lock_file(Path(os.environ["S3BU_HOME"]))
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.write_text('{"pid": 4711, "started": "2026-05-01 12:00:00"}')
        result = run("backup", scene.repository, scene.job)
    check_refusal(result, 11, "process 4711 since 2026-05-01 12:00:00", "kill 4711")
    succeed("backup", scene.repository, scene.job)


@pytest.mark.parametrize(
    ("groups", "command"),
    [
        ("0::/system.slice/s3bu-watch.service\n", "systemctl stop s3bu-watch.service"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/s3bu-watch.service\n",
            "systemctl --user stop s3bu-watch.service",
        ),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/terminal-7.scope\n", "kill 7"),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "kill 7"),
        ("12:pids:/\n1:name=systemd:/system.slice/s3bu.service\n", "systemctl stop s3bu.service"),
        ("0::/\n", "kill 7"),
        ("", "kill 7"),
    ],
)
def test_a_service_is_stopped_as_one(groups: str, command: str) -> None:
    assert command_to_stop(7, groups) == command


def test_the_holder_is_the_process_and_its_end_frees_the_job(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(LockedError, match=f"process {holder.pid} since"),
            hold(tmp_path, "there", "home", Listener()),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with hold(tmp_path, "there", "home", Listener()):
        pass


def test_a_source_is_watched_by_one_process_while_its_job_may_be_backed_up(tmp_path: Path) -> None:
    with hold_watch(tmp_path, "there", "home", "src", Listener()), hold(tmp_path, "there", "home", Listener()):
        with hold_watch(tmp_path, "there", "home", "other", Listener()):
            pass
        with (
            pytest.raises(LockedError, match=f"source 'home/src' is being watched by process {os.getpid()} since"),
            hold_watch(tmp_path, "there", "home", "src", Listener()),
        ):
            pass
    with hold_watch(tmp_path, "there", "home", "src", Listener()):
        pass


def test_other_jobs_and_other_repositories_are_not_locked(tmp_path: Path) -> None:
    with hold(tmp_path, "there", "home", Listener()):
        for identity, job in (("there", "other"), ("elsewhere", "home")):
            with hold(tmp_path, identity, job, Listener()):
                pass


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", '{"pid": "x"}', '{"pid": 1}', "\xff" * 5000, "[" * 3000),
        '{"pid": 1e999, "started": "today"}',
        '{"pid": -1, "started": "today"}',
        f'{{"pid": {"9" * 1000}, "started": "today"}}',
    ],
    ids=lambda text: repr(text[:40]),
)
def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path, text: str) -> None:
    with hold(tmp_path, "there", "home", Listener()):
        lock_file(tmp_path).write_text(text, "latin-1")
        with pytest.raises(LockedError, match="by another process"), hold(tmp_path, "there", "home", Listener()):
            pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    with hold(tmp_path, "there", "home", Listener()):
        path = lock_file(tmp_path)
    path.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(S3buError, match="cannot be opened"), hold(tmp_path, "there", "home", Listener()):
        pass
    assert victim.read_text() == "precious"


def test_a_home_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(S3buError, match="locks"), hold(tmp_path / "file", "there", "home", Listener()):
        pass


def test_two_runs_of_one_job_at_once_do_not_both_go_on(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    for number in range(2000):
        write_file(scene.source / f"{number}", f"{number}")
    with started("backup", scene.repository, scene.job) as first:
        first.await_phase("storing")
        check_refusal(run("backup", scene.repository, scene.job), 11, "process")


# --- the index


@pytest.mark.parametrize("command", ["sync", "rebuild"])
def test_the_index_is_not_changed_under_a_backup(scene: Scene, command: str) -> None:
    succeed("backup", scene.repository, scene.job)
    for number in range(2000):
        write_file(scene.source / f"{number}", f"{number}")
    with started("backup", scene.repository, scene.job) as first:
        first.await_phase("storing")
        check_refusal(run("index", command, scene.repository), 11, "in use by a backup", "run again")
        assert first.end().code == 0
    succeed("index", command, scene.repository)


def test_a_backup_waits_for_who_changes_the_index(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "new", "new")
    (index,) = (scene.keys / "index").glob("*.db")
    with ExitStack() as turn:
        turn.enter_context(alone(index, Listener()))
        with started("backup", scene.repository, scene.job) as waiting:
            waiting.await_phase("waiting for another process")
            assert len(scene.manifests()) == 1
            turn.close()
            assert waiting.end().code == 0
    assert len(scene.manifests()) == 2


def test_backups_share_the_index(tmp_path: Path) -> None:
    index, listener = tmp_path / "some.db", Listener()
    with sharing(index, listener), sharing(index, listener), pytest.raises(LockedError), alone(index, listener):
        pass
    with alone(index, listener), pytest.raises(LockedError), alone(index, listener):
        pass
    assert (listener.phases, listener.warnings) == ([], [])
