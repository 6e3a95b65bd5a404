"""A source as the watcher knows it: where it is, what lies on which mount, and what decides about what is left out."""

import os
import stat
from dataclasses import dataclass, field
from typing import NamedTuple

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.mounts import Mount, is_local, is_uncovered, mounts_of
from s3bu.scan.found import Excluded
from s3bu.selection import CACHEDIR_TAG, Place
from s3bu.watch.node import Node, Top


class Sight(NamedTuple):
    """Where the directory of a source is, and which one it is; `ctime_ns` tells that it may be entered now."""

    root: bytes
    inode: int
    device: int
    ctime_ns: int


NOT_THERE = "not there"


class Counts(NamedTuple):
    """How many directories of a source are watched, how many are not, and why the first of these is not.

    `fault` is why it cannot be walked at all. Until it `is_walked` to its end, the numbers are those so far.
    """

    nwatched: int
    nunwatched: int
    why_unwatched: str | None
    fault: str | None = None
    is_walked: bool = False


@dataclass(slots=True)
class Source:
    """A source, and what is watched of it.

    `sight` and `mounts` are as they were before the last whole walk, `None` where nothing was there, or nothing told;
    `is_walked` says that it came to its end. `patience` is how many looks pass before what could not be watched is
    tried again, and `waited` how many have.
    """

    number: int
    path: bytes
    filters: Filters
    excluded: Excluded
    top: Top
    sight: Sight | None = None
    mounts: list[Mount] | None = None
    obstacle: str | None = None
    nwatched: int = 0
    unwatched: dict[Node, None] = field(default_factory=dict)
    why_unwatched: str | None = None
    fault: str | None = None
    is_walked: bool = False
    patience: int = 0
    waited: int = 0
    _place: Place = field(init=False)

    def __post_init__(self) -> None:
        self._place = self.filters.selection.top()

    def counts(self) -> Counts:
        """Return how much of it is watched."""
        why_unwatched = self.why_unwatched if self.unwatched else None
        return Counts(self.nwatched, len(self.unwatched), why_unwatched, self.fault, self.is_walked)

    def keep_fault(self, error: S3buError) -> None:
        """Keep why it cannot be walked, without its path, which whoever is told knows by another name."""
        told = error.message.removeprefix(f"{os.fsdecode(self.path)}: ").removeprefix("the source ")
        self.fault = NOT_THERE if isinstance(error.__cause__, FileNotFoundError) else told

    def look(self) -> Sight | None:
        """Return where it is now."""
        root = os.path.realpath(self.path)
        try:
            status = os.lstat(root)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        return Sight(root, status.st_ino, status.st_dev, status.st_ctime_ns)

    def is_as_seen(self, now: Sight | None) -> bool:
        """Say whether it is where it was; of one that could not be walked, also whether it was not touched since."""
        if now is None or self.sight is None or not self.is_walked:
            return now == self.sight
        return now[:3] == self.sight[:3]

    def is_directory(self, path: bytes) -> bool:
        """Say whether there is a directory at a path now."""
        if self.sight is None:
            return False
        try:
            return stat.S_ISDIR(os.lstat(self.sight.root + b"/" + path).st_mode)
        except OSError:
            return False

    def decides(self, name: bytes, *, is_content: bool) -> bool:
        """Say whether a file of that name says what is left out; `is_content`: it was there before, and changed."""
        selection = self.filters.selection
        if name in selection.ignore_files or (selection.has_cachedir_tag and name == CACHEDIR_TAG):
            return True
        return not is_content and name in self.filters.skip_dir_items

    def is_left_out(self, path: bytes, *, is_directory: bool) -> bool:
        """Say whether nothing at a path is ever backed up, by the job alone."""
        name = path.rpartition(b"/")[2]
        if is_directory:
            rule = self.filters.directory_rule(name, is_top=b"/" not in path)
        else:
            rule = self.filters.file_rule(name)
        if rule is None and not self.filters.selection.ignore_files:  # one of these could take it back in
            rule = self._place.excluding(path, name, is_directory=is_directory)
        return rule is not None

    # --- mounts

    def read_mounts(self) -> list[Mount] | None:
        """Return the mounts of it as they are now, those in what is not watched too."""
        return mounts_of(os.path.realpath(self.path))

    def has_same_mounts(self, now: list[Mount] | None) -> bool:
        """Say whether nothing was mounted or unmounted in what is watched."""
        return self._met(now) == self._met(self.mounts)

    def _met(self, mounts: list[Mount] | None) -> list[Mount] | None:
        """Return the mount that it lies on, and those that a walk meets."""
        if mounts is None:
            return None
        return [*mounts[:1], *(mount for mount in mounts[1:] if self._holder(mount) is not None)]

    def _holder(self, mount: Mount) -> Node | None:
        """Return the directory in which something is mounted, if a walk comes there."""
        return self.top.find(self._below(mount).rpartition(b"/")[0])

    def _below(self, mount: Mount) -> bytes:
        root = self.sight.root if self.sight is not None else self.path
        return mount.path[len(root.rstrip(b"/")) + 1 :]

    def find_obstacle(self) -> str | None:
        """Return why not all that changes in it is told, if so."""
        mounts = self._met(self.mounts)
        if mounts is None:
            return "the kernel does not tell what is mounted where"
        if not is_local(mounts[0].kind):
            return f"it lies on {_named(mounts[0])}, where changes may come unseen"
        found = (self._obstacle_by(mount) for mount in mounts[1:] if is_uncovered(mount))
        return next((why for why in found if why is not None), None)

    def _obstacle_by(self, mount: Mount) -> str | None:
        path = self._below(mount)
        shown = os.fsdecode(path)
        if self.top.find(path) is not None:
            unseen = f"{_named(mount)} is mounted at '{shown}', where changes may come unseen"
            return None if is_local(mount.kind) else unseen
        if self.is_directory(path):
            return None  # it is left out
        return f"a file is mounted over '{shown}', and changes to it may come unseen"


def _named(mount: Mount) -> str:
    article = "an" if mount.kind[:1] in "aeiou" else "a"
    return f"{article} {mount.kind} file system"
