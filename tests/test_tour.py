"""docs/query.md: the views are those that there are, and the commands of its tour do what it says, as written."""

import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3bu.compression import gzip_member
from s3bu.crypto import encrypt
from s3bu.keyring import Keyring
from s3bu.lines import Stretch
from s3bu.manifest import DIRECTORY, Entry, Header, format_entry, sort_key
from s3bu.remembered import Remembered
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey
from s3bu.storage.place import S3Options, open_storage, parse_place
from s3bu.views import FUNCTIONS, VIEWS
from tests.fakes import SECOND, file_entry, key_of
from tests.running import Result, Scene, run, succeed

DOCUMENT = (Path(__file__).parents[1] / "docs" / "query.md").read_text()
_LETTER, _PHOTO, _LATER_PHOTO = b"Dear Anna", b"a photo of April", b"a photo of June"
_DAYS: dict[str, dict[bytes, bytes]] = {
    "2026-02-01": {b"letters/to-anna.odt": b"Dear A", b"books/accounts": b"1"},
    "2026-03-02": {b"letters/to-anna.odt": _LETTER, b"books/accounts": b"12"},
    "2026-03-20": {b"books/accounts": b"12"},
    "2026-05-20": {b"books/accounts": b"123", b"photos/april.jpg": _PHOTO},
    "2026-06-10": {b"books/accounts": b"1234", b"photos/april.jpg": _PHOTO, b"photos/june.jpg": _LATER_PHOTO},
    "2026-06-11": {b"books/accounts": b"ENCRYPTED", b"photos/june.jpg": _LATER_PHOTO},
}


# --- the views


def test_the_views_and_their_columns_are_those_that_there_are() -> None:
    for view in VIEWS:
        (text,) = re.findall(rf"^### `{view.name}`\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
        rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
        assert rows == [(column.name, column.meaning) for column in view.columns]
        assert view.meaning in text


def test_the_functions_are_those_that_there_are() -> None:
    (text,) = re.findall(r"^### Functions\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(name, meaning) for name, (_, _, meaning) in FUNCTIONS.items()]


# --- the tour


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A repository with the history of half a year, and an index that has taken it in."""
    scene = Scene(tmp_path_factory.mktemp("tour") / "scene")
    with pytest.MonkeyPatch.context() as monkeypatch:
        scene.enter(monkeypatch)
        succeed("init", scene.repository)
        storage = open_storage(parse_place(str(scene.repository)), S3Options())
        with closing(storage):
            keyring = Keyring(scene.keys / "secrets.yml", scene.keys / "identities.txt")
            repository = Repository(storage, keyring, Remembered(scene.keys, storage.identity), max_work_factor=20)
            for day, files in _DAYS.items():
                put(repository, day, files)
        succeed("index", "sync", scene.repository)
    return scene


def put(repository: Repository, day: str, files: dict[bytes, bytes]) -> None:
    """Store the snapshot of a day, made at three in the morning."""
    created = datetime.fromisoformat(f"{day}T03:00:00+00:00").astimezone(UTC)
    recipients = repository.recipients().recipients
    entries = [Entry(path, DIRECTORY, 0, 5 * SECOND, 0o755) for path in sorted({path.split(b"/")[0] for path in files})]
    for path, content in files.items():
        repository.storage.put(key_of(content), encrypt(content, recipients), {})
        entries.append(file_entry(path, content))
    key = ManifestKey("home", "documents", created.date(), 10_800)
    lines = b"".join(format_entry(entry) for entry in sorted(entries, key=lambda entry: sort_key(entry.path)))
    header = Header(str(key), key.job, key.label, "laptop", created, "")
    repository.put_manifest(header, [Stretch(lines, gzip_member(lines))])


def steps(title: str) -> list[list[str]]:
    """Return the commands below a heading of the tour."""
    (text,) = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^<!-- tour -->\n```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in found for line in block.splitlines()]


@pytest.fixture
def tour(made: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[Result]]:
    """Run the commands below a heading as they are written, where `./repository` is the repository."""
    monkeypatch.setenv("TZ", "UTC")
    shutil.copytree(made.root, tmp_path / "here")
    Scene(tmp_path / "here").enter(monkeypatch)
    monkeypatch.chdir(tmp_path / "here")
    run("index", "sync", "./repository")
    return lambda title: [succeed(*step) for step in steps(title)]


def test_the_file_that_was_deleted_in_march(tour: Callable[[str], list[Result]]) -> None:
    found, told, _, listed = tour("The file I deleted in March")
    assert "letters/to-anna.odt" in found.out
    assert [line.split()[4] for line in told.out.splitlines()[1:]] == ["changed", "deleted"]
    assert Path("restored-letter/letters/to-anna.odt").read_bytes() == _LETTER
    assert "2026-03-20T03:00:00Z" in listed.out


def test_what_grew_this_month(tour: Callable[[str], list[Result]]) -> None:
    grown, _, listed = tour("What grew this month")
    growth = {line.split()[-1]: line.split()[0] for line in grown.out.splitlines()[1:]}
    assert growth == {"books": "+6", "photos": "-1"}
    assert "books/accounts" in listed.out


def test_everything_that_changed_that_night(tour: Callable[[str], list[Result]]) -> None:
    differing, listed, _ = tour("Everything that changed the night it went wrong")
    assert [line.split()[0] for line in differing.out.splitlines()[1:]] == ["changed", "removed"]
    assert "books/accounts,2026-06-10T03:00:00Z" in listed.out
    assert Path("before-that-night/books/accounts").read_bytes() == b"1234"


def test_all_photos_as_of_may(tour: Callable[[str], list[Result]]) -> None:
    tour("All photos as of May")
    assert [path.name for path in Path("photos").rglob("*.jpg")] == ["april.jpg"]


def test_more_questions(tour: Callable[[str], list[Result]]) -> None:
    snapshots, entries, versions, asked, _ = tour("More questions")
    assert len(snapshots.out.splitlines()) == 1 + len(_DAYS)
    assert len(entries.out.splitlines()) == 3
    assert versions.out.splitlines()[1].split() == ["books/accounts", "5"]
    assert '"path": "photos/june.jpg"' in asked.out


def test_every_command_of_the_tour_is_run() -> None:
    titles = re.findall(r"^### (.*)$", DOCUMENT.split("## The views")[0], re.MULTILINE)
    assert sum(len(steps(title)) for title in titles) == DOCUMENT.count("\ns3bu ")
