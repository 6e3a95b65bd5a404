"""Random histories of several jobs, labels and machines, in which every step may be interrupted by further ones.

All runs in one thread and is drawn from one seed. At each request of a backup, forget, rewrite or prune the history may
go on elsewhere, and come back to it later, or the machine that made the request may be killed. The clock is that of the
history; machines are up to an hour off, and storages stamp objects with their own time, or with that of the writer.
"""

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from s3bu import forget, prune
from s3bu.backup import Options as BackupOptions
from s3bu.backup import run as run_backup
from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.forget import plan_forget
from s3bu.index import Index, open_index
from s3bu.job import Job, Source
from s3bu.manifest import FILE
from s3bu.progress import Silent
from s3bu.repository import layout
from s3bu.repository.layout import content_key, parse_content_key, parse_manifest_key
from s3bu.retention import Policy
from s3bu.storage import ObjectStat
from s3bu.storage.memory import MemoryStorage, StoredObject
from s3bu.sync import sync
from tests.fakes import OLD, open_repository, write

CONTENTS = [b"%d" % number * (number + 1) for number in range(5)]
NAMES = ["a", "b"]
SOURCES = [("home", "docs"), ("home", "mail"), ("work", "docs")]
HOURS = (1, 73, 73, 73, 100)
_BEGAN = 1_790_000_000.0
_DEEPEST = 3


class KilledError(BaseException):
    """The machine that runs this is dead: not even its last words reach the storage."""


@dataclass(eq=False, slots=True)
class Machine:
    """A machine with a state of its own; its clock is `skew` seconds ahead."""

    home: Path
    skew: float
    is_dead: bool = False


