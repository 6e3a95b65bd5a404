"""Only bytes that were hashed are ever stored under that hash, whatever happens to the files meanwhile."""

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.errors import AccessDenied, CredentialsError, ObjectExists, ObjectNotFound, StorageError, StorageStopped
from s3bu.manifest import FILE, Entry
from s3bu.patience import Patience
from s3bu.progress import Failure
from s3bu.repository import Contents
from s3bu.rooted import Root
from s3bu.scan import Scan
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from s3bu.store import Gone, Store, Stored
from tests.fakes import (
    OLD,
    SECOND,
    World,
    file_entry,
    hash_of,
    key_of,
    refuse,
    strike_while_reading,
    without_override,
)

NOISE = random.Random(1).randbytes(PART_BOUND + 300_000)
"""A content too long to be put in one request."""
OTHER = NOISE[::-1]
TEXT = b"some text that packs well " * 1000


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path, monkeypatch)


def scanned(world: World) -> list[Entry]:
    found = Scan(os.fsencode(world.source), world.job().filters)
    return [entry for entry in found if isinstance(entry, Entry) and entry.kind == FILE]


def make_store(world: World, *, is_compressing: bool = False) -> Store:
    repository = world.repository
    return Store(repository, repository.recipients(), repository.contents(), is_compressing=is_compressing)


def store(
    world: World, entries: list[Entry] | None = None, made: Store | None = None, *, is_compressing: bool = False
) -> dict[bytes, Stored | Failure | Gone]:
    """Store the files of the source, hold every object to its name, and return what came of each path."""
    entries = scanned(world) if entries is None else entries
    made = made or make_store(world, is_compressing=is_compressing)
    with Root(os.fsencode(world.source)) as root:
        results = list(made.store(root, entries))
    world.check_contents()
    found = {one.entry.path if isinstance(one, Stored) else one.path: one for one in results}
    assert len(found) == len(results) == len(entries)
    return found


def entry_of(one: Stored | Failure | Gone) -> Entry:
    assert isinstance(one, Stored), one
    return one.entry


def rewrite(path: Path, content: bytes) -> None:
    """Write over a file in place and give it back its times, as tools do that hide their tracks."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("plain", [b"", b"x", TEXT, NOISE[:PART_BOUND], NOISE[: PART_BOUND + 1], NOISE], ids=len)
@pytest.mark.parametrize("is_compressing", [False, True])
def test_a_file_is_stored_under_its_hash(world: World, plain: bytes, is_compressing: bool) -> None:
    world.write("file", plain)
    found = store(world, is_compressing=is_compressing)
    assert entry_of(found[b"file"]) == file_entry(b"file", plain)
    assert world.hashes() == {hash_of(plain)}


def test_what_is_sent_is_counted(world: World) -> None:
    world.write("small", TEXT)
    world.write("large", NOISE)
    found = store(world)
    sent = {path: one.nbytes_sent for path, one in found.items() if isinstance(one, Stored)}
    assert sent == {
        b"small": len(world.storage.objects[key_of(TEXT)].body),
        b"large": len(world.storage.objects[key_of(NOISE)].body),
    }


def test_equal_contents_are_sent_once(world: World) -> None:
    for number in range(100):
        world.write(f"{number}", b"the same")
    found = store(world)
    assert world.storage.puts == [key_of(b"the same")]
    assert sum(one.nbytes_sent > 0 for one in found.values() if isinstance(one, Stored)) == 1


def test_a_content_that_is_stored_is_not_sent(world: World) -> None:
    world.put_content(TEXT)
    world.put_content(NOISE)
    world.write("small", TEXT)
    world.write("large", NOISE)
    found = store(world)
    assert world.storage.puts == []
    assert found[b"small"] == Stored(file_entry(b"small", TEXT), 0)
    assert found[b"large"] == Stored(file_entry(b"large", NOISE), 0)


def test_an_object_too_short_to_be_any_is_replaced_though_creates_are_conditional(world: World) -> None:
    world.repository.probe("home")
    world.storage.objects[key_of(TEXT)] = StoredObject(b"x" * 199, {})
    world.storage.objects[key_of(NOISE)] = StoredObject(b"", {})
    world.write("small", TEXT)
    world.write("large", NOISE)
    assert all(isinstance(one, Stored) for one in store(world).values())


@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_where_another_run_was_quicker_the_content_is_stored(world: World, plain: bytes) -> None:
    world.repository.probe("home")
    world.write("file", plain)
    made = make_store(world)
    world.put_content(plain)
    before = dict(world.storage.objects)
    assert isinstance(store(world, made=made)[b"file"], Stored)
    assert world.storage.objects == before


@pytest.mark.parametrize(
    ("plain", "is_packed"),
    [
        (TEXT, True),
        (NOISE[:5000], False),
        (bytes(PART_BOUND) + NOISE, True),
        (NOISE + bytes(PART_BOUND), False),
        (b"", False),
    ],
    ids=["text", "noise", "begins packable", "begins with noise", "empty"],
)
def test_only_what_gets_smaller_is_compressed_and_says_so(world: World, plain: bytes, is_packed: bool) -> None:
    world.write("file", plain)
    store(world, is_compressing=True)
    metadata = world.storage.objects[key_of(plain)].metadata
    assert ("s3bu-compress" in metadata) == is_packed
    assert (metadata["s3bu-encrypt"], metadata["s3bu-encrypt-version"]) == ("age", "001")


@pytest.mark.parametrize("is_compressing", [False, True])
@pytest.mark.parametrize("plain", [NOISE, bytes(1024 * 1024) + NOISE], ids=["noise", "begins packable"])
def test_no_object_is_longer_than_its_writer_was_told(world: World, plain: bytes, is_compressing: bool) -> None:
    world.write("file", plain)
    store(world, is_compressing=is_compressing)
    key = key_of(plain)
    assert len(world.storage.objects[key].body) <= world.storage.bounds[key]


# --- files that change


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
    changes = iter([other])
    strike_while_reading(monkeypatch, path, lambda: [rewrite(path, change) for change in changes])
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
    strikes = iter([1])
    strike_while_reading(monkeypatch, path, lambda: [os.truncate(path, 10) for _ in strikes])
    assert entry_of(store(world)[b"file"]) == file_entry(
        b"file", plain[:10], path.stat().st_mtime_ns / SECOND
    )._replace(mtime_ns=path.stat().st_mtime_ns)


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


# --- files that are not there any more, or something else


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


# --- uploads that fail


@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_an_upload_that_fails_is_a_failure_and_its_content_is_not_counted_as_stored(world: World, plain: bytes) -> None:
    world.write("file", plain)
    world.write("other", b"other")
    contents = Contents(set(), set())
    made = Store(world.repository, world.repository.recipients(), contents, is_compressing=False)
    world.storage.before_send = refuse([key_of(plain)])
    found = store(world, made=made)
    assert found[b"file"] == Failure(b"file", f"{key_of(plain)}: the server is unwell")
    assert list(made.failed) == [hash_of(plain)]
    assert {one.hex() for one in contents.stored} == {hash_of(b"other")}


@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_who_relied_on_an_upload_under_way_that_fails_is_told_so(world: World, plain: bytes) -> None:
    """The first file's upload is held back until another thread has relied on it."""
    contents = Contents(set(), set())
    made = Store(world.repository, world.repository.recipients(), contents, is_compressing=False)
    relied = threading.Event()

    def strike(key: str) -> None:
        assert relied.wait(30)
        raise StorageError("the server is unwell")

    world.storage.before_send = strike
    for name in ("first", "second"):
        world.write(name, plain)
    found = []
    with Root(os.fsencode(world.source)) as root:
        first, second = scanned(world)
        uploading = threading.Thread(target=lambda: found.extend(made.store(root, [first])))
        uploading.start()
        while not contents.stored:
            pass
        assert list(made.store(root, [second])) == [Stored(file_entry(b"second", plain), 0)]
        relied.set()
        uploading.join()
    assert isinstance(found[0], Failure)
    assert (contents.stored, list(made.failed)) == (set(), [hash_of(plain)])


