"""What was seen and not yet taken: one thread puts down, another takes and writes it into the journal."""

import threading
from collections.abc import Callable

from s3bu.journal.batch import Batch

_MOST_CHANGED = 200_000
_TOO_MANY = "too many paths changed before they could be written down"


class Seen:
    """A batch that is filled while the one before it is written down; `wake` is called when there is a first entry."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._batch = Batch()
        self._is_awake = False

    def take(self) -> Batch:
        """Return what was seen since it was last taken."""
        with self._lock:
            batch, self._batch, self._is_awake = self._batch, Batch(), False
        return batch

    def dirty(self, source: int, path: bytes, *, is_tree: bool = False, reason: str | None = None) -> None:
        """Note that a path changed, or may have."""
        with self._lock:
            self._batch.dirty(source, path, is_tree=is_tree, reason=reason)
            if len(self._batch.changed) > _MOST_CHANGED:
                self._collapse()
        self._call()

    def watch(self, source: int, path: bytes, inode: int, device: int) -> None:
        """Note that a directory is watched."""
        with self._lock:
            self._batch.watch(source, path, inode, device)
        self._call()

    def unwatch(self, source: int, path: bytes) -> None:
        """Note that nothing is watched at or below a path."""
        with self._lock:
            if not path:  # what was noted of the source before is of no account, and may be much
                self._batch.watches[:] = [one for one in self._batch.watches if one[0] != source]
            self._batch.unwatch(source, path)
        self._call()

    def obstacle(self, source: int, why: str | None) -> None:
        """Note why a source can never be believed."""
        with self._lock:
            self._batch.obstacle(source, why)
        self._call()

    def cookie(self, name: str) -> None:
        """Note that a cookie came out of the queue."""
        with self._lock:
            self._batch.cookie(name)
        self._call()

    def _collapse(self) -> None:
        sources = self._batch.sources
        self._batch.changed.clear()
        for source in sources:
            self._batch.dirty(source, b"", is_tree=True, reason=_TOO_MANY)

    def _call(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()
