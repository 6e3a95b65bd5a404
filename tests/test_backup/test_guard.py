"""Parents that cannot be trusted, vanished trees, and keys that others take."""

import pytest

from s3bu.backup import DeletionsRefusedError
from s3bu.compare import CARRIED, NEW, REMOVED, UNMODIFIED
from s3bu.errors import StorageError
from s3bu.manifest import Entry
from s3bu.repository import layout
from s3bu.repository.layout import ManifestKey, parse_manifest_key
from tests.fakes import World, file_entry, manifest_key, without_override
from tests.test_backup.runs import TEXT, back_up, counts, files, numbered, plant, run, when_storing


@pytest.mark.parametrize(
    ("total", "kept", "is_refused"),
    [(100, 49, True), (100, 50, False), (99, 0, False), (100, 0, True), (101, 50, True)],
)
def test_a_snapshot_from_which_more_than_half_vanished_is_refused(
    world: World, total: int, kept: int, is_refused: bool
) -> None:
    entries = numbered(total)
    plant(world, entries[:kept])
    world.put_manifest(entries)
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError) == is_refused
    assert len(world.manifest_keys()) == (1 if is_refused else 2)


def test_deletions_that_are_meant_are_accepted(world: World) -> None:
    world.put_manifest(numbered(100))
    assert counts(back_up(world, accepts_deletions=True)) == {REMOVED: 100}


def test_what_failed_has_not_vanished(world: World) -> None:
    entries = [entry._replace(path=b"d/" + entry.path) for entry in numbered(100)]
    for number in range(100):
        world.put_content(b"%d" % number)
    (world.source / "d").mkdir(mode=0)
    world.put_manifest(entries)
    with without_override():
        assert counts(back_up(world)) == {CARRIED: 100}


def put_two_machines(world: World, own: list[Entry]) -> None:
    """Let this machine have made a snapshot, and another one, with a tree of its own, the newest of the label."""
    world.put_manifest(own, key=manifest_key("2024-01-01", 1), host="here")
    world.put_manifest(numbered(200)[100:], key=manifest_key("2024-01-02", 1), host="there")


def test_two_machines_under_one_label_compare_with_their_own_last(world: World) -> None:
    own = numbered(100)
    plant(world, own)
    put_two_machines(world, own)
    assert counts(back_up(world)) == {NEW: 100, REMOVED: 100}


def test_a_machine_whose_own_files_vanished_is_refused_beside_another(world: World) -> None:
    put_two_machines(world, numbered(100))
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError)


def test_a_machine_that_never_made_a_snapshot_may_not_empty_anothers(world: World) -> None:
    world.put_manifest(numbered(100), host="there")
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError)


def test_a_broken_snapshot_on_the_way_back_to_ones_own_is_passed_over(world: World) -> None:
    own = numbered(100)
    plant(world, own)
    put_two_machines(world, own)
    world.put_private(str(manifest_key("2024-01-01", 2)), b"rubbish\n")
    moved = str(manifest_key("2024-01-01", 3))
    world.storage.objects[moved] = world.storage.objects[str(manifest_key("2024-01-01", 1))]
    assert back_up(world).published


def test_a_broken_parent_is_told_and_the_one_before_is_compared_with(world: World) -> None:
    world.write("file", TEXT)
    world.put_content(TEXT)
    good = world.put_manifest([file_entry(b"file", TEXT)])
    broken = manifest_key("2024-01-02", 1)
    world.put_private(str(broken), b"#s3bu 1 rubbish\n")
    world.write("new")
    (outcome,), listener = run(world)
    assert counts(outcome) == {UNMODIFIED: 1, NEW: 1}
    assert [str(broken) in warning for warning in listener.warnings] == [True]
    snapshot = world.newest()
    assert snapshot.header is not None
    assert snapshot.header.parent == str(good)


@pytest.mark.parametrize("how", ["moved", "plain", "truncated", "not age"])
def test_a_parent_that_cannot_be_trusted_is_passed_over(world: World, how: str) -> None:
    world.write("file", TEXT)
    key = manifest_key("2024-01-02", 1)
    source = world.put_manifest([file_entry(b"file", TEXT)], encrypted=how != "plain")
    body = world.storage.objects.pop(str(source)).body
    world.storage.put(str(key), {"truncated": body[:-30], "not age": b"rubbish"}.get(how, body), {})
    if how == "plain":
        world.storage.objects.pop(str(key))
        world.put_manifest([file_entry(b"file", TEXT)], key=key, encrypted=False)
    (outcome,), listener = run(world)
    assert (counts(outcome), len(listener.warnings)) == ({NEW: 1}, 1)
    snapshot = world.newest()
    assert snapshot.key > key
    assert snapshot.header is not None
    assert snapshot.header.parent == ""


def test_a_clock_set_back_adds_one_to_the_newest_key(world: World) -> None:
    world.put_manifest([], key=manifest_key("2999-12-31", 99_999))
    world.write("new")
    assert back_up(world).published == manifest_key("3000-01-01", 0)


def test_another_machine_that_takes_the_key_in_the_same_moment_makes_no_loss(world: World) -> None:
    world.write("file", TEXT)
    taken: list[ManifestKey] = []

    def strike(key: str) -> None:
        parsed = parse_manifest_key(key)
        if parsed and not taken:
            taken.append(world.put_manifest([], key=parsed, host="there"))

    world.storage.before_send = strike
    mine = back_up(world).published
    theirs, newest = world.manifest_keys()
    assert [theirs] == taken
    assert mine == newest == ManifestKey("home", "docs", theirs.day, theirs.second + 1)
    assert set(files(world.newest())) == {b"file"}


def test_a_snapshot_that_another_machine_made_meanwhile_is_older_than_this_one(world: World) -> None:
    world.write("file", TEXT)
    theirs = manifest_key("2999-01-01", 5)
    mine = back_up(world, on_phase=when_storing(lambda: world.put_manifest([], key=theirs, host="there"))).published
    assert mine == manifest_key("2999-01-01", 6)


def test_a_key_that_is_taken_again_and_again_is_an_error(world: World) -> None:
    def strike(key: str) -> None:
        if key.endswith(".csv.gz"):
            world.storage.objects[key] = world.storage.objects[layout.RECIPIENTS]

    world.storage.before_send = strike
    with pytest.raises(StorageError, match="other runs keep taking"):
        run(world)
