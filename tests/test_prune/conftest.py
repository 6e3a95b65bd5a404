"""The repository on which a prune is tried."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes import World
from tests.test_prune.pruning import FILES, NAMED, ORPHAN, OTHER, pass_time


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A repository with one snapshot that names one content, and with two that nothing names, a month old."""
    world = World.make(tmp_path)
    for content in (NAMED, ORPHAN, OTHER):
        world.put_content(content)
    world.put_manifest(FILES)
    pass_time(world, timedelta(days=30))
    world.storage.has_conditional_writes = True
    monkeypatch.setattr(world.storage, "stop", lambda: None)  # a further prune is to find it as it was
    return world
