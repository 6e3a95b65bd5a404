"""The scene that the tests here begin with."""

import time
from pathlib import Path

import pytest

from tests.fakes import SECOND, World


@pytest.fixture(autouse=True)
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program's clock be a little ahead, so that no file is one that was written a moment ago."""
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10 * SECOND)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path)
