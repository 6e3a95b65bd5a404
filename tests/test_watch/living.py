"""A tree that lives: it watches a real directory, and what it sees goes into a real journal, as a watcher has it."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from s3bu.filters import Filters
from s3bu.journal import Dirty, Journal, open_for_watching, rules_of
from s3bu.journal.batch import Batch
from s3bu.watch.tree import Tree

SOURCE = 1
SECONDS = 20.0
"""After so long what is awaited is taken not to come."""
NO_FILTERS = Filters()


class Living:
    """A tree with its journal; `take` writes down what was seen, as the loop of a watcher does."""

    def __init__(self, home: Path, root: Path) -> None:
        self.root = root
        self.journal: Journal = open_for_watching(home, "a repository")
        self.session = self.journal.begin_session()
        self.nwoken = 0
        self.tree = Tree(self.journal.cookies, self._wake)
        self.taken: list[Batch] = []

    def _wake(self) -> None:
        self.nwoken += 1

    def add(self, path: Path | None = None, filters: Filters = NO_FILTERS, label: str = "src") -> int:
        """Watch a source, the first one unless told otherwise, and return its number."""
        number = self.journal.watch_source(self.session, "home", label, 3600, rules_of(filters))
        self.tree.add(number, os.fsencode(path or self.root), filters, {})
        return number

    def take(self) -> Batch:
        """Write down what was seen."""
        batch = self.tree.take()
        self.journal.record(self.session, batch)
        self.taken.append(batch)
        return batch

    def settle(self) -> None:
        """Write down all that was seen of what happened before, and what was walked for it."""
        name = secrets.token_hex(8)
        (self.journal.cookies / name).touch()
        self.await_cookie(name)
        deadline = time.monotonic() + SECONDS
        while not self.tree.is_settled:
            assert time.monotonic() < deadline, "the walks do not come to an end"
            time.sleep(0.002)
        self.take()

    def await_cookie(self, name: str) -> None:
        """Write down what was seen until a cookie is among it."""
        deadline = time.monotonic() + SECONDS
        while name not in self.take().cookies:
            assert time.monotonic() < deadline, "no cookie came back"
            time.sleep(0.002)

    def dirty(self, number: int = SOURCE) -> dict[bytes, bool]:
        """Return the paths that are dirty once all has settled, and whether with all below them; then forget them."""
        self.settle()
        return {one.path: one.is_tree for one in self._frozen(number)}

    def reasons(self, number: int = SOURCE) -> list[str]:
        """Return why a source has to be looked at whole, if it has, once all has settled; then forget it."""
        self.settle()
        return [one.reason for one in self._frozen(number) if one.reason is not None]

    def _frozen(self, number: int) -> list[Dirty]:
        epoch, dirty = self.journal.freeze(number)
        self.journal._connection.execute("DELETE FROM dirty WHERE source = ? AND epoch < ?", (number, epoch))
        return dirty

    def look_again(self) -> None:
        """Look for what no event tells of, and wait for the walks that come of it."""
        self.tree.look_again()
        self.settle()

    def watched(self, number: int = SOURCE) -> dict[bytes, tuple[int, int]]:
        """Return the directories that are watched, as the journal has them."""
        self.settle()
        return self.journal.watched(number)

    def heard(self) -> set[tuple[int, int]]:
        """Return the inode and device of each directory that the kernel watches, that of the cookies too."""
        descriptor = self.tree._inotify._reader._inotify_fd
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        words = (dict(word.split(":", 1) for word in line.split()[1:]) for line in lines if line.startswith("inotify"))
        return {(int(word["ino"], 16), int(word["sdev"], 16)) for word in words}

    def check(self, number: int = SOURCE, root: Path | None = None, without: tuple[str, ...] = ()) -> None:
        """Hold the journal to what is there: all directories are watched under their paths, and really heard."""
        there = directories(root or self.root, without)
        assert self.watched(number) == there
        assert {(inode, _of_kernel(device)) for inode, device in there.values()} <= self.heard()
        counts = self.tree.counts(number)
        assert (counts.nwatched, counts.nunwatched) == (len(there), 0)

    def close(self) -> None:
        """End it."""
        self.tree.close()
        self.journal.close()


def _of_kernel(device: int) -> int:
    """Return a device number as the kernel writes it within."""
    return os.major(device) << 20 | os.minor(device)


def directories(root: Path, without: tuple[str, ...] = ()) -> Mapping[bytes, tuple[int, int]]:
    """Return inode and device of each directory below one, by path, but of those with certain names."""
    found = {}
    for above, names, _ in os.walk(root):
        names[:] = [name for name in names if name not in without]
        status = os.stat(above)
        path = os.path.relpath(above, root)
        found[b"" if path == "." else os.fsencode(path)] = (status.st_ino, status.st_dev)
    return found


@contextmanager
def living(home: Path, root: Path) -> Iterator[Living]:
    """Hold a tree that lives and watches nothing yet."""
    made = Living(home, root)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def watching(home: Path, root: Path, filters: Filters = NO_FILTERS) -> Iterator[Living]:
    """Hold a tree that watches a directory, and of which all is written down and nothing dirty."""
    with living(home, root) as made:
        made.tree.start()
        made.add(filters=filters)
        made.dirty()
        yield made
