"""What lies in a repository and who may open it: recipients, jobs, manifests, contents."""

import gzip
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3bu.crypto import encrypt
from s3bu.crypto.passphrase import encrypt_with_passphrase
from s3bu.errors import (
    IntegrityError,
    KeyringError,
    ObjectExists,
    ObjectNotFound,
    PassphraseNotFoundError,
    RecipientsChangedError,
    RepositoryNotFoundError,
)
from s3bu.keyring import new_secret, write_secrets
from s3bu.manifest import Header, format_entry
from s3bu.repository import StoredManifest, layout
from s3bu.storage.memory import StoredObject
from tests.fakes import (
    World,
    another_recipient,
    file_entry,
    key_of,
    manifest_key,
    manifest_text,
    open_repository,
    stretches,
)

JOB_KEY = "jobs/home/home-001.yml"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


# --- recipients


def put_recipients(world: World, text: bytes, key: str = layout.RECIPIENTS) -> None:
    world.storage.put(key, text, {})


def test_a_storage_without_recipients_is_no_repository(world: World) -> None:
    world.storage.delete(layout.RECIPIENTS)
    with pytest.raises(RepositoryNotFoundError, match="not a repository") as caught:
        world.repository.recipients()
    assert caught.value.hint
    assert "s3bu init" in caught.value.hint


@pytest.mark.parametrize("text", [b"", b"# nobody\n"])
def test_recipients_without_a_recipient_are_none(world: World, text: bytes) -> None:
    put_recipients(world, text)
    with pytest.raises(RepositoryNotFoundError, match="no recipient"):
        world.repository.recipients()


@pytest.mark.parametrize("text", [b"\xff\xfe", b"rubbish\n", b"AGE-SECRET-KEY-1QQ\n"])
def test_recipients_that_are_none_are_an_error_that_names_the_file(world: World, text: bytes) -> None:
    put_recipients(world, text)
    with pytest.raises((IntegrityError, KeyringError), match=r"repo/recipients\.txt"):
        world.repository.recipients()


@pytest.mark.parametrize("nbytes", [70_000, 1024 * 1024, 3 * 1024 * 1024])
def test_a_file_of_recipients_is_never_cut(world: World, nbytes: int) -> None:
    """A recipient beyond a bound must not be left out without a word."""
    put_recipients(world, f"{world.recipients[0].text}\n".encode().ljust(nbytes, b"\n") + b"# end\n")
    with pytest.raises((IntegrityError, KeyringError), match="recipients"):
        world.repository.recipients()


def test_recipients_of_both_files_count(world: World) -> None:
    other = another_recipient()
    put_recipients(world, f"{other.text}\n".encode(), layout.FURTHER_RECIPIENTS)
    assert world.repository.recipients().recipients == (*world.recipients[:1], other)


def test_the_first_recipients_that_a_machine_sees_are_pinned(world: World) -> None:
    pinned = world.repository.pinned_recipients()
    assert world.reopen().remembered.facts.recipients == pinned.fingerprint


def test_recipients_that_changed_are_refused_and_the_pin_stays(world: World) -> None:
    before = world.repository.pinned_recipients()
    put_recipients(world, f"{before.recipients[0].text}\n{another_recipient().text}\n".encode())
    for repository in (world.repository, world.reopen()):
        with pytest.raises(RecipientsChangedError, match=before.fingerprint):
            repository.pinned_recipients()
        assert repository.remembered.facts.recipients == before.fingerprint


def test_a_recipient_added_in_the_second_file_is_refused_too(world: World) -> None:
    world.repository.pinned_recipients()
    put_recipients(world, f"{another_recipient().text}\n".encode(), layout.FURTHER_RECIPIENTS)
    with pytest.raises(RecipientsChangedError):
        world.repository.pinned_recipients()


def test_comments_and_order_do_not_change_who_can_read(world: World) -> None:
    world.repository.pinned_recipients()
    put_recipients(world, f"# mine\n\n{world.recipients[0].text}\n".encode())
    world.reopen().pinned_recipients()


# --- private objects


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_an_object_shows_by_itself_what_it_is(world: World, is_packed: bool, is_encrypted: bool) -> None:
    for plain in (b"", b"x", b"sources: []\n", os.urandom(300_000)):
        world.put_private(JOB_KEY, plain, packed=is_packed, encrypted=is_encrypted)
        with world.repository.open_private(JOB_KEY) as private:
            assert private.reader.read() == plain
            assert (private.is_packed, private.is_encrypted) == (is_packed, is_encrypted)


def test_what_is_written_says_how_in_its_metadata(world: World) -> None:
    world.repository.add_job("home", b"text")
    assert dict(world.storage.objects[JOB_KEY].metadata) == {
        "s3bu-scrypt": "age",
        "s3bu-scrypt-version": "001",
        "s3bu-scrypt-id": world.repository.keyring.newest_secret.id,
        "s3bu-compress": "gzip",
        "s3bu-compress-version": "001",
    }


