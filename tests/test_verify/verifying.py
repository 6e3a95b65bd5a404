"""Verifies a repository as the program does, and says what came of it."""

import os
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from s3bu.manifest import FILE
from s3bu.repository import Repository
from s3bu.size import Share
from s3bu.storage import ObjectStat
from s3bu.storage.memory import StoredObject
from s3bu.sync import sync
from s3bu.verify import Manifests, Options, Report
from s3bu.verify import run as run_verify
from s3bu.verify.live import Live
from s3bu.verify.report import Fault, faults
from tests.fakes import Listener, World, key_of

ALL = Share(1.0)
TEXT = b"some text that packs well " * 200


@dataclass(slots=True)
class Verified:
    """What a verification found, and what it said on the way."""

    report: Report
    faults: list[Fault]
    said: Listener = field(default_factory=Listener)

    @property
    def code(self) -> int:
        return self.report.exit_code

    @property
    def problems(self) -> dict[bytes, str]:
        """What is wrong with the contents of paths, and was not repaired."""
        return {fault.path: fault.problem for fault in self.faults if not fault.is_repaired}

    @property
    def repaired(self) -> set[bytes]:
        return {fault.path for fault in self.faults if fault.is_repaired}

    @property
    def broken(self) -> dict[str, str]:
        return {one.key: one.problem for one in self.report.broken}

    @property
    def whole(self) -> dict[str, tuple[int, int]]:
        """By label how many snapshots are whole, of how many."""
        return {one.label: (one.nwhole, one.nsnapshots) for one in self.report.standings}


def verify(
    world: World,
    *,
    home: str = "state",
    label: str | None = None,
    reads: Share | None = None,
    compares: Share | None = None,
    repairs: bool = False,
    oldest: datetime | None = None,
    repository: Repository | None = None,
    labels: tuple[str, ...] = ("docs",),
) -> Verified:
    """Bring the index of a machine up to date and verify, as one run of the program does."""
    repository, listener = repository or world.reopen(home), Listener()
    options = Options("home", label, reads, compares, repairs, oldest)
    with closing(world.index(home)) as index:
        found = sync(repository, index, listener)
        manifests = Manifests(found.taken, found.vanished, found.altered, found.locked)
        path = os.fsencode(world.source)
        live = [Live(index.source("home", one), "home", one, path) for one in labels]
        report = run_verify(repository, index, manifests, live, options, listener)
        return Verified(report, list(faults(index, wants_unverified=True)), listener)


def snapshots_of(world: World, label: str = "docs") -> dict[str, dict[bytes, str]]:
    """Return the hashes of the files of each snapshot by path, and the snapshots by key."""
    return {
        str(key): {
            entry.path: entry.hash for entry in world.repository.read_snapshot(key).entries if entry.kind == FILE
        }
        for key in world.manifest_keys(label)
    }


def spoil(world: World, content: bytes, body: bytes) -> None:
    """Put other bytes in the place of an object, and leave its metadata as they were."""
    stored = world.storage.objects[key_of(content)]
    world.storage.objects[key_of(content)] = StoredObject(body, stored.metadata)


def cut(world: World, content: bytes, nbytes: int) -> None:
    spoil(world, content, world.storage.objects[key_of(content)].body[:nbytes])


def stat_of(world: World, content: bytes) -> ObjectStat:
    return next(world.storage.list(key_of(content)))
