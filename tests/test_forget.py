"""Forgetting: the manifests that no rule keeps go, those that must not go stay, and the index says the same."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3bu.errors import AccessDenied, IntegrityError, ObjectNotFound, StorageError
from s3bu.forget import UNREAD, Decision, plan_forget, run
from s3bu.index import Index
from s3bu.manifest import Entry, FailedPath
from s3bu.progress import Silent
from s3bu.repository.layout import ManifestKey
from s3bu.retention import Policy
from s3bu.sync import sync
from tests.fakes import OLD, World, file_entry, manifest_key, refuse
from tests.running import Scene, backed_up, check_refusal, succeed, write_job
from tests.running import run as run_program

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
ONE = Policy(last=1)
FILES = [file_entry(b"a", b"one")]
FAILED = FailedPath(b"b", "permission denied", "2026-05-01")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path)


@pytest.fixture
def index(world: World) -> Iterator[Index]:
    with closing(world.index()) as index:
        yield index


def put(
    world: World, day: int, entries: list[Entry] = FILES, *, label: str = "docs", failed: tuple[FailedPath, ...] = ()
) -> ManifestKey:
    """Store a snapshot of a day of May."""
    key = manifest_key(f"2026-05-{day:02d}", 0, label=label)
    return world.put_manifest(entries, key=key, created=datetime(2026, 5, day, tzinfo=UTC), failed=failed)


def planned(world: World, index: Index, policy: Policy = ONE, *, is_synced: bool = True) -> list[Decision]:
    if is_synced:
        sync(world.repository, index, Silent())
    return plan_forget(index, world.repository.manifests(), policy, now=NOW)


def forget(world: World, index: Index, policy: Policy = ONE) -> list[ManifestKey]:
    return run(world.repository, index, planned(world, index, policy), Silent())


def reasons(decisions: list[Decision]) -> list[tuple[int, tuple[str, ...]]]:
    return [(decision.key.day.day, decision.reasons) for decision in decisions]


def stored(world: World) -> list[str]:
    """Return the keys of manifests that are there, also when the storage was told to stop."""
    return sorted(key for key in world.storage.objects if key.startswith("manifests/"))


def in_index(index: Index) -> list[str]:
    return [snapshot.key for snapshot in index.snapshots()]


# --- what is decided


def test_each_source_is_judged_by_itself_the_newest_snapshot_first(world: World, index: Index) -> None:
    for day, label in ((1, "docs"), (2, "docs"), (1, "mail")):
        put(world, day, label=label)
    assert reasons(planned(world, index)) == [
        (2, ("last", "newest complete")),
        (1, ()),
        (1, ("last", "newest complete")),
    ]


def test_the_newest_snapshot_that_lacks_nothing_stays_whatever_the_rules_say(world: World, index: Index) -> None:
    put(world, 1)
    put(world, 2)
    put(world, 3, failed=(FAILED,))
    assert reasons(planned(world, index)) == [(3, ("last",)), (2, ("newest complete",)), (1, ())]


def test_a_snapshot_of_the_original_with_a_file_that_was_not_read_is_not_complete(world: World, index: Index) -> None:
    put(world, 1)
    world.put_original_manifest(b"0,0,0644,,a\n", manifest_key("2026-05-02", 0))
    assert reasons(planned(world, index))[-1] == (1, ("newest complete",))


def test_where_all_lack_something_the_newest_stays(world: World, index: Index) -> None:
    for day in (1, 2):
        put(world, day, failed=(FAILED,))
    assert reasons(planned(world, index)) == [(2, ("last", "newest")), (1, ())]


def test_a_snapshot_that_cannot_be_read_stays_and_counts_for_no_rule(world: World, index: Index) -> None:
    put(world, 1)
    world.put_private(str(manifest_key("2026-05-02", 0)), b"#s3bu nonsense\n")
    assert reasons(planned(world, index)) == [(2, (UNREAD,)), (1, ("last", "newest complete"))]


def test_a_snapshot_that_the_index_does_not_know_as_it_is_listed_stays(world: World, index: Index) -> None:
    for day in (1, 2):
        put(world, day)
    sync(world.repository, index, Silent())
    put(world, 1, [])
    put(world, 3)
    assert reasons(planned(world, index, is_synced=False)) == [
        (1, (UNREAD,)),
        (3, (UNREAD,)),
        (2, ("last", "newest complete")),
    ]


def test_the_order_is_that_of_the_times_and_not_of_the_keys(world: World, index: Index) -> None:
    for day, created in ((1, 9), (2, 8)):
        key = manifest_key(f"2026-05-{day:02d}", 0)
        world.put_manifest(FILES, key=key, created=datetime(2026, 5, created, tzinfo=UTC))
    assert reasons(planned(world, index)) == [(1, ("last", "newest complete")), (2, ())]


# --- what is done


def test_what_nothing_keeps_is_gone_from_repository_and_index(world: World, index: Index) -> None:
    keys = [put(world, day, [*FILES, file_entry(b"%d" % day, b"%d" % day)]) for day in (1, 2, 3)]
    assert forget(world, index) == [keys[1], keys[0]]
    assert world.manifest_keys() == [keys[2]]
    assert in_index(index) == [str(keys[2])]
    paths = {row[0] for row in index.connection.execute("SELECT sort_key FROM version")}
    assert paths == {b"a", b"3"}
    outcome = sync(world.repository, index, Silent())
    assert (outcome.taken, outcome.vanished, outcome.altered) == ([], [], [])


def test_a_storage_that_denies_it_keeps_all_and_so_does_the_index(world: World, index: Index) -> None:
    keys = [put(world, day) for day in (1, 2)]
    decisions = planned(world, index)
    real = world.storage.delete

    def deny(key: str) -> None:
        raise AccessDenied(f"access to {key} is denied")

    world.storage.delete = deny  # type: ignore[method-assign]
    with pytest.raises(AccessDenied):
        run(world.repository, index, decisions, Silent())
    world.storage.delete = real  # type: ignore[method-assign]
    assert world.manifest_keys() == keys
    assert in_index(index) == [str(key) for key in keys]


def test_where_it_breaks_off_the_index_has_let_go_of_what_is_gone_and_of_nothing_else(
    world: World, index: Index
) -> None:
    keys = [put(world, day) for day in (1, 2, 3, 4)]
    decisions = planned(world, index)
    real, left = world.storage.delete, iter([True, False])

    def delete(key: str) -> None:
        if not next(left):
            raise StorageError("the server is unwell")
        real(key)

    world.storage.delete = delete  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        run(world.repository, index, decisions, Silent())
    assert world.manifest_keys() == [keys[0], keys[1], keys[3]]
    assert in_index(index) == [str(keys[0]), str(keys[1]), str(keys[3])]


def test_an_index_that_is_wrong_about_a_time_deletes_nothing(world: World, index: Index) -> None:
    keys = [put(world, day) for day in (1, 2)]
    sync(world.repository, index, Silent())
    moved = int(timedelta(days=30) / timedelta(microseconds=1))
    index.connection.execute("UPDATE snapshot SET created_us = created_us + ? WHERE key = ?", (moved, str(keys[0])))
    with pytest.raises(IntegrityError, match="the index does not say of it what it holds; nothing was deleted"):
        run(world.repository, index, planned(world, index, is_synced=False), Silent())
    assert stored(world) == [str(key) for key in keys]


def test_an_index_that_takes_a_snapshot_for_complete_deletes_nothing(world: World, index: Index) -> None:
    keys = [put(world, 1), put(world, 2, failed=(FAILED,))]
    sync(world.repository, index, Silent())
    index.connection.execute("DELETE FROM failed")
    with pytest.raises(IntegrityError, match="nothing was deleted"):
        run(world.repository, index, planned(world, index, is_synced=False), Silent())
    assert stored(world) == [str(key) for key in keys]


def test_a_snapshot_that_is_to_stay_and_cannot_be_read_any_more_lets_nothing_go(world: World, index: Index) -> None:
    keys = [put(world, day) for day in (1, 2)]
    decisions = planned(world, index)
    world.storage.before_read = refuse([str(keys[1])], ObjectNotFound)
    with pytest.raises(ObjectNotFound):
        run(world.repository, index, decisions, Silent())
    assert stored(world) == [str(key) for key in keys]


# --- the command


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A machine with three snapshots, two of them of 2020."""
    scene = first.copy(tmp_path / "scene", monkeypatch)
    for day in (1, 2):
        key = scene.put_manifest(b"", f"manifests/home/src/home-src-2020-01-0{day}-00000.csv.gz")
        os.utime(scene.repository / key, (OLD + day * 86_400,) * 2)
    return scene


