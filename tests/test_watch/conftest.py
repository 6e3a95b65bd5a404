"""A source that is watched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_watch.living import Living, living, watching


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A source with a directory, a directory in that, and a file in each."""
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    for path in ("top.txt", "a/one.txt", "a/b/two.txt"):
        (root / path).write_text(path)
    return root


@pytest.fixture
def idle(tmp_path: Path, root: Path) -> Iterator[Living]:
    """A tree that watches nothing yet, and was not started."""
    with living(tmp_path / "home", root) as made:
        yield made


@pytest.fixture
def watched(tmp_path: Path, root: Path) -> Iterator[Living]:
    """A tree that watches the source; nothing is dirty."""
    with watching(tmp_path / "home", root) as made:
        yield made
