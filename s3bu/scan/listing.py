"""What a directory holds, as a walk takes it."""

import os
from collections.abc import Iterable
from operator import itemgetter
from typing import TypeAlias

Names: TypeAlias = "list[tuple[bytes, os.DirEntry[str]]]"
"""What a directory holds, in order."""


def list_names(descriptor: int, only: frozenset[str] | None = None) -> Names:
    """Return what an open directory holds; with `only`, its directories alone, and what has one of these names."""
    with os.scandir(descriptor) as listing:
        found: Iterable[os.DirEntry[str]] = listing if only is None else _chosen(listing, only)
        return sorted(((os.fsencode(one.name), one) for one in found), key=itemgetter(0))


def _chosen(listing: Iterable["os.DirEntry[str]"], only: frozenset[str]) -> list["os.DirEntry[str]"]:
    return [one for one in listing if one.name in only or _is_directory(one)]


def _is_directory(one: "os.DirEntry[str]") -> bool:
    try:
        return one.is_dir(follow_symlinks=False)
    except OSError:
        return False  # it vanished, or cannot be looked at, and so cannot be entered either
