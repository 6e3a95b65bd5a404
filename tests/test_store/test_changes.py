"""Only bytes that were hashed are stored under that hash, whatever happens to the files meanwhile."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.progress import Failure
from s3bu.store import Gone, Stored
from tests.fakes import OLD, World, file_entry, hash_of, key_of, strike_while_reading, without_override
from tests.test_store.storing import NOISE, OTHER, TEXT, entry_of, rewrite, scanned, store


@pytest.mark.parametrize(("before", "after"), [(TEXT, b"new"), (TEXT, NOISE), (NOISE, OTHER), (NOISE, b"new")])
def test_a_file_that_changed_since_the_scan_is_stored_as_it_is_now(world: World, before: bytes, after: bytes) -> None:
    path = world.write("file", before)
    entries = scanned(world)
    path.write_bytes(after)
    path.chmod(0o600)
    os.utime(path, (OLD + 5, OLD + 5))
    entry = entry_of(store(world, entries)[b"file"])
    assert entry == file_entry(b"file", after, OLD + 5, 0o600)


@pytest.mark.parametrize(("plain", "other"), [(TEXT, TEXT[::-1]), (NOISE, OTHER)], ids=["small", "large"])
def test_a_file_rewritten_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, plain: bytes, other: bytes
) -> None:
    path = world.write("file", plain)
    strike_while_reading(monkeypatch, path, lambda: rewrite(path, other), is_once=True)
    assert entry_of(store(world)[b"file"]).hash == hash_of(other)


def always(path: Path, first: bytes, second: bytes) -> Callable[[], None]:
    """Return a strike that gives a file another content of the same length and time, each time."""
    contents = [first, second]

    def strike() -> None:
        contents.reverse()
        rewrite(path, contents[0])

    return strike


@pytest.mark.parametrize(("plain", "other"), [(TEXT, TEXT[::-1]), (NOISE, OTHER)], ids=["small", "large"])
def test_a_file_that_never_rests_fails_and_nothing_wrong_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, plain: bytes, other: bytes
) -> None:
    path = world.write("file", plain)
    world.write("calm", b"calm")
    strike_while_reading(monkeypatch, path, always(path, plain, other))
    found = store(world)
    assert found[b"file"] == Failure(b"file", "kept changing while it was read")
    assert isinstance(found[b"calm"], Stored)


@pytest.mark.parametrize("is_compressing", [False, True])
def test_a_large_file_rewritten_between_its_two_passes_is_never_stored_under_the_first_hash(
    world: World, is_compressing: bool
) -> None:
    plain = bytes(1024 * 1024) + NOISE
    path = world.write("file", plain)
    world.storage.before_send = lambda key: rewrite(path, plain[:-1] + b"!") if key == key_of(plain) else None
    entry = entry_of(store(world, is_compressing=is_compressing)[b"file"])
    assert (entry.hash, world.hashes()) == (hash_of(plain[:-1] + b"!"), {entry.hash})


def test_a_large_file_whose_status_tells_of_no_change_is_not_stored_under_the_first_hash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write through memory, or a second one within the clock's tick, may leave size and times as they were."""
    path = world.write("file", NOISE)
    before, real = path.stat(), os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return before if status.st_ino == before.st_ino else status

    world.storage.before_send = lambda key: rewrite(path, OTHER)
    monkeypatch.setattr(os, "fstat", fstat)
    assert entry_of(store(world)[b"file"]).hash == hash_of(OTHER)
    assert world.hashes() == {hash_of(OTHER)}


def test_a_large_file_rewritten_before_each_second_pass_fails(world: World) -> None:
    path = world.write("file", NOISE)
    world.storage.before_send = lambda key: rewrite(path, OTHER if key == key_of(NOISE) else NOISE)
    assert store(world)[b"file"] == Failure(b"file", "kept changing while it was read")
    assert world.hashes() == set()


