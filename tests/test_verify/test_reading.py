"""Reading shares of what is stored: what was not read for the longest time first, and remembered."""

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from s3bu.crypto import encrypt
from s3bu.errors import KeyringError, NoIdentityError, StorageError
from s3bu.size import Share
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from s3bu.verify.reading import Read
from tests.fakes import PACKED, RAW, World, another_recipient, file_entry, key_of, refuse
from tests.test_backup.runs import back_up
from tests.test_verify.verifying import ALL, TEXT, cut, spoil, stat_of, verify

NUMBERS = [b"%02d" % number for number in range(40)]


def with_contents(world: World) -> list[str]:
    """Store forty contents of about one size and a manifest of them, and return what is read, as it is."""
    for content in NUMBERS:
        world.put_content(content)
    world.put_manifest(file_entry(b"f" + content, content) for content in NUMBERS)
    read: list[str] = []
    world.storage.before_read = lambda key: read.append(key) if key.startswith("data/") else None
    return read


def read_share(world: World, share: Share) -> Read:
    verified = verify(world, reads=share)
    assert verified.code == 0
    assert verified.report.read is not None
    return verified.report.read


def test_repeated_runs_of_a_share_cover_everything_before_anything_is_read_again(world: World) -> None:
    read = with_contents(world)
    runs = [read_share(world, Share(0.25)) for _ in range(3)]
    assert all(10 <= one.ncontents <= 12 for one in runs)  # age makes objects a little longer than they must be
    assert [round(one.covered, 1) for one in runs] == [0.3, 0.5, 0.8]
    assert len(read) == len(set(read)) == sum(one.ncontents for one in runs)
    assert read_share(world, Share(0.3)).covered == 1.0
    assert set(read) == {key_of(content) for content in NUMBERS}


def test_what_was_read_first_is_read_first_again(world: World) -> None:
    read = with_contents(world)
    runs: list[set[str]] = []
    for number in range(3):
        read_share(world, Share(0.35))
        runs.append(set(read))
        del read[:]
        with closing(world.index()) as index:  # as if each run had been a day after the last one
            index.connection.execute("UPDATE evidence SET read_s = ? WHERE read_s > 1000", (number,))
    read_share(world, Share(0.2))
    assert runs[0] >= set(read)


def test_a_size_reads_so_many_bytes_and_the_content_that_goes_beyond(world: World) -> None:
    read = with_contents(world)
    sizes = sorted((stat_of(world, content).key, stat_of(world, content).nbytes) for content in NUMBERS)
    verify(world, reads=Share(1.0, sum(nbytes for _, nbytes in sizes[:3]) + 1))
    assert len(read) == 4
    verify(world, reads=Share(1.0, 1))
    assert len(read) == 5


def test_what_was_put_anew_is_read_anew(world: World) -> None:
    read = with_contents(world)
    verify(world, reads=ALL)
    world.put_content(NUMBERS[7])
    del read[:]
    verify(world, reads=Share(1.0, 1))
    assert read == [key_of(NUMBERS[7])]


def test_what_was_read_is_remembered_when_the_run_is_stopped(world: World) -> None:
    with_contents(world)
    seen: list[str] = []

    def stop_after_twenty(key: str) -> None:
        seen.append(key)
        if key.startswith("data/") and len(seen) > 20:
            time.sleep(0.5)  # until what was read before has come to whoever remembers it
            raise KeyboardInterrupt

    world.storage.before_read = stop_after_twenty
    with pytest.raises(KeyboardInterrupt):
        verify(world, reads=ALL)
    with closing(world.index()) as index:
        (number,) = index.connection.execute("SELECT count(*) FROM evidence WHERE read_s").fetchone()
    assert 0 < number <= 21


# --- what is found


SPOILT: dict[str, Callable[[World, bytes], object]] = {
    "another content": lambda world, content: world.put_content(content[::-1], at=content),
    "another, packed": lambda world, content: world.put_content(b"another", PACKED, at=content, packed=True),
    "garbage": lambda world, content: spoil(world, content, b"\x00\xff" * 4000),
    "a flipped bit": lambda world, content: spoil(world, content, flipped(world, content)),
    "not encrypted": lambda world, content: spoil(world, content, content + bytes(500)),
    "a longer one": lambda world, content: world.put_content(content + b"!", at=content),
}


def flipped(world: World, content: bytes) -> bytes:
    body = bytearray(world.storage.objects[key_of(content)].body)
    body[-20] ^= 1
    return bytes(body)


@pytest.mark.parametrize("how", SPOILT)
def test_an_object_that_is_not_its_content_is_found(world: World, how: str) -> None:
    world.put_content(TEXT)
    world.put_content(b"right")
    world.put_manifest([file_entry(b"a", TEXT), file_entry(b"b", b"right")])
    SPOILT[how](world, TEXT)
    verified = verify(world, reads=ALL)
    assert (verified.code, verified.problems, verified.whole) == (1, {b"a": "damaged"}, {"docs": (0, 1)})
    assert verify(world).problems == {b"a": "damaged"}