def test_an_older_passphrase_still_opens_without_metadata(world: World) -> None:
    world.put_private(JOB_KEY, b"text")
    (world.root / "keys" / "secrets.yml").unlink()
    write_secrets(world.root / "keys" / "secrets.yml", [*world.repository.keyring.secrets, new_secret()])
    repository = world.reopen()
    assert repository.read_job("home", 1).text == b"text"
    repository.add_job("home", b"newer")
    assert repository.read_job("home", 2).text == b"newer"


def test_a_wrong_passphrase_says_so(world: World) -> None:
    world.storage.put(JOB_KEY, encrypt_with_passphrase(b"text", "another", work_factor=1), {})
    with pytest.raises(PassphraseNotFoundError, match=JOB_KEY):
        world.repository.read_job("home", 1)


def test_a_job_for_recipients_is_refused(world: World) -> None:
    """Anyone can make one who knows the public recipients."""
    world.storage.put(JOB_KEY, encrypt(b"text", world.recipients), {})
    with pytest.raises(IntegrityError, match=JOB_KEY):
        world.repository.read_job("home", 1)


@pytest.mark.parametrize("kept", [30, 100, 200, -1])
def test_a_cut_object_is_refused(world: World, kept: int) -> None:
    world.put_private(JOB_KEY, b"text" * 100)
    world.storage.objects[JOB_KEY] = StoredObject(world.storage.objects[JOB_KEY].body[:kept], {})
    with pytest.raises(IntegrityError, match=JOB_KEY):
        world.repository.read_job("home", 1)


# --- jobs


def test_jobs_come_back_as_they_were_stored(world: World) -> None:
    assert world.repository.add_job("home", b"first") == 1
    assert world.repository.add_job("home", b"second") == 2
    stored = world.repository.read_job("home", 1)
    assert (stored.text, stored.is_encrypted, stored.version) == (b"first", True, 1)


def test_version_1000_comes_after_999(world: World) -> None:
    for version in (999, 1000, 2):
        world.put_private(layout.job_key("home", version), b"text")
    assert list(world.repository.job_versions("home")) == [2, 999, 1000]
    assert world.repository.add_job("home", b"newest") == 1001


def test_a_plain_version_000_is_a_job_that_says_that_it_is_plain(world: World) -> None:
    world.put_private("jobs/home/home-000.yml", b"text", packed=False, encrypted=False)
    assert world.repository.jobs() == {"home": [0]}
    assert not world.repository.read_job("home", 0).is_encrypted


def test_only_jobs_by_their_full_form_are_jobs(world: World) -> None:
    for key in (
        "jobs/home/home-001.yml",
        "jobs/homes/homes-003.yml",
        "jobs/home/notes.txt",
        "jobs/home/x/home-009.yml",
    ):
        world.put_private(key, b"text")
    assert world.repository.jobs() == {"home": [1], "homes": [3]}
    assert list(world.repository.job_versions("home")) == [1]


def test_two_machines_that_add_at_once_do_not_overwrite(world: World) -> None:
    def strike(key: str) -> None:
        if key == JOB_KEY:
            world.storage.before_send = lambda key: None
            world.reopen().add_job("home", b"theirs")

    world.storage.before_send = strike
    with pytest.raises(ObjectExists):
        world.repository.add_job("home", b"mine")
    assert world.repository.read_job("home", 1).text == b"theirs"


@pytest.mark.parametrize("nbytes", [300_000, 600_000, 1024 * 1024])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_long_job_is_read_whole(world: World, nbytes: int, is_encrypted: bool) -> None:
    text = random.Random(1).randbytes(nbytes)
    world.put_private(JOB_KEY, text, encrypted=is_encrypted)
    assert world.repository.read_job("home", 1).text == text


@pytest.mark.parametrize("text", [bytes(1024 * 1024 + 1), bytes(50 * 1024 * 1024)])
def test_what_is_longer_than_any_job_is_refused(world: World, text: bytes) -> None:
    world.put_private(JOB_KEY, text)
    with pytest.raises(IntegrityError, match="longer than any job"):
        world.repository.read_job("home", 1)


def test_a_plain_packed_job_that_was_cut_is_refused(world: World) -> None:
    world.storage.put(JOB_KEY, gzip.compress(b"exclude_top_dirs: []\n" * 50)[:-5], {})
    with pytest.raises(IntegrityError, match="cut short"):
        world.repository.read_job("home", 1)


def test_a_job_too_long_for_one_request_is_stored(world: World) -> None:
    world.repository.add_job("home", random.Random(1).randbytes(9 * 1024 * 1024))
    with world.repository.open_private(JOB_KEY) as private:
        assert len(private.reader.read()) == 9 * 1024 * 1024


# --- manifests


def keys(found: list[StoredManifest]) -> list[str]:
    return [str(one.key) for one in found]


def test_a_label_never_takes_a_manifest_of_another(world: World) -> None:
    for label in ("src", "src/x", "srcs"):
        world.put_manifest([], key=manifest_key("2026-01-01", 1, label=label))
    world.put_manifest([], key=manifest_key("2026-01-01", 1, job="homes", label="src"))
    world.storage.put("manifests/home/.s3bu/probe", b"", {})
    assert keys(world.repository.manifests("home", "src")) == ["manifests/home/src/home-src-2026-01-01-00001.csv.gz"]
    assert len(world.repository.manifests("home")) == 3
    assert len(world.repository.manifests()) == 4


