"""Paths as the journal's tables have them."""

from s3bu.manifest import sort_key

_TREE_END = b"\1"
"""What stands behind the sort key of a directory and sorts behind all below it, whose keys go on with a NUL."""

TREE = "source = :source AND (:key = x'' OR sort_key = :key OR (sort_key > :below AND sort_key < :end))"


def tree_of(source: int, path: bytes) -> dict[str, object]:
    """Return the values of `TREE` for a path: what it selects is at or below it."""
    key = sort_key(path)
    return {"source": source, "key": key, "below": key + b"\0", "end": key + _TREE_END}


def path_of(key: bytes) -> bytes:
    """Return the path of a sort key."""
    return key.replace(b"\0", b"/")
