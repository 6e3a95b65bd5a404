"""Which directories hear of which watch, and the watches that nobody needs any more.

A directory that can be reached by two paths, or lies in two sources, has one watch and several nodes. A watch that no
node holds is kept for a moment: what is moved or walked anew is mostly watched again at once, and each end of a watch
puts an event into the kernel's queue, which overflows when there are too many of them.
"""

import errno

from s3bu.watch.inotify import Inotify
from s3bu.watch.node import NONE, Node

_AT_ONCE = 256
_MANY = 8_192


class Watches:
    """The watches of one queue, and the nodes that hold them."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._held: dict[int, Node | tuple[Node, ...]] = {}
        self._idle: dict[int, None] = {}

    def of(self, watch: int) -> tuple[Node, ...]:
        """Return the nodes that hold a watch."""
        held = self._held.get(watch, ())
        return (held,) if isinstance(held, Node) else held

    def hold(self, node: Node, descriptor: int) -> None:
        """Watch an open directory for a node that has no watch; `OSError` where that cannot be."""
        try:
            watch = self._inotify.watch(descriptor)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._idle:
                raise
            self.thin()
            watch = self._inotify.watch(descriptor)
        self._idle.pop(watch, None)
        others = self.of(watch)
        self._held[watch] = (*others, node) if others else node
        node.watch = watch

    def let_go(self, node: Node) -> None:
        """Let a node have no watch."""
        watch, node.watch = node.watch, NONE
        if watch == NONE:
            return
        rest = tuple(one for one in self.of(watch) if one is not node)
        if rest:
            self._held[watch] = rest if len(rest) > 1 else rest[0]
        else:
            del self._held[watch]
            self._idle[watch] = None

    def ended(self, watch: int) -> None:
        """Note that the kernel has ended a watch; no node may hold it any more."""
        self._idle.pop(watch, None)

    def can_watch(self, descriptor: int) -> bool:
        """Say whether an open directory could be watched now."""
        try:
            watch = self._inotify.watch(descriptor)
        except OSError:
            return False
        if watch not in self._held:
            self._idle[watch] = None
        return True

    @property
    def has_idle(self) -> bool:
        """Whether there are watches that nobody holds."""
        return bool(self._idle)

    @property
    def has_many_idle(self) -> bool:
        """Whether they are so many that they should not wait for a quiet moment."""
        return len(self._idle) > _MANY

    def thin(self) -> None:
        """End some of the watches that nobody holds."""
        for watch in list(self._idle)[:_AT_ONCE]:
            del self._idle[watch]
            self._inotify.unwatch(watch)
