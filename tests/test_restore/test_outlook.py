"""What `restore -c` shows is what the restore then does, and showing it changes nothing."""

import os
from types import SimpleNamespace

import pytest

from s3bu.manifest import Entry
from s3bu.restore.outlook import Outlook, look_ahead
from s3bu.restore.stored import look_up
from tests.fakes import World, write
from tests.running import tree as tree_of
from tests.test_restore.restoring import LARGE, TEXT, directory, link, plan, restore, stored


def look(world: World, *entries: Entry, overwrite: bool = False) -> Outlook:
    target, planned = world.root / "target", plan(*entries)
    before = tree_of(target) if target.exists() else None
    _, objects = look_up(world.reopen(), planned)
    outlook = look_ahead(planned, os.fsencode(target), overwrites=overwrite, objects=objects)
    assert (tree_of(target) if target.exists() else None) == before
    return outlook


def fates(outlook: Outlook) -> dict[str, str]:
    return {os.fsdecode(fate.entry.path): fate.action for fate in outlook.fates}


def entries(world: World) -> list[Entry]:
    return [
        stored(world, b"absent"),
        directory(b"d"),
        stored(world, b"d/other", b"as it was"),
        stored(world, b"link in its place", b"a file"),
        stored(world, b"right"),
        link(b"to", b"right"),
        link(b"to elsewhere", b"right"),
    ]


def test_into_nothing_all_is_written(world: World) -> None:
    outlook = look(world, *entries(world))
    assert set(fates(outlook).values()) == {"write"}
    assert not (world.root / "target").exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_there_is_left_overwritten_or_refused_as_the_restore_then_does(world: World, overwrite: bool) -> None:
    wanted, target = entries(world), world.root / "target"
    write(target / "right", TEXT)
    write(target / "d" / "other", b"as it is!")
    (target / "link in its place").symlink_to("nowhere")
    (target / "to").symlink_to("right")
    (target / "to elsewhere").symlink_to("elsewhere")
    outlook = look(world, *wanted, overwrite=overwrite)
    differing = {"d/other", "link in its place", "to elsewhere"}
    expected = {"absent": "write", "right": "left", "to": "left"}
    assert fates(outlook) == expected | (dict.fromkeys(differing, "overwrite") if overwrite else {})
    assert {os.fsdecode(failure.path) for failure in outlook.failures} == (set() if overwrite else differing)
    outcome = restore(world, *wanted, overwrite=overwrite)
    assert {failure.path for failure in outcome.failures} == {failure.path for failure in outlook.failures}
    written = [fate for fate in outlook.fates if fate.action != "left" and fate.entry.hash]
    assert (outcome.nfiles, outcome.nright) == (len(written), 1)


def test_a_content_of_several_files_is_fetched_once(world: World) -> None:
    copies = [stored(world, name) for name in (b"a", b"b", b"c")]
    outlook = look(world, *copies, stored(world, b"large", LARGE))
    (small, large) = sorted(len(one.body) for key, one in world.storage.objects.items() if key.startswith("data/"))
    assert outlook.nbytes_fetched == small + large
    assert outlook.requests.get == 2 + 1
    assert outlook.nbytes_written >= 3 * len(TEXT) + len(LARGE)


def test_a_content_that_is_gone_is_not_said_to_be_written(world: World) -> None:
    gone = stored(world, b"gone", b"never seen again")
    world.storage.objects = {key: one for key, one in world.storage.objects.items() if not key.startswith("data/")}
    assert fates(look(world, gone)) == {}


def test_a_disk_without_room_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = stored(world, b"large", LARGE)
    assert look(world, entry).has_room
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1_000, f_frsize=4_096))
    assert not look(world, entry).has_room
