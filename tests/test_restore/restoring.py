"""Restores entries as the program does, and says what came of it."""

import os
import re
import stat
from collections.abc import Iterable
from datetime import UTC, datetime

from s3bu.crypto import encrypt
from s3bu.manifest import DIRECTORY, SYMLINK, Entry, FailedPath
from s3bu.repository import Snapshot
from s3bu.restore import Outcome, Plan, plan_restore
from s3bu.restore import run as run_restore
from s3bu.restore.target import Target
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from tests.fakes import OLD, SECOND, Listener, World, file_entry, key_of, manifest_key

TEXT = b"some text"
LARGE = bytes(PART_BOUND) + b"!"
HOSTILE = (b"/etc/x", b"../x", b"a/../../x", b"", b"a//x", b"a/./x", b"a/", b"a\0x", b"..", b"/")


def snapshot(entries: Iterable[Entry], failed: Iterable[FailedPath] = ()) -> Snapshot:
    return Snapshot(manifest_key("2026-01-01", 1), datetime(2026, 1, 1, tzinfo=UTC), None, [*entries], [*failed], ())


def plan(*entries: Entry, pattern: bytes | None = None) -> Plan:
    return plan_restore(snapshot(entries), re.compile(pattern) if pattern is not None else None)


def target_of(world: World, *, overwrite: bool = False, mask: int = 0o777) -> Target:
    return Target(os.fsencode(world.root / "target"), is_filled_fine=True, overwrites=overwrite, mode_mask=mask)


def restore(world: World, *entries: Entry, pattern: bytes | None = None, overwrite: bool = False) -> Outcome:
    listener = Listener()
    with target_of(world, overwrite=overwrite) as target:
        outcome = run_restore(world.reopen(), plan(*entries, pattern=pattern), target, listener)
    assert outcome.failures == listener.failures
    assert not [path for path in (world.root / "target").rglob("*") if path.name.startswith(".s3bu-")]
    return outcome


def stored(world: World, path: bytes, content: bytes = TEXT, mode: int = 0o644) -> Entry:
    world.put_content(content)
    return file_entry(path, content, mode=mode)


def directory(path: bytes, mode: int = 0o755) -> Entry:
    return Entry(path, DIRECTORY, 0, OLD * SECOND, mode)


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, SYMLINK, 0, OLD * SECOND, 0, target=target)


def tree(world: World) -> dict[str, bytes]:
    """Return what was restored: each file's content, each link's target, and `/` for a directory."""
    root = world.root / "target"
    found = {}
    for path in root.rglob("*"):
        is_link, is_directory = path.is_symlink(), path.is_dir()
        content = os.fsencode(path.readlink()) if is_link else b"/" if is_directory else path.read_bytes()
        found[str(path.relative_to(root))] = content
    return found


def mode_of(world: World, name: str) -> int:
    return stat.S_IMODE((world.root / "target" / name).stat().st_mode)


def damage(world: World, how: str, content: bytes) -> None:
    key = key_of(content)
    body = world.storage.objects[key].body
    if how == "missing":
        del world.storage.objects[key]
    elif how == "archived":
        world.storage.archived.add(key)
    else:
        wrong = {"cut": body[:-1], "poisoned": encrypt(content[:-1] + b"?", world.recipients), "plain": content}
        world.storage.objects[key] = StoredObject(wrong[how], {})
