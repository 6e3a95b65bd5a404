"""Runs a backup as the program does, and says what came of it."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.job import Job
from s3bu.manifest import FILE, Entry
from s3bu.repository import Snapshot
from s3bu.scan.found import Excluded
from tests.fakes import Listener, World, file_entry

TEXT = b"some text"


def run(
    world: World,
    *,
    host: str = "here",
    job: Job | None = None,
    on_phase: Callable[[str], object] = lambda name: None,
    rehash: bool = False,
    accepts_deletions: bool = False,
    compress: bool = False,
    excluded: Excluded = MappingProxyType({}),
    is_full: bool = False,
    home: str = "state",
) -> tuple[list[Outcome], Listener]:
    """Back up as another run of the program would, and hold all that is stored to its names."""
    listener, job = Listener(on_phase), job or world.job()
    options = Options(host, compress, rehash, accepts_deletions, excluded, is_full)
    with closing(world.index(home)) as index:
        outcomes = run_backup(world.reopen(home), index, job, job.sources, options, listener)
    world.check_contents()
    assert [failure for outcome in outcomes for failure in outcome.failures] == listener.failures
    return outcomes, listener


def back_up(world: World, **options: object) -> Outcome:
    (outcome,), _ = run(world, **options)  # type: ignore[arg-type]
    assert outcome.error is None
    paths = [failure.path for failure in outcome.failures]
    assert len(paths) == len(set(paths))
    return outcome


def counts(outcome: Outcome) -> dict[str, int]:
    return {status: number for status, number in outcome.counts.items() if number}


def files(snapshot: Snapshot) -> dict[bytes, Entry]:
    return {entry.path: entry for entry in snapshot.entries if entry.kind == FILE}


def set_created(world: World, ago: timedelta, entries: Iterable[Entry]) -> None:
    world.put_manifest(entries, created=datetime.fromtimestamp(int(time.time()), UTC) - ago)


def numbered(count: int) -> list[Entry]:
    return [file_entry(b"%03d" % number, b"%d" % number) for number in range(count)]


def plant(world: World, entries: Iterable[Entry]) -> None:
    """Write files that a manifest of `numbered` entries describes, and store their contents."""
    for entry in entries:
        content = b"%d" % int(entry.path)
        world.write(os.fsdecode(entry.path), content)
        world.put_content(content)


def when_storing(action: Callable[[], object]) -> Callable[[str], object]:
    return lambda phase: action() if phase == "storing" else None