def test_a_content_whose_upload_failed_is_sent_for_the_next_file_that_has_it(world: World) -> None:
    world.write("first", TEXT)
    world.write("second", TEXT)
    made = make_store(world)
    first, second = scanned(world)
    world.storage.before_send = refuse([key_of(TEXT)])
    assert isinstance(store(world, [first], made)[b"first"], Failure)
    world.storage.before_send = lambda key: None
    assert isinstance(store(world, [second], made)[b"second"], Stored)
    assert made.failed == {}


@pytest.mark.parametrize("kind", [AccessDenied, CredentialsError, StorageStopped])
@pytest.mark.parametrize("plain", [TEXT, NOISE], ids=["small", "large"])
def test_an_error_that_no_file_can_escape_ends_the_run(world: World, kind: type[StorageError], plain: bytes) -> None:
    world.write("file", plain)
    world.storage.before_send = refuse([key_of(plain)], kind)
    with pytest.raises(kind, match="the server is unwell"):
        store(world)


def test_a_storage_that_only_refuses_ends_the_run_soon(world: World) -> None:
    for number in range(2000):
        world.write(f"{number}", b"%d" % number)
    asked: list[str] = []

    def strike(key: str) -> None:
        asked.append(key)
        raise StorageError("the server is gone")

    world.storage.before_send = strike
    with pytest.raises(StorageError, match="the server is gone"):
        store(world)
    assert len(asked) < 1000


def test_a_run_that_ends_early_stops_the_storage(world: World) -> None:
    world.write("file", TEXT)
    world.storage.before_send = refuse([key_of(TEXT)], AccessDenied)
    with pytest.raises(AccessDenied):
        store(world)
    with pytest.raises(StorageStopped):
        world.storage.put("x", b"", {})


# --- patience


def test_patience_ends_after_five_failures_in_a_row() -> None:
    patience = Patience()
    for _ in range(4):
        patience.judge(StorageError("no"))
    with pytest.raises(StorageError, match="the fifth"):
        patience.judge(StorageError("the fifth"))


def test_a_success_renews_patience() -> None:
    patience = Patience()
    for _ in range(100):
        patience.judge(StorageError("no"))
        patience.reward()


def test_what_concerns_one_object_never_ends_patience() -> None:
    patience = Patience()
    for _ in range(100):
        patience.judge(ObjectNotFound("no"))


def test_an_object_that_is_there_is_no_reason_to_give_up_at_once() -> None:
    Patience().judge(ObjectExists("there"))
