"""A run that goes by the journal, where what lies in a directory decides about other paths."""

import os

import pytest

from s3bu.filters import Filters
from s3bu.selection import Selection
from tests.fakes import World
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import compare, run_by_journal
from tests.test_watch.recorder import recording
from tests.test_watch.test_by_journal import LONG_AGO, fill, rewrite

TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
pytestmark = pytest.mark.usefixtures("quick_scrypt", "quick_ticks", "untouched")


@pytest.mark.parametrize(
    ("filters", "name", "content"),
    [
        (Filters(skip_dir_items=(b".nobackup",)), "deep/.nobackup", b""),
        (Filters(selection=Selection(ignore_files=(b".ignore",))), "deep/.ignore", b"er\nc\n"),
        (Filters(selection=Selection(ignore_files=(b".ignore",))), ".ignore", b"deep\na\n"),
        (
            Filters(selection=Selection(has_cachedir_tag=True)),
            "deep/er/CACHEDIR.TAG",
            TAG,
        ),
    ],
)
@pytest.mark.parametrize("is_seen", [True, False])
def test_what_lies_in_a_directory_lets_others_come_and_go(
    world: World, filters: Filters, name: str, content: bytes, *, is_seen: bool
) -> None:
    fill(world)
    job = world.job(filters)
    with recording(world, filters) as recorder:
        run_by_journal(world, job)
        for change in (lambda: world.write(name, content), (world.source / name).unlink):
            let_tick()
            change()
            if is_seen:
                recorder.see(name)
            let_tick()
            assert compare(world, job).outcome.published is not None
            let_tick()
            assert compare(world, job).outcome.published is None


def test_a_directory_that_is_left_out_is_asked_by_each_run(world: World) -> None:
    filters = Filters(skip_dir_items=(b".nobackup",))
    fill(world)
    world.write("deep/er/.nobackup")
    job = world.job(filters)
    let_tick()
    with recording(world, filters) as recorder:
        run_by_journal(world, job)
        world.write("deep/new", mtime=LONG_AGO)
        recorder.see("deep/new")
        let_tick()
        assert compare(world, job).why_full is None
        (world.source / "deep/er/.nobackup").unlink()
        let_tick()
        compared = compare(world, job)
    assert (compared.why_full, compared.outcome.counts["new"]) == (None, 2)


def test_an_ignore_file_that_changed_in_place_is_found_while_it_is_young(world: World) -> None:
    filters = Filters(selection=Selection(ignore_files=(b".ignore",)))
    fill(world)
    (world.source / "deep/.ignore").write_bytes(b"c\n")
    job = world.job(filters)
    with recording(world, filters):
        run_by_journal(world, job)
        (world.source / "deep/.ignore").write_bytes(b"e*\n")
        let_tick()
        compared = compare(world, job)
    assert (compared.outcome.counts["new"], compared.outcome.counts["removed"]) == (1, 2)


@pytest.mark.parametrize(
    ("selection", "name", "before", "after"),
    [
        (Selection(max_file_size=10), "deep/big", b"x" * 20, b"small"),
        (Selection(exclude=(b".ignore",), ignore_files=(b".ignore",)), "deep/.ignore", b"c\n", b"er\n"),
        (Selection(has_cachedir_tag=True), "deep/CACHEDIR.TAG", TAG, b"no longer"),
        (Selection(has_cachedir_tag=True), "deep/CACHEDIR.TAG", b"not yet", TAG),
    ],
)
def test_what_is_left_out_may_matter_by_another_name_of_it(
    world: World, selection: Selection, name: str, before: bytes, after: bytes
) -> None:
    fill(world)
    world.write(name, before, mtime=LONG_AGO)
    os.link(world.source / name, world.root / "outside")
    filters = Filters(selection=selection)
    job = world.job(filters)
    let_tick()
    with recording(world, filters):
        run_by_journal(world, job)
        let_tick()
        assert compare(world, job).why_full is None
        rewrite(world.root / "outside", after)
        let_tick()
        compared = compare(world, job)
    assert (compared.why_full, compared.outcome.published is None) == (None, False)
