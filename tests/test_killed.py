"""Runs that are killed at random moments, again and again: T3 of the test plan.

Most runs are quick ones (`tests/processes.py`); a few are started as users start them.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from s3bu.index import index_path
from tests.processes import seeded, serving
from tests.rounds import rounds
from tests.running import Scene, listing, run, succeed, tree
from tests.test_each_failure.scenarios import (
    Stage,
    back_up_both,
    change,
    check_indexed,
    check_new_snapshots,
    check_restore_again,
    check_sync_again,
    check_target,
    lose_index,
    quick_scene,
    snapshots,
)
from tests.test_machine.expected import Told, said_of_tree

Command = tuple[str | Path, ...]
KILLS = rounds(12)
KILLS_AS_STARTED = rounds(2)
SEED = random.randrange(2**32)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with quick_scene(monkeypatch) as scene:
        yield scene


def killed_again_and_again(stage: Stage, command: Command, check: Callable[[], None]) -> None:
    """Kill a command once or a few times in a row, at any moment of the time it takes, and check; all that for long."""
    home, chance = stage.scene.keys, random.Random(SEED)
    with serving(stage.scene.root / "outputs") as server:
        begin = time.monotonic()
        assert server.start(home, *command).end().code == 0
        longest = 1.1 * (time.monotonic() - begin)
        for _ in range(KILLS):
            stage.put_back()
            with seeded(SEED):
                for _ in range(chance.choice([1, 1, 2, 3])):
                    result = server.start(home, *command).kill_after(chance.uniform(0, longest))
                    assert result.code in (0, -signal.SIGKILL), result
                    longest *= 1.02 if result.code else 0.95  # the machine is not always as quick
                check()


def check_index(scene: Scene) -> None:
    """Hold the index to being whole, where there is one."""
    path = index_path(scene.keys, str(scene.repository))
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def check_backup(scene: Scene) -> None:
    """Hold what is stored to its names, and the next run to sending what is missing and nothing else."""
    check_new_snapshots(scene)
    check_index(scene)
    before = listing(scene.repository / "data")
    succeed("backup", scene.repository, scene.job)
    after = listing(scene.repository / "data")
    assert {name: after[name] for name in before} == before
    told = snapshots(scene)
    assert told[max(told)] == Told(said_of_tree(scene.source))
    named = {said.what for one in told.values() for said in one.said.values() if said.kind == "file"}
    assert {name.rpartition("/")[2] for name in after} == named
    assert "no change" in succeed("backup", scene.repository, scene.job).out


def check_restore(scene: Scene) -> None:
    """Hold the target to whole files alone, and the next run to writing what is missing and nothing else."""
    check_target(scene)
    found, truth = tree(scene.target) if scene.target.exists() else {}, tree(scene.source)
    there = [path for path in found if path in truth and found[path].kind == truth[path].kind]
    nright = sum(found[path].content != b"" and isinstance(found[path].content, str) for path in there)
    result = run("restore", scene.repository, "home/src", scene.target, "-f")
    assert (result.code, result.errors) == (0, [])
    assert nright == 0 or f"{nright} file" in result.out.partition("\n")[2], (nright, result.out)
    check_restore_again("-f")(scene)


def check_sync(scene: Scene) -> None:
    check_index(scene)
    check_indexed(scene)
    check_sync_again(scene)


def test_a_backup_that_is_killed_leaves_nothing_wrong_and_is_finished_by_the_next(scene: Scene) -> None:
    stage = Stage.set(scene, change)
    killed_again_and_again(stage, ("backup", scene.repository, scene.job), lambda: check_backup(scene))


def test_a_restore_that_is_killed_leaves_whole_files_and_is_finished_by_the_next(scene: Scene) -> None:
    stage = Stage.set(scene, back_up_both)
    command = ("restore", scene.repository, "home/src", scene.target, "-f")
    killed_again_and_again(stage, command, lambda: check_restore(scene))


def test_a_sync_that_is_killed_leaves_whole_snapshots_and_is_finished_by_the_next(scene: Scene) -> None:
    stage = Stage.set(scene, lose_index)
    killed_again_and_again(stage, ("index", "sync", scene.repository), lambda: check_sync(scene))


def test_a_program_that_is_killed_as_users_start_it_is_finished_by_the_next(scene: Scene) -> None:
    stage, chance = Stage.set(scene, change), random.Random(SEED)
    command = [sys.executable, "-m", "s3bu", "backup", str(scene.repository), str(scene.job)]
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    longest = time.monotonic() - begin
    for _ in range(KILLS_AS_STARTED):
        stage.put_back()
        with seeded(SEED):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(chance.uniform(longest / 4, longest))
                process.kill()
            check_backup(scene)
