"""What others want of a walk: to be told of the directories that it enters, or that it looks at a part alone."""

import os
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from s3bu.manifest import Entry
from s3bu.progress import Failure
from s3bu.scan.found import Regular


class Witness(Protocol):
    """Who wants to know of each directory that a walk enters, and of files that can change without a word."""

    def directory(self, path: bytes, descriptor: int, status: os.stat_result, /) -> object:
        """Take a directory that is open, as it was just before it is listed; the source itself has an empty path."""

    def linked(self, path: bytes, /) -> object:
        """Take a file that has further links."""


class _Nobody:
    def directory(self, path: bytes, descriptor: int, status: os.stat_result, /) -> None:
        """Pass over it."""

    def linked(self, path: bytes, /) -> None:
        """Pass over it."""


NOBODY: Witness = _Nobody()


class Glance(NamedTuple):
    """What is at a path now, and if `is_tree` all below it: `items` are none where nothing is there."""

    path: bytes
    items: Iterable[Regular | Entry | Failure]
    is_tree: bool


class Known(Protocol):
    """What somebody who walked a source before knows of it, so that not all has to be looked at again."""

    def names_in(self, path: bytes, listed: Iterable[bytes]) -> Iterable[bytes]:
        """Return which names in a directory to look at; `listed` are those that are there."""

    def is_known(self, path: bytes) -> bool:
        """Say whether the directory at this path is the one that was there, so that not all below it is new."""

    def leads_on(self, path: bytes) -> bool:
        """Say whether there is something to look at in a known directory, or below it."""

    def was_left_out(self, path: bytes) -> bool:
        """Say whether a known directory was left out for what lies in it."""
