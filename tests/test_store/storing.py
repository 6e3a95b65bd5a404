"""Stores files as a backup does, and holds every object to its name."""

import dataclasses
import os
import random
from pathlib import Path

from s3bu.manifest import FILE, Entry
from s3bu.progress import Failure
from s3bu.repository import Contents
from s3bu.rooted import Root
from s3bu.scan import Scan
from s3bu.scan.found import entries
from s3bu.storage import PART_BOUND
from s3bu.store import Gone, Result, Store, Stored
from tests.fakes import World

NOISE = random.Random(1).randbytes(PART_BOUND + 300_000)
"""A content too long to be put in one request."""
OTHER = NOISE[::-1]
TEXT = b"some text that packs well " * 1000


def scanned(world: World) -> list[Entry]:
    found = entries(Scan(os.fsencode(world.source), world.job().filters))
    return [entry for entry in found if isinstance(entry, Entry) and entry.kind == FILE]


def make_store(world: World, *, is_compressing: bool = False) -> Store:
    repository = world.repository
    contents = Contents(set(), set())
    for digest, _, is_damaged in repository.contents():
        (contents.damaged if is_damaged else contents.stored).add(digest)
    return Store(repository, repository.recipients(), contents, is_compressing=is_compressing)


def store(
    world: World, entries: list[Entry] | None = None, made: Store | None = None, *, is_compressing: bool = False
) -> dict[bytes, Stored | Failure | Gone]:
    """Store the files of the source, hold every object to its name, and return what came of each path."""
    entries = scanned(world) if entries is None else entries
    made = made or make_store(world, is_compressing=is_compressing)
    with Root(os.fsencode(world.source)) as root:
        results = [without_seen(one) for one in made.store(root, entries)]
    world.check_contents()
    found = {one.entry.path if isinstance(one, Stored) else one.path: one for one in results}
    assert len(found) == len(results) == len(entries)
    return found


def without_seen(one: Result) -> Result:
    """Leave out of an entry what no manifest has."""
    return dataclasses.replace(one, entry=one.entry._replace(seen=None)) if isinstance(one, Stored) else one


def entry_of(one: Stored | Failure | Gone) -> Entry:
    assert isinstance(one, Stored), one
    return one.entry


def rewrite(path: Path, content: bytes) -> None:
    """Write over a file in place and give it back its times, as tools do that hide their tracks."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
