"""What a machine remembers of a repository between runs."""

import os
from pathlib import Path

import pytest

from s3bu.errors import S3buError
from s3bu.remembered import Facts, Remembered
from tests.fakes import without_override


def test_nothing_is_known_of_a_repository_never_seen(tmp_path: Path) -> None:
    assert Remembered(tmp_path, "place").facts == Facts("place", None, None)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    Remembered(tmp_path / "absent", "place")
    assert not (tmp_path / "absent").exists()


def test_what_is_kept_is_there_for_the_next_run(tmp_path: Path) -> None:
    first = Remembered(tmp_path, "place")
    first.pin_recipients("AAAA")
    first.keep_conditional_writes(has=False)
    assert Remembered(tmp_path, "place").facts == Facts("place", "AAAA", False)


def test_repositories_do_not_share_what_is_known(tmp_path: Path) -> None:
    Remembered(tmp_path, "place").pin_recipients("AAAA")
    assert Remembered(tmp_path, "other").facts.recipients is None


@pytest.mark.parametrize("identity", ["../../etc/passwd", "\udcff", "x" * 10_000])
def test_any_identity_makes_a_file_below_home(tmp_path: Path, identity: str) -> None:
    Remembered(tmp_path, identity).pin_recipients("AAAA")
    (file,) = (tmp_path / "repositories").iterdir()
    assert Remembered(tmp_path, identity).facts.recipients == "AAAA"
    assert file.suffix == ".json"


def test_a_pin_replaces_the_one_before(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path, "place")
    remembered.pin_recipients("AAAA")
    remembered.pin_recipients("BBBB")
    assert Remembered(tmp_path, "place").facts.recipients == "BBBB"


def test_only_the_finished_file_is_left(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path, "place")
    remembered.pin_recipients("AAAA")
    assert list(remembered.path.parent.iterdir()) == [remembered.path]


def test_the_directory_is_the_users_alone(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "home", "place")
    remembered.pin_recipients("AAAA")
    assert remembered.path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff", b'{"repository": "x", "unknown": 1}', b"{}", b"[" * 5000),
        b'{"repository": "x", "recipients": 5}',
        b'{"repository": "x", "has_conditional_writes": "no"}',
    ],
    ids=lambda content: repr(content[:60]),
)
def test_a_broken_file_is_an_error_that_names_it_and_never_an_empty_memory(tmp_path: Path, content: bytes) -> None:
    path = Remembered(tmp_path, "place").path
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(S3buError, match=str(path)) as caught:
        Remembered(tmp_path, "place")
    assert caught.value.hint


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path, "place")
    remembered.pin_recipients("AAAA")
    remembered.path.chmod(0)
    with without_override(), pytest.raises(S3buError, match="cannot be read"):
        Remembered(tmp_path, "place")


def test_what_cannot_be_written_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path, "place")
    remembered.pin_recipients("AAAA")
    os.chmod(remembered.path.parent, 0o500)
    with without_override(), pytest.raises(S3buError, match="cannot be written"):
        remembered.pin_recipients("BBBB")
    os.chmod(remembered.path.parent, 0o700)
    assert remembered.facts.recipients == "AAAA"
    assert Remembered(tmp_path, "place").facts.recipients == "AAAA"


def test_two_runs_at_once_do_not_lose_each_others_pin(tmp_path: Path) -> None:
    probing = Remembered(tmp_path, "place")
    Remembered(tmp_path, "place").pin_recipients("AAAA")
    probing.keep_conditional_writes(has=True)
    assert Remembered(tmp_path, "place").facts == Facts("place", "AAAA", True)
