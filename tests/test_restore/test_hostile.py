"""Nothing is written outside of the target, whatever a snapshot or the target holds."""

import contextlib
import os
import stat

import pytest

from s3bu.manifest import Entry
from s3bu.restore import run as run_restore
from s3bu.restore.target import Target
from tests.fakes import Listener, World
from tests.test_restore.restoring import HOSTILE, directory, link, plan, restore, stored


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_hostile_snapshot_writes_nothing_outside(world: World, overwrite: bool) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    entries = [
        link(b"a", os.fsencode(outside)),
        stored(world, b"a/planted"),
        link(b"a/link", b"x"),
        directory(b"a/made"),
        link(b"b", b"a"),
        stored(world, b"b/planted"),
        link(b"c", b".."),
        link(b"c/outside/link", b"x"),
        *(stored(world, path) for path in HOSTILE),
    ]
    outcome = restore(world, *entries, overwrite=overwrite)
    assert outcome.failures
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in world.root.iterdir()) == [
        "home",
        "keys",
        "outside",
        "source",
        "target",
    ]


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_that_were_planted_in_the_target_are_not_followed(world: World, overwrite: bool) -> None:
    outside = world.root / "outside"
    (outside / "d").mkdir(parents=True)
    (world.root / "target").mkdir()
    (world.root / "target" / "d").symlink_to(outside / "d")
    (world.root / "target" / "file").symlink_to(outside / "file")
    before = (outside / "d").stat()
    entries = [directory(b"d", 0o700), stored(world, b"d/file"), link(b"d/link", b"x"), stored(world, b"file")]
    outcome = restore(world, *entries, overwrite=overwrite)
    assert {failure.path for failure in outcome.failures} >= {b"d", b"d/file", b"d/link"}
    assert (outside / "d").stat() == before
    assert list(outside.rglob("*")) == [outside / "d"]


def test_a_link_planted_while_the_restore_runs_is_not_followed_and_ends_nothing(world: World) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    entry = stored(world, b"made/on/the/way")

    def plant(key: str) -> None:
        (world.root / "target" / "made").mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (world.root / "target" / "made" / "on").symlink_to(outside)

    world.storage.before_read = plant
    outcome = restore(world, entry, stored(world, b"other", b"other"))
    assert b"made/on/the/way" in {failure.path for failure in outcome.failures}
    assert list(outside.iterdir()) == []


def test_a_directory_that_is_swapped_after_its_files_were_written_is_a_failure_and_no_crash(world: World) -> None:
    entries = [stored(world, b"made/file"), link(b"link", b"x")]

    class Swapping(Target):
        def write_link(self, entry: Entry) -> None:
            (world.root / "target" / "made").rename(world.root / "target" / "moved")
            (world.root / "target" / "made").symlink_to(world.root)

    before = stat.S_IMODE(world.root.stat().st_mode)
    with Swapping(os.fsencode(world.root / "target"), is_filled_fine=True, overwrites=False, mode_mask=0o777) as target:
        outcome = run_restore(world.repository, plan(*entries), target, Listener())
    assert [failure.path for failure in outcome.failures] == [b"made"]
    assert stat.S_IMODE(world.root.stat().st_mode) == before
