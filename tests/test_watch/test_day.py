"""A day in an office, on a clock of its own: saves, builds, checkouts, meetings and lunch; all else is real.

A watcher that keeps to its schedule makes few snapshots, keeps their manifests within the budget, and every state that
lasted long enough can be restored.
"""

import hashlib
import math
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3bu.backup import Options
from s3bu.filters import Filters
from s3bu.journal import BEAT_SECONDS, open_for_watching, rules_of
from s3bu.manifest import FILE
from s3bu.watch.schedule import Pace, Schedule
from s3bu.watch.tree import Tree
from tests.fakes import World
from tests.running import IS_LONG
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import JOURNAL, run_by_journal

pytestmark = pytest.mark.usefixtures("quick_scrypt", "quick_ticks")

SOURCE = "home/docs"
HOUR = 3600.0
_MODULES, _BRANCHES = 60, ("main", "feature", "fix")
_GIT = ("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "core.hooksPath=", "-c", "gc.auto=0")


class Office:
    """Who works in a tree; each action takes a while of the day."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root = root
        self._chance = chance
        self.nsaves = 0
        for number in range(_MODULES):
            self._path(number).parent.mkdir(parents=True, exist_ok=True)
            self._path(number).write_text(f"module {number}\n")
        self._git("init", "-q", "-b", "main", ".")
        for branch in _BRANCHES:
            self._git("checkout", "-q", "-B", branch)
            self._save(branch)
            self._git("add", ".")
            self._git("commit", "-q", "-m", branch)

    def _path(self, number: int) -> Path:
        return self._root / "project" / f"package{number % 6}" / f"module{number}.py"

    def _git(self, *words: str) -> None:
        subprocess.run([*_GIT, *words], cwd=self._root, check=True, capture_output=True)

    def _save(self, text: str) -> None:
        """Save as an editor does: beside it, and then over it."""
        path = self._path(self._chance.randrange(_MODULES))
        beside = path.with_name(f".{path.name}.swp")
        beside.write_text(f"{text} {self._chance.random()}\n")
        beside.replace(path)
        self.nsaves += 1

    def act(self) -> None:
        """Do what is done next."""
        kind = self._chance.random()
        if kind < 0.9:
            for _ in range(self._chance.randint(1, 5)):
                self._save("saved")
        elif kind < 0.96:
            self._build()
        elif kind < 0.98:
            self._git("commit", "-q", "-a", "--allow-empty", "-m", "work")
        else:
            self._git("checkout", "-q", "-f", self._chance.choice(_BRANCHES))

    def _build(self) -> None:
        shutil.rmtree(self._root / "build", ignore_errors=True)
        for number in range(_MODULES):
            target = self._root / "build" / f"lib{number % 4}" / f"{number}.o"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(hashlib.sha256(self._path(number).read_bytes()).digest())


@dataclass(slots=True)
class Watching:
    """A tree that is watched; `changed` is set when something was seen to change since it was last asked."""

    tree: Tree
    home: Path
    identity: str
    session: int
    changed: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def await_all_seen(self) -> None:
        """Wait until all that was done so far is seen, however busy the machine is."""
        with closing(open_for_watching(self.home, self.identity)) as journal:
            assert journal.await_answer(self.session, 60)

    def loop(self) -> None:
        """Write down what is seen, as the loop of a watcher does."""
        with closing(open_for_watching(self.home, self.identity)) as journal:
            beaten = time.monotonic()
            while not self.ended.wait(0.002):
                batch = self.tree.take()
                if batch.changed:
                    self.changed.set()
                if not batch.is_empty:
                    journal.record(self.session, batch)
                if time.monotonic() - beaten > BEAT_SECONDS:
                    beaten = time.monotonic()
                    journal.beat(self.session)


@contextmanager
def watching(world: World) -> Iterator[Watching]:
    home, identity = world.root / JOURNAL, world.storage.identity
    with closing(open_for_watching(home, identity)) as journal:
        session = journal.begin_session()
        number = journal.watch_source(session, "home", "docs", 86_400, rules_of(Filters()))
        tree = Tree(journal.cookies, lambda: None)
    made = Watching(tree, home, identity, session)
    tree.start()
    tree.add(number, os.fsencode(world.source), Filters(), {})
    thread = threading.Thread(target=made.loop)
    with closing(tree):
        thread.start()
        try:
            yield made
        finally:
            made.ended.set()
            thread.join()


class Day:
    """A day: its clock, its schedule, and what came of the runs."""

    def __init__(self, world: World, pace: Pace, seed: int) -> None:
        self._world = world
        self._chance = random.Random(seed)
        self.office = Office(world.source, self._chance)
        self._schedule: Schedule[str] = Schedule(pace, chance=lambda: 0.0)
        self._schedule.add(SOURCE, 0.0)
        self.now = 0.0
        self.sizes: list[int] = []
        self.nchecked = self.nfull = self.nruns = self._npauses = 0

    def live(self, watching: Watching, until: float) -> None:
        """Work until evening; each pause that is long enough shows whether all of it can be restored."""
        lunch = until / 2
        while self.now < until:
            pause = until / 8 if self.now > lunch else self._pause()
            lunch = math.inf if self.now > lunch else lunch
            self._rest(watching, pause)
            self.office.act()
        self._rest(watching, self._lasting() + HOUR)

    def _pause(self) -> float:
        """A meeting each hour or so, however the dice fall: a day must have work in it, and some quiet."""
        self._npauses += 1
        return self._chance.expovariate(1 / 8) if self._npauses % 60 else self._chance.uniform(60, 900)

    def _rest(self, watching: Watching, pause: float) -> None:
        self._run_until(watching, self.now + pause)
        self.now += pause
        if pause > self._lasting():
            self._check()

    def _lasting(self) -> float:
        """How long a state must last for a snapshot to have it."""
        return self._schedule.pace.settle + self._schedule.stretched(SOURCE)

    def _run_until(self, watching: Watching, until: float) -> None:
        """Do the runs that are due before a time; what was done is seen at once, as days go."""
        let_tick()
        watching.await_all_seen()
        if watching.changed.is_set():
            watching.changed.clear()
            self._schedule.changed(SOURCE, self.now)
        while (due := self._schedule.due(SOURCE)) <= until:
            self._schedule.begin(SOURCE, max(due, self.now))
            outcome = run_by_journal(self._world, options=Options("here", accepts_deletions=True))
            assert outcome.error is None
            assert outcome.failures == []
            self.nruns += 1
            self.nfull += outcome.why_full is not None
            if outcome.manifest_nbytes is not None:
                self.sizes.append(outcome.manifest_nbytes)
            self._schedule.succeed(
                SOURCE, manifest_nbytes=outcome.manifest_nbytes, was_full=outcome.why_full is not None
            )
            watching.changed.clear()

    def _check(self) -> None:
        said = {entry.path: entry.hash for entry in self._world.newest().entries if entry.kind == FILE}
        there = {
            os.fsencode(path.relative_to(self._world.source)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._world.source.rglob("*")
            if path.is_file()
        }
        assert said == there
        self._world.check_newest()
        self.nchecked += 1


@pytest.mark.parametrize("budget", [10**9, 2_000_000])
def test_a_day_of_work_makes_few_snapshots_and_loses_no_state_that_lasted(world: World, budget: int) -> None:
    hours = 8 if IS_LONG else 1.5
    pace, seed = Pace(budget=budget), random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    day = Day(world, pace, seed)
    with watching(world) as seen:
        day.live(seen, hours * HOUR)
    assert day.office.nsaves > 150 * hours
    assert len(day.sizes) <= day.now / pace.interval + 1
    assert len(day.sizes) <= 100
    assert sum(day.sizes) <= budget * day.now / (24 * HOUR) + 2 * max(day.sizes)
    assert day.nchecked > 0
    assert day.nfull <= 2
    told = f"{day.office.nsaves:,} saves, {day.nruns} runs, {len(day.sizes)} snapshots, {sum(day.sizes):,} bytes"
    sys.stdout.write(f"{told}, {day.nchecked} states held to their snapshots\n")
