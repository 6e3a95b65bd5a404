"""What the next snapshot of a source may say, decided from the model alone.

Mostly that is one thing a path. A machine that never looked at a file itself has only its size and second to go by
(docs/architecture.md, rule 7), so a rewrite that leaves both as they were may pass it: then two things are right.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from s3bu.compare import CARRIED, CHANGED, NEW, REMOVED, UNMODIFIED
from s3bu.manifest import DIRECTORY, FILE, SYMLINK, Entry
from s3bu.repository import Snapshot
from tests.fakes import SECOND, hash_of
from tests.running import tree
from tests.test_machine.source import Node, Source, above_of


class Said(NamedTuple):
    """What a snapshot says of one path; `what` is the hash of a file, or the target of a link.

    The time of what is no file is left out: its change alone makes no snapshot.
    """

    kind: str
    mode: int
    mtime: int
    nbytes: int
    what: str | bytes


@dataclass(frozen=True, slots=True)
class Told:
    """One snapshot: what it says, the paths that failed, and the second in which its scan began."""

    said: dict[bytes, Said] = field(default_factory=dict)
    failed: frozenset[bytes] = frozenset()
    created: int = field(default=0, compare=False)


@dataclass(slots=True)
class Machine:
    """A machine that backs up: by path what the snapshot said of each file when it looked, and its stamp then."""

    home: str
    host: str
    looked: dict[bytes, tuple[Said, int]] = field(default_factory=dict)

    def look(self, source: Source, told: Told) -> None:
        """Note what the machine saw when it made, or confirmed, a snapshot."""
        known = (path for path, said in told.said.items() if said.kind == FILE and not has_failed(path, told.failed))
        self.looked = {path: (told.said[path], source.stamps[path]) for path in known}


def said_of_entry(entry: Entry) -> Said:
    if entry.kind == FILE:
        return Said(FILE, entry.mode, entry.mtime_ns // SECOND, entry.nbytes, entry.hash)
    return Said(entry.kind, entry.mode, 0, 0, entry.target)


def said_of_all(entries: Iterable[Entry]) -> dict[bytes, Said]:
    return {entry.path: said_of_entry(entry) for entry in entries}


def told_of(snapshot: Snapshot) -> Told:
    failed = frozenset(failed.path for failed in snapshot.failed)
    return Told(said_of_all(snapshot.entries), failed, int(snapshot.created.timestamp()))


def said_of_tree(root: Path) -> dict[bytes, Said]:
    """Return what lies there, by means of its own, as a snapshot would say it."""
    found = {}
    for path, node in tree(root).items():
        if node.kind == stat.S_IFREG:
            nbytes = os.lstat(os.path.join(os.fsencode(root), path)).st_size
            found[path] = Said(FILE, node.mode, node.mtime, nbytes, node.content)
        else:
            found[path] = Said(DIRECTORY if node.kind == stat.S_IFDIR else SYMLINK, node.mode, 0, 0, node.content)
    return found


def said_of_node(node: Node) -> Said:
    if node.kind == FILE:
        return Said(FILE, node.mode, node.mtime, len(node.content), hash_of(node.content))
    return Said(node.kind, node.mode, 0, 0, node.content)


Choice = tuple[Said | None, bool]
"""What a snapshot may say of a path, if anything, and whether the path is told as failed."""


def choices(source: Source, newest: Told, machine: Machine) -> dict[bytes, set[Choice]]:
    """Return by path what the next snapshot of `machine` may say: for the paths of the tree and of the newest one."""
    seen, closed = source.visible()
    found = {path: _of_seen(source, path, newest, machine.looked.get(path)) for path in seen}
    for path in closed | newest.said.keys():
        if path in found:
            continue
        is_carried = path in closed or any(above in closed for above in above_of(path))
        found[path] = {(_carried(newest.said.get(path)) if is_carried else None, path in closed)}
    return found


def _of_seen(source: Source, path: bytes, earlier: Told, looked: tuple[Said, int] | None) -> set[Choice]:
    node, newest = source.nodes[path], earlier.said.get(path)
    truth = said_of_node(node)
    if node.kind != FILE:
        return {(truth, False)}
    found: set[Choice] = set()
    if newest is not None and newest.kind == FILE and newest[2:4] == truth[2:4]:  # time and size
        has_looked = looked is not None and looked[0] == newest
        is_as_seen = looked is not None and looked[1] == source.stamps[path]
        if is_as_seen if has_looked else truth.mtime < earlier.created - 2:
            found.add((truth._replace(what=newest.what), False))
    if node.mode & 0o400:
        found.add((truth, False))
    else:
        found.add((_carried(newest) if newest is not None and newest.kind == FILE else None, True))
    return found


def _carried(said: Said | None) -> Said | None:
    return said._replace(mtime=0) if said is not None and said.kind == FILE else said


def has_failed(path: bytes, failed: Iterable[bytes]) -> bool:
    return path in failed or any(above in failed for above in above_of(path))


def differences(earlier: Told, later: Told) -> Counter[str]:
    """Return how many paths are new, changed, and so on, from one snapshot to the next."""
    return Counter(_status(path, earlier, later) for path in _all_paths(earlier, later))


def _all_paths(earlier: Told, later: Told) -> Iterator[bytes]:
    """Yield the paths that a run counts: those that it can say nothing of but that they failed it does not."""
    yield from later.said
    yield from (path for path in earlier.said if path not in later.said and path not in later.failed)


def _status(path: bytes, earlier: Told, later: Told) -> str:
    before, now = earlier.said.get(path), later.said.get(path)
    if now is None:
        return REMOVED
    if has_failed(path, later.failed):
        return CARRIED
    if before is None:
        return NEW
    return UNMODIFIED if before == now else CHANGED