@pytest.mark.parametrize("metadata", [RAW, PACKED, {}])
@pytest.mark.parametrize("packed", [True, False])
def test_metadata_are_no_proof_of_anything(world: World, metadata: dict[str, str], packed: bool) -> None:
    world.put_content(TEXT, metadata, packed=packed)
    world.put_manifest([file_entry(b"a", TEXT)])
    assert verify(world, reads=ALL).code == 0
    assert verify(world).code == 0


def test_a_large_content_is_read_to_its_end(world: World) -> None:
    large = bytes(PART_BOUND) + b"end"
    world.put_content(large)
    world.put_manifest([file_entry(b"a", large)])
    assert verify(world, reads=ALL).code == 0
    spoil(world, large, flipped(world, large))
    assert verify(world, reads=ALL).problems == {b"a": "damaged"}


def test_a_line_that_errs_once_accuses_nobody(world: World) -> None:
    world.put_content(TEXT)
    world.put_manifest([file_entry(b"a", TEXT)])
    right = world.storage.objects[key_of(TEXT)]
    errors = iter([lambda: spoil(world, TEXT, flipped(world, TEXT))])

    def err_once(key: str) -> None:
        if key == key_of(TEXT):
            world.storage.objects[key] = right
            next(errors, int)()

    world.storage.before_read = err_once
    assert verify(world, reads=ALL).code == 0


def test_a_condemned_object_is_read_first_and_cleared_when_it_is_right(world: World) -> None:
    with_contents(world)
    right = world.storage.objects[key_of(NUMBERS[30])]
    spoil(world, NUMBERS[30], flipped(world, NUMBERS[30]))
    assert verify(world, reads=ALL).code == 1
    world.storage.objects[key_of(NUMBERS[30])] = StoredObject(right.body, {}, etag=stat_of(world, NUMBERS[30]).etag)
    assert verify(world).code == 1
    assert verify(world, reads=Share(1.0, 1)).code == 0


def test_a_content_that_vanishes_before_it_is_read_is_missing(world: World) -> None:
    with_contents(world)
    on_first = iter([lambda: world.storage.delete(key_of(NUMBERS[3]))])
    world.storage.before_read = lambda key: next(on_first, lambda: None)() if key.startswith("data/") else None
    assert verify(world, reads=ALL).problems == {b"f03": "missing"}


def test_what_cannot_be_read_now_is_no_damage(world: World) -> None:
    with_contents(world)
    world.storage.before_read = refuse([key_of(NUMBERS[3])])
    verified = verify(world, reads=ALL)
    assert (verified.code, verified.problems) == (3, {b"f03": "unreadable"})
    world.storage.before_read = lambda key: None
    assert verify(world, reads=Share(1.0, 1)).code == 0


def test_a_storage_that_is_gone_ends_the_reading_and_what_was_found_is_told(world: World) -> None:
    with_contents(world)
    del world.storage.objects[key_of(NUMBERS[3])]
    world.storage.before_read = refuse(key_of(content) for content in NUMBERS)
    verified = verify(world, reads=ALL)
    assert [type(error) for error in verified.report.errors] == [StorageError]
    assert (verified.code, verified.problems[b"f03"]) == (1, "missing")


# --- identities


def test_a_content_of_another_recipient_cannot_be_read_and_is_no_damage(world: World) -> None:
    with_contents(world)
    spoil(world, NUMBERS[5], encrypt(NUMBERS[5], [another_recipient()]))
    verified = verify(world, reads=ALL)
    assert (verified.code, verified.problems) == (3, {b"f05": "unopened"})
    assert verify(world).problems == {b"f05": "unopened"}


def test_identities_that_open_nothing_are_the_wrong_ones(world: World) -> None:
    other = another_recipient()
    world.storage.objects[key_of(TEXT)] = StoredObject(encrypt(TEXT, [other]), RAW)
    world.put_manifest([file_entry(b"a", TEXT)])
    verified = verify(world, reads=ALL)
    assert [type(error) for error in verified.report.errors] == [NoIdentityError]
    assert verified.code == 12


def test_without_identities_nothing_is_begun(world: World) -> None:
    with_contents(world)
    (world.root / "keys" / "identities.txt").unlink()
    with pytest.raises(KeyringError):
        verify(world, reads=ALL)
    assert verify(world).code == 0


def test_a_cut_object_that_was_read_is_still_said_to_be_cut(world: World) -> None:
    world.write("a", TEXT)
    back_up(world)
    cut(world, TEXT, 1000)
    assert verify(world, reads=ALL).problems == {b"a": "cut"}
    assert verify(world).problems == {b"a": "cut"}
