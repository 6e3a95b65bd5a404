"""What of a source a run looks at that goes by a journal, and what it finds there.

By the journal: what is dirty. By itself, whatever the journal says: each directory is asked by `lstat` whether it is as
it was when it was last listed, which finds whatever came, went or was renamed, and so is each file that can change
without a word: one with further links, one that a program holds open to write or has mapped, a large one (whose holder
may not be known), one that changed in the last days.
And what the last run could not settle: what failed, and files that it may have read too early.

Everything else is as the newest snapshot has it.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from s3bu.compare import Difference, Trust, compare
from s3bu.draft import RACY_NS
from s3bu.filters import Filters
from s3bu.held import held
from s3bu.index import Index, IndexedSnapshot
from s3bu.journal import Dirty, Journal
from s3bu.journal.met import Directory, Met
from s3bu.manifest import DIRECTORY, FAILED_PATH_BOUND, FILE, Entry, Seen, sort_key
from s3bu.progress import Failure
from s3bu.scan import Scan
from s3bu.scan.found import entries, seen_of, signed
from s3bu.scan.witness import Glance
from s3bu.spans import Unmodified

LARGE_NBYTES = 64 * 1024**2
_RECENT_SECONDS = 3 * 86_400
_MOST_LOOKS = 50_000
_MOST_TOUCHED = 50_000
_NEVER = 2**33
"""A second in some hundred years, whose nanoseconds SQLite can still hold."""


class EverywhereError(Exception):
    """All of the source must be looked at after all; the message says why."""


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs and the watcher say of a source that has the number `source` in the index."""

    root: bytes
    source: int
    newest: IndexedSnapshot
    dirty: list[Dirty]
    directories: dict[bytes, Directory]
    watched: dict[bytes, tuple[int, int]]
    linked: frozenset[bytes]


def past_of(journal: Journal, number: int, root: bytes, newest: IndexedSnapshot, dirty: list[Dirty]) -> Past:
    """Read what stands in the journal of a source, which has the number `number` there."""
    return Past(
        root,
        newest.source,
        newest,
        dirty,
        journal.directories(number),
        journal.watched(number),
        frozenset(journal.linked(number)),
    )


@dataclass(slots=True)
class Looks:
    """Where to look: by directory the names in it, or `None` for all of them; and directories of which all is new.

    It is what a `Scan` asks (`scan.witness.Known`), and who it tells.
    """

    index: Index
    past: Past
    met: Met
    racy_ns: int
    names_of_rules: frozenset[bytes]
    is_elsewhere: bool = False
    """Whether the walk came into another directory than the one of which it was decided where to look in it."""
    within: bytes | None = None
    """The directory of which all is being looked at just now."""
    _wanted: dict[bytes, set[bytes] | None] = field(default_factory=dict)
    _trees: set[bytes] = field(default_factory=set)

    # --- where to look

    def add(self, path: bytes) -> None:
        """Look at a path, and so go through the directories above it."""
        while path:
            above, _, name = path.rpartition(b"/")
            is_first = above not in self._wanted
            names = self._wanted.setdefault(above, set())
            if names is not None:
                names.add(name)
            if not is_first:
                return
            path = above

    def add_all_in(self, path: bytes) -> None:
        """Look at all that lies in a directory."""
        if path not in self._wanted:
            self.add(path)
        self._wanted[path] = None

    def add_tree(self, path: bytes) -> None:
        """Look at a path, and at all below it."""
        self._trees.add(path)
        self.add(path)

    @property
    def count(self) -> int:
        """How many names are to be looked at, as far as that is known before."""
        return sum(len(names or ()) for names in self._wanted.values())

    # --- what the scan asks

    def is_known(self, path: bytes) -> bool:
        """Say whether earlier runs went into the directory that is there."""
        return path in self.past.directories and path not in self._trees

    def leads_on(self, path: bytes) -> bool:
        """Say whether there is something to look at in a directory."""
        return path in self._wanted

    def was_left_out(self, path: bytes) -> bool:
        """Say whether a known directory was left out for what lies in it."""
        return self.past.directories[path].is_left_out

    def names_in(self, path: bytes, listed: Iterable[bytes]) -> Iterable[bytes]:
        """Return the names to look at in a directory: if all, those that are there and those that were."""
        if self._is_all(path):
            return {*listed, *self.index.child_names(self.past.source, path)}
        return self._wanted.get(path) or ()

    def _is_all(self, path: bytes) -> bool:
        """Say whether all in a known directory is looked at; so it is where the walk turned out to have to enter it."""
        return self._wanted.get(path) is None and (path in self._wanted or path != b"")

    # --- what the scan tells

    def directory(self, path: bytes, _descriptor: int, status: os.stat_result, /) -> None:
        """Keep how a directory was before it was listed, unless only some names in it are looked at."""
        is_within = self.within is not None and path.startswith(self.within + b"/")
        if not is_within and self.is_known(path):
            known = self.past.directories[path]
            self.is_elsewhere |= (signed(status.st_ino), signed(status.st_dev)) != (known.inode, known.device)
        if is_within or not self.is_known(path) or self._is_all(path):
            self.met.directory(path, status, racy_ns=self.racy_ns)

    def linked(self, path: bytes, /) -> None:
        """Keep a file with further links."""
        self.met.linked(path)


