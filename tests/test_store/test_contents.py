"""A content is stored once, under its hash, and gets there or is told to have failed."""

import os
import threading

import pytest

from s3bu.errors import AccessDenied, CredentialsError, ObjectExists, ObjectNotFound, StorageError, StorageStopped
from s3bu.patience import Patience
from s3bu.progress import Failure
from s3bu.repository import Contents
from s3bu.rooted import Root
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from s3bu.store import Gone, Store, Stored
from tests.fakes import World, file_entry, hash_of, key_of, refuse, wait_for
from tests.test_store.storing import NOISE, TEXT, entry_of, make_store, scanned, store, without_seen


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
    found: list[Stored | Failure | Gone] = []
    with Root(os.fsencode(world.source)) as root:
        first, second = scanned(world)
        uploading = threading.Thread(target=lambda: found.extend(map(without_seen, made.store(root, [first]))))
        uploading.start()
        wait_for(lambda: contents.stored)
        assert [without_seen(one) for one in made.store(root, [second])] == [Stored(file_entry(b"second", plain), 0)]
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
