"""Listings: order, prefixes, beginnings, and what they say."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from s3bu.storage import Storage
from tests.test_storage_contract.cases import METADATA, keys


def test_keys_come_in_byte_order(storage: Storage) -> None:
    disordered = ["b", "a/b", "a-b", "a.b", "a0", "a/b-c", "a/b c", "A", "é", "a/é", "zz", "\U0001f600", "\uffee"]
    for key in disordered:
        storage.put(key, b"", {})
    assert keys(storage) == sorted(disordered, key=str.encode)


def test_a_long_listing_is_whole_and_in_order(storage: Storage) -> None:
    names = [f"data/{number % 7:04x}/{number:08x}" for number in range(1105)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.put(key, b"", {}), names))
    assert keys(storage, "data/") == sorted(names)


def test_a_prefix_is_not_a_directory(storage: Storage) -> None:
    for key in ("data/ab", "data/abc/d", "data/ac", "datum", "dat/a"):
        storage.put(key, b"", {})
    assert keys(storage, "dat") == ["dat/a", "data/ab", "data/abc/d", "data/ac", "datum"]
    assert keys(storage, "data/ab") == ["data/ab", "data/abc/d"]
    assert keys(storage, "data/abc/") == ["data/abc/d"]
    assert keys(storage, "data/ab/") == []
    assert keys(storage, "nothing/at/all") == []
    assert keys(storage, "../") == []


def test_a_listing_begins_after_a_key(storage: Storage) -> None:
    everything = ["a/b/c", "a/b/d", "a/b-e", "a/f", "b", "b-g/h"]
    for key in everything:
        storage.put(key, b"", {})
    for after in ("", "a", "a/b", "a/b/", "a/b/c", "a/bb", "a/z", "b", "zzz", "a/b/c\U0001f600"):
        expected = sorted(key for key in everything if key > after)
        assert keys(storage, after=after) == expected
        assert keys(storage, "a/", after=after) == [key for key in expected if key.startswith("a/")]


def test_a_listing_says_what_is_there(storage: Storage) -> None:
    storage.put("data/x", b"hello", METADATA)
    (stat,) = storage.list("")
    assert (stat.key, stat.nbytes, stat.is_archived) == ("data/x", 5, False)
    assert abs(stat.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_an_etag_changes_with_the_object_alone(storage: Storage) -> None:
    storage.put("x", b"old", {})
    (old,), (same,) = storage.list("x"), storage.list("x")
    storage.put("x", b"new", {})
    (new,) = storage.list("x")
    assert old.etag == same.etag
    assert old.etag != new.etag
