"""The scene that the tests here begin with."""

from pathlib import Path

import pytest

from tests.fakes import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path, monkeypatch)
