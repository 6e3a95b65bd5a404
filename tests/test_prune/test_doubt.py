"""All in which a prune must delete nothing, and whatever fails in its midst."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from s3bu import prune
from s3bu.compression import gzip_member
from s3bu.errors import (
    AccessDenied,
    IntegrityError,
    LockedError,
    PassphraseNotFoundError,
    RepositoryNotFoundError,
    StorageError,
)
from s3bu.manifest import Header
from s3bu.prune.marks import claimed
from s3bu.repository.layout import EPOCH, MARKS, SWEEP
from s3bu.storage import ObjectStat
from s3bu.storage.memory import StoredObject
from tests.fakes import World, file_entry, hash_of, manifest_key, manifest_text, refuse
from tests.test_prune.pruning import (
    NAMED,
    ORPHAN,
    OTHER,
    contents,
    marked,
    marks,
    nothing_moves,
    pass_time,
    pruned,
)

# --- doubt


def test_a_manifest_that_cannot_be_read_ends_it(world: World) -> None:
    marked(world)
    world.put_private(str(manifest_key("2024-01-02", 0)), b"#s3bu nonsense\n")
    error = nothing_moves(world, IntegrityError, "nothing was deleted, since nobody knows which contents it needs")
    assert str(manifest_key("2024-01-02", 0)) in error.message


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_manifest_that_is_cut_ends_it(world: World, cut: int) -> None:
    marked(world)
    key = manifest_key("2024-01-02", 0)
    plain = manifest_text(Header(str(key), "home", "docs", "", datetime.now(UTC), ""), [file_entry(b"b", ORPHAN)])
    world.put_private(str(key), plain[:-cut])
    nothing_moves(world, IntegrityError, "nothing was deleted")


def test_a_manifest_of_the_original_that_is_cut_ends_it(world: World) -> None:
    marked(world)
    world.put_original_manifest(b"1,1,0644," + hash_of(NAMED).encode() + b",a\n1,1,06", manifest_key("2024-01-02", 0))
    nothing_moves(world, IntegrityError, "nothing was deleted", is_original_stopped=True)


def test_a_manifest_with_lines_that_only_a_newer_version_knows_ends_it(world: World) -> None:
    marked(world)
    lines = b"@bundle hash=" + hash_of(ORPHAN).encode() + b" in=" + hash_of(OTHER).encode() + b"\n"
    world.put_original_manifest(lines, manifest_key("2024-01-02", 0))
    nothing_moves(world, IntegrityError, "skipped what this version of s3bu does not know", is_original_stopped=True)


def test_a_manifest_that_is_not_encrypted_ends_it(world: World) -> None:
    marked(world)
    world.put_manifest([], key=manifest_key("2024-01-02", 0), encrypted=False)
    nothing_moves(world, IntegrityError, "not encrypted.*nothing was deleted")


def test_a_manifest_of_another_passphrase_ends_it(world: World) -> None:
    marked(world)
    (world.root / "keys" / "secrets.yml").write_text("- {id: other, passphrase: another one altogether}\n")
    nothing_moves(world, PassphraseNotFoundError, "nothing was deleted")


@pytest.mark.parametrize("key", ["manifests/home/docs/readme.txt", "manifests/x", "manifests/home/docs/.s3bu/x"])
def test_an_object_that_nobody_knows_among_the_manifests_ends_it(world: World, key: str) -> None:
    marked(world)
    world.storage.objects[key] = StoredObject(b"x", {})
    nothing_moves(world, IntegrityError, f"{key}: no manifest, and nobody knows which contents it may need")


def test_private_state_and_empty_folders_among_the_manifests_are_nothing_unknown(world: World) -> None:
    marked(world)
    for key, body in (("manifests/home/.s3bu/probe", b"x"), ("manifests/home/", b"")):
        world.storage.objects[key] = StoredObject(body, {})
    pruned(world)
    assert contents(world) == {NAMED}


def test_a_repository_without_a_snapshot_is_not_emptied(world: World) -> None:
    marked(world)
    world.storage.delete(str(manifest_key("2024-01-01", 0)))
    nothing_moves(world, IntegrityError, "there is not one snapshot, so everything would go")


def test_what_is_no_repository_is_told(world: World) -> None:
    world.storage.delete("repo/recipients.txt")
    nothing_moves(world, RepositoryNotFoundError, "not a repository")


@pytest.mark.parametrize("hours", [1, -1])
def test_clocks_that_disagree_end_it(world: World, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    monkeypatch.setattr(world.storage, "now", lambda: datetime.now(UTC) + timedelta(hours=hours))
    nothing_moves(world, StorageError, "its clock and this machine's are 60 minutes apart")


def test_a_manifest_that_vanishes_while_it_is_read_ends_it(world: World) -> None:
    marked(world)
    key = str(world.put_manifest([file_entry(b"b", ORPHAN)], key=manifest_key("2024-01-02", 0)))
    world.storage.before_read = lambda read: world.storage.delete(key) if read == key else None
    nothing_moves(world, StorageError, "snapshots come and go while they are read; nothing was deleted")


def test_a_manifest_that_is_gone_from_the_second_listing_ends_it(world: World) -> None:
    marked(world)
    key = str(world.put_manifest([file_entry(b"b", ORPHAN)], key=manifest_key("2024-01-01", 7)))
    last = str(manifest_key("2024-01-01", 0))
    assert last < key
    reads: list[str] = []

    def strike(read: str) -> None:
        reads.append(read)
        if len([one for one in reads if one.endswith(".csv.gz")]) == 2:
            world.storage.objects.pop(last)

    world.storage.before_read = strike
    nothing_moves(world, StorageError, "snapshots come and go")


@pytest.mark.parametrize("prefix", ["manifests/", "repo/", "data/"])
def test_a_listing_that_fails_ends_it(world: World, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    real = world.storage.list

    def failing(asked: str, *, after: str = ""):  # type: ignore[no-untyped-def]
        if asked == prefix:
            raise StorageError("the server is unwell")
        return real(asked, after=after)

    monkeypatch.setattr(world.storage, "list", failing)
    nothing_moves(world, StorageError, "unwell")


def test_marks_that_nobody_understands_end_it(world: World) -> None:
    marked(world)
    world.storage.objects[f"{MARKS}x"] = StoredObject(b"nonsense\n", {})
    nothing_moves(world, IntegrityError, "line 1: not a hash")


def test_a_line_of_a_mark_ends_where_backups_see_its_end(world: World) -> None:
    marked(world)
    comment = f"# note\r{hash_of(OTHER)}\r#=etag\u2028{'z' * 64}\n"
    world.storage.objects[f"{MARKS}x"] = StoredObject(comment.encode(), {})
    pruned(world)
    assert contents(world) == {NAMED}  # and no more than what the other marks name


def test_a_mark_without_end_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    monkeypatch.setattr("s3bu.prune.marks._MARK_BOUND", 100)
    nothing_moves(world, IntegrityError, "larger than any mark")


def test_marks_that_do_not_say_which_objects_they_mean_end_it(world: World) -> None:
    marked(world)
    world.storage.objects[f"{MARKS}x"] = StoredObject(f"{hash_of(OTHER)}\n".encode(), {})
    nothing_moves(world, IntegrityError, "names contents without their objects")


@pytest.mark.parametrize("moved", [EPOCH, SWEEP, "mark"])
def test_a_state_that_another_machine_moves_ends_it(world: World, moved: str) -> None:
    marked(world)
    key = marks(world)[0] if moved == "mark" else moved

    def strike(read: str) -> None:
        if read.endswith(".csv.gz"):
            world.storage.objects[key] = StoredObject(world.storage.objects[key].body, {})

    world.storage.before_read = strike
    nothing_moves(world, StorageError, "changed since this prune began")


def test_a_mark_that_the_epoch_shows_to_be_too_young_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of objects count, whatever the server says of its clock."""
    marked(world)
    real = world.storage.put

    def put(key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        real(key, body, metadata, create=create)
        one = world.storage.objects[key]
        late = one.modified - timedelta(hours=2)
        world.storage.objects[key] = StoredObject(one.body, one.metadata, one.etag, late)

    monkeypatch.setattr(world.storage, "put", put)
    nothing_moves(world, StorageError, "stands for less than 72 hours by the storage's clock")


def test_a_machine_that_slept_deletes_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    monkeypatch.setattr(prune, "_BATCH_SECONDS", 0)
    nothing_moves(world, StorageError, "this machine slept, or is too slow")


def test_a_storage_that_denies_deleting_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)

    def deny(stat: ObjectStat) -> bool:
        raise AccessDenied(f"access to {stat.key} is denied")

    monkeypatch.setattr(world.storage, "remove", deny)
    nothing_moves(world, AccessDenied, "is denied")


