"""What is watched, and the journal in which all that is seen stands before it counts as seen.

A journal that cannot be written just now ends nothing: what was seen is kept here and written later, and until then no
cookie is answered, so that runs look at everything. A journal that somebody took away is made anew, and all is walked
again.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from s3bu.filters import Filters
from s3bu.job import Source
from s3bu.journal import NEVER_ALONE_US, Dirty, Journal, JournalError, open_for_watching, rules_of
from s3bu.journal.batch import Batch
from s3bu.journal.watched import GONE
from s3bu.scan.found import Excluded
from s3bu.watch.source import Counts
from s3bu.watch.tree import Tree

Key: TypeAlias = tuple[str, str]
"""A job and a label."""
CHANGED_JOB = "the job changed"
_UNWATCHED = "directories were met that nobody watched"
_STUCK = "a walk through directories does not come to its end"
_UNWRITTEN = "the journal cannot be written"
_KEPT_BOUND = 500_000
"""So many changes are kept for a journal that cannot be written; beyond that all is walked anew once it can."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where watchers of one repository keep their journal, and how old a full scan may be that runs still go by."""

    home: Path
    identity: str
    full_seconds: int


@dataclass(frozen=True, slots=True)
class _Followed:
    """A source that is watched, by its number in the journal, and how it is walked."""

    number: int
    source: Source
    filters: Filters


