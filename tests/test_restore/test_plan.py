"""What is to be written, and what a look at the repository says of it."""

import re

import pytest

from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath
from s3bu.restore import Plan, plan_restore
from s3bu.restore.stored import check
from s3bu.storage.memory import StoredObject
from tests.fakes import OF_OTHERS, PACKED, World, file_entry, hash_of, key_of
from tests.test_restore.restoring import HOSTILE, TEXT, damage, directory, link, plan, snapshot, stored


def test_a_plan_says_what_comes_back() -> None:
    fifo = Entry(b"fifo", SPECIAL, 0, 0, 0o644, target=b"fifo")
    entries = [directory(b"d"), file_entry(b"d/f", TEXT), fifo, link(b"l", b"x")]
    assert plan(*entries) == Plan([entries[0]], [entries[1]], [entries[3]], [fifo], [])
    assert plan(*entries).nbytes == len(TEXT)


@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK])
@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_leads_outside_is_a_failure_and_nothing_else(path: bytes, kind: str) -> None:
    entry = Entry(path, kind, 0, 0, 0o644, hash_of(b"") if kind == FILE else "")
    found = plan(entry)
    assert (found.directories, found.files, found.links) == ([], [], [])
    assert [failure.path for failure in found.failures] == [path]


def test_a_file_that_was_never_backed_up_is_a_failure() -> None:
    found = plan(file_entry(b"x", TEXT)._replace(hash=""))
    assert [failure.path for failure in found.failures] == [b"x"]
    assert found.files == []


def test_what_failed_to_be_backed_up_is_told_whether_an_older_state_is_there_or_not() -> None:
    failed = [FailedPath(b"old", "permission denied", ""), FailedPath(b"new", "input/output error", "")]
    found = plan_restore(snapshot([file_entry(b"old", TEXT, mtime=0)], failed))
    assert [failure.error.split(",")[0] for failure in found.failures] == ["an older state", "not in the snapshot"]
    assert ["permission denied" in found.failures[0].error, "input/output" in found.failures[1].error] == [True, True]
    assert [entry.path for entry in found.files] == [b"old"]


def test_a_pattern_is_searched_in_the_path_and_takes_failures_along() -> None:
    failed = [FailedPath(b"letters/y", "no", ""), FailedPath(b"other", "no", "")]
    entries = [file_entry(b"letters/x", TEXT), file_entry(b"other/x", TEXT), file_entry(b"../letters/x", TEXT)]
    found = plan_restore(snapshot(entries, failed), re.compile(b"letters/"))
    assert [entry.path for entry in found.files] == [b"letters/x"]
    assert [failure.path for failure in found.failures] == [b"../letters/x", b"letters/y"]


def test_a_check_finds_what_could_not_come_back(world: World) -> None:
    for number, metadata in enumerate((PACKED, OF_OTHERS, {})):
        world.put_content(b"%d packs " % number * 100, metadata, packed=True)
    names = ("missing", "archived", "cut")
    entries = [stored(world, name.encode(), name.encode() * 100) for name in names]
    good = [stored(world, b"good"), stored(world, b"twin")]
    good.extend(file_entry(b"packed %d" % number, b"%d packs " % number * 100) for number in range(3))
    for name in names:
        damage(world, name, name.encode() * 100)
        if name == "cut":
            stored_object = world.storage.objects[key_of(b"cut" * 100)]
            world.storage.objects[key_of(b"cut" * 100)] = StoredObject(
                stored_object.body[:300], {"s3bu-encrypt": "age"}
            )
    found = check(world.repository, plan(*entries, *good, file_entry(b"../x", TEXT)))
    assert [failure.path for failure in found] == [b"../x", b"missing", b"archived", b"cut"]


def test_a_check_judges_each_length_by_itself(world: World) -> None:
    entry = stored(world, b"right")
    world.storage.objects[key_of(TEXT)] = StoredObject(
        world.storage.objects[key_of(TEXT)].body, {"s3bu-encrypt": "age"}
    )
    found = check(world.repository, plan(entry._replace(path=b"liar", nbytes=10**6), entry))
    assert [failure.path for failure in found] == [b"liar"]


def test_a_check_writes_and_fetches_nothing(world: World) -> None:
    reads: list[str] = []
    world.storage.before_read = reads.append
    assert check(world.repository, plan(stored(world, b"x"))) == []
    assert (reads, world.storage.puts) == ([], [])
