"""A tree on the disk and what it must be, side by side: each change is made to both, and neither is asked of the other.

`nodes` is the model. `stamps` has a number for each file, which is another one whenever something happened to it that
its ctime or inode tells of.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK
from tests.fakes import SECOND


class Node(NamedTuple):
    """One thing in the tree; `content` is the target of a link, and empty for what is neither file nor link."""

    kind: str
    mode: int
    mtime: int = 0
    content: bytes = b""


@dataclass(slots=True)
class Clock:
    """What the program takes for the time: that of the system, and what was waited for without waiting."""

    real_ns: Callable[[], int]
    waited_ns: int = 0

    def time_ns(self) -> int:
        return self.real_ns() + self.waited_ns

    def wait(self, seconds: int) -> None:
        self.waited_ns += seconds * SECOND


@dataclass(slots=True)
class Source:
    """The tree below `root`. A path that a change asks for and that cannot be had leaves everything as it was."""

    root: Path
    clock: Clock
    nodes: dict[bytes, Node] = field(default_factory=dict)
    stamps: dict[bytes, int] = field(default_factory=dict)
    _last_stamp: int = 0

    def at(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.root), path)

    def paths(self, *kinds: str) -> list[bytes]:
        return sorted(path for path, node in self.nodes.items() if not kinds or node.kind in kinds)

    def below(self, path: bytes) -> list[bytes]:
        return [other for other in self.nodes if other.startswith(path + b"/")]

    def can_hold(self, path: bytes) -> bool:
        """Say whether the parent of a path is the root or a directory."""
        parent = path.rpartition(b"/")[0]
        return not parent or self.kind(parent) == DIRECTORY

    def kind(self, path: bytes) -> str | None:
        return self.nodes[path].kind if path in self.nodes else None

    def _touch(self, path: bytes) -> None:
        self._last_stamp += 1
        self.stamps[path] = self._last_stamp

    # --- changes

    def write(self, path: bytes, content: bytes, mtime: int | None, mode: int) -> None:
        """Make a file of what is not there or is no directory, of that time or else of now."""
        if not self.can_hold(path) or self.kind(path) == DIRECTORY:
            return
        self.remove(path)
        with open(self.at(path), "wb") as file:
            file.write(content)
        os.chmod(self.at(path), mode)
        self.nodes[path] = Node(FILE, mode, self._set_mtime(path, mtime), content)
        self._touch(path)

    def rewrite(self, path: bytes, *, is_time_kept: bool) -> None:
        """Write other bytes of the same length into a file, and give it the time of now, or that which it had."""
        node = self.nodes[path]
        content = bytes(byte ^ 1 for byte in node.content)
        before = os.stat(self.at(path)).st_mtime_ns
        with open(self.at(path), "r+b") as file:
            file.write(content)
        if is_time_kept:
            os.utime(self.at(path), ns=(before, before))
        mtime = node.mtime if is_time_kept else self._set_mtime(path, None)
        self.nodes[path] = node._replace(content=content, mtime=mtime)
        self._touch(path)

    def _set_mtime(self, path: bytes, mtime: int | None) -> int:
        mtime_ns = self.clock.time_ns() if mtime is None else mtime * SECOND
        os.utime(self.at(path), ns=(mtime_ns, mtime_ns))
        return mtime_ns // SECOND

    def age(self, path: bytes, mtime: int) -> None:
        """Give a file another time, and nothing else."""
        self.nodes[path] = self.nodes[path]._replace(mtime=self._set_mtime(path, mtime))
        self._touch(path)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self.at(path), mode)
        self.nodes[path] = self.nodes[path]._replace(mode=mode)
        self._touch(path)

    def make_directory(self, path: bytes) -> None:
        """Make a directory, also where something else is."""
        if not self.can_hold(path) or self.kind(path) == DIRECTORY:
            return
        self.remove(path)
        os.mkdir(self.at(path), 0o755)
        os.chmod(self.at(path), 0o755)
        self.nodes[path] = Node(DIRECTORY, 0o755)

    def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link, or another one of what is no directory."""
        if not self.can_hold(path) or self.kind(path) == DIRECTORY:
            return
        self.remove(path)
        os.symlink(target, self.at(path))
        self.nodes[path] = Node(SYMLINK, 0, 0, target)

    def make_fifo(self, path: bytes) -> None:
        if not self.can_hold(path) or self.kind(path) == DIRECTORY:
            return
        self.remove(path)
        os.mkfifo(self.at(path))
        os.chmod(self.at(path), 0o600)
        self.nodes[path] = Node(SPECIAL, 0o600, 0, b"fifo")

    def remove(self, path: bytes) -> None:
        """Remove something with all below it, if it is there."""
        if path not in self.nodes:
            return
        if self.kind(path) == DIRECTORY:
            shutil.rmtree(self.at(path))
        else:
            os.unlink(self.at(path))
        for gone in (path, *self.below(path)):
            del self.nodes[gone]
            self.stamps.pop(gone, None)

    def rename(self, path: bytes, new: bytes) -> None:
        """Move something, with all below it, to where it may be: it takes the place of what is there."""
        if path == new or not self.can_hold(new) or new.startswith(path + b"/") or path.startswith(new + b"/"):
            return
        self.remove(new)
        os.rename(self.at(path), self.at(new))
        for old in (path, *self.below(path)):
            here = new + old[len(path) :]
            self.nodes[here] = self.nodes.pop(old)
            self.stamps[here] = self.stamps.pop(old, 0)  # of what lies below nothing is different but where it is
        self._touch(new)

    # --- who may look

    def visible(self) -> tuple[list[bytes], set[bytes]]:
        """Return the paths that a user can look at, and those that fail though their directory can be listed."""
        seen: list[bytes] = []
        closed: set[bytes] = set()
        for path in sorted(self.nodes, key=lambda path: path.split(b"/")):
            if any(above in closed for above in above_of(path)):
                continue
            parent, node = path.rpartition(b"/")[0], self.nodes[path]
            may_enter = not parent or self.nodes[parent].mode & 0o100
            if not may_enter or (node.kind == DIRECTORY and not node.mode & 0o400):
                closed.add(path)
            else:
                seen.append(path)
        return seen, closed


def above_of(path: bytes) -> Iterator[bytes]:
    """Yield the directories in which a path lies."""
    parent = path.rpartition(b"/")[0]
    while parent:
        yield parent
        parent = parent.rpartition(b"/")[0]