@dataclass(slots=True)
class Tally:
    """What happened in histories, so that a test can tell that something did."""

    backups: int = 0
    prunes: int = 0
    refused: int = 0
    deleted: int = 0
    kills: int = 0
    nested: int = 0
    stopped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Clock:
    """The time of a history, under the names that the program takes it by."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 0

    def __init__(self) -> None:
        self.seconds = _BEGAN
        self.skew = 0.0

    def time(self) -> float:
        return self.seconds + self.skew

    def clock_gettime(self, _which: int) -> float:
        return self.seconds

    def now(self, zone: Any = None) -> datetime:
        return datetime.fromtimestamp(self.time(), zone)


class Storage(MemoryStorage):
    """A storage in memory that asks a history what happens before and after each request, and holds it to its oracle.

    No object that a manifest there names is ever removed, and no manifest is put that names an object which is not
    there.
    """

    def __init__(self, history: "History") -> None:
        super().__init__("history")
        self._history = history
        self.has_conditional_writes = True
        self._named: dict[str, set[str]] = {}

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        self._history.meet("put", key)
        super().put(key, body, metadata, create=create)
        stored = self.objects[key]
        self.objects[key] = StoredObject(stored.body, stored.metadata, stored.etag, self._history.stamp())
        if parse_manifest_key(key):
            self._check_published(key)
        self._history.meet("after put", key)

    def open(self, key: str, *, start: int = 0):  # type: ignore[no-untyped-def]
        self._history.meet("open", key)
        return super().open(key, start=start)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        self._history.meet("list", prefix)
        found = list(super().list(prefix, after=after))
        self._history.meet("after list", prefix)
        return iter(found)

    def delete(self, key: str) -> None:
        self._history.meet("delete", key)
        self._check_removal(key)
        super().delete(key)
        self._named.pop(key, None)
        self._history.meet("after delete", key)

    def remove(self, stat: ObjectStat) -> bool:
        self._history.meet("remove", stat.key)
        found = self.objects.get(stat.key)
        if found is not None and found.etag == stat.etag:
            self._check_removal(stat.key)
        was_there = super().remove(stat)
        self._named.pop(stat.key, None)
        self._history.meet("after remove", stat.key)
        return was_there

    def now(self) -> datetime:
        self._history.meet("now", "")
        return self._history.storage_time()

    def stop(self) -> None:
        """Go on: the machines share this storage, and none of them has a request under way that another waits for."""

    def named(self) -> set[str]:
        return set().union(*self._named.values())

    def _check_removal(self, key: str) -> None:
        content = parse_content_key(key)
        if content is not None:
            assert content not in self.named(), f"{content[:8]} is removed, and a snapshot names it"
            self._history.tally.deleted += 1

    def _check_published(self, key: str) -> None:
        parsed = parse_manifest_key(key)
        assert parsed is not None
        with self._history.undisturbed():
            snapshot = self._history.repository.read_snapshot(parsed)
        named = {entry.hash for entry in snapshot.entries if entry.kind == FILE}
        missing = {one[:8] for one in named if content_key(one) not in self.objects}
        assert not missing, f"{key} is published without {missing}"
        self._named[key] = named


class History:
    """One history: its storage, machines and sources, and the dice."""

    def __init__(self, root: Path, seed: int, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(seed)
        self.tally = tally
        self.clock = Clock()
        self._root = root
        self._stack: list[Machine] = []
        self._quiet = 0
        self._stamps_of_writers = self.chance.random() < 0.3
        self._whole_seconds = self.chance.random() < 0.5
        self._restlessness = self.chance.choice((0.02, 0.04, 0.08))
        self._deadliness = self.chance.choice((0, 0, 0.01, 0.03))
        self.storage = Storage(self)
        self._enter(monkeypatch)
        with self.undisturbed():
            self.storage.put(layout.RECIPIENTS, (root / "recipient").read_bytes(), {})
        self.repository = open_repository(root, self.storage)
        skews = [0.0, self.chance.choice((0, 600, -600)), self.chance.choice((3600, -3600))]
        self._machines = [Machine(root / f"machine{number}", skew) for number, skew in enumerate(skews)]

    def _enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("s3bu.patience.time", "s3bu.known.time"):
            monkeypatch.setattr(name, self.clock)
        monkeypatch.setattr("s3bu.prune.datetime", self.clock)
        monkeypatch.setattr(prune, "YOUNG", timedelta(hours=self.chance.choice((0, 0, 0, 0, 2, 168))))

    def run(self, nsteps: int) -> None:
        """Let so many things happen, one after the other, and others in their midst."""
        for _ in range(2):
            self._change()
        for _ in range(nsteps):
            self._step()
        self._deadliness = self._restlessness = 0
        with self.undisturbed():
            self._check()

    # --- what the storage asks

    def undisturbed(self) -> "_Quiet":
        return _Quiet(self)

    def stamp(self) -> datetime:
        """Return the time that an object gets that is put now."""
        skew = self.clock.skew if self._stamps_of_writers else 0.0
        seconds = self.clock.seconds + skew
        return datetime.fromtimestamp(int(seconds) if self._whole_seconds else seconds, UTC)

    def storage_time(self) -> datetime:
        return self.stamp()

    def meet(self, request: str, key: str) -> None:
        """Let time pass at a request, and perhaps other things, or kill the machine that makes it.

        Nothing comes between the last look at the clock and the put of a manifest: what S3 gets is refused when it was
        signed 15 minutes before, and what a directory gets is one call of the system.
        """
        if self._quiet:
            return
        self.clock.seconds += 0.2
        if not self._stack:
            return
        machine = self._stack[-1]
        if machine.is_dead or self.chance.random() < self._deadliness:
            self.tally.kills += not machine.is_dead
            machine.is_dead = True
            raise KilledError
        is_last_moment = request == "put" and parse_manifest_key(key) is not None
        if len(self._stack) < _DEEPEST and not is_last_moment and self.chance.random() < self._restlessness:
            self.tally.nested += 1
            for _ in range(self.chance.choice((1, 1, 2, 3))):
                self._step()

    # --- what happens

    def _step(self) -> None:
        """Do one thing, or some that only together come to much."""
        one = self.chance.choice(
            (
                (self._change, self._back_up),
                (self._change, self._back_up),
                (self._back_up,),
                (self._forget, self._prune),
                (self._forget, self._prune, self._pass_time, self._prune),
                (self._prune, self._pass_time, self._prune),
                (self._prune,),
                (self._change, self._back_up, self._forget),
                (self._pass_time,),
            )
        )
        for action in one:
            skew = self.clock.skew
            try:
                action()
            finally:
                self.clock.skew = skew

    def _pass_time(self) -> None:
        self.clock.seconds += 3600 * self.chance.choice(HOURS)

    def _source(self, job: str, label: str) -> Path:
        return self._root / "sources" / job / label

    def _change(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            path = self._source(*self.chance.choice(SOURCES)) / self.chance.choice(NAMES)
            if self.chance.random() < 0.4:
                path.unlink(missing_ok=True)
            else:
                number = self.chance.randrange(len(CONTENTS))
                write(path, CONTENTS[number], mtime=OLD + number)

    def _on_some_machine(self, action: Callable[[Machine, Index], object]) -> None:
        """Do something on a machine that does nothing else just now."""
        free = [machine for machine in self._machines if machine not in self._stack]
        if not free:
            return
        machine = self.chance.choice(free)
        self._stack.append(machine)
        self.clock.skew = machine.skew
        try:
            with closing(open_index(machine.home, self.storage.identity, Silent())) as index:
                action(machine, index)
        except KilledError:
            machine.is_dead = False
        finally:
            self._stack.pop()

    def _back_up(self) -> None:
        self._back_up_source(*self.chance.choice(SOURCES))

    def _back_up_source(self, job: str, label: str) -> None:
        source = self._source(job, label)
        source.mkdir(parents=True, exist_ok=True)

        def action(machine: Machine, index: Index) -> None:
            one = Job(job, (Source(label, os.fsencode(source)),), Filters(), ())
            options = BackupOptions(machine.home.name, accepts_deletions=True, is_rehash=self.chance.random() < 0.2)
            self.tally.backups += 1
            repository = open_repository(self._root, self.storage, machine.home.name)
            try:
                run_backup(repository, index, one, one.sources, options, Silent())
            except S3buError as error:
                self.tally.stopped += 1
                self._note("backup", error)

        self._on_some_machine(action)

    def _forget(self) -> None:
        def action(machine: Machine, index: Index) -> None:
            repository = open_repository(self._root, self.storage, machine.home.name)
            sync(repository, index, Silent())
            policy = Policy(last=self.chance.choice((1, 1, 1, 2)))
            decisions = plan_forget(index, repository.manifests(), policy, now=self.clock.now(UTC))
            with suppress(S3buError):  # one of its manifests may be gone by now
                forget.run(repository, index, decisions, Silent())

        self._on_some_machine(action)

    def _prune(self) -> None:
        def action(machine: Machine, index: Index) -> None:
            if abs(machine.skew) > 900 and self.chance.random() < 0.9:
                return  # it is refused
            repository = open_repository(self._root, self.storage, machine.home.name)
            self.tally.prunes += 1
            try:
                prune.run(repository, prune.Options(), Silent())
            except S3buError as error:
                self.tally.refused += 1
                self._note("prune", error)

        self._on_some_machine(action)

    def _note(self, what: str, error: S3buError) -> None:
        why = f"{what}: " + re.sub(r"\S*/\S*|[0-9:-]{3,}", "…", error.message)
        self.tally.reasons[why] = self.tally.reasons.get(why, 0) + 1

    def _check(self) -> None:
        """Hold all that is published to what is stored, anew and from the bytes that lie there."""
        for manifest in self.repository.manifests():
            snapshot = self.repository.read_snapshot(manifest.key)
            missing = [
                one.path
                for one in snapshot.entries
                if one.kind == FILE and content_key(one.hash) not in self.storage.objects
            ]
            assert missing == [], str(manifest.key)


class _Quiet:
    """A block in which nothing else happens."""

    def __init__(self, history: History) -> None:
        self._history = history

    def __enter__(self) -> None:
        self._history._quiet += 1

    def __exit__(self, *exc_info: object) -> None:
        self._history._quiet -= 1
