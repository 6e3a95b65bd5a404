"""What a watcher has seen and not yet written down."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Batch:
    """What a watcher has seen and not yet written down, in order; `record` writes it in one transaction.

    Paths are those below a source; the source itself is the empty one.
    """

    changed: dict[tuple[int, bytes], tuple[int, bool, str | None]] = field(default_factory=dict)
    watches: list[tuple[int, bytes, tuple[int, int] | None]] = field(default_factory=list)
    obstacles: dict[int, str | None] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write down."""
        return not (self.changed or self.watches or self.obstacles or self.cookies)

    def dirty(self, source: int, path: bytes, *, is_tree: bool = False, reason: str | None = None) -> None:
        """Note that a path changed, or may have, with all below it if `is_tree`."""
        key = (source, path)
        since_us, was_tree, earlier = self.changed.get(key) or (time.time_ns() // 1000, False, None)
        self.changed[key] = (since_us, is_tree or was_tree, reason or earlier)

    def watch(self, source: int, path: bytes, inode: int, device: int) -> None:
        """Note that a directory is watched under a path."""
        self.watches.append((source, path, (inode, device)))

    def unwatch(self, source: int, path: bytes) -> None:
        """Note that nothing is watched any more at or below a path."""
        self.watches.append((source, path, None))

    def obstacle(self, source: int, why: str | None) -> None:
        """Note why a source can never be believed to be watched whole; `None` takes that back."""
        self.obstacles[source] = why

    def cookie(self, name: str) -> None:
        """Note that a cookie came out of the queue: all that came before it stands in this batch or an earlier one."""
        self.cookies.append(name)

    @property
    def sources(self) -> set[int]:
        """The sources of which something is dirty."""
        return {source for source, _ in self.changed}
