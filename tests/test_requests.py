"""What a run asks of the server and of this machine: each request costs money, and each scrypt most of a second."""

import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import run, succeed, write_file, write_job
from tests.servers import FaultyServer, faulty_server, relayed

_STARTED: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _STARTED.append(str(arguments[1]))


sys.addaudithook(_note)


class Recording:
    """A real server behind one that notes what is asked of it, and a job of two sources that was backed up to it."""

    def __init__(self, server: FaultyServer, root: Path) -> None:
        self._server = server
        self._place = f"s3://requests-{uuid.uuid4().hex[:12]}"
        self._options = ("--endpoint-url", server.url)
        self.sources = {label: root / label for label in ("one", "two")}
        for label, source in self.sources.items():
            write_file(source / "file", f"content of {label}")
        job = write_job(root / "home.yml", self.sources)
        succeed("init", self._place, *self._options)
        succeed("job", "upload", self._place, "home", job, *self._options)
        succeed("backup", self._place, "home", *self._options)
        time.sleep(2.1)  # a file that was written just before a run is read again by the next one
        succeed("backup", self._place, "home", *self._options)

    def backup(self, *arguments: str) -> list[str]:
        """Run a backup and return what it asked for: `LIST prefix`, or method and key."""
        del self._server.heads[:], _STARTED[:]
        result = run("backup", self._place, "home", *arguments, *self._options)
        assert result.code == 0, result
        return sorted(map(asked, self._server.heads))


def asked(head: bytes) -> str:
    method, target = head.decode("latin-1").split(" ")[:2]
    path, _, query = target.partition("?")
    key = path.removeprefix("/").partition("/")[2]
    if method == "GET" and not key:
        found = dict(part.partition("=")[::2] for part in query.split("&"))
        return f"LIST {found.get('prefix', '')}".replace("%2F", "/")
    return f"{method} {'data' if key.startswith('data/') else key.rsplit('/', 1)[0] if 'manifests/' in key else key}"


@pytest.fixture
def recorded(moto_url: str, tmp_path: Path) -> Iterator[Recording]:
    with faulty_server(lambda head, body: relayed(moto_url, head, body)) as server:
        yield Recording(server, tmp_path)


def test_a_run_without_changes_asks_for_three_listings_and_no_object(recorded: Recording) -> None:
    assert recorded.backup("one") == ["LIST jobs/home/", "LIST manifests/home/one/", "LIST repo/"]


def test_a_further_source_costs_one_listing(recorded: Recording) -> None:
    listings = ["LIST jobs/home/", "LIST manifests/home/one/", "LIST manifests/home/two/", "LIST repo/"]
    assert recorded.backup() == listings


def test_a_run_without_changes_starts_no_process_for_scrypt(recorded: Recording) -> None:
    recorded.backup()
    assert _STARTED == []


@pytest.mark.usefixtures("slow_scrypt")
def test_a_changed_file_costs_one_put_for_it_and_one_for_the_manifest(recorded: Recording) -> None:
    write_file(recorded.sources["one"] / "file", "changed", mtime=1_600_000_001)
    others = [one for one in recorded.backup() if not one.startswith("LIST")]
    recipients = ["GET repo/recipients-s3bu.txt", "GET repo/recipients.txt"]
    assert others == [*recipients, "PUT data", "PUT manifests/home/one"]
    assert len(_STARTED) == 1