# --- the original


def test_where_the_original_made_a_snapshot_lately_it_asks(world: World) -> None:
    marked(world)
    world.put_original_manifest(b"1,1,0644," + hash_of(NAMED).encode() + b",a\n", manifest_key("2024-01-02", 0))
    error = nothing_moves(world, StorageError, "made by the original s3backup not long ago")
    assert "--original-stopped" in str(error.hint)
    pruned(world, is_original_stopped=True)
    assert contents(world) == {NAMED}


def test_a_snapshot_of_the_original_that_was_rewritten_counts_as_its_own(world: World) -> None:
    marked(world)
    line = b"@rewrite at=2024-01-02T00:00:00Z host=x removed=1 pattern=x\n1,1,0644," + hash_of(NAMED).encode() + b",a\n"
    key = manifest_key("2024-01-02", 0)
    header = Header(str(key), key.job, key.label, "", datetime.now(UTC), "")
    world.repository.put_manifest(header, [(line, gzip_member(line))])
    nothing_moves(world, StorageError, "made by the original s3backup not long ago")


def test_old_snapshots_of_the_original_are_no_hindrance(world: World) -> None:
    world.put_original_manifest(b"1,1,0644," + hash_of(NAMED).encode() + b",a\n", manifest_key("2024-01-02", 0))
    pass_time(world, timedelta(days=91))
    pruned(marked(world))
    assert contents(world) == {NAMED}


