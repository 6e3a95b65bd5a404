"""Opens a target, and looks at what is in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.manifest import Entry
from s3bu.restore.target import Target
from tests.fakes import file_entry

CONTENT = b"the content"
ENTRY = file_entry(b"a/file", CONTENT, mode=0o640)


def open_target(root: Path, *, force: bool = True, overwrite: bool = False, mask: int = 0o777) -> Target:
    return Target(os.fsencode(root), is_filled_fine=force, overwrites=overwrite, mode_mask=mask)


def put(root: Path, entry: Entry = ENTRY, content: bytes = CONTENT, *, overwrite: bool = False) -> None:
    with open_target(root, overwrite=overwrite) as target, target.writing(entry) as file:
        file.write(content)


def is_right(root: Path, entry: Entry = ENTRY, *, overwrite: bool = False) -> bool:
    with open_target(root, overwrite=overwrite) as target:
        return target.is_right(entry)


def partial_of(root: Path) -> Path:
    """Return the path of the temporary file of `ENTRY`, by making one."""
    with open_target(root) as target, target.writing(ENTRY):
        (found,) = (root / "a").iterdir()
    (root / "a" / "file").unlink()
    return found


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def strike_at(monkeypatch: pytest.MonkeyPatch, module: object, name: str, action: Callable[[], object]) -> None:
    """Do something, once, just before the system is asked for something."""
    real, actions = getattr(module, name), iter([action])

    def call(*arguments: object, **more: object) -> object:
        for one in actions:
            one()
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, call)