@dataclass(frozen=True, slots=True)
class Everything:
    """Keeps all that a full scan meets."""

    met: Met
    racy_ns: int

    def directory(self, path: bytes, _descriptor: int, status: os.stat_result, /) -> None:
        """Keep how a directory was before it was listed."""
        self.met.directory(path, status, racy_ns=self.racy_ns)

    def linked(self, path: bytes, /) -> None:
        """Keep a file with further links."""
        self.met.linked(path)


def looks_of(index: Index, past: Past, met: Met, filters: Filters, scanned_ns: int) -> Looks:
    """Decide where to look; `EverywhereError` where that would be everywhere."""
    looks = Looks(index, past, met, scanned_ns - RACY_NS, filters.deciding_names)
    _add_dirty(looks)
    _add_failed(looks)
    _add_directories(looks)
    _add_files(looks, scanned_ns)
    if looks.count > _MOST_LOOKS:
        raise EverywhereError(f"{looks.count:,} paths are to be looked at")
    return looks


def _add_dirty(looks: Looks) -> None:
    for one in looks.past.dirty:
        if not one.path:
            raise EverywhereError(one.reason or "the whole source changed")
        if one.is_tree:
            looks.add_tree(one.path)
        _add_changed(looks, one.path)


def _add_changed(looks: Looks, path: bytes) -> None:
    """Look at what changed; where it decides about others, at all of them."""
    above, _, name = path.rpartition(b"/")
    if name not in looks.names_of_rules:
        looks.add(path)
    elif above:
        looks.add_tree(above)
    else:
        raise EverywhereError(f"it may be another selection, since {os.fsdecode(name)} changed")


def _add_failed(looks: Looks) -> None:
    for failed in looks.index.failed(looks.past.newest):
        if not failed.path or len(failed.path) >= FAILED_PATH_BOUND:
            raise EverywhereError("what failed in the last snapshot has no clear path")
        looks.add(failed.path)


def _add_directories(looks: Looks) -> None:
    """Ask each directory whether it is as it was when it was listed, and whether changes in it come to be known."""
    root, watched = looks.past.root, looks.past.watched
    for path, known in looks.past.directories.items():
        status = _status(root, path)
        is_directory = status is not None and stat.S_ISDIR(status.st_mode)
        identity = (signed(status.st_ino), signed(status.st_dev)) if status else None
        if status is None or not is_directory or identity != (known.inode, known.device):
            if not path:
                raise EverywhereError("another directory is where the source was")
            looks.add_tree(path)
        elif watched.get(path) != identity or (status.st_mtime_ns, status.st_ctime_ns) != (
            known.mtime_ns,
            known.ctime_ns,
        ):
            looks.add_all_in(path)


