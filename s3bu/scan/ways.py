"""The ways from a source to some paths in it, so that a walk to all of them lists each directory once."""

from collections.abc import Iterable

from s3bu.manifest import sort_key


def outermost(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the paths that lie below no other one of them, in order."""
    found: list[bytes] = []
    for path in sorted(set(paths), key=sort_key):
        if not found or (found[-1] and not path.startswith(found[-1] + b"/")):
            found.append(path)
    return tuple(found)


def ways_to(paths: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return the names, in order, that lead on from each directory on the way; at and below the paths all do."""
    ways: dict[bytes, dict[bytes, None]] = {}
    for path in outermost(paths):
        above = b""
        for name in path.split(b"/") if path else ():
            ways.setdefault(above, {})[name] = None
            above = above + b"/" + name if above else name
    return {above: list(names) for above, names in ways.items()}
