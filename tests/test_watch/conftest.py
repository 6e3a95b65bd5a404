"""A world whose clock ticks quickly: what was written 30 ms before a scan cannot change within the same tick.

And a source that is watched.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import World
from tests.running import Scene, write_file
from tests.test_watch.living import Living, living, watching

TICK_NS = 30_000_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine with keys, a repository in memory and an empty source."""
    return World.make(tmp_path)


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be racy for 30 ms instead of 2 s; file systems keep times to a few milliseconds."""
    hasten_ticks(monkeypatch)


def hasten_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do so without a fixture."""
    for module in ("draft", "backup.view", "backup.looking", "backup.deciding"):
        monkeypatch.setattr(f"s3bu.{module}.RACY_NS", TICK_NS)


def let_tick() -> None:
    """Wait until nothing that was written so far is racy any more."""
    time.sleep(1.5 * TICK_NS / 1e9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a source with a directory, a directory in that, and a file in each."""
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    for path in ("top.txt", "a/one.txt", "a/b/two.txt"):
        (root / path).write_text(path)
    return root


@pytest.fixture
def idle(tmp_path: Path, root: Path) -> Iterator[Living]:
    """Hold a tree that watches nothing yet, and was not started."""
    with living(tmp_path / "home", root) as made:
        yield made


@pytest.fixture
def watched(tmp_path: Path, root: Path) -> Iterator[Living]:
    """Hold a tree that watches the source; nothing is dirty."""
    with watching(tmp_path / "home", root) as made:
        yield made


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files with an old time count as such: nobody can set when a file was touched."""
    monkeypatch.setattr("s3bu.backup.looking._MOST_TOUCHED", -1)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    write_file(scene.source / "a", "content of a")
    write_file(scene.source / "directory" / "b", "content of b")
    monkeypatch.setenv("JOURNAL_STREAM", "9:9")  # lines begin with the source
    return scene
