"""Two machines, one source, one repository, and whatever Hypothesis thinks of: T1 of the test plan.

After each run every content is held to its name, the newest snapshot to the model, and the counts to what differs.
"""

import os
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.index import index_path
from s3bu.manifest import DIRECTORY, FILE, SPECIAL
from s3bu.progress import Silent
from s3bu.repository.layout import ManifestKey, parse_content_key
from s3bu.restore import plan_restore
from s3bu.restore import run as run_restore
from s3bu.restore.target import Target
from s3bu.sync import sync
from tests.fakes import IN_MEMORY, OLD, Listener, World, check_content, without_override
from tests.rounds import rounds
from tests.test_machine.expected import Machine, Said, Told, choices, differences, said_of_all, said_of_tree, told_of
from tests.test_machine.source import Clock, Source

EXAMPLES = rounds(200)
NAMES = st.sampled_from([b"a", b"b", b"a b", b"a.txt", b"\xff", b"-rf\n", b"%2F,=", "\u00e9".encode()])
DIRECTORIES = st.sampled_from([b"", b"", b"a/", b"d/", b"d/a/"])
PATHS = st.builds(lambda directory, name: directory + name, DIRECTORIES, NAMES)
CONTENTS = st.sampled_from([b"", b"one", b"two", b"ten", b"a longer one"])
MTIMES = st.sampled_from([OLD, OLD + 1, None])
FILE_MODES = st.sampled_from([0o644, 0o600, 0o755, 0o200, 0])
DIRECTORY_MODES = st.sampled_from([0o755, 0o700, 0o555, 0o444, 0o300, 0])
WHICH = st.integers(0, 20)
IS_KEPT = st.booleans()


