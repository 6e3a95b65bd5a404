"""Plan and backup agree: after any changes to tree, job, index and other machines, the run does what the plan showed.

The paths, why they are touched, how many files are read; and what is sent and asked stays within the plan's bounds.
"""

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3bu.backup import Options, Outcome
from s3bu.filters import Filters
from s3bu.selection import Selection
from tests.fakes import IN_MEMORY, World, without_override
from tests.rounds import rounds
from tests.test_machine.expected import Machine
from tests.test_machine.test_machine import BackupMachine
from tests.test_plan.planning import check_agreement, do, entries_before, show


class PlanMachine(BackupMachine):
    """The machine of the backups, with a plan before each."""

    def _run(self, machine: Machine, *, is_rehash: bool) -> Outcome:
        options = Options(machine.host, is_rehash=is_rehash)
        before = entries_before(self._world)
        with without_override():
            shown = show(self._world, options, home=machine.home)
            done = do(self._world, options, home=machine.home)
        assert done.outcome.error is None
        check_agreement(self._world, shown, done, before)
        return done.outcome


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(
    max_examples=rounds(5), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

NAMES = ["a.o", "b", "c.log", "build", "deep"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
PATTERNS = st.sampled_from([b"*.o", b"build/", b"/deep", b"!a.o", b"deep/*", b"!b", b"*"])
LINES = st.lists(PATTERNS, max_size=3)
SELECTIONS = st.builds(
    Selection,
    exclude=LINES.map(tuple),
    ignore_files=st.sampled_from([(), (b".ignore",)]),
    max_file_size=st.sampled_from([None, 3]),
)
FILTERS = st.builds(Filters, skip_dirs=st.sampled_from([(), (b"build",)]), selection=SELECTIONS)
CHANGES = st.one_of(
    st.tuples(st.just("write"), PATHS, st.sampled_from([b"", b"one", b"two", b"longer"])),
    st.tuples(st.just("ignore"), PATHS, LINES.map(b"\n".join)),
    st.tuples(st.just("remove"), PATHS, st.just(b"")),
)
RUNS = st.lists(st.tuples(st.lists(CHANGES, max_size=5), FILTERS), min_size=1, max_size=4)


def change(root: Path, kind: str, name: str, content: bytes) -> None:
    """Make one change, if the tree lets it."""
    path = root / name
    try:
        if kind == "remove":
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.parent / ".ignore" if kind == "ignore" else path
        target.write_bytes(content)
    except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError):
        pass  # a directory of a file, or the other way round


@settings(max_examples=rounds(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(runs=RUNS)
def test_a_plan_is_what_the_run_then_does_while_the_selection_changes(
    runs: list[tuple[list[tuple[str, str, bytes]], Filters]],
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        world, options = World.make(Path(directory)), Options("here")
        for changes, filters in runs:
            for kind, name, content in changes:
                change(world.source, kind, name, content)
            job, before = world.job(filters), entries_before(world)
            shown, done = show(world, options, job), do(world, options, job)
            check_agreement(world, shown, done, before)
            kept = set(entries_before(world))
            left_out = shown.of("skipped", "removed")
            assert not kept & left_out
            assert all_paths(world.source) == kept | below(all_paths(world.source), left_out)


def all_paths(root: Path) -> set[bytes]:
    return {os.fsencode(path.relative_to(root)) for path in root.rglob("*")}


def below(paths: set[bytes], tops: set[bytes]) -> set[bytes]:
    """Return the paths that lie at or below some of them."""
    return {path for path in paths if any((path + b"/").startswith(top + b"/") for top in tops)}
