"""One object, in the clear."""

import os

import pytest

from s3bu.errors import IntegrityError, ObjectNotFound, S3buError, StorageError, UsageError
from s3bu.progress import Failure
from s3bu.restore.download import download
from s3bu.storage.memory import StoredObject
from tests.fakes import World, file_entry, hash_of, key_of, refuse, write
from tests.test_restore.restoring import TEXT, mode_of, restore, stored, target_of, tree


def fetch_one(world: World, key: str, *, overwrite: bool = False) -> bytes:
    with target_of(world, overwrite=overwrite) as target:
        return download(world.repository, key, target)


def test_any_object_can_be_fetched_in_the_clear(world: World) -> None:
    world.put_content(TEXT, packed=True)
    world.put_private("jobs/home/home-001.yml", b"sources: []\n")
    key = world.put_manifest([file_entry(b"x", TEXT)])
    names = [fetch_one(world, one) for one in (key_of(TEXT), "jobs/home/home-001.yml", str(key), "repo/recipients.txt")]
    assert names == [hash_of(TEXT).encode(), b"home-001.yml", b"home-docs-2024-01-01-00000.csv", b"recipients.txt"]
    found = tree(world)
    assert (found[hash_of(TEXT)], found["home-001.yml"]) == (TEXT, b"sources: []\n")
    assert b",x\n" in found["home-docs-2024-01-01-00000.csv"]
    assert {mode_of(world, os.fsdecode(name)) for name in names} == {0o600}


def test_a_file_that_is_there_is_not_overwritten_unasked(world: World) -> None:
    write(world.root / "target" / "home-001.yml", b"mine")
    world.put_private("jobs/home/home-001.yml", b"theirs")
    with pytest.raises(S3buError, match=r"home-001\.yml: something is there"):
        fetch_one(world, "jobs/home/home-001.yml")
    assert tree(world) == {"home-001.yml": b"mine"}
    fetch_one(world, "jobs/home/home-001.yml", overwrite=True)
    assert tree(world) == {"home-001.yml": b"theirs"}


def test_an_object_that_is_broken_leaves_nothing(world: World) -> None:
    world.put_content(b"poison", at=TEXT)
    world.put_private("jobs/home/home-001.yml", b"x" * 1000)
    stored_object = world.storage.objects["jobs/home/home-001.yml"]
    world.storage.objects["jobs/home/home-001.yml"] = StoredObject(stored_object.body[:-1], {})
    for key in (key_of(TEXT), "jobs/home/home-001.yml"):
        with pytest.raises(IntegrityError):
            fetch_one(world, key)
    assert tree(world) == {}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("", UsageError),
        ("jobs/", UsageError),
        ("jobs/home/absent.yml", ObjectNotFound),
        ("..", S3buError),
        ("a/..", S3buError),
    ],
)
def test_what_is_no_key_is_refused(world: World, key: str, kind: type[S3buError]) -> None:
    with pytest.raises(kind):
        fetch_one(world, key, overwrite=True)
    assert tree(world) == {}


@pytest.mark.parametrize("key", ["x/..", "x/."])
def test_a_key_never_names_a_place_outside(world: World, key: str) -> None:
    world.storage.put(key, b"planted", {})
    with pytest.raises(S3buError):
        fetch_one(world, key, overwrite=True)
    assert tree(world) == {}


def test_a_storage_that_only_refuses_ends_the_run_soon(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(300)]
    world.storage.before_read = refuse([key_of(entry.path) for entry in entries])
    with pytest.raises(StorageError, match="the server is unwell"):
        restore(world, *entries)
    assert tree(world) == {}


def test_a_hiccup_of_the_storage_costs_its_file_alone(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(20)]
    world.storage.before_read = refuse([key_of(b"7")])
    outcome = restore(world, *entries)
    assert outcome.failures == [Failure(b"7", f"{key_of(b'7')}: the server is unwell")]
    assert len(tree(world)) == 19