# --- one sweep at a time


def claim(world: World, text: str, age: timedelta = timedelta()) -> None:
    world.storage.objects[SWEEP] = StoredObject(text.encode(), {}, modified=datetime.now(UTC) - age)


def test_while_another_machine_sweeps_nothing_is_deleted(world: World) -> None:
    marked(world)
    claim(world, "elsewhere 4711 abc\n")
    nothing_moves(world, LockedError, "another prune deletes since .* process 4711 of elsewhere")


def test_where_nothing_is_due_another_sweep_is_no_hindrance(world: World) -> None:
    claim(world, "elsewhere 4711 abc\n")
    assert pruned(world).marked.contents == 2


@pytest.mark.parametrize("text", ["elsewhere 4711 abc\n", "", "\xff" * 2000])
def test_a_claim_that_is_a_day_old_is_taken_over(world: World, text: str) -> None:
    marked(world)
    claim(world, text, timedelta(hours=25))
    pruned(world)
    assert contents(world) == {NAMED}


def test_a_claim_of_a_dead_process_of_this_machine_is_taken_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(world)
    with claimed(world.storage, datetime.now(UTC)):
        kept = world.storage.objects[SWEEP]
        nothing_moves(world, LockedError, "another prune deletes")
    world.storage.objects[SWEEP] = kept
    pid = str(os.getpid()).encode()
    world.storage.objects[SWEEP] = StoredObject(kept.body.replace(pid, b"4194399"), {})
    pruned(world)
    assert contents(world) == {NAMED}


def test_a_machine_that_takes_the_claim_in_the_same_moment_has_it_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(world)
    world.storage.before_read = lambda key: claim(world, "elsewhere 1 x\n") if key == SWEEP else None
    nothing_moves(world, LockedError, "another prune has begun to delete just now")


# --- each failure


def test_whichever_request_fails_nothing_that_is_named_goes_and_the_next_run_ends_well(world: World) -> None:
    marked(world)
    start = dict(world.storage.objects)
    strikes = 0
    for number in range(200):
        world.storage.objects.clear()
        world.storage.objects.update(start)
        if not struck(world, number):
            break
        strikes += 1
        assert NAMED in contents(world)
        pass_time(world, timedelta(hours=25))
        pruned(world)
        assert contents(world) == {NAMED}
    assert strikes > 15


def struck(world: World, number: int) -> bool:
    """Prune so that the request of that number fails; say whether there was one."""
    with pytest.MonkeyPatch.context() as patch:
        counted = [0]

        def wrap(call: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*given: object, **named: object) -> object:
                counted[0] += 1
                if counted[0] == number + 1:
                    raise StorageError("the server is unwell")
                return call(*given, **named)

            return wrapped

        for name in ("put", "open", "list", "delete", "remove", "now", "versions", "unfinished"):
            patch.setattr(world.storage, name, wrap(getattr(world.storage, name)))
        with suppress(StorageError):
            pruned(world)
        return counted[0] > number


def test_a_request_for_the_marks_that_is_refused_is_told(world: World) -> None:
    marked(world)
    world.storage.before_read = refuse(marks(world))
    nothing_moves(world, StorageError, "unwell")
