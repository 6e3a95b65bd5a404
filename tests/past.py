"""A machine that knows a small past: five snapshots of `home/docs`, one of `work/docs`, all at noon, UTC.

`letters/anna.odt` is written anew twice, and then is what it was at first; `lost.txt` was deleted three snapshots ago.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s3bu.manifest import DIRECTORY, SYMLINK, Entry, Header
from s3bu.repository.layout import ManifestKey
from tests.fakes import OLD, SECOND, file_entry, manifest_text
from tests.running import Scene, own_environment, run, succeed

NOON = 43_200
MONTHS = ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01")
SEA = b"sea" * 1000
EVIL = b"evil\x1b[2J\n"
NO_TEXT = b"caf\xe9\\"
BASE = [
    Entry(b"letters", DIRECTORY, 0, OLD * SECOND, 0o700),
    Entry(b"link", SYMLINK, 0, OLD * SECOND, 0, target=b"notes.txt"),
    file_entry(b"notes.txt", b"notes", mode=0o640),
    file_entry(b"photos/sea.jpg", SEA),
]
LOST = file_entry(b"lost.txt", b"lost", mtime=OLD + 7, mode=0o600)
LATE = [file_entry(EVIL, b"evil"), file_entry(NO_TEXT, b"coffee"), file_entry(b"photos/copy.jpg", SEA)]


def anna(content: bytes) -> Entry:
    return file_entry(b"letters/anna.odt", content)


SNAPSHOTS = {
    ("home", MONTHS[0]): [*BASE, anna(b"first"), LOST],
    ("home", MONTHS[1]): [*BASE, anna(b"second, longer"), LOST],
    ("home", MONTHS[2]): [*BASE, anna(b"third")],
    ("home", MONTHS[3]): [*BASE, anna(b"first")],
    ("home", MONTHS[4]): [*BASE, anna(b"first"), *LATE],
    ("work", MONTHS[2]): [file_entry(b"notes.txt", b"notes", mode=0o640)],
}
CONTENTS = [b"notes", SEA, b"lost", b"evil", b"coffee", b"first", b"second, longer", b"third"]


def key_of(day: str, job: str = "home") -> str:
    return str(ManifestKey(job, "docs", datetime.fromisoformat(day).date(), NOON))


def with_past(root: Path) -> Scene:
    """Make the machine, with its repository and its index."""
    scene = Scene(root)
    with own_environment(scene.keys):
        scene.make()
        for content in CONTENTS:
            scene.put_content(content)
        for (job, day), entries in SNAPSHOTS.items():
            created = datetime.fromisoformat(f"{day}T12:00+00:00").astimezone(UTC)
            header = Header(key_of(day, job), job, "docs", "here", created, "")
            scene.put_manifest(manifest_text(header, entries), header.key)
        succeed("index", "sync", scene.repository)
    return scene


def told(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    """Run a command that tells JSON lines, and return them."""
    result = run(*arguments, "--json")
    assert result.code == code, result
    return [json.loads(line) for line in result.out.splitlines()]


def column(rows: list[dict[str, Any]], *names: str) -> list[Any]:
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in rows]
