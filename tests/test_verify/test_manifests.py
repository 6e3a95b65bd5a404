"""Manifests: cut, altered, swapped, moved or gone since they were read; and those whose passphrase is not at hand."""

from contextlib import closing
from dataclasses import replace

import pytest

from s3bu.errors import PassphraseNotFoundError
from s3bu.keyring import load_secrets, new_secret, write_secrets
from s3bu.size import Share
from s3bu.storage.memory import StoredObject
from tests.fakes import World, file_entry, manifest_key
from tests.test_verify.verifying import ALL, verify

FIRST, SECOND, THIRD = (manifest_key(f"2026-01-0{day}", 1) for day in (1, 2, 3))
KEYS = (FIRST, SECOND, THIRD)


@pytest.fixture
def history(world: World) -> World:
    """Three snapshots of three files, which this machine has read."""
    for number, key in enumerate(KEYS):
        names = [b"a", b"b", b"c%d" % number]
        for name in names:
            world.put_content(name)
        world.put_manifest([file_entry(name, name) for name in names], key=key)
    assert verify(world).code == 0
    return world


def set_body(world: World, key: object, body: bytes) -> None:
    world.storage.objects[str(key)] = StoredObject(body, world.storage.objects[str(key)].metadata)


def body_of(world: World, key: object) -> bytes:
    return world.storage.objects[str(key)].body


@pytest.mark.parametrize("nbytes", [0, 100, -1])
def test_a_cut_manifest_is_named_and_the_others_are_whole(history: World, nbytes: int) -> None:
    set_body(history, SECOND, body_of(history, SECOND)[:nbytes])
    for home in ("state", "another machine"):
        verified = verify(history, home=home)
        assert (verified.code, verified.broken) == (1, {str(SECOND): "unreadable"})
        assert verified.whole == {"docs": (2, 3)}
        assert verify(history, home=home).broken == {str(SECOND): "unreadable"}
    (standing,) = verified.report.standings
    assert standing.newest_whole is not None
    assert standing.newest_whole.key == str(THIRD)


def test_an_older_manifest_in_the_place_of_a_newer_one_is_named(history: World) -> None:
    set_body(history, THIRD, body_of(history, FIRST))
    for home in ("state", "another machine"):
        assert verify(history, home=home).broken == {str(THIRD): "unreadable"}


def test_a_manifest_that_was_moved_to_another_label_is_named_in_both_places(history: World) -> None:
    moved = replace(SECOND, label="pics")
    history.storage.objects[str(moved)] = history.storage.objects.pop(str(SECOND))
    verified = verify(history)
    assert (verified.code, verified.broken) == (1, {str(moved): "unreadable", str(SECOND): "vanished"})
    assert verified.whole == {"docs": (2, 2), "pics": (0, 1)}
    assert verify(history, label="docs").code == 0


def test_an_altered_manifest_is_named_although_it_can_be_read(history: World) -> None:
    history.put_manifest([file_entry(b"a", b"a")], key=SECOND)
    verified = verify(history)
    assert (verified.code, verified.broken, verified.whole) == (3, {str(SECOND): "altered"}, {"docs": (3, 3)})


def test_a_manifest_of_the_original_that_is_swapped_is_known_as_altered(world: World) -> None:
    world.put_content(b"a")
    line = b"1,1600000000,0644,%b,a\n" % file_entry(b"a", b"a").hash.encode()
    for key in (FIRST, SECOND):
        world.put_original_manifest(line if key == FIRST else line + line.replace(b",a\n", b",b\n"), key)
    assert verify(world).code == 0
    set_body(world, SECOND, body_of(world, FIRST))
    assert verify(world).broken == {str(SECOND): "altered"}


def test_a_manifest_that_is_gone_is_said_once_and_is_no_damage(history: World) -> None:
    del history.storage.objects[str(SECOND)]
    verified = verify(history)
    assert (verified.code, verified.broken) == (3, {str(SECOND): "vanished"})
    assert verify(history).code == 0


def test_the_last_manifest_that_is_gone_is_said_too(world: World) -> None:
    world.put_manifest([], key=FIRST)
    verify(world)
    del world.storage.objects[str(FIRST)]
    assert verify(world).broken == {str(FIRST): "vanished"}


def test_damage_of_another_label_is_not_told_where_one_is_asked_for(history: World) -> None:
    history.put_manifest([], key=replace(FIRST, label="pics"))
    set_body(history, SECOND, b"")
    assert verify(history, label="pics").code == 0
    assert verify(history, label="docs").code == 1


def test_a_manifest_of_another_passphrase_is_no_damage(history: World) -> None:
    secrets = history.root / "keys" / "secrets.yml"
    (known,) = load_secrets(secrets)
    secrets.unlink()
    write_secrets(secrets, [known, new_secret()])
    history.put_manifest([], key=manifest_key("2026-01-04", 1))
    newer = replace_manifest_passphrase(history)
    secrets.unlink()
    write_secrets(secrets, [known])
    verified = verify(history, repository=history.reopen())
    assert (verified.code, verified.broken, verified.whole) == (3, {newer: "locked"}, {"docs": (3, 4)})


def replace_manifest_passphrase(world: World) -> str:
    """Put the newest manifest anew with the newest passphrase, and return its key."""
    key = manifest_key("2026-01-04", 1)
    replace(world, repository=world.reopen()).put_manifest([], key=key)
    return str(key)


def test_without_any_passphrase_nothing_can_be_said(history: World) -> None:
    secrets = history.root / "keys" / "secrets.yml"
    secrets.unlink()
    write_secrets(secrets, [new_secret()])
    with pytest.raises(PassphraseNotFoundError):
        verify(history, home="another machine", repository=history.reopen())


# --- read again


def test_manifests_are_read_again_with_the_contents(history: World) -> None:
    assert verify(history, reads=ALL).report.nmanifests_read == 3
    assert verify(history, home="another machine", reads=ALL).report.nmanifests_read == 0  # they were read just now


def test_manifests_are_read_again_in_turn(history: World) -> None:
    read: list[str] = []
    history.storage.before_read = lambda key: read.append(key) if key.startswith("manifests/") else None
    for number in range(3):
        with closing(history.index()) as index:
            index.connection.execute("UPDATE snapshot SET read_s = ? WHERE read_s > 1000", (number,))
        assert verify(history, reads=Share(0.33)).report.nmanifests_read == 1
    assert read == list(map(str, KEYS))


def test_a_manifest_that_rots_in_its_place_is_found_by_reading(history: World) -> None:
    stored = history.storage.objects[str(SECOND)]
    body = bytearray(stored.body)
    body[-5] ^= 1
    history.storage.objects[str(SECOND)] = replace(stored, body=bytes(body))
    assert verify(history).code == 0
    verified = verify(history, reads=ALL)
    assert (verified.code, verified.broken, verified.whole) == (1, {str(SECOND): "unreadable"}, {"docs": (2, 3)})
    for _ in range(2):
        verified = verify(history)
        assert (verified.code, verified.broken, verified.whole) == (1, {str(SECOND): "unreadable"}, {"docs": (2, 3)})
