"""A walk that watches: each directory is watched before it is listed, so that nothing changes unseen in between."""

import errno
import os

from s3bu.scan import Scan
from s3bu.scan.found import reason
from s3bu.watch.node import NONE, Node
from s3bu.watch.seen import Seen
from s3bu.watch.source import Source
from s3bu.watch.watches import Watches

_WHY = {errno.ENOSPC: "the kernel watches no more directories for this user"}


class Stopped(Exception):
    """The watcher is being closed."""


class Walk:
    """One walk through a source, as the witness of a scan.

    `more` are directories on the way that could be watched now, and were not before.
    """

    def __init__(self, source: Source, watches: Watches, seen: Seen, tops: tuple[bytes, ...]) -> None:
        self._source = source
        self._watches = watches
        self._seen = seen
        self._tops = tops
        self._asked = frozenset(tops)
        self._last: tuple[bytes, Node] = (b"", source.top)
        self._is_whole = b"" in tops
        self._is_full = False
        self.is_stopped = False
        self.more: list[bytes] = []

    def run(self) -> None:
        """Watch all directories at and below the tops; `S3buError` where the source cannot be walked."""
        source = self._source
        Scan(source.path, source.filters, excluded=source.excluded, witness=self).directories(*self._tops)

    def directory(self, path: bytes, descriptor: int, status: os.stat_result) -> None:
        """Watch a directory."""
        if self.is_stopped and path:
            raise Stopped
        node = self._node(path)
        if node.watch != NONE:
            return
        if self._hold(node, descriptor):
            self._seen.watch(self._source.number, path, status.st_ino, status.st_dev)
            if not self._is_whole and not self._is_asked_for(path):
                self.more.append(path)

    def linked(self, path: bytes) -> None:
        """Pass over a file."""

    def _node(self, path: bytes) -> Node:
        above, _, name = path.rpartition(b"/")
        parent = self._parent(above)
        return parent.grow(name) if name else parent

    def _parent(self, path: bytes) -> Node:
        """Return the node of a directory that was met before; mostly it is asked for several times in a row."""
        if self._last[0] != path:
            node = self._source.top.find(path)
            assert node is not None, path
            self._last = path, node
        return self._last[1]

    def _hold(self, node: Node, descriptor: int) -> bool:
        """Watch a directory, or count it as unwatched; a no that is meant for all is heard once."""
        source = self._source
        try:
            if not self._is_full:
                self._watches.hold(node, descriptor)
                source.unwatched.pop(node, None)
                source.nwatched += 1
                return True
        except OSError as error:
            self._is_full = error.errno == errno.ENOSPC
            if not source.unwatched:
                source.why_unwatched = _WHY.get(error.errno or 0) or reason(error)
        source.unwatched[node] = None
        return False

    def _is_asked_for(self, path: bytes) -> bool:
        """Say whether a directory is one of the tops, or below one."""
        while path and path not in self._asked:
            path = path.rpartition(b"/")[0]
        return path in self._asked
