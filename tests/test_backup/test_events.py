"""Whatever happens to index and repository between two runs, the next snapshot is whole."""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.index import index_path
from s3bu.manifest import FILE, format_entry
from s3bu.repository import layout
from s3bu.repository.layout import next_manifest_key
from tests.fakes import OLD, SECOND, World, file_entry, manifest_key
from tests.running import IS_LONG
from tests.test_backup.runs import back_up

_NAMES = ("a", "b", "d/a", "d/b", "a b")
_MTIMES = itertools.count(OLD)


class Machine(NamedTuple):
    """A world and a copy of an old index; `home` is the state of the machine itself."""

    world: World
    home: Path
    yesterday: Path

    @property
    def index_file(self) -> Path:
        return index_path(self.home, self.world.storage.identity)


def _write(machine: Machine, name: str, content: bytes) -> None:
    machine.world.write(name, content, mtime=next(_MTIMES))


def _remove(machine: Machine, name: str) -> None:
    (machine.world.source / name).unlink(missing_ok=True)


def _rewrite_in_place(machine: Machine, name: str) -> None:
    """Write other bytes of the same length, a second later at least."""
    path = machine.world.source / name
    if path.exists():
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
        os.utime(path, (OLD, next(_MTIMES)))


def _delete_index(machine: Machine) -> None:
    machine.index_file.unlink(missing_ok=True)


def _keep_index(machine: Machine) -> None:
    if machine.index_file.exists():
        shutil.copy(machine.index_file, machine.yesterday)


def _restore_index(machine: Machine) -> None:
    if machine.yesterday.exists():
        shutil.copy(machine.yesterday, machine.index_file)


def _spoil_index(machine: Machine) -> None:
    if machine.index_file.exists():
        with machine.index_file.open("r+b") as file:
            file.write(b"spoilt" * 100)


def _back_up_elsewhere(machine: Machine) -> None:
    back_up(machine.world, home="another machine", host="there", accepts_deletions=True)


def _back_up_with_the_original(machine: Machine) -> None:
    """Put a manifest as the original does, of the files that there are, and their contents."""
    world = machine.world
    lines = b""
    for path in sorted(path for path in world.source.rglob("*") if path.is_file()):
        name, content = os.fsencode(path.relative_to(world.source)), path.read_bytes()
        world.put_content(content)
        lines += format_entry(file_entry(name, content, mtime=int(path.stat().st_mtime)))
    keys = world.manifest_keys()
    newest = next_manifest_key("home", "docs", keys[-1], keys[-1].stamp) if keys else manifest_key("2024-01-01", 0)
    world.put_original_manifest(lines, newest)


def _empty_bucket(machine: Machine) -> None:
    """Delete all but the recipients, as when a bucket is made anew, or another disk is mounted in its place."""
    objects = machine.world.storage.objects
    for key in [key for key in objects if not key.startswith("repo/")]:
        del objects[key]


def _lose_newest_manifest(machine: Machine) -> None:
    keys = machine.world.manifest_keys()
    if keys:
        del machine.world.storage.objects[str(keys[-1])]


def _break_newest_manifest(machine: Machine) -> None:
    keys = machine.world.manifest_keys()
    if keys:
        machine.world.put_private(str(keys[-1]), b"#s3bu 1 key=elsewhere\n")


def _sweep(machine: Machine) -> None:
    """Delete every content, as a prune does, which moves the epoch."""
    storage = machine.world.storage
    for key in [key for key in storage.objects if key.startswith("data/")]:
        del storage.objects[key]
    storage.put(layout.EPOCH, b"%d" % next(_MTIMES), {})


def _delete_contents(machine: Machine) -> None:
    """Delete contents by hand, of which nothing tells but a listing."""
    for key in [key for key in machine.world.storage.objects if key.startswith("data/")]:
        del machine.world.storage.objects[key]
    back_up(machine.world, is_full=True, accepts_deletions=True)


Event = Callable[[Machine], object]

_EVENTS: list[Event] = [
    _delete_index,
    _keep_index,
    _restore_index,
    _spoil_index,
    _back_up_elsewhere,
    _back_up_with_the_original,
    _empty_bucket,
    _lose_newest_manifest,
    _break_newest_manifest,
    _sweep,
    _delete_contents,
]


def _writing(name: str, content: bytes) -> Event:
    return lambda machine: _write(machine, name, content)


def _removing(name: str) -> Event:
    return lambda machine: _remove(machine, name)


def _rewriting(name: str) -> Event:
    return lambda machine: _rewrite_in_place(machine, name)


NAMES = st.sampled_from(_NAMES)
CHANGES = st.one_of(
    st.builds(_writing, NAMES, st.sampled_from([b"", b"one", b"two"])),
    st.builds(_removing, NAMES),
    st.builds(_rewriting, NAMES),
)
STEPS = st.lists(st.lists(st.one_of(st.sampled_from(_EVENTS), CHANGES), max_size=3), min_size=1, max_size=5)


def check_newest(machine: Machine) -> None:
    """Hold the newest snapshot to the tree, and to contents that are stored and right."""
    world = machine.world
    found = {entry.path: entry for entry in world.newest().entries if entry.kind == FILE}
    paths = [path for path in world.source.rglob("*") if path.is_file()]
    assert found.keys() == {os.fsencode(path.relative_to(world.source)) for path in paths}
    for path in paths:
        entry, content = found[os.fsencode(path.relative_to(world.source))], path.read_bytes()
        assert (entry.nbytes, entry.hash) == (len(content), hashlib.sha256(content).hexdigest())
        assert entry.mtime_ns == path.stat().st_mtime_ns // SECOND * SECOND
    world.check_newest()


def run_events(directory: Path, steps: list[list[Event]]) -> None:
    machine = Machine(World.make(directory), directory / "state", directory / "yesterday.db")
    for name in _NAMES[:3]:
        _write(machine, name, name.encode())
    for events in steps:
        back_up(machine.world, accepts_deletions=True)
        for event in events:
            event(machine)
        back_up(machine.world, accepts_deletions=True)
        check_newest(machine)


@settings(max_examples=2_000 if IS_LONG else 300, deadline=None)
@given(STEPS)
def test_after_whatever_happened_the_next_snapshot_is_whole(steps: list[list[Event]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run_events(Path(directory), steps)


@pytest.mark.parametrize("event", _EVENTS, ids=lambda event: event.__name__.strip("_"))
def test_after_each_event_alone_the_next_snapshot_is_whole(tmp_path: Path, event: Event) -> None:
    run_events(tmp_path, [[_writing("d/b", b"new")], [event]])
