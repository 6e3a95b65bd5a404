"""Runs a backup by the journal and, from the same past, one that looks everywhere, and holds the one to the other."""

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.job import Job
from s3bu.journal import open_for_run
from tests.fakes import Listener, RoughStorage, World, open_repository

JOURNAL, COPY = "state", "copy"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a run by the journal came to, and what it said and sent like one that looked everywhere."""

    outcome: Outcome
    lines: list[bytes]

    @property
    def why_full(self) -> str | None:
        return self.outcome.why_full


def run_by_journal(
    world: World, job: Job | None = None, *, options: Options | None = None, on_phase: Callable[[str], object] = id
) -> Outcome:
    """Back up as a run does on the machine where the watcher is."""
    job = job or world.job()
    journal = open_for_run(world.root / JOURNAL, world.storage.identity)
    assert journal is not None
    chosen = replace(options or Options("here"), journal=journal)
    with closing(journal), closing(world.index(JOURNAL)) as index:
        (outcome,) = run_backup(world.reopen(JOURNAL), index, job, job.sources, chosen, Listener(on_phase))
    return outcome


def compare(world: World, job: Job | None = None, options: Options | None = None) -> Compared:
    """Back up by the journal and everywhere; both publish the same lines, or both publish nothing."""
    job, options = job or world.job(), options or Options("here")
    past = copy_of(world)
    mine = run_by_journal(world, job, options=options)
    with closing(past.index(COPY)) as index:
        (full,) = run_backup(past.reopen(COPY), index, job, job.sources, options, Listener())
    assert (mine.error is None, mine.published is None) == (full.error is None, full.published is None), (mine, full)
    lines = _lines(world, mine)
    everywhere = _lines(past, full)
    assert lines == everywhere, (mine.why_full, set(lines) ^ set(everywhere))
    assert (mine.nfiles, mine.nbytes) == (full.nfiles, full.nbytes)
    assert [one.path for one in mine.failures] == [one.path for one in full.failures]
    return Compared(mine, lines)


def _lines(world: World, outcome: Outcome) -> list[bytes]:
    """Return what a run published, but for the second in which a path failed first: the one ran after the other."""
    lines = world.manifest_lines(outcome.published) if outcome.published else []
    return [re.sub(rb"^(@fail .*) since=\S+", rb"\1", line) for line in lines]


def copy_of(world: World) -> World:
    """Return the same repository and index once more; what happens to the one does not happen to the other."""
    shutil.rmtree(world.root / COPY, ignore_errors=True)
    shutil.copytree(world.root / JOURNAL, world.root / COPY, ignore=shutil.ignore_patterns("journals"))
    storage = RoughStorage()
    storage.identity = world.storage.identity
    storage.objects.update(world.storage.objects)
    return World(world.root, storage, open_repository(world.root, storage, COPY))