def _add_files(looks: Looks, scanned_ns: int) -> None:
    """Ask each file that can change without a word whether it is as it was."""
    root, past = looks.past.root, looks.past
    recent = scanned_ns // 1_000_000_000 - _RECENT_SECONDS
    # Where a whole tree just came here with its old times, its own times must do for some days.
    is_young = looks.index.count_touched(past.source, recent) > _MOST_TOUCHED
    touched = _NEVER if is_young else recent
    programs = held(root)
    inodes = map(signed, programs.inodes)  # of what may be here by another path
    for entry in looks.index.doubtful(
        past.source, large_nbytes=LARGE_NBYTES, recent=recent, touched=touched, inodes=inodes
    ):
        if not entry.hash or not _is_as_seen(root, entry):
            _add_changed(looks, entry.path)
    for path in (*past.linked, *programs.paths):
        entry_of = looks.index.current(past.source, sort_key(path))
        if entry_of is None or not _is_as_seen(root, entry_of):
            _add_changed(looks, path)


def _is_as_seen(root: bytes, entry: Entry) -> bool:
    status = _status(root, entry.path)
    if status is None or not stat.S_ISREG(status.st_mode) or entry.seen is None:
        return False
    found = (status.st_size, status.st_mtime_ns, status.st_mode & 0o777, seen_of(status))
    return found == (entry.nbytes, entry.mtime_ns, entry.mode, Seen(*entry.seen))


def _status(root: bytes, path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(os.path.join(root, path) if path else root)
    except OSError:
        return None  # whatever it is, the walk finds out


def doubt_of_look(looks: Looks) -> str | None:
    """Return why all must be looked at after all, by what was met, if so."""
    if looks.is_elsewhere:
        return "another directory took the place of one while it was looked at"
    return "files got further names, by which they may have changed unseen" if has_unseen_names(looks) else None


def has_unseen_names(looks: Looks) -> bool:
    """Say whether a file that got a further name may have another one still, under which it was not looked at.

    Whoever writes by the new name changes the old one too, and nothing tells of that.
    """
    new = [path for path in looks.met.links if path not in looks.past.linked]
    found = (_status(looks.past.root, path) for path in new)
    identities = {(signed(status.st_ino), signed(status.st_dev)) for status in found if status is not None}
    if not identities:
        return False
    names = looks.index.names_of_files(looks.past.source, identities)
    return any(path not in looks.met.links and path not in looks.past.linked for path in names)


def look(scan: Scan, looks: Looks, trust: Trust) -> Iterator[Unmodified | Difference | Failure]:
    """Yield what is different where it was looked, and how much stands as it was."""
    index, source, rest = looks.index, looks.past.source, _Rest()
    for glance in scan.glances(looks):
        looks.within = glance.path if glance.is_tree else None
        _forget(looks, glance)
        yield from compare(entries(glance.items), rest.without(_previous(index, source, glance)), trust)
    nentries, nfiles, nbytes = index.current_totals(source)
    yield Unmodified(nentries - rest.nentries, nfiles - rest.nfiles, nbytes - rest.nbytes)


def _previous(index: Index, source: int, glance: Glance) -> Iterator[Entry]:
    entry = index.current(source, sort_key(glance.path))
    if entry is not None:
        yield entry
    if glance.is_tree and (entry is None or entry.kind == DIRECTORY):
        yield from index.currents_below(source, glance.path)


def _forget(looks: Looks, glance: Glance) -> None:
    if glance.is_tree and glance.path in looks.past.directories:
        # One that is left out as it was is passed by, and asked the next time too.
        if looks.leads_on(glance.path) or not (looks.is_known(glance.path) and looks.was_left_out(glance.path)):
            looks.met.forget(glance.path, is_tree=True)
    elif glance.path in looks.past.linked:
        looks.met.forget(glance.path, is_tree=False)


@dataclass(slots=True)
class _Rest:
    """Counts the newest entries that were looked at."""

    nentries: int = 0
    nfiles: int = 0
    nbytes: int = 0

    def without(self, previous: Iterable[Entry]) -> Iterator[Entry]:
        for entry in previous:
            self.nentries += 1
            if entry.kind == FILE:
                self.nfiles += 1
                self.nbytes += entry.nbytes
            yield entry
