"""Prune, step by step: what is marked, and what is deleted and when."""

from datetime import UTC, datetime, timedelta

import pytest

from s3bu.errors import (
    StorageError,
)
from s3bu.prune import Amount, standing
from s3bu.repository.layout import EPOCH, SWEEP
from s3bu.repository.state import read_marks
from s3bu.storage import ObjectStat
from s3bu.storage.memory import StoredObject
from tests.fakes import Listener, World, file_entry, hash_of, key_of, manifest_key
from tests.test_prune.pruning import FILES, NAMED, ORPHAN, OTHER, contents, marked, marks, pass_time, pruned

# --- mark


def test_what_no_snapshot_names_is_marked_and_stays(world: World) -> None:
    outcome = pruned(world)
    (mark,) = marks(world)
    digests = {digest.hex() for digest in read_marks(world.storage.open(mark), mark)}
    assert digests == {hash_of(ORPHAN), hash_of(OTHER)}
    assert contents(world) == {NAMED, ORPHAN, OTHER}
    assert (outcome.marked.contents, outcome.deleted.contents, outcome.needed.contents) == (2, 0, 1)
    assert EPOCH not in world.storage.objects


def test_what_is_marked_is_not_marked_again(world: World) -> None:
    pruned(world)
    outcome = pruned(world)
    assert (outcome.marked.contents, outcome.waiting.contents) == (0, 2)
    assert len(marks(world)) == 1
    assert outcome.due is not None
    assert timedelta(hours=71) < outcome.due - datetime.now(UTC) <= timedelta(hours=72)


def test_what_was_put_within_a_week_is_not_marked(world: World) -> None:
    world.put_content(ORPHAN)
    outcome = pruned(world)
    assert (outcome.marked.contents, outcome.young.contents) == (1, 1)


def test_many_marks_are_in_several_objects(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3bu.prune.marks._HASHES", 1)
    pruned(world)
    assert len(marks(world)) == 2
    pass_time(world, timedelta(hours=73))
    assert pruned(world).deleted.contents == 2
    assert marks(world) == []


def test_a_repository_in_which_all_is_named_is_left_as_it_is(world: World) -> None:
    world.put_manifest([*FILES, file_entry(b"b", ORPHAN), file_entry(b"c", OTHER)])
    before = dict(world.storage.objects)
    pruned(world)
    assert world.storage.objects == before


# --- sweep


def test_what_is_marked_for_72_hours_is_deleted_and_its_mark_after_it(world: World) -> None:
    outcome = pruned(marked(world))
    assert contents(world) == {NAMED}
    assert outcome.deleted.contents == 2
    assert marks(world) == []
    assert EPOCH in world.storage.objects
    assert SWEEP not in world.storage.objects


def test_before_72_hours_are_over_nothing_is_deleted(world: World) -> None:
    outcome = pruned(marked(world, hours=71.9))
    assert contents(world) == {NAMED, ORPHAN, OTHER}
    assert outcome.waiting.contents == 2


def test_what_a_snapshot_names_since_it_was_marked_stays(world: World) -> None:
    marked(world)
    world.put_manifest([file_entry(b"b", ORPHAN)], key=manifest_key("2024-01-02", 0))
    outcome = pruned(world)
    assert contents(world) == {NAMED, ORPHAN}
    assert outcome.kept.contents == 1


def test_what_was_put_again_since_it_was_marked_stays(world: World) -> None:
    marked(world)
    world.put_content(ORPHAN)
    pruned(world)
    assert contents(world) == {NAMED, ORPHAN}


def test_what_was_put_again_by_a_clock_that_is_behind_stays(world: World) -> None:
    marked(world)
    world.put_content(ORPHAN)
    again = world.storage.objects[key_of(ORPHAN)]
    world.storage.objects[key_of(ORPHAN)] = StoredObject(
        again.body, again.metadata, again.etag, again.modified - timedelta(days=100)
    )
    pruned(world)
    assert contents(world) == {NAMED, ORPHAN}


def test_what_has_the_very_time_of_its_mark_stays(world: World) -> None:
    marked(world)
    one, mark = world.storage.objects[key_of(ORPHAN)], world.storage.objects[marks(world)[0]]
    world.storage.objects[key_of(ORPHAN)] = StoredObject(one.body, one.metadata, one.etag, mark.modified)
    pruned(world)
    assert contents(world) == {NAMED, ORPHAN}


def test_what_is_put_again_between_the_look_and_the_removal_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(world)
    real = world.storage.remove

    def remove(stat: ObjectStat) -> bool:
        if stat.key == key_of(ORPHAN):
            world.put_content(ORPHAN)
        return real(stat)

    monkeypatch.setattr(world.storage, "remove", remove)
    outcome = pruned(world)
    assert contents(world) == {NAMED, ORPHAN}
    assert (outcome.deleted.contents, outcome.kept.contents) == (1, 1)


def test_the_epoch_is_replaced_before_a_manifest_is_read(world: World) -> None:
    marked(world)
    steps: list[str] = []
    world.storage.before_send = steps.append
    world.storage.before_read = steps.append
    pruned(world)
    assert steps.index(EPOCH) < steps.index(str(manifest_key("2024-01-01", 0)))


def test_two_epochs_are_never_the_same(world: World) -> None:
    bodies = set()
    for _ in range(2):
        world.put_content(ORPHAN)
        pass_time(world, timedelta(days=8))
        pruned(marked(world))
        bodies.add(world.storage.objects[EPOCH].body)
    assert len(bodies) == 2


def test_a_snapshot_that_is_published_while_others_are_read_is_read_too(world: World) -> None:
    marked(world)
    late = manifest_key("2024-01-02", 0)

    def publish(key: str) -> None:
        if key == str(manifest_key("2024-01-01", 0)) and str(late) not in world.storage.objects:
            world.put_manifest([file_entry(b"b", ORPHAN)], key=late)

    world.storage.before_read = publish
    pruned(world)
    assert contents(world) == {NAMED, ORPHAN}


def test_a_sweep_that_breaks_off_is_finished_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    real = world.storage.remove

    def remove(stat: ObjectStat) -> bool:
        if stat.key == max(key_of(ORPHAN), key_of(OTHER)):
            raise StorageError("the server is unwell")
        return real(stat)

    with monkeypatch.context() as patch:
        patch.setattr(world.storage, "remove", remove)
        with pytest.raises(StorageError):
            pruned(world)
    assert len(marks(world)) == 1
    pruned(world)
    assert contents(world) == {NAMED}
    assert marks(world) == []


# --- what it only says


def test_a_dry_run_says_it_all_and_writes_nothing(world: World) -> None:
    marked(world)
    before = dict(world.storage.objects)
    outcome = pruned(world, is_dry=True)
    assert world.storage.objects == before
    sizes = [len(world.storage.objects[key_of(one)].body) for one in (ORPHAN, OTHER)]
    assert outcome.deleted == Amount(2, sum(sizes))
    assert outcome.requests["delete"] == 2


def test_the_status_says_what_is_marked_since_when_and_when_it_is_due(world: World) -> None:
    assert standing(world.repository, Listener()) == []
    marked(world, hours=10)
    world.storage.delete(key_of(OTHER))
    (one,) = standing(world.repository, Listener())
    assert one.left == Amount(1, len(world.storage.objects[key_of(ORPHAN)].body))
    assert one.due - one.since == timedelta(hours=72)
    assert timedelta(hours=61) < one.due - datetime.now(UTC) < timedelta(hours=63)
