"""What fails is never an entry and never a removal."""

import os
import shutil

import pytest

from s3bu.backup import DeletionsRefusedError
from s3bu.compare import CARRIED, CHANGED, NEW, REMOVED, UNMODIFIED
from s3bu.errors import AccessDenied, StorageError, StorageStopped
from s3bu.manifest import FILE, FailedPath
from s3bu.progress import Failure
from s3bu.scan.source import SourceMissingError
from tests.fakes import OLD, World, file_entry, hash_of, key_of, refuse, without_override
from tests.test_backup.runs import TEXT, back_up, counts, files, numbered, plant, run, when_storing


def shut(world: World, *names: str) -> None:
    for name in names:
        (world.source / name).chmod(0)


def test_a_file_that_cannot_be_read_keeps_its_last_good_entry_with_a_time_of_zero(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    world.write("file", b"new and unreadable", mtime=OLD + 5)
    shut(world, "file")
    with without_override():
        outcome = back_up(world)
    assert outcome.failures == [Failure(b"file", "permission denied")]
    snapshot = world.newest()
    assert files(snapshot)[b"file"] == file_entry(b"file", TEXT, mtime=0)
    assert [(failed.path, failed.error) for failed in snapshot.failed] == [(b"file", "permission denied")]
    assert not [line for line in world.manifest_lines(snapshot.key) if line.startswith(b"@meta")]
    world.check_newest()


def test_a_new_file_that_cannot_be_read_has_no_entry(world: World) -> None:
    world.write("shut", b"secret")
    world.write("open", b"open")
    shut(world, "shut")
    with without_override():
        outcome = back_up(world)
    assert (list(files(world.newest())), outcome.nfiles) == ([b"open"], 1)
    assert [failed.path for failed in world.newest().failed] == [b"shut"]


def test_a_failure_that_repeats_is_no_change_and_says_since_when(world: World) -> None:
    since = "2026-01-01T00:00:00+00:00"
    world.put_content(TEXT)
    world.write("file", b"new and unreadable")
    shut(world, "file")
    entry = file_entry(b"file", TEXT, mtime=0)
    world.put_manifest([entry], failed=[FailedPath(b"file", "permission denied", since)])
    with without_override():
        outcome = back_up(world)
        assert (outcome.published, len(outcome.failures)) == (None, 1)
        world.write("new")
        assert back_up(world).published
    snapshot = world.newest()
    assert [failed.since for failed in snapshot.failed] == [since]
    assert files(snapshot)[b"file"] == entry


def test_a_failure_that_ends_makes_a_snapshot(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    world.write("file", b"new", mtime=OLD + 5, mode=0)
    with without_override():
        back_up(world)
    (world.source / "file").chmod(0o644)
    outcome = back_up(world)
    assert (counts(outcome), world.newest().failed) == ({CHANGED: 1}, [])
    assert files(world.newest())[b"file"] == file_entry(b"file", b"new", OLD + 5)


def test_below_a_directory_that_cannot_be_listed_all_is_carried_forward(world: World) -> None:
    for name in ("d/a", "d/deep/b", "d b", "other"):
        world.write(name, name.encode())
    (world.source / "d" / "link").symlink_to("x")
    back_up(world)
    before = {entry.path: entry for entry in world.newest().entries}
    shut(world, "d")
    with without_override():
        outcome = back_up(world)
        assert counts(outcome) == {CARRIED: 5, UNMODIFIED: 2}
        assert back_up(world).published is None
    after = {entry.path: entry for entry in world.newest().entries}
    assert after.keys() == before.keys()
    for path, entry in after.items():
        is_carried_file = path.startswith(b"d/") and entry.kind == FILE
        assert entry == (before[path]._replace(mtime_ns=0) if is_carried_file else before[path])
    assert outcome.failures == [Failure(b"d", "permission denied")]


def test_what_cannot_be_looked_at_and_is_not_stored_any_more_is_one_failure_without_an_entry(world: World) -> None:
    for name in ("d/gone", "d/kept"):
        world.write(name, name.encode())
    back_up(world)
    del world.storage.objects[key_of(b"d/gone")]
    (world.source / "d").chmod(0o400)
    with without_override():
        outcome = back_up(world, is_full=True)
    assert [failure.path for failure in outcome.failures] == [b"d/gone", b"d/kept"]
    assert set(files(world.newest())) == {b"d/kept"}
    world.check_newest()


def test_an_upload_that_fails_fails_every_entry_that_relied_on_it(world: World) -> None:
    world.write("old", b"old")
    back_up(world)
    for name in ("old", "new", "another"):
        world.write(name, b"unlucky", mtime=OLD + 5)
    world.write("lucky", b"lucky")
    world.storage.before_send = refuse([key_of(b"unlucky")])
    outcome = back_up(world)
    assert sorted(failure.path for failure in outcome.failures) == [b"another", b"new", b"old"]
    assert {failure.error for failure in outcome.failures} == {f"{key_of(b'unlucky')}: the server is unwell"}
    found = files(world.newest())
    assert found == {b"lucky": file_entry(b"lucky", b"lucky"), b"old": file_entry(b"old", b"old", mtime=0)}
    world.check_newest()


def test_the_next_clean_run_makes_good_what_failed(world: World) -> None:
    world.write("file", TEXT)
    world.storage.before_send = refuse([key_of(TEXT)])
    assert len(back_up(world).failures) == 1
    world.storage.before_send = lambda key: None
    assert counts(back_up(world)) == {NEW: 1}
    assert world.newest().failed == []


@pytest.mark.parametrize("kind", [AccessDenied, StorageStopped])
def test_what_no_file_can_escape_ends_the_run_without_a_manifest(world: World, kind: type[StorageError]) -> None:
    world.write("file", TEXT)
    world.storage.before_send = refuse([key_of(TEXT)], kind)
    with pytest.raises(kind):
        run(world)
    assert not [key for key in world.storage.objects if key.endswith(".csv.gz")]


def deepen(world: World) -> bytes:
    """Make directories of which the last has too long a path for a manifest, and return its path."""
    name, parent = b"\x01" * 250, os.open(world.source, os.O_RDONLY)
    for _ in range(80):
        os.mkdir(name, dir_fd=parent)
        child = os.open(name, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = child
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=parent))
    os.close(parent)
    return b"/".join([name] * 80)


def test_a_name_too_long_for_a_manifest_is_a_failure_and_only_once_news(world: World) -> None:
    longest = deepen(world)
    outcome = back_up(world)
    reason = "its name is too long for a manifest"
    assert {failure.error for failure in outcome.failures} == {reason}
    assert Failure(longest + b"/file", reason) in outcome.failures
    since = {failed.since for failed in world.newest().failed}
    assert back_up(world).published is None
    world.write("new")
    back_up(world)
    assert {failed.since for failed in world.newest().failed} == since


def test_a_hostile_parent_is_carried_forward_or_dropped_but_never_trips_the_run(world: World) -> None:
    world.put_content(TEXT)
    world.write("d/file", TEXT)
    shut(world, "d")
    odd = [b"d/../../x", b"d//x", b"d/\x01\n", b"d/" + b"\x01" * 20_500]
    lines = b"".join(b"9,1,0644,%b,%b\n" % (hash_of(TEXT).encode(), quote(path)) for path in (*odd, b"/abs", b".."))
    world.put_original_manifest(lines)
    with without_override():
        outcome = back_up(world)
    assert set(files(world.newest())) == set(odd[:3])
    assert [failure.path for failure in outcome.failures] == [b"d", odd[3]]


def quote(path: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in path)


def test_a_file_that_goes_between_scan_and_read_is_gone_and_no_failure(world: World) -> None:
    world.write("was", b"was")
    world.write("kept", b"kept")
    back_up(world)
    world.write("was", b"was written again", mtime=OLD + 5)
    world.write("new", b"new")

    def remove() -> None:
        (world.source / "was").unlink()
        (world.source / "new").unlink()

    outcome = back_up(world, on_phase=when_storing(remove))
    assert (counts(outcome), outcome.failures) == ({UNMODIFIED: 1, REMOVED: 1}, [])
    assert set(files(world.newest())) == {b"kept"}


def test_a_disk_unmounted_between_scan_and_read_removes_nothing(world: World) -> None:
    entries = numbered(120)
    plant(world, entries)
    world.put_manifest(entries)

    def unmount() -> None:
        world.source.rename(world.root / "disk")
        world.source.mkdir()

    (outcome,), _ = run(world, rehash=True, on_phase=when_storing(unmount))
    assert isinstance(outcome.error, DeletionsRefusedError)
    assert len(world.manifest_keys()) == 1


def test_a_source_that_goes_between_scan_and_read_is_missing(world: World) -> None:
    world.write("file", TEXT)
    (outcome,), _ = run(world, on_phase=when_storing(lambda: shutil.rmtree(world.source)))
    assert isinstance(outcome.error, SourceMissingError)
    assert world.manifest_keys() == []


def test_what_was_stored_before_a_run_broke_off_is_not_sent_again(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    contents = {f"{number:02}": b"content %d" % number for number in range(15)}  # they are sent one after the other
    for name, content in contents.items():
        world.write(name, content)
    world.storage.before_send = refuse([key_of(contents["14"])], AccessDenied)
    with pytest.raises(AccessDenied):
        run(world)
    stored = set(world.storage.objects)
    assert key_of(contents["00"]) in stored
    sent: list[str] = []
    world.storage.before_send = sent.append
    world.storage._is_stopped = False  # as that of the next run is
    back_up(world)
    assert set(sent) & stored == set()
    world.check_newest()
