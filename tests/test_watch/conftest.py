"""A world whose clock ticks quickly: what was written 30 ms before a scan cannot change within the same tick."""

import time
from pathlib import Path

import pytest

from tests.fakes import World

TICK_NS = 30_000_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine with keys, a repository in memory and an empty source."""
    return World.make(tmp_path)


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be racy for 30 ms instead of 2 s; file systems keep times to a few milliseconds."""
    for module in ("draft", "backup.view", "backup.looking", "backup.deciding"):
        monkeypatch.setattr(f"s3bu.{module}.RACY_NS", TICK_NS)


def let_tick() -> None:
    """Wait until nothing that was written so far is racy any more."""
    time.sleep(1.5 * TICK_NS / 1e9)