class BackupMachine(RuleBasedStateMachine):
    """The world and its model; `told` are all snapshots that were made, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY))
        monkeypatch = self._stack.enter_context(pytest.MonkeyPatch.context())
        self._world = World.make(Path(directory))
        clock = Clock(time.time_ns)
        monkeypatch.setattr(time, "time_ns", clock.time_ns)
        self._source = Source(self._world.source, clock)
        self._machines = [Machine("state", "here"), Machine("another state", "there")]
        self._told: dict[ManifestKey, Told] = {}
        self._newest = Told()
        self._checked: set[str] = set()

    def teardown(self) -> None:
        self._stack.close()

    # --- what happens to the tree

    @initialize()
    def begin(self) -> None:
        for path, content in {b"a": b"one", b"d/a": b"two", b"d/b": b"one"}.items():
            self._source.make_directory(b"d")
            self._source.write(path, content, OLD, 0o644)

    @rule(path=PATHS, content=CONTENTS, mtime=MTIMES, mode=FILE_MODES)
    def write(self, path: bytes, content: bytes, mtime: int | None, mode: int) -> None:
        self._source.write(path, content, mtime, mode)

    @rule(which=WHICH, is_time_kept=IS_KEPT)
    def rewrite_in_place(self, which: int, is_time_kept: bool) -> None:
        for path in self._some(which, FILE):
            self._source.rewrite(path, is_time_kept=is_time_kept)

    @rule(which=WHICH, mtime=st.sampled_from([OLD, OLD + 1]))
    def set_time(self, which: int, mtime: int) -> None:
        for path in self._some(which, FILE):
            self._source.age(path, mtime)

    @rule(which=WHICH, mode=FILE_MODES)
    def chmod_file(self, which: int, mode: int) -> None:
        for path in self._some(which, FILE):
            self._source.chmod(path, mode)

    @rule(which=WHICH, mode=DIRECTORY_MODES)
    def chmod_directory(self, which: int, mode: int) -> None:
        for path in self._some(which, DIRECTORY):
            self._source.chmod(path, mode)

    @rule(path=PATHS)
    def make_directory(self, path: bytes) -> None:
        self._source.make_directory(path)

    @rule(path=PATHS, to=st.sampled_from([b"a", b"../nowhere", b"/etc/passwd", b"\xff\n"]))
    def link(self, path: bytes, to: bytes) -> None:
        self._source.link(path, to)

    @rule(path=PATHS)
    def make_fifo(self, path: bytes) -> None:
        self._source.make_fifo(path)

    @rule(which=WHICH)
    def remove(self, which: int) -> None:
        for path in self._some(which):
            self._source.remove(path)

    @rule(which=WHICH, new=PATHS)
    def rename(self, which: int, new: bytes) -> None:
        for path in self._some(which):
            self._source.rename(path, new)

    @rule()
    def open_all(self) -> None:
        """Make everything readable again."""
        for path in self._source.paths(FILE, DIRECTORY):
            mode = self._source.nodes[path].mode
            wanted = mode | (0o700 if self._source.kind(path) == DIRECTORY else 0o400)
            if mode != wanted:
                self._source.chmod(path, wanted)

    @rule()
    def wait(self) -> None:
        self._source.clock.wait(3)

    def _some(self, which: int, *kinds: str) -> list[bytes]:
        """Return one path of these kinds, or none where there is none."""
        paths = self._source.paths(*kinds)
        return [paths[which % len(paths)]] if paths else []

    # --- what the machines do

    @rule()
    def back_up(self) -> None:
        self._back_up(self._machines[0])

    @rule()
    def back_up_again(self) -> None:
        """Two runs in a row: the second has nothing to tell, unless the first let something pass."""
        self._back_up(self._machines[0])
        self._back_up(self._machines[0])

    @rule()
    def back_up_elsewhere(self) -> None:
        self._back_up(self._machines[1])

    @rule(which=WHICH)
    def rewrite_twice_around_a_backup(self, which: int) -> None:
        """Write a file again in the second in which it was backed up: size and second do not tell a new machine so."""
        self.delete_index(1)
        self.rewrite_in_place(which, is_time_kept=False)
        self._back_up(self._machines[0])
        self.rewrite_in_place(which, is_time_kept=True)
        self._back_up(self._machines[1])

    @rule()
    def back_up_from_scratch(self) -> None:
        """Back up with another machine's eyes, and trust none of them."""
        self._back_up(self._machines[1], is_rehash=True)

    @rule(which=st.integers(0, 1))
    def delete_index(self, which: int) -> None:
        machine = self._machines[which]
        index_path(self._world.root / machine.home, self._world.storage.identity).unlink(missing_ok=True)
        machine.looked.clear()

    @precondition(lambda self: self._told)
    @rule(which=st.integers(0, 1))
    def synchronise(self, which: int) -> None:
        """Take in all snapshots; then the index says of each just what its manifest says."""
        world, home = self._world, self._machines[which].home
        with closing(world.index(home)) as index:
            sync(world.reopen(home), index, Silent())
            snapshots = index.snapshots(index.source("home", "docs"))
            found = {one.key: said_of_all(index.entries(one.source, one.number)) for one in snapshots}
        assert found == {str(key): told.said for key, told in self._told.items()}

    @precondition(lambda self: self._told)
    @rule(which=WHICH)
    def restore(self, which: int) -> None:
        """Restore a snapshot, the newest or an older one, into an empty directory."""
        keys = sorted(self._told)
        key = keys[-1 - which % len(keys)]
        target = self._world.root / "target"
        failed = self._restore(key, target)
        assert failed == self._told[key].failed
        assert said_of_tree(target) == {
            path: said for path, said in self._told[key].said.items() if said.kind != SPECIAL
        }
        shutil.rmtree(target)

    def _restore(self, key: ManifestKey, target: Path) -> set[bytes]:
        repository = self._world.reopen()
        plan = plan_restore(repository.read_snapshot(key), None)
        path = os.fsencode(target)
        with without_override(), Target(path, is_filled_fine=False, overwrites=False, mode_mask=0o777) as opened:
            outcome = run_restore(repository, plan, opened, Listener())
        return {failure.path for failure in outcome.failures}

    def _back_up(self, machine: Machine, *, is_rehash: bool = False) -> None:
        source, before = self._source, self._newest
        if is_rehash:
            machine.looked = {path: (said, -1) for path, said in before.said.items()}
        may_be = choices(source, before, machine)
        outcome = self._run(machine, is_rehash=is_rehash)
        now = self._published(outcome)
        assert {failure.path for failure in outcome.failures} == now.failed
        self._check(now, may_be)
        assert (outcome.published is not None) == (now != before or not self._told)
        assert +outcome.counts == differences(before, now)
        files = [said.nbytes for said in now.said.values() if said.kind == FILE]
        assert (outcome.nfiles, outcome.nbytes) == (len(files), sum(files))
        if outcome.published:
            self._told[outcome.published] = now
        self._newest = now
        machine.look(source, now)

    def _run(self, machine: Machine, *, is_rehash: bool) -> Outcome:
        world, job = self._world, self._world.job()
        options = Options(machine.host, is_rehash=is_rehash)
        with closing(world.index(machine.home)) as index, without_override():
            (outcome,) = run_backup(world.reopen(machine.home), index, job, job.sources, options, Listener())
        assert outcome.error is None
        return outcome

    def _published(self, outcome: Outcome) -> Told:
        """Return the newest snapshot as it stands in the repository; without a new one it is that of before."""
        keys = self._world.manifest_keys()
        assert keys == sorted([*self._told, *([outcome.published] if outcome.published else [])])
        return told_of(self._world.repository.read_snapshot(keys[-1]))

    def _check(self, now: Told, may_be: dict[bytes, set[tuple[Said | None, bool]]]) -> None:
        assert now.said.keys() | now.failed <= may_be.keys()
        for path, expected in may_be.items():
            assert (now.said.get(path), path in now.failed) in expected, path

    # --- what always holds

    @invariant()
    def every_content_is_right_and_was_sent_once(self) -> None:
        world = self._world
        new = {key for key in world.storage.objects if parse_content_key(key)} - self._checked
        for key in new:
            check_content(world.repository, key.rpartition("/")[2])
        self._checked |= new
        sent = [key for key in world.storage.puts if key.startswith("data/")]
        assert len(sent) == len(set(sent))
        assert {key.rpartition("/")[2] for key in self._checked} >= {
            said.what for said in self._newest.said.values() if said.kind == FILE
        }


TestBackupMachine = BackupMachine.TestCase
TestBackupMachine.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
