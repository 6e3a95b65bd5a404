"""The directories that are known below a source, as a tree: by it each event gets its path."""

from collections.abc import Iterator

NONE = -1
"""The watch of a directory that is not watched."""


class Node:
    """A directory: its name in its parent, and the number of its watch.

    There are as many as directories, hence nothing more in it; `children` is there when there are some.
    """

    __slots__ = ("children", "name", "parent", "watch")

    def __init__(self, name: bytes, parent: "Node | None") -> None:
        self.name = name
        self.parent = parent
        self.children: dict[bytes, Node] | None = None
        self.watch = NONE

    @property
    def is_watched(self) -> bool:
        """Whether it is watched."""
        return self.watch != NONE

    def child(self, name: bytes) -> "Node | None":
        """Return the directory of a name in this one."""
        return self.children.get(name) if self.children else None

    def grow(self, name: bytes) -> "Node":
        """Return the directory of a name in this one, added if it is not there."""
        if self.children is None:
            self.children = {}
        node = self.children.get(name)
        if node is None:
            node = self.children[name] = Node(name, self)
        return node

    def find(self, path: bytes) -> "Node | None":
        """Return the directory at a path below this one, or this one for an empty path."""
        node: Node | None = self
        for name in path.split(b"/") if path else ():
            node = node.child(name) if node is not None else None
        return node

    def all(self) -> "Iterator[Node]":
        """Yield this one and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values() if node.children else ())

    def cut(self) -> None:
        """Take this one, with all below it, out of its parent; at the top, all below it alone."""
        self.children = None
        if self.parent is not None and self.parent.children is not None:
            del self.parent.children[self.name]
            self.parent.children = self.parent.children or None

    def top_and_path(self) -> "tuple[Node, bytes]":
        """Return the directory at the top, and the path from there to this one."""
        if self.parent is None:
            return self, b""
        names = []
        node: Node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return node, b"/".join(reversed(names))


class Top(Node):
    """The directory of a source, by the source's number."""

    __slots__ = ("source",)

    def __init__(self, source: int) -> None:
        super().__init__(b"", None)
        self.source = source