@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_a_file_that_shrinks_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, plain: bytes
) -> None:
    path = world.write("file", plain)
    strike_while_reading(monkeypatch, path, lambda: os.truncate(path, 10), is_once=True)
    found = entry_of(store(world)[b"file"])
    assert found == file_entry(b"file", plain[:10])._replace(mtime_ns=path.stat().st_mtime_ns)


def test_a_large_file_that_is_cut_before_its_second_pass_is_read_again(world: World) -> None:
    path = world.write("file", NOISE)
    world.storage.before_send = lambda key: os.truncate(path, 10) if key == key_of(NOISE) else None
    assert entry_of(store(world)[b"file"]).hash == hash_of(NOISE[:10])


@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_a_log_that_is_always_written_to_is_stored_as_long_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, plain: bytes
) -> None:
    path = world.write("file", plain)

    def append() -> None:
        with path.open("ab") as file:
            file.write(b"one more line\n")

    strike_while_reading(monkeypatch, path, append)
    entry = entry_of(store(world)[b"file"])
    assert plain.startswith(path.read_bytes()[: len(plain)])
    assert entry.hash == hash_of(path.read_bytes()[: entry.nbytes])
    assert entry.nbytes >= len(plain)


@pytest.mark.parametrize("listed", [b"", b"x", TEXT])
def test_a_file_that_grew_large_since_the_scan_is_not_taken_into_memory(world: World, listed: bytes) -> None:
    path = world.write("file", listed)
    world.write("neighbour", b"neighbour")
    entries = scanned(world)
    path.write_bytes(NOISE)
    found = store(world, entries)
    assert entry_of(found[b"file"]).hash == hash_of(NOISE)
    assert isinstance(found[b"neighbour"], Stored)
    assert key_of(NOISE) in world.storage.bounds


def test_a_file_that_shrank_since_the_scan_is_stored(world: World) -> None:
    path = world.write("file", NOISE)
    entries = scanned(world)
    path.write_bytes(b"")
    assert entry_of(store(world, entries)[b"file"]).nbytes == 0


@pytest.mark.parametrize("name", ["file", "above/file"])
def test_a_file_that_was_removed_since_the_scan_is_gone_and_no_failure(world: World, name: str) -> None:
    world.write("above/other", b"other")
    path = world.write(name, TEXT)
    entries = scanned(world)
    path.unlink()
    assert store(world, entries)[name.encode()] == Gone(name.encode())


def test_a_file_whose_directory_was_removed_is_gone(world: World) -> None:
    world.write("above/deep/file", TEXT)
    entries = scanned(world)
    shutil.rmtree(world.source / "above")
    assert store(world, entries) == {b"above/deep/file": Gone(b"above/deep/file")}


def make_fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def make_directory(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("replace", [make_fifo, make_link, make_directory])
@pytest.mark.parametrize("plain", [b"", TEXT, NOISE], ids=["empty", "small", "large"])
def test_a_file_replaced_by_something_else_is_a_failure_and_never_followed(
    world: World, replace: Callable[[Path, Path], None], plain: bytes
) -> None:
    outside = world.root / "secret"
    outside.write_bytes(b"secret")
    path = world.write("file", plain)
    entries = scanned(world)
    path.unlink()
    replace(path, outside)
    assert store(world, entries) == {b"file": Failure(b"file", "not a regular file any more")}
    assert world.hashes() == set()


def test_a_directory_replaced_by_a_link_leads_nowhere(world: World) -> None:
    (world.root / "outside").mkdir()
    (world.root / "outside" / "file").write_bytes(b"secret")
    world.write("above/file", TEXT)
    entries = scanned(world)
    shutil.rmtree(world.source / "above")
    (world.source / "above").symlink_to(world.root / "outside")
    assert isinstance(store(world, entries)[b"above/file"], Failure)
    assert world.hashes() == set()


def test_a_file_that_may_not_be_read_fails_alone(world: World) -> None:
    world.write("shut", b"secret", mode=0)
    world.write("open", b"open")
    with without_override():
        found = store(world)
    assert found[b"shut"] == Failure(b"shut", "permission denied")
    assert isinstance(found[b"open"], Stored)
