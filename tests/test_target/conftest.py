"""The scene that the tests here begin with."""

from pathlib import Path

import pytest

from tests.fakes import write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "outside" / "file", b"outside")
    return tmp_path / "target"
