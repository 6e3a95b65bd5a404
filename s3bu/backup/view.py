"""How a run looks at a source: in full, and then why, or by the journal, and then where; and what it leaves behind."""

import contextlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from s3bu.backup.doubts import (
    NEVER,
    Ways,
    answer_doubt,
    foreign_doubt,
    left_doubt,
    watcher_doubt,
    ways_of,
)
from s3bu.backup.looking import Everything, EverywhereError, Looks, looks_of, past_of
from s3bu.draft import RACY_NS, Draft
from s3bu.index import Index, IndexedSnapshot
from s3bu.journal import NEVER_ALONE_US, Dirty, Journal, JournalError
from s3bu.journal.met import Met
from s3bu.journal.watched import Left, Watched
from s3bu.parent import Parent
from s3bu.repository.layout import ManifestKey
from s3bu.scan.witness import NOBODY, Witness

if TYPE_CHECKING:
    from s3bu.backup.deciding import Ground
    from s3bu.job import Source


@dataclass(slots=True)
class View:
    """How one source is looked at by one run; `why_full` is `None` when it goes by the journal, where `looks` says.

    `epoch` is the one that began with the run, `deferred` are paths that changed and are not taken yet, and
    `nunwatched` counts directories that were listed and that no watcher watches.
    """

    ways: Ways
    why_full: str | None = NEVER
    looks: Looks | None = None
    met: Met = field(default_factory=Met)
    journal: Journal | None = None
    watched: Watched | None = None
    epoch: int = 0
    began_ns: int = 0
    deferred: list[Dirty] = field(default_factory=list)
    nunwatched: int = 0

    def witness(self) -> Witness:
        """Return who keeps what a full scan meets, for the runs after it."""
        if self.journal is None:
            return NOBODY
        self.met.forget(b"", is_tree=True)
        return Everything(self.met, self.began_ns - RACY_NS)

    def look_everywhere(self, why: str) -> None:
        """Look at all of the source after all."""
        self.why_full, self.looks, self.met, self.deferred = why, None, Met(), []

    def finish(
        self, index: Index, draft: Draft, number: int, published: ManifestKey | None, newest: IndexedSnapshot | None
    ) -> None:
        """Let the journal go on from what this run has seen; its index says so from then on too."""
        if self.journal is None or self.watched is None or self.ways.mounts is None:
            return
        base = str(published) if published else newest.key if newest else ""
        left = self._left(secrets.token_hex(8), base)
        if left is None:
            return
        if published is None:
            # Times that are no change alone, and stand in no snapshot yet: the next one is to have them.
            self.deferred += (Dirty(one.path, False, self.began_ns // 1_000, NEVER_ALONE_US) for one in draft.changed())
        index.keep_token(number, left.token)
        with contextlib.suppress(JournalError):
            self.nunwatched = self.met.count_unwatched(self.journal.watched(self.watched.id))
        with contextlib.suppress(JournalError):  # then it does not match the index, and the next run looks everywhere
            self.journal.finish(self.watched.id, self.epoch, left, self.met, self.deferred)

    def _left(self, token: str, base: str) -> Left | None:
        assert self.watched is not None
        ways, before = self.ways, self.watched.left
        if self.why_full is not None:
            full = (self.watched.session.id, self.began_ns // 1_000, self.why_full)
        elif before is not None:
            full = (before.full_session, before.full_us, before.full_why)
        else:
            return None
        return Left(token, base, ways.rules, ways.root, ways.inode, ways.device, ways.mounts or "", *full)


def view_of(ground: "Ground", source: "Source", number: int, parent: Parent, scanned_ns: int) -> View:
    """Decide how to look at a source that has that number in the index.

    A run that writes begins a new epoch, so that what changes from now on is left to the next one; a plan does not.
    """
    view = View(ways_of(source.path, ground.job.filters, ground.options.excluded), began_ns=scanned_ns)
    try:
        _decide(view, ground, source, number, parent)
    except JournalError as error:
        view.journal, view.looks, view.why_full = None, None, error.message
    return view


def _decide(view: View, ground: "Ground", source: "Source", number: int, parent: Parent) -> None:
    journal = ground.options.journal
    watched = journal.find(ground.job.name, source.label) if journal else None
    demand = _demand(ground, number)
    if journal is None or watched is None:
        view.why_full = demand or NEVER
        return
    view.why_full = demand or watcher_doubt(watched, ground.job.filters) or answer_doubt(journal, watched)
    dirty = _freeze(view, journal, watched, is_acting=ground.is_writing)
    if view.why_full is None:
        view.why_full = _left_doubt(view, ground.index, number, parent)
    if view.why_full is None:
        view.why_full = _look_by(view, journal, ground, parent, dirty)


def _demand(ground: "Ground", number: int) -> str | None:
    """Return why all of the source is to be looked at whatever a journal says."""
    if ground.options.is_full:
        return "--full-scan asks for it"
    if ground.options.is_rehash:
        return "--rehash asks for it"
    return "contents of the last snapshot are not stored any more" if ground.known.absent(number) else None


def _freeze(view: View, journal: Journal, watched: Watched, *, is_acting: bool) -> list[Dirty]:
    dirty = []
    if not is_acting:
        dirty = journal.dirty(watched.id)
    elif watched.session.is_running:
        view.journal = journal
        view.epoch, dirty = journal.freeze(watched.id)
    # It counts what the watcher has written of the source until now, not what stood there before it answered.
    view.watched = journal.find(watched.job, watched.label)
    return dirty


def _left_doubt(view: View, index: Index, number: int, parent: Parent) -> str | None:
    watched = view.watched
    assert watched is not None
    if parent.snapshot is None or parent.has_broken:
        return "there is no snapshot to go on from" if parent.snapshot is None else "the newest snapshot cannot be read"
    token = index.token(number)
    return watched.obstacle or left_doubt(watched, view.ways, token, parent.snapshot.key)


def _look_by(view: View, journal: Journal, ground: "Ground", parent: Parent, dirty: list[Dirty]) -> str | None:
    """Decide where to look by the journal; return why that is everywhere."""
    assert view.watched is not None
    assert parent.snapshot is not None
    past = past_of(journal, view.watched.id, view.ways.root, parent.snapshot, dirty)
    try:
        view.looks = looks_of(ground.index, past, view.met, ground.job.filters, view.began_ns)
    except EverywhereError as error:
        return str(error)
    return foreign_doubt(view.ways, past.directories)
