"""What a run meets on its way, for the next one: directories, and the files with further links."""

import os
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from s3bu.journal.keys import TREE, tree_of
from s3bu.manifest import sort_key
from s3bu.scan.found import signed


class Directory(NamedTuple):
    """A directory as it was just before it was listed; `mtime_ns` is -1 where it may have changed in the same tick."""

    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    is_left_out: bool


class Met:
    """The directories and the files with further links that a run meets, in the place of what was known of them."""

    def __init__(self) -> None:
        self._forgotten: list[tuple[bytes, bool]] = []
        self._directories: dict[bytes, Directory] = {}
        self.links: set[bytes] = set()

    def forget(self, path: bytes, *, is_tree: bool) -> None:
        """Forget what earlier runs met at a path, or at and below it."""
        self._forgotten.append((path, is_tree))

    def directory(self, path: bytes, status: os.stat_result, *, racy_ns: int) -> None:
        """Keep how a directory was just before it was listed; one that changed after `racy_ns` may change unseen."""
        is_racy = max(status.st_mtime_ns, status.st_ctime_ns) >= racy_ns
        mtime_ns = -1 if is_racy else status.st_mtime_ns
        inode, device = signed(status.st_ino), signed(status.st_dev)
        self._directories[path] = Directory(mtime_ns, status.st_ctime_ns, inode, device, is_left_out=False)

    def leave_out(self, path: bytes) -> None:
        """Note that a directory was left out; if it was met, then for what lies in it."""
        if path in self._directories:
            self._directories[path] = self._directories[path]._replace(is_left_out=True)

    def count_unwatched(self, watched: Mapping[bytes, tuple[int, int]]) -> int:
        """Return how many of these directories are not watched under their paths."""
        return sum(watched.get(path) != (one.inode, one.device) for path, one in self._directories.items())

    def linked(self, path: bytes) -> None:
        """Keep a file that has further links."""
        self.links.add(path)

    def keep(self, connection: sqlite3.Connection, source: int) -> None:
        """Write it down."""
        for table in ("directory", "linked"):
            for path, is_tree in self._forgotten:
                if is_tree:
                    connection.execute(f"DELETE FROM {table} WHERE {TREE}", tree_of(source, path))
                else:
                    connection.execute(
                        f"DELETE FROM {table} WHERE source = ? AND sort_key = ?", (source, sort_key(path))
                    )
        rows = ((source, sort_key(path), *one) for path, one in self._directories.items())
        connection.executemany("INSERT OR REPLACE INTO directory VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        links = ((source, sort_key(path)) for path in self.links)
        connection.executemany("INSERT OR IGNORE INTO linked VALUES (?, ?)", links)
