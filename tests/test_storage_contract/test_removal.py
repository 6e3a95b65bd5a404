"""What a prune asks of a storage: its clock, its versions, the removal of what was listed and of nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from s3bu.errors import RepositoryNotFoundError, StorageStopped
from s3bu.storage import ObjectStat, Storage
from tests.test_storage_contract.cases import keys, read


def stat_of(storage: Storage, key: str) -> ObjectStat:
    (found,) = storage.versions(key)
    return found


def test_the_clock_is_that_of_what_is_put(storage: Storage) -> None:
    before = storage.now()
    storage.put("data/x", b"one", {})
    assert abs(stat_of(storage, "data/x").modified - before) < timedelta(seconds=30)
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=5)


def test_to_look_at_the_clock_leaves_nothing_behind(storage: Storage) -> None:
    storage.now()
    assert keys(storage) == []


def test_without_versions_each_object_is_listed_once(storage: Storage) -> None:
    for body in (b"one", b"two"):
        storage.put("data/x", body, {})
    storage.put("data/y", b"three", {})
    storage.put("other", b"four", {})
    found = list(storage.versions("data/"))
    assert [(stat.key, stat.nbytes, stat.version) for stat in found] == [("data/x", 3, ""), ("data/y", 5, "")]
    assert found == list(storage.list("data/"))


def test_what_was_listed_is_removed(storage: Storage) -> None:
    storage.put("data/x", b"one", {})
    storage.put("data/y", b"one", {})
    assert storage.remove(stat_of(storage, "data/x"))
    assert keys(storage) == ["data/y"]


def test_what_was_put_since_it_was_listed_stays(storage: Storage) -> None:
    storage.put("data/x", b"one", {})
    listed = stat_of(storage, "data/x")
    storage.put("data/x", b"two", {})
    assert not storage.remove(listed)
    assert read(storage, "data/x") == b"two"


def test_what_is_gone_already_is_no_error(storage: Storage) -> None:
    storage.put("data/x", b"one", {})
    listed = stat_of(storage, "data/x")
    storage.delete("data/x")
    assert not storage.remove(listed)
    assert keys(storage) == []


def test_there_are_no_unfinished_uploads_where_none_was_begun(storage: Storage) -> None:
    storage.put("data/x", b"one", {})
    assert list(storage.unfinished()) == []


def test_what_is_not_there_has_neither_clock_nor_versions(absent: Storage) -> None:
    with pytest.raises(RepositoryNotFoundError):
        list(absent.versions("data/"))


def test_after_a_stop_nothing_is_removed(storage: Storage) -> None:
    storage.put("data/x", b"one", {})
    listed = stat_of(storage, "data/x")
    storage.stop()
    for call in (storage.now, lambda: list(storage.versions("")), lambda: storage.remove(listed)):
        with pytest.raises(StorageStopped):
            call()
