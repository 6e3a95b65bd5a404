"""One suite for every storage: what `s3bu.storage.Storage` promises, kept by S3, by a directory and by the fake."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from s3bu.errors import ObjectExists, ObjectNotFound, RepositoryNotFoundError, StorageError, StorageStopped
from s3bu.storage import Put, Storage
from s3bu.storage.memory import MemoryStorage
from s3bu.storage.place import Place, S3Options, open_storage

KINDS = ("moto", "rclone with a prefix", "directory", "memory")
METADATA = {"s3bu-encrypt": "age", "s3bu-encrypt-version": "001"}


@dataclass(frozen=True, slots=True)
class Case:
    """A place that is there and empty, one beside it that is not there, and what they can do."""

    there: Callable[[], Storage]
    absent: Callable[[], Storage]
    keeps_metadata: bool = True


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path, make_bucket: Callable[[str], str]) -> Case:
    kind: str = request.param
    if kind == "memory":
        return Case(MemoryStorage, absent_memory)
    if kind == "directory":
        (tmp_path / "root").mkdir()
        there = Place("directory", path=str(tmp_path / "root"))
        absent = Place("directory", path=str(tmp_path / "absent" / "deeper"))
        options = S3Options()
        return Case(partial(open_storage, there, options), partial(open_storage, absent, options), keeps_metadata=False)
    url = request.getfixturevalue(f"{kind.split(maxsplit=1)[0]}_url")
    bucket, options = make_bucket(url), S3Options(endpoint_url=url)
    prefix = "some/prefix" if "prefix" in kind else ""
    there = Place("bucket", bucket=bucket, prefix=prefix)
    absent = Place("bucket", bucket=f"absent-{bucket}", prefix=prefix)
    return Case(partial(open_storage, there, options), partial(open_storage, absent, options))


def absent_memory() -> MemoryStorage:
    storage = MemoryStorage("absent")
    storage.is_there = False
    return storage


@pytest.fixture
def storage(case: Case) -> Iterator[Storage]:
    opened = case.there()
    yield opened
    opened.close()


@pytest.fixture
def absent(case: Case) -> Iterator[Storage]:
    opened = case.absent()
    yield opened
    opened.close()


def read(storage: Storage, key: str, start: int = 0) -> bytes:
    with storage.open(key, start=start) as download:
        return download.read()


def keys(storage: Storage, prefix: str = "", after: str = "") -> list[str]:
    return [stat.key for stat in storage.list(prefix, after=after)]


def probe(storage: Storage) -> bool:
    answer = storage.probe("repo/probe")
    storage.delete("repo/probe")
    return answer


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


LARGE = bytes(range(256)) * (20 * 4096) + b"!"


def write(storage: Storage, key: str, body: bytes, *, create: bool = False, chunk: int = 1_000_003) -> None:
    with storage.writer(key, len(body), METADATA, create=create) as upload:
        for start in range(0, len(body), chunk):
            assert upload.write(body[start : start + chunk]) == len(body[start : start + chunk])
            upload.flush()
        upload.commit()


def test_a_writer_stores_a_large_body(case: Case, storage: Storage) -> None:
    write(storage, "data/x", LARGE)
    with storage.open("data/x") as download:
        assert (download.read() == LARGE, download.nbytes) == (True, len(LARGE))
        assert dict(download.metadata) == (METADATA if case.keeps_metadata else {})


def test_a_large_body_is_read_from_the_middle_in_pieces(storage: Storage) -> None:
    write(storage, "data/x", LARGE, chunk=len(LARGE))
    with storage.open("data/x", start=3_000_001) as download:
        pieces = list(iter(lambda: download.read(700_001), b""))
    assert all(len(piece) == 700_001 for piece in pieces[:-1])
    assert b"".join(pieces) == LARGE[3_000_001:]


def test_a_writer_takes_any_length(storage: Storage) -> None:
    part = 8 * 1024 * 1024
    for nbytes in (0, 1, part - 1, part, part + 1):
        write(storage, "x", LARGE[:nbytes])
        assert read(storage, "x") == LARGE[:nbytes]


@pytest.mark.parametrize("is_probed", [False, True])
@pytest.mark.parametrize("nbytes", [5, 9 * 1024 * 1024])
def test_a_writer_refuses_to_create_what_is_there(storage: Storage, nbytes: int, is_probed: bool) -> None:
    if is_probed:
        probe(storage)
    write(storage, "x", LARGE[:nbytes], create=True)
    with pytest.raises(ObjectExists, match="x is there already"):
        write(storage, "x", LARGE[1 : nbytes + 1], create=True)
    assert read(storage, "x") == LARGE[:nbytes]


def test_an_aborted_writer_leaves_nothing(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
        upload.abort()
        upload.abort()
    assert keys(storage) == []


def test_a_writer_left_without_commit_leaves_nothing(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
    assert keys(storage) == []


def test_a_writer_left_by_an_error_leaves_what_was_there(storage: Storage) -> None:
    storage.put("x", b"before", {})
    with pytest.raises(TypeError), storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE[: 9 * 1024 * 1024] + upload)  # type: ignore[operator]
    assert (keys(storage), read(storage, "x")) == (["x"], b"before")


def test_an_abort_after_the_commit_is_harmless(storage: Storage) -> None:
    with storage.writer("x", 5, {}) as upload:
        upload.write(b"hello")
        upload.commit()
        upload.abort()
    assert read(storage, "x") == b"hello"


def test_nothing_is_written_after_the_commit(storage: Storage) -> None:
    with storage.writer("x", 5, {}) as upload:
        upload.commit()
        with pytest.raises(ValueError, match="over"):
            upload.write(b"more")


def test_an_object_appears_at_the_commit_and_not_before(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
        assert keys(storage) == []
        upload.commit()
    assert keys(storage) == ["x"]


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
