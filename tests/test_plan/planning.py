"""Makes a plan and a backup as the program does, and holds the one to the other."""

import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.backup.estimate import Estimate
from s3bu.backup.plan import Plan, Planned
from s3bu.backup.plan import plan as make_plans
from s3bu.compare import CARRIED, CHANGED, NEW, REMOVED
from s3bu.index import open_copied_index
from s3bu.job import Job
from s3bu.manifest import Entry
from tests.fakes import SECOND, Listener, World
from tests.running import Node, tree

CHECKED = ("racy", "ctime", "inode", "rehash", "never read", "not stored", "time")
"""Why a file is read of which neither size nor second tell that it changed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A plan, all of whose paths were read, and which found everything as it left it."""

    plan: Plan
    paths: list[Planned]
    estimate: Estimate | None

    def of(self, *actions: str) -> set[bytes]:
        return {one.path for one in self.paths if one.action in actions}

    @property
    def read(self) -> set[bytes]:
        return {one.path for one in self.paths if one.is_read}

    @property
    def reasons(self) -> dict[bytes, tuple[str, str | None]]:
        return {one.path: (one.action, one.reason) for one in self.paths}


def show(world: World, options: Options, job: Job | None = None, home: str = "state") -> Shown:
    """Plan the one source of a job; it must leave nothing behind."""
    job, keys = job or world.job(), dict(world.storage.objects)
    before = _files(world.root / home)
    with closing(open_copied_index(world.root / home, world.storage.identity)) as index:
        plans = make_plans(world.reopen(home), index, job, job.sources, options, Listener())
        (made,) = [Shown(plan, list(plan.paths()), plan.estimate) for plan in plans]
    assert world.storage.objects == keys
    assert _files(world.root / home) == before
    return made


def _files(home: Path) -> dict[bytes, Node]:
    """Return what lies there, but for the times of directories, where SQLite makes a file for as long as it reads."""
    found = tree(home) if home.exists() else {}
    return {path: node._replace(mtime=0) if stat.S_ISDIR(node.kind) else node for path, node in found.items()}


@dataclass(frozen=True, slots=True)
class Done:
    """What a backup did: what became of paths, which failed, and what was asked of the storage."""

    outcome: Outcome
    became: Mapping[bytes, str]
    failed: set[bytes]
    nread: int
    puts: list[str]
    nreads: int
    nlists: int

    def of(self, *statuses: str) -> set[bytes]:
        return {path for path, status in self.became.items() if status in statuses}


def do(world: World, options: Options, job: Job | None = None, home: str = "state") -> Done:
    """Back up the one source of a job."""
    job, storage = job or world.job(), world.storage
    counts = len(storage.puts), len(storage.reads), len(storage.lists)
    listener = Counting(wants_changes=True)
    with closing(world.index(home)) as index:
        (outcome,) = run_backup(world.reopen(home), index, job, job.sources, options, listener)
    became = {change.path: change.action for change in listener.changes}
    failed = {failure.path for failure in listener.failures}
    nreads, nlists = len(storage.reads) - counts[1], len(storage.lists) - counts[2]
    return Done(outcome, became, failed, listener.nstored, storage.puts[counts[0] :], nreads, nlists)


class Counting(Listener):
    """Notes how many files a run said that it would read."""

    nstored = 0

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        if name == "storing":
            self.nstored += files or 0
        super().phase(name, files=files, nbytes=nbytes, noun=noun)


def check_agreement(world: World, shown: Shown, done: Done, before: Mapping[bytes, Entry]) -> None:
    """Hold a backup to the plan that was made just before it; `before` are the entries of the snapshot before.

    What cannot be read shows only when it is: such a file may fail, whatever the plan says.
    """
    unread = done.failed - {failure.path for failure in shown.plan.failures}
    assert done.failed - unread == {failure.path for failure in shown.plan.failures}
    assert unread <= shown.read
    assert done.nread == len(shown.read)
    assert done.of(NEW) == shown.of(NEW) - unread
    assert done.of(REMOVED) == shown.of(REMOVED)
    assert done.of(CARRIED) - unread == shown.of(CARRIED)
    assert shown.of(CHANGED) - unread <= done.of(CHANGED) <= shown.of(CHANGED, "check")
    after = {entry.path: entry for entry in world.newest().entries} if world.manifest_keys() else {}
    for path in done.of(NEW, CHANGED, REMOVED):
        _check_reason(*shown.reasons[path], before.get(path), after.get(path))
    if not unread:
        assert done.outcome.published or not shown.plan.news
    assert shown.plan.is_something or unread or not done.outcome.published
    assert (shown.plan.alarm is None) or done.outcome.error or done.outcome.published
    _check_bounds(world, shown, done)


def _check_reason(action: str, reason: str | None, before: Entry | None, after: Entry | None) -> None:
    """Hold a reason to what two snapshots say of the path."""
    if before is None or after is None:
        assert (action, before is None) in ((NEW, True), (REMOVED, False))
        return
    unlike = {
        "kind": before.kind != after.kind,
        "size": before.nbytes != after.nbytes,
        "time": before.mtime_ns // SECOND != after.mtime_ns // SECOND,
        "mode": before.mode != after.mode,
        "target": before.target != after.target,
        "owner": before.owner != after.owner,
    }
    if action == CHANGED:
        is_carried_before = reason == "never read" and before.mtime_ns == 0
        assert unlike.get(reason or "") or is_carried_before or (reason in CHECKED and any(unlike.values())), reason
    else:
        assert action == "check"
        assert reason in CHECKED or (reason == "mode" and unlike["mode"]), reason
        assert before.hash != after.hash


def _check_bounds(world: World, shown: Shown, done: Done) -> None:
    estimate = shown.estimate
    assert estimate is not None
    nbytes = {key: len(world.storage.objects[key].body) for key in done.puts}
    contents = [key for key in done.puts if key.startswith("data/")]
    manifests = [key for key in done.puts if key.startswith("manifests/") and key.endswith(".csv.gz")]
    assert sum(nbytes[key] for key in contents) == done.outcome.nbytes_sent <= estimate.nbytes_sent
    assert sum(nbytes[key] for key in manifests) <= estimate.nbytes_manifest or not shown.plan.is_something
    if shown.plan.is_something:
        assert len(done.puts) <= estimate.requests.put
        assert done.nlists <= estimate.requests.list
        assert done.nreads <= estimate.requests.get


def entries_before(world: World) -> dict[bytes, Entry]:
    """Return what the newest snapshot says, by path."""
    return {entry.path: entry for entry in world.newest().entries} if world.manifest_keys() else {}