def test_manifests_of_a_label_come_in_order_and_the_newest_last(world: World) -> None:
    for day, second in (("2026-01-02", 0), ("2026-01-01", 99_999), ("2025-12-31", 5)):
        world.put_manifest([], key=manifest_key(day, second))
    assert [key.second for key in world.manifest_keys()] == [5, 99_999, 0]


def test_a_manifest_comes_back_as_it_was_put(world: World) -> None:
    entries = [file_entry(b"a/x", b"1"), file_entry(b"a b", b"2")]
    header = Header(str(manifest_key("2026-01-01", 1)), "home", "docs", "here", NOW, "")
    world.repository.put_manifest(header, stretches(entries))
    snapshot = world.newest()
    assert (snapshot.entries, snapshot.header, snapshot.created) == (entries, header, NOW)


def test_a_key_that_is_taken_is_not_taken_again(world: World) -> None:
    key = world.put_manifest([file_entry(b"theirs")])
    header = Header(str(key), "home", "docs", "here", NOW, "")
    with pytest.raises(ObjectExists):
        world.repository.put_manifest(header, [])
    assert [entry.path for entry in world.newest().entries] == [b"theirs"]


def test_a_manifest_that_is_not_encrypted_is_refused_unless_allowed(world: World) -> None:
    key = world.put_manifest([file_entry(b"planted")], encrypted=False)
    with pytest.raises(IntegrityError, match="not encrypted") as caught:
        world.repository.read_snapshot(key)
    assert caught.value.hint
    assert [entry.path for entry in world.repository.read_snapshot(key, allow_plain=True).entries] == [b"planted"]


def test_a_manifest_copied_to_another_key_is_refused(world: World) -> None:
    old = world.put_manifest([file_entry(b"old")])
    newest = manifest_key("2026-01-01", 1)
    world.storage.objects[str(newest)] = world.storage.objects[str(old)]
    with pytest.raises(IntegrityError, match="older or moved"):
        world.repository.read_snapshot(newest)


def test_a_manifest_of_the_original_is_as_old_as_its_object(world: World) -> None:
    key = world.put_original_manifest(format_entry(file_entry(b"x")))
    modified = datetime(2020, 1, 1, tzinfo=UTC)
    stored = world.storage.objects[str(key)]
    world.storage.objects[str(key)] = StoredObject(stored.body, stored.metadata, modified=modified)
    snapshot = world.repository.read_snapshot(key)
    assert (snapshot.created, snapshot.header, len(snapshot.entries)) == (modified, None, 1)


# --- contents


def test_contents_are_told_from_what_is_too_short_to_be_any(world: World) -> None:
    world.put_content(b"whole")
    world.put_content(b"")
    world.storage.put(key_of(b"cut"), b"x" * 199, {})
    world.storage.put("data/notes.txt", b"x" * 500, {})
    found = {(digest.hex(), is_damaged) for digest, _, is_damaged in world.repository.contents()}
    assert found == {(key_of(b"whole")[10:], False), (key_of(b"")[10:], False), (key_of(b"cut")[10:], True)}


def test_whether_creates_are_conditional_is_found_out_once_a_machine(world: World) -> None:
    world.repository.probe("home")
    assert world.storage.puts == ["manifests/home/.s3bu/probe"]
    world.storage.has_conditional_writes = None
    again = world.reopen()
    again.probe("home")
    assert world.storage.puts == ["manifests/home/.s3bu/probe"]
    assert world.storage.has_conditional_writes is True


def test_where_that_cannot_be_found_out_it_is_asked_again(world: World) -> None:
    world.storage.denied.add("manifests/home/.s3bu/probe")
    world.repository.probe("home")
    world.storage.denied.clear()
    world.reopen().probe("home")
    assert world.storage.has_conditional_writes is True


def test_keys_are_read_only_when_something_needs_them(tmp_path: Path, world: World) -> None:
    repository = open_repository(tmp_path / "nowhere", world.storage)
    assert repository.recipients().recipients == world.recipients
    with pytest.raises(KeyringError), repository.open_private(str(world.put_manifest([]))):
        pass


def test_a_manifest_that_vanished_says_so(world: World) -> None:
    with pytest.raises(ObjectNotFound):
        world.repository.read_snapshot(manifest_key("2026-01-01", 1))


def test_the_text_of_a_manifest_survives_the_reading_of_it(world: World) -> None:
    """The fake manifests of these tests are what the program itself would write."""
    key, entry = manifest_key("2024-01-01", 0), file_entry(b"x")
    header = Header(str(key), "home", "docs", "here", NOW, "")
    world.repository.put_manifest(header, stretches([entry]))
    with world.repository.open_private(str(key)) as private:
        assert private.reader.read() == manifest_text(header, [entry])