class Recorder:
    """Watches sources, and writes down what changes in them.

    `wake` is called from another thread when there is something to `collect`, and must be cheap.
    """

    def __init__(self, place: Place, excluded: Excluded, wake: Callable[[], None]) -> None:
        self._place = place
        self._excluded = excluded
        self._wake = wake
        self._followed: dict[Key, _Followed] = {}
        self._keys: dict[int, Key] = {}
        self._obstacles: dict[int, str | None] = {}
        self._kept = Batch()
        self._is_late = self._is_lost = False  # whether the last attempt to write failed; whether too much was kept
        self._journal, self._session, self._tree, self._cookies_inode = self._begun()

    def _begun(self) -> tuple[Journal, int, Tree, int]:
        """Begin a session in the journal that lies where runs look for it."""
        journal = open_for_watching(self._place.home, self._place.identity)
        try:
            session = journal.begin_session()
            inode = _inode_of(journal.cookies)
            tree = Tree(journal.cookies, self._wake)
            tree.start()
        except BaseException:
            journal.close()
            raise
        return journal, session, tree, inode

    # --- sources

    @property
    def sources(self) -> list[Key]:
        """What is watched."""
        return list(self._followed)

    def add(self, job: str, source: Source, filters: Filters, *, reason: str | None = None) -> None:
        """Begin to watch a source, and walk it; `JournalError` when that cannot be written down."""
        key = (job, source.label)
        seconds, rules = self._place.full_seconds, rules_of(filters)
        number = self._journal.watch_source(self._session, job, source.label, seconds, rules)
        for obstacles in (self._kept.obstacles, self._obstacles):
            obstacles.pop(number, None)
        self._followed[key] = _Followed(number, source, filters)
        self._keys[number] = key
        self._tree.add(number, source.path, filters, self._excluded)
        if reason is not None:
            self._kept.dirty(number, b"", is_tree=True, reason=reason)

    def remove(self, key: Key) -> None:
        """Watch a source no more, and let no run believe that it is watched."""
        is_lost, number = self._is_lost_of(key), self._followed.pop(key).number
        if not is_lost:
            self._keys.pop(number)
            self._tree.remove(number)
            self._kept.obstacle(number, GONE)

    def _is_lost_of(self, key: Key) -> bool:
        """Whether nobody watches a source, since the journal was begun anew and does not take it yet."""
        return self._keys.get(self._followed[key].number) != key

    def counts(self, key: Key) -> Counts:
        """Return how many directories of a source are watched, and how many are not, and why."""
        return Counts(0, 0, None) if self._is_lost_of(key) else self._tree.counts(self._followed[key].number)

    def walk_again(self, key: Key) -> None:
        """Walk a source anew, since directories of it are not watched that should be."""
        if not self._is_lost_of(key):
            self._tree.doubt(self._followed[key].number, _UNWATCHED)

    def obstacle(self, key: Key) -> str | None:
        """Return why a source can not be believed to be watched whole, if that is so."""
        if self._tree.is_stuck:
            return _STUCK
        return _UNWRITTEN if self._is_lost_of(key) else self._obstacles.get(self._followed[key].number)

    # --- what is seen

    def collect(self) -> tuple[dict[Key, set[bytes]], bool]:
        """Take what was seen: which paths changed in which source, and whether somebody waits for an answer."""
        batch = self._tree.take()
        changed: dict[Key, set[bytes]] = {}
        for number, path in batch.changed:
            key = self._keys.get(number)
            if key is not None:
                changed.setdefault(key, set()).add(path)
        self._obstacles.update(batch.obstacles)
        _merge(self._kept, batch)
        if len(self._kept.changed) + len(self._kept.watches) > _KEPT_BOUND and self._is_late:
            self._kept, self._is_lost = Batch(), True
        return changed, bool(self._kept.cookies)

    @property
    def has_more(self) -> bool:
        """Whether something was seen that is not written down."""
        return not self._kept.is_empty or self._is_lost

    def record(self) -> None:
        """Write down what was seen; `JournalError` when that is not possible now: it is kept, and nothing answered."""
        self._is_late = True
        if self._is_lost:
            self.renew()
        self._journal.record(self._session, self._kept)
        self._kept, self._is_late = Batch(), False

    def beat(self) -> None:
        """Say that the watcher lives."""
        self._journal.beat(self._session)

    def look_again(self) -> None:
        """See whether all is watched that can be, and is what it was; `S3buError` when nothing is any more."""
        self._tree.look_again()

    @property
    def is_in_place(self) -> bool:
        """Whether runs find the journal, and lay their cookies where they are seen."""
        return self._cookies_inode == _inode_of(self._journal.cookies) and self._journal.is_in_place

    def renew(self) -> None:
        """Begin anew, where runs look for the journal now; `S3buError` when none can be kept there, and all stays."""
        old = self._journal, self._tree
        self._journal, self._session, self._tree, self._cookies_inode = self._begun()
        for part in old:
            part.close()
        self._kept, self._is_lost = Batch(), False
        followed, self._followed, self._keys = self._followed, {}, {}
        try:
            for (job, _), one in followed.items():
                self.add(job, one.source, one.filters)
        except JournalError:
            self._followed, self._is_lost = followed, True  # all of it again, as soon as it can be written
            raise

    # --- what stands in the journal

    def deferred(self, key: Key) -> dict[bytes, int]:
        """Return the large files that are not to be taken before a time, in microseconds since 1970."""
        dirty: Iterable[Dirty] = self._journal.dirty(self._followed[key].number)
        now_us = time.time_ns() // 1000
        return {one.path: one.not_before_us for one in dirty if now_us < one.not_before_us < NEVER_ALONE_US}

    def plan_run(self, key: Key, next_run_us: int | None) -> None:
        """Write down when a source is to be backed up, in microseconds since 1970."""
        if not self._is_lost_of(key):
            self._journal.plan_run(self._followed[key].number, next_run_us)

    def note_failure(self, key: Key, failure: str | None) -> None:
        """Write down what was wrong with the last run of a source, if anything was."""
        if not self._is_lost_of(key):
            self._journal.note_failure(self._followed[key].number, failure)

    def close(self) -> None:
        """Write down what was seen last, as far as that is possible, and end."""
        with suppress(JournalError):  # whoever holds it is waited for once: that this process ended shows anyway
            self.collect()
            self._journal.record(self._session, self._kept)
            self._journal.end_session(self._session)
        self._tree.close()
        self._journal.close()


def _inode_of(path: Path) -> int:
    """Return the inode of a directory; -1 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


def _merge(kept: Batch, batch: Batch) -> None:
    for key, (since_us, is_tree, reason) in batch.changed.items():
        first_us, was_tree, earlier = kept.changed.get(key, (since_us, False, None))
        kept.changed[key] = (first_us, is_tree or was_tree, reason or earlier)
    kept.watches += batch.watches
    kept.obstacles.update(batch.obstacles)
    kept.cookies += batch.cookies
