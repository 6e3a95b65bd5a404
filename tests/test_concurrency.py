"""Eight runs at once, on one job, one label or one repository: T14 of the test plan.

After each round all that is published is held to what is stored and to the sources.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3bu.errors import LockedError
from tests.processes import Forked, Server, seeded, serving
from tests.rounds import rounds
from tests.running import Argument, Result, Scene, succeed, tree, write_file, write_job
from tests.test_each_failure.scenarios import quick_scene, snapshots
from tests.test_killed import check_index
from tests.test_machine.expected import Told, said_of_tree

ROUNDS = rounds(5)
PROCESSES = 8
SEED = random.randrange(2**32)
LOCKED = LockedError.exit_code


@dataclass(frozen=True, slots=True)
class Machines:
    """One repository, and two machines with the same keys that have a state of their own."""

    scene: Scene
    server: Server

    @property
    def homes(self) -> tuple[Path, Path]:
        return self.scene.keys, self.scene.root / "other keys"

    def back_up(self, home: Path, job: Path | None = None) -> Forked:
        return self.server.start(home, "backup", self.scene.repository, job or self.scene.job)

    def check(self, label: str, source: Path) -> None:
        """Hold the newest snapshot of a label, and all that is stored, to what they should be."""
        told = {key: one for key, one in snapshots(self.scene).items() if key.split("/")[2] == label}
        assert told[max(told)] == Told(said_of_tree(source))
        check_index(self.scene)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    with quick_scene(monkeypatch) as scene, serving(scene.root / "outputs") as server:
        scene.make()
        write_file(scene.source / "stays", "what stays")
        machines = Machines(scene, server)
        shutil.copytree(scene.keys, machines.homes[1])
        yield machines


def each_round(source: Path) -> Iterator[random.Random]:
    """Change a source at random before each round, and say the seed of one that fails."""
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        for _ in range(5):
            write_file(source / str(chance.randrange(20)), chance.randbytes(3000), mtime=1_600_000_000 + number)
        with seeded(SEED):
            yield chance


def ends(processes: list[Forked]) -> list[Result]:
    results = [process.end() for process in processes]
    assert all("traceback" not in result.err for result in results), results
    return results


def test_of_one_job_one_run_at_a_time_goes_on_and_the_others_are_told_so(machines: Machines) -> None:
    scene = machines.scene
    for number, _ in enumerate(each_round(scene.source), 1):
        results = ends([machines.back_up(scene.keys) for _ in range(PROCESSES)])
        assert {result.code for result in results} <= {0, LOCKED}, results
        assert any(result.code == 0 for result in results)
        assert all("is being backed up" in result.err for result in results if result.code == LOCKED)
        assert len(scene.manifests()) == number
        machines.check("src", scene.source)


def test_of_one_label_on_two_machines_each_makes_its_own_snapshot(machines: Machines) -> None:
    scene = machines.scene
    for _ in each_round(scene.source):
        before = scene.manifests()
        here, there = ([machines.back_up(home) for _ in range(PROCESSES // 2)] for home in machines.homes)
        results = ends(here), ends(there)
        for of_one in results:
            assert {result.code for result in of_one} <= {0, LOCKED}, of_one
            assert any(result.code == 0 for result in of_one)
        published = sum("snapshot of" in result.out for of_one in results for result in of_one)
        assert len(scene.manifests()) == len(before) + published
        assert published >= 1
        machines.check("src", scene.source)


def test_jobs_of_one_repository_do_not_wait_for_each_other(machines: Machines) -> None:
    scene = machines.scene
    jobs = [write_job(scene.root / f"job{number}.yml", {f"l{number}": scene.source}) for number in range(PROCESSES)]
    for _ in each_round(scene.source):
        results = ends([machines.back_up(scene.keys, job) for job in jobs])
        assert [(result.code, result.errors) for result in results] == [(0, [])] * PROCESSES, results
        for number in range(PROCESSES):
            machines.check(f"l{number}", scene.source)


def test_restores_go_on_while_backups_are_made_and_syncs_where_the_index_is_free(machines: Machines) -> None:
    scene = machines.scene
    shutil.copytree(scene.source, scene.root / "old")
    succeed("backup", scene.repository, scene.job)
    (old,) = scene.manifests()
    for chance in each_round(scene.source):
        targets = [scene.root / f"target{number}" for number in range(3)]
        restores = [("restore", scene.repository, old, target) for target in targets]
        syncs = [("index", "sync", scene.repository)] * 2
        commands: list[tuple[Argument, ...]] = [*restores, *syncs]
        chance.shuffle(commands)
        backups = [machines.back_up(home) for home in machines.homes]
        others = [machines.server.start(chance.choice(machines.homes), *command) for command in commands]
        names = ["backup", "backup", *(command[0] for command in commands)]
        for name, result in zip(names, ends([*backups, *others]), strict=True):
            assert (result.code, result.errors) == (0, []) or (name, result.code) == ("index", LOCKED), result
        machines.check("src", scene.source)
        for target in targets:
            assert tree(target) == tree(scene.root / "old")
            shutil.rmtree(target)
