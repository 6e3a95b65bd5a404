"""Everything that can come back does, verified, and what cannot is named and harms nothing."""

import os
import threading

import pytest

from s3bu.crypto import encrypt
from s3bu.errors import AccessDenied, KeyringError, NoIdentityError, StorageError
from s3bu.progress import Failure
from s3bu.restore.target import TargetFull
from s3bu.storage.memory import StoredObject
from tests.fakes import OLD, SECOND, World, another_recipient, key_of, refuse, write
from tests.test_restore.restoring import LARGE, TEXT, damage, directory, link, mode_of, restore, stored, tree


def test_files_directories_and_links_come_back(world: World) -> None:
    entries = [
        directory(b"d", 0o750),
        directory(b"d/empty", 0o500),
        stored(world, b"d/file", TEXT, 0o640),
        stored(world, b"d/large", LARGE),
        stored(world, b"nothing", b""),
        link(b"link", b"/nowhere"),
    ]
    outcome = restore(world, *entries)
    assert (outcome.nfiles, outcome.nlinks, outcome.ndirectories, outcome.failures) == (3, 1, 2, [])
    assert outcome.nbytes == len(TEXT) + len(LARGE)
    assert tree(world) == {
        "d": b"/",
        "d/empty": b"/",
        "d/file": TEXT,
        "d/large": LARGE,
        "nothing": b"",
        "link": b"/nowhere",
    }
    assert [mode_of(world, name) for name in ("d", "d/empty", "d/file")] == [0o750, 0o500, 0o640]
    for name in ("d", "d/empty", "d/file", "link"):
        assert (world.root / "target" / name).lstat().st_mtime_ns == OLD * SECOND


def test_a_content_that_many_files_share_is_fetched_once(world: World) -> None:
    reads: list[str] = []
    world.storage.before_read = reads.append
    for content in (TEXT, LARGE[:100]):
        entries = [stored(world, b"%d-%d" % (len(content), number), content) for number in range(50)]
        assert restore(world, *entries).nfiles == 50
    assert sorted(reads) == sorted([key_of(TEXT), key_of(LARGE[:100])])


def test_a_restore_that_was_killed_is_finished_by_running_it_again(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(20)]
    restore(world, *entries[:12])
    reads: list[str] = []
    world.storage.before_read = reads.append
    outcome = restore(world, *entries)
    assert (outcome.nfiles, outcome.nright, outcome.failures) == (8, 12, [])
    assert sorted(reads) == sorted(key_of(b"%d" % number) for number in range(12, 20))


def test_what_is_there_and_differs_stays_unless_it_may_be_overwritten(world: World) -> None:
    write(world.root / "target" / "file", b"mine")
    write(world.root / "target" / "link", b"mine")
    entries = [stored(world, b"file"), link(b"link", b"x"), stored(world, b"other", b"other")]
    outcome = restore(world, *entries)
    assert [failure.path for failure in outcome.failures] == [b"file", b"link"]
    assert tree(world) == {"file": b"mine", "link": b"mine", "other": b"other"}
    assert restore(world, *entries, overwrite=True).failures == []
    assert tree(world) == {"file": TEXT, "link": b"x", "other": b"other"}


@pytest.mark.parametrize("how", ["missing", "archived", "cut", "poisoned", "plain"])
@pytest.mark.parametrize("content", [TEXT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_content_that_cannot_come_back_leaves_what_was_there_and_the_rest_comes(
    world: World, how: str, content: bytes, overwrite: bool
) -> None:
    if overwrite:
        write(world.root / "target" / "bad", b"mine")
    entries = [stored(world, b"bad", content), stored(world, b"bad too", content), stored(world, b"good", b"good")]
    damage(world, how, content)
    outcome = restore(world, *entries, overwrite=overwrite)
    assert sorted(failure.path for failure in outcome.failures) == [b"bad", b"bad too"]
    assert tree(world) == {"good": b"good"} | ({"bad": b"mine"} if overwrite else {})


@pytest.mark.parametrize("nbytes", [0, 5, 10**6, 10**15])
def test_an_entry_that_lies_about_its_length_fails_alone(world: World, nbytes: int) -> None:
    entry = stored(world, b"right")
    outcome = restore(world, entry._replace(path=b"liar", nbytes=nbytes), entry)
    assert [failure.path for failure in outcome.failures] == [b"liar"]
    assert tree(world) == {"right": TEXT}


def test_a_file_for_another_identity_fails_alone(world: World) -> None:
    entries = [stored(world, name, name) for name in (b"a", b"lost", b"z")]
    world.storage.objects[key_of(b"lost")] = StoredObject(encrypt(b"lost", [another_recipient()]), {})
    outcome = restore(world, *entries)
    assert [failure.path for failure in outcome.failures] == [b"lost"]
    assert tree(world) == {"a": b"a", "z": b"z"}


def test_identities_that_open_nothing_end_the_run(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(3)]
    for entry in entries:
        body = encrypt(entry.path, [another_recipient()])
        world.storage.objects[key_of(entry.path)] = StoredObject(body, {})
    with pytest.raises(NoIdentityError):
        restore(world, *entries)
    assert tree(world) == {}


def test_without_identities_nothing_is_begun(world: World) -> None:
    entry = stored(world, b"file")
    (world.root / "keys" / "identities.txt").unlink()
    with pytest.raises(KeyringError):
        restore(world, entry)
    assert tree(world) == {}


def test_a_target_that_is_full_ends_the_run_with_a_hint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(100)]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TargetFull) as caught:
        restore(world, *entries)
    assert caught.value.hint
    assert tree(world) == {}


@pytest.mark.parametrize("kind", [AccessDenied])
def test_an_error_that_no_file_can_escape_ends_the_run(world: World, kind: type[StorageError]) -> None:
    entry = stored(world, b"file")
    world.storage.before_read = refuse([key_of(TEXT)], kind)
    with pytest.raises(kind):
        restore(world, entry)


def test_directories_that_a_snapshot_of_the_original_does_not_name_are_ordinary_ones(world: World) -> None:
    restore(world, stored(world, b"a/b/file"))
    assert [mode_of(world, name) for name in ("a", "a/b")] == [0o755, 0o755]


def test_a_private_directory_stays_private_when_a_pattern_takes_only_what_is_in_it(world: World) -> None:
    entries = [
        directory(b"private", 0o700),
        directory(b"private/in"),
        stored(world, b"private/in/file"),
        directory(b"x"),
    ]
    restore(world, *entries, pattern=b"file$")
    assert tree(world) == {"private": b"/", "private/in": b"/", "private/in/file": TEXT}
    assert (mode_of(world, "private"), mode_of(world, "private/in")) == (0o700, 0o755)


def test_of_a_large_content_with_two_places_what_was_written_is_not_told_to_have_failed(world: World) -> None:
    entries = [stored(world, b"first", LARGE), stored(world, b"second", LARGE)]
    reads: list[str] = []

    def strike(key: str) -> None:
        reads.append(key)
        if reads.count(key_of(LARGE)) > 1:
            raise StorageError("the server is unwell")

    world.storage.before_read = strike
    outcome = restore(world, *entries)
    assert (outcome.nfiles, outcome.failures) == (1, [Failure(b"second", "the server is unwell")])
    assert tree(world) == {"first": LARGE}
