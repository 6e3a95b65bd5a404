"""Single objects: put, read, created, deleted; and what holds for a storage as a whole."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from s3bu.errors import ObjectExists, ObjectNotFound, RepositoryNotFoundError, StorageError, StorageStopped
from s3bu.storage import Put, Storage
from s3bu.storage.memory import MemoryStorage
from tests.test_storage_contract.cases import METADATA, Case, keys, probe, read, write


def test_what_is_put_is_read_again(storage: Storage) -> None:
    storage.put("data/ab/x", b"hello\0\xff", {})
    assert read(storage, "data/ab/x") == b"hello\0\xff"


def test_an_empty_body_is_an_object(storage: Storage) -> None:
    storage.put("empty", b"", {})
    assert (keys(storage), read(storage, "empty")) == (["empty"], b"")


def test_a_download_says_what_it_reads(case: Case, storage: Storage) -> None:
    storage.put("data/x", b"hello", METADATA)
    with storage.open("data/x") as download:
        assert download.nbytes == 5
        assert dict(download.metadata) == (METADATA if case.keeps_metadata else {})
        assert abs(download.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_metadata_is_known_without_reading(case: Case, storage: Storage) -> None:
    storage.put("data/x", b"hello", METADATA)
    assert dict(storage.metadata("data/x")) == (METADATA if case.keeps_metadata else {})
    with pytest.raises(ObjectNotFound, match="data/y"):
        storage.metadata("data/y")


def test_a_download_is_read_in_pieces(storage: Storage) -> None:
    storage.put("x", b"hello", {})
    with storage.open("x") as download:
        assert [download.read(2), download.read(0), download.read(2), download.read(2), download.read(2)] == [
            b"he",
            b"",
            b"ll",
            b"o",
            b"",
        ]


def test_a_closed_download_cannot_be_read(storage: Storage) -> None:
    storage.put("x", b"hello", {})
    download = storage.open("x")
    download.close()
    download.close()
    with pytest.raises(ValueError, match="closed"):
        download.read()


def test_put_replaces(storage: Storage) -> None:
    storage.put("x", b"old and long", {})
    storage.put("x", b"new", {})
    assert read(storage, "x") == b"new"


def test_create_refuses_what_is_there(storage: Storage) -> None:
    storage.put("x", b"first", {}, create=True)
    with pytest.raises(ObjectExists, match="x is there already"):
        storage.put("x", b"second", {}, create=True)
    assert read(storage, "x") == b"first"


def test_create_refuses_what_is_there_after_a_probe(storage: Storage) -> None:
    probe(storage)
    storage.put("x", b"first", {}, create=True)
    with pytest.raises(ObjectExists, match="x is there already"):
        storage.put("x", b"second", {}, create=True)
    assert read(storage, "x") == b"first"


def test_create_is_not_refused_for_the_sake_of_longer_keys(storage: Storage) -> None:
    storage.put("x-longer", b"", {})
    storage.put("x", b"first", {}, create=True)
    assert keys(storage) == ["x", "x-longer"]


def test_several_bodies_are_put_at_once(storage: Storage) -> None:
    puts = [Put(f"data/{number}", b"%d" % number, {}) for number in range(50)]
    assert storage.put_all(puts) == [None] * 50
    assert {key: read(storage, key) for key in keys(storage)} == {one.key: one.body for one in puts}


def test_nothing_is_put_at_once(storage: Storage) -> None:
    assert storage.put_all([]) == []


@pytest.mark.parametrize("is_probed", [False, True])
def test_of_several_creates_those_are_refused_that_are_there(storage: Storage, is_probed: bool) -> None:
    if is_probed:
        probe(storage)
    storage.put("b", b"first", {})
    errors = storage.put_all([Put(key, b"second", {}, create=True) for key in "abc"])
    assert [type(error) for error in errors] == [type(None), ObjectExists, type(None)]
    assert {key: read(storage, key) for key in keys(storage)} == {"a": b"second", "b": b"first", "c": b"second"}


def test_of_several_puts_an_impossible_key_fails_alone(storage: Storage) -> None:
    if isinstance(storage, MemoryStorage):
        pytest.skip("memory holds any key")
    errors = storage.put_all([Put("a", b"", {}), Put("b//c", b"", {}), Put("d", b"", {})])
    assert [error is None for error in errors] == [True, False, True]
    assert keys(storage) == ["a", "d"]


def test_several_objects_are_opened_at_once(storage: Storage) -> None:
    bodies = {f"data/{number}": b"%d" % number * 1000 for number in range(50)}
    storage.put_all([Put(key, body, {}) for key, body in bodies.items()])
    opened = storage.open_all(list(bodies), bound=5000)
    assert [download.read() for download in opened if not isinstance(download, StorageError)] == [*bodies.values()]


def test_an_object_beyond_the_bound_is_read_all_the_same(storage: Storage) -> None:
    storage.put_all([Put("short", b"short", {}), Put("long", b"long" * 100_000, {})])
    opened = storage.open_all(["short", "long"], bound=5)
    bodies = []
    for download in opened:
        assert not isinstance(download, StorageError)
        with download:
            bodies.append(download.read())
    assert bodies == [b"short", b"long" * 100_000]


def test_nothing_is_opened_at_once(storage: Storage) -> None:
    assert list(storage.open_all([], bound=1)) == []


def test_of_several_objects_the_missing_ones_fail_alone(storage: Storage) -> None:
    storage.put_all([Put("a", b"first", {}), Put("c", b"third", {})])
    first, second, third = storage.open_all(["a", "b", "c"], bound=100)
    assert isinstance(second, ObjectNotFound)
    assert [one.read() for one in (first, third) if not isinstance(one, StorageError)] == [b"first", b"third"]


def test_of_eight_creates_at_once_one_wins(storage: Storage) -> None:
    if not probe(storage):
        pytest.skip("the server has no conditional writes")
    gate = threading.Barrier(8)

    def create(number: int) -> bool:
        gate.wait()
        try:
            storage.put("x", b"%d" % number, {}, create=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert read(storage, "x") == b"%d" % won.index(True)


def test_a_probe_finds_out_the_same_each_time(storage: Storage) -> None:
    before = storage.has_conditional_writes
    first, second = storage.probe("repo/probe"), storage.probe("repo/probe")
    assert (before, second) == (None, first)
    assert storage.has_conditional_writes is first


ODD_KEYS = (
    "with space",
    "two  spaces ",
    "plus+plus",
    "per%20cent%",
    "quo'te\"s",
    "ünï/cödé/日本",
    "combining e\u0301",
    "a&b=c?d#e",
    "back\\slash",
    "<Code>AccessDenied</Code>",
    "tilde~star*[x]{y}|^`",
    ".hidden/..dots",
    "a,b;c:d@e$f!g",
    "-rf",
    "x" * 255,
)


def test_odd_keys_are_taken_as_they_are(storage: Storage) -> None:
    for key in ODD_KEYS:
        storage.put(key, key.encode(), {})
    assert keys(storage) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert read(storage, key) == key.encode()
        assert keys(storage, key) == [key]
        storage.delete(key)
    assert keys(storage) == []


def test_keys_that_could_mean_another_are_never_mistaken(storage: Storage) -> None:
    if isinstance(storage, MemoryStorage):
        pytest.skip("memory holds any key")
    storage.put("x", b"another", {})
    for key in ("data//x", "/x", "x/", "../x", "a/../x", ".", "a/./x", "", "nul\0", "sur\ud800"):
        with pytest.raises(StorageError, match="no key that"):
            storage.put(key, b"odd", {})
        with pytest.raises(StorageError, match="no key that"):
            storage.open(key)
        with pytest.raises(StorageError, match="no key that"):
            storage.writer(key, 3, {})
    assert (keys(storage), read(storage, "x")) == (["x"], b"another")


def test_reading_can_start_anywhere(storage: Storage) -> None:
    storage.put("x", b"hello", {})
    for start in (0, 1, 4, 5, 6, 1000):
        with storage.open("x", start=start) as download:
            assert (download.read(), download.nbytes) == (b"hello"[start:], 5)


def test_reading_an_empty_object_can_start_past_its_end(storage: Storage) -> None:
    storage.put("x", b"", {})
    assert read(storage, "x", 1) == b""


def test_a_missing_key_is_said(storage: Storage) -> None:
    with pytest.raises(ObjectNotFound, match="data/x"):
        storage.open("data/x")
    with pytest.raises(ObjectNotFound, match="data/x"):
        storage.open("data/x", start=3)


def test_a_key_below_an_object_is_missing(storage: Storage) -> None:
    storage.put("a", b"", {})
    with pytest.raises(ObjectNotFound, match="a/b"):
        storage.open("a/b")
    assert keys(storage, "a/b/") == []


def test_a_repository_that_is_there_exists(storage: Storage) -> None:
    assert storage.exists()


def test_a_missing_repository_is_said(absent: Storage) -> None:
    assert not absent.exists()
    for call in (
        lambda: absent.open("x"),
        lambda: absent.put("x", b"", {}),
        lambda: absent.put_all([Put("x", b"", {}), Put("y", b"", {})]),
        lambda: absent.open_all(["x", "y"], bound=1),
        lambda: list(absent.list("")),
        lambda: absent.delete("x"),
    ):
        with pytest.raises(RepositoryNotFoundError, match="absent"):
            call()


def test_create_makes_what_is_missing_and_leaves_what_is_there(absent: Storage) -> None:
    absent.create()
    absent.put("x", b"kept", {})
    absent.create()
    assert absent.exists()
    assert read(absent, "x") == b"kept"


def test_delete_removes_and_does_not_mind_what_is_gone(storage: Storage) -> None:
    storage.put("data/x", b"", {})
    storage.put("data/xy", b"", {})
    storage.delete("data/x")
    storage.delete("data/x")
    storage.delete("never/was")
    assert keys(storage) == ["data/xy"]


def test_many_threads_share_a_storage(storage: Storage) -> None:
    def there_and_back(number: int) -> bytes:
        storage.put(f"data/{number}", b"%d" % number * 1000, {})
        return read(storage, f"data/{number}")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(there_and_back, range(100))) == [b"%d" % number * 1000 for number in range(100)]


def test_nothing_is_done_after_a_stop(storage: Storage) -> None:
    storage.put("x", b"hello", {})
    storage.stop()
    storage.stop()
    for call in (
        lambda: storage.open("x"),
        lambda: storage.put("x", b"", {}),
        lambda: storage.put_all([Put("x", b"", {}), Put("y", b"", {})]),
        lambda: storage.open_all(["x", "x"], bound=1),
        lambda: list(storage.list("")),
        lambda: storage.delete("x"),
        lambda: write(storage, "x", b"hello"),
        storage.exists,
        storage.create,
    ):
        with pytest.raises(StorageStopped):
            call()


def test_it_can_be_closed_twice(storage: Storage) -> None:
    storage.put("x", b"hello", {})
    storage.close()
    storage.close()


def test_different_places_have_different_identities(storage: Storage, absent: Storage) -> None:
    assert storage.identity != absent.identity
    assert storage.url != absent.url
