"""Making a repository: what is missing is made, what is there stays, and who can read it is never guessed."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3bu.crypto.identities import new_identity
from s3bu.errors import KeyringError, RecipientsChangedError, UsageError
from s3bu.init import init
from s3bu.keyring import Keyring, load_identities, load_secrets, new_secret, write_identities, write_secrets
from s3bu.keys import accept
from s3bu.remembered import Remembered
from s3bu.repository import Repository, layout
from s3bu.storage.memory import MemoryStorage
from tests.fakes import RoughStorage, World, open_repository


@pytest.fixture
def storage() -> RoughStorage:
    storage = RoughStorage()
    storage.is_there = False
    return storage


def open_at(root: Path, storage: MemoryStorage) -> Repository:
    keyring = Keyring(root / "keys" / "secrets.yml", root / "keys" / "identities.txt")
    return Repository(storage, keyring, Remembered(root / "state", storage.identity), max_work_factor=20)


def recipients_text(storage: MemoryStorage, key: str = layout.RECIPIENTS) -> list[str]:
    lines = storage.objects[key].body.decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_everything_that_is_missing_is_made(tmp_path: Path, storage: RoughStorage) -> None:
    outcome = init(open_at(tmp_path, storage), None)
    keys = tmp_path / "keys"
    assert storage.is_there
    assert len(outcome.made) == 4
    (identity,) = load_identities(keys / "identities.txt")
    assert recipients_text(storage) == [identity.recipient]
    assert len(load_secrets(keys / "secrets.yml")[0].passphrase) >= 30
    assert open_at(tmp_path, storage).remembered.facts.recipients == outcome.recipients.fingerprint


def test_keys_are_for_their_user_alone(tmp_path: Path, storage: RoughStorage) -> None:
    init(open_at(tmp_path, storage), None)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys", *(tmp_path / "keys").iterdir())}
    assert modes == {"keys": 0o700, "secrets.yml": 0o600, "identities.txt": 0o600}


def test_a_second_time_makes_nothing_and_changes_nothing(tmp_path: Path, storage: RoughStorage) -> None:
    init(open_at(tmp_path, storage), None)
    before = dict(storage.objects), [path.read_bytes() for path in sorted((tmp_path / "keys").iterdir())]
    outcome = init(open_at(tmp_path, storage), None)
    assert outcome.made == []
    assert (dict(storage.objects), [path.read_bytes() for path in sorted((tmp_path / "keys").iterdir())]) == before


def test_keys_that_are_there_are_used(tmp_path: Path, storage: RoughStorage) -> None:
    identities = [new_identity(), new_identity()]
    write_identities(tmp_path / "keys" / "identities.txt", identities)
    secret = new_secret()
    write_secrets(tmp_path / "keys" / "secrets.yml", [secret])
    outcome = init(open_at(tmp_path, storage), None)
    assert recipients_text(storage) == [recipient for _, recipient in identities]
    assert load_secrets(tmp_path / "keys" / "secrets.yml") == (secret,)
    assert len(outcome.made) == 2


def test_recipients_that_are_given_need_no_identity_here(tmp_path: Path, storage: RoughStorage) -> None:
    _, recipient = new_identity()
    init(open_at(tmp_path, storage), f"# offline\n{recipient}\n")
    assert recipients_text(storage) == [recipient]
    assert not (tmp_path / "keys" / "identities.txt").exists()


def test_recipients_that_the_original_does_not_know_stand_beside(tmp_path: Path, storage: RoughStorage) -> None:
    _, native = new_identity()
    key = Ed25519PrivateKey.generate().public_key()
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    outcome = init(open_at(tmp_path, storage), f"{ssh} me@home\n{native}\n")
    assert recipients_text(storage) == [native]
    assert recipients_text(storage, layout.FURTHER_RECIPIENTS) == [ssh]
    assert {one.text for one in outcome.recipients.recipients} == {native, ssh}


@pytest.mark.parametrize("text", ["", "# nobody\n", "rubbish\n"])
def test_recipients_that_are_none_make_no_repository(tmp_path: Path, storage: RoughStorage, text: str) -> None:
    with pytest.raises(Exception, match="the recipients file"):
        init(open_at(tmp_path, storage), text)
    assert layout.RECIPIENTS not in storage.objects


def test_an_identity_given_as_recipient_is_refused_and_not_shown(tmp_path: Path, storage: RoughStorage) -> None:
    identity, _ = new_identity()
    with pytest.raises(KeyringError) as caught:
        init(open_at(tmp_path, storage), identity)
    assert identity not in str(caught.value) + repr(caught.value.__cause__)
    assert layout.RECIPIENTS not in storage.objects


def test_a_machine_that_joins_needs_the_secrets_of_the_one_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    world = World.make(tmp_path / "first")
    world.repository.add_job("home", b"sources: []\n")
    second = open_repository(tmp_path / "second", world.storage)
    with pytest.raises(KeyringError, match="another passphrase") as caught:
        init(second, None)
    assert caught.value.hint
    assert not (tmp_path / "second" / "keys" / "secrets.yml").exists()


def test_a_machine_that_joins_pins_the_recipients_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    world = World.make(tmp_path / "first")
    second = open_repository(tmp_path / "second", world.storage)
    before = dict(world.storage.objects)
    outcome = init(second, None)
    assert second.remembered.facts.recipients == outcome.recipients.fingerprint
    assert world.storage.objects == before


def test_other_recipients_than_those_that_stand_are_refused(tmp_path: Path, storage: RoughStorage) -> None:
    init(open_at(tmp_path, storage), None)
    before = dict(storage.objects)
    with pytest.raises(KeyringError, match="overwrites nothing"):
        init(open_at(tmp_path, storage), f"{new_identity()[1]}\n")
    assert storage.objects == before


def test_the_same_recipients_in_other_words_are_fine(tmp_path: Path, storage: RoughStorage) -> None:
    init(open_at(tmp_path, storage), None)
    text = f"# mine\n\n{recipients_text(storage)[0]}\n"
    assert init(open_at(tmp_path, storage), text).made == []


def test_recipients_that_changed_since_they_were_pinned_are_not_pinned_by_init(
    tmp_path: Path, storage: RoughStorage
) -> None:
    before = init(open_at(tmp_path, storage), None).recipients
    storage.put(layout.RECIPIENTS, f"{new_identity()[1]}\n".encode(), {})
    with pytest.raises(RecipientsChangedError):
        init(open_at(tmp_path, storage), None)
    assert open_at(tmp_path, storage).remembered.facts.recipients == before.fingerprint


def test_another_machine_that_was_quicker_decides(tmp_path: Path, storage: RoughStorage) -> None:
    _, theirs = new_identity()

    def strike(key: str) -> None:
        storage.before_send = lambda key: None
        storage.put(layout.RECIPIENTS, f"{theirs}\n".encode(), {})

    storage.before_send = strike
    outcome = init(open_at(tmp_path, storage), None)
    assert [one.text for one in outcome.recipients.recipients] == [theirs]


def test_broken_secrets_are_told_before_anything_is_written(tmp_path: Path, storage: RoughStorage) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    path = tmp_path / "keys" / "secrets.yml"
    path.write_text("rubbish")
    os.chmod(path, 0o600)
    with pytest.raises(KeyringError):
        init(open_at(tmp_path, storage), None)
    assert storage.objects == {}
    assert path.read_text() == "rubbish"


# --- accepting recipients


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.make(tmp_path)
    world.repository.pinned_recipients()
    world.storage.put(layout.RECIPIENTS, f"{new_identity()[1]}\n".encode(), {})
    return world


@pytest.mark.parametrize("change", [str.upper, str.lower])
def test_changed_recipients_are_accepted_by_their_fingerprint(world: World, change: type[str]) -> None:
    fingerprint = world.repository.recipients().fingerprint
    accept(world.repository, change(fingerprint))
    assert world.reopen().pinned_recipients().fingerprint == fingerprint


@pytest.mark.parametrize("fingerprint", [None, "", "AAAA-AAAA-AAAA-AAAA-AAAA", "the old one"])
def test_without_the_right_fingerprint_nothing_is_accepted(world: World, fingerprint: str | None) -> None:
    before = world.repository.remembered.facts.recipients
    with pytest.raises(UsageError, match="were not accepted"):
        accept(world.repository, before if fingerprint == "the old one" else fingerprint)
    assert world.reopen().remembered.facts.recipients == before