def test_the_rules_of_the_job_count_where_none_are_given(scene: Scene) -> None:
    retention = scene.job.read_text() + "s3bu: {retention: {keep_last: 1}}\n"
    scene.job.write_text(retention)
    succeed("job", "upload", scene.repository, "home", write_job(scene.root / "other.yml", {"src": "/srv"}))
    check_refusal(run_program("forget", scene.repository, "home"), 2, "has no rules that say what to keep")
    result = succeed("forget", scene.repository, scene.job)
    assert "2 snapshots forgotten, 1 kept" in result.out
    assert len(scene.manifests()) == 1


def test_a_dry_run_shows_each_snapshot_with_its_rule_and_deletes_nothing(scene: Scene) -> None:
    before = scene.manifests()
    result = succeed("forget", scene.repository, "home", "src", "--keep-daily", "2", "-n", "-q")
    assert [line.split("  ")[1].strip() for line in result.out.splitlines()[1:]] == ["keep", "keep", "forget"]
    assert "daily, newest complete" in result.out
    assert "no rule keeps it" in result.out
    assert scene.manifests() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "no rule says what to keep"),
        (("home", "--keep-last", "0"), 2, "--keep-last '0' is no number of snapshots to keep"),
        (("home", "--keep-within", "1w"), 2, "--keep-within '1w' is no stretch of time"),
        (("house", "--keep-last", "1"), 10, "job 'house' has no snapshots"),
        (("home", "dokuments", "--keep-last", "1"), 2, "has no snapshots of a label 'dokuments'"),
    ],
)
def test_what_makes_no_sense_is_told(scene: Scene, words: tuple[str, ...], code: int, said: str) -> None:
    check_refusal(run_program("forget", scene.repository, *words), code, said)
    assert len(scene.manifests()) == 3


def test_rules_in_a_job_that_is_not_encrypted_count_for_nothing(scene: Scene) -> None:
    path = scene.repository / "jobs" / "home" / "home-000.yml"
    path.parent.mkdir(parents=True)
    path.write_text(scene.job.read_text() + "s3bu: {retention: {keep_last: 1}}\n")
    check_refusal(run_program("forget", scene.repository, "home"), 2, "is not encrypted", "upload it again")
    assert len(scene.manifests()) == 3
