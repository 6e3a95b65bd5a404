"""What the next snapshot of a source would be, decided before anything is read or stored.

A backup acts on the `Decision`, and a plan shows it: there is no other place where it is made. Deciding looks at the
source by `lstat` alone, and asks the repository for listings, and for what another machine made meanwhile.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from s3bu.backup.large import without_large
from s3bu.backup.looking import doubt_of_look, look
from s3bu.backup.view import View, view_of
from s3bu.compare import CHANGED, NEW, REMOVED, Difference, Trust, compare
from s3bu.draft import RACY_NS, Draft
from s3bu.guard import Guard
from s3bu.index import Index, IndexedSnapshot
from s3bu.job import Job, Source
from s3bu.known import Known
from s3bu.parent import Parent, Parents
from s3bu.patience import Stopwatch
from s3bu.progress import Failure, Progress
from s3bu.publish import written
from s3bu.repository import Repository, layout
from s3bu.repository.state import State
from s3bu.scan import Scan
from s3bu.scan.found import entries
from s3bu.selection import Skipped
from s3bu.skips import Skips
from s3bu.spans import Unmodified, compare_spans

if TYPE_CHECKING:
    from s3bu.backup import Options

_OLDEST_UNCHANGED = timedelta(days=7)
"""A source without changes still gets a snapshot this often, so that one can see that it is backed up."""


class Ground:
    """What the sources of one run share: repository, index, and what of their knowledge may be trusted.

    `is_writing`: the run may pin recipients, and try what the storage can do; a plan may not.
    """

    def __init__(
        self,
        repository: Repository,
        index: Index,
        job: Job,
        options: "Options",
        progress: Progress,
        *,
        is_writing: bool = True,
    ) -> None:
        self.repository = repository
        self.index = index
        self.job = job
        self.options = options
        self.progress = progress
        self.known = Known(repository, index, progress)
        self.state = State({})
        self.looked = Stopwatch()
        self.is_writing = is_writing
        self.has_read_recipients = False

    def begin(self) -> None:
        """Look at the state of the repository, and decide what of the index's knowledge of it may be trusted."""
        self.state = self.repository.state()
        self.begin_recipients()
        if self.is_writing:
            self.repository.probe(self.job.name)
        if self.options.is_full:
            self.known.list(self.state, why="--full-scan asks for it")
        else:
            self.known.trust(self.state)

    def begin_recipients(self) -> None:
        """Check the recipients against the accepted ones, unless nothing moved since that was done."""
        if self.index.fact("recipients") != self._recipients_seen():
            self._accept_recipients()

    def _recipients_seen(self) -> str:
        """Return what says that the recipients are those that were last found to be the accepted ones."""
        etags = dict(self.state.etags)
        found = [etags.get(key) for key in (layout.RECIPIENTS, layout.FURTHER_RECIPIENTS)]
        return f"{self.repository.remembered.facts.recipients} {found}"

    def _accept_recipients(self) -> None:
        is_first_contact = self.repository.remembered.facts.recipients is None
        self.has_read_recipients = True
        recipients = self.repository.pinned_recipients(pins=self.is_writing)
        if is_first_contact and self.is_writing:
            self.progress.note(
                f"accepted the recipients {recipients.fingerprint}, as this machine sees them for the first time"
            )
        self.index.keep_fact("recipients", self._recipients_seen())

    def relist(self, why: str) -> None:
        """List what is stored, unless this run did already."""
        if not self.known.has_listed:
            self.known.list(self.state, why=why)

    def has_moved(self) -> bool:
        """Say whether a prune changed the state since the last look; if so, what is stored is listed again."""
        self.looked = Stopwatch()
        state = self.repository.state()
        if state == self.state:
            return False
        self.known.list(state, why="a prune moved something")
        self.state = state
        self.begin_recipients()
        return True


@dataclass(frozen=True, slots=True)
class Decision:
    """What the next snapshot of a source would be: `draft` says what is different from the newest one, `parent`.

    `number` is the source's in the index, `scanned_ns` when the scan began, `scan` knows what it could not take, and
    `view` how it looked.
    """

    ground: Ground
    number: int
    scanned_ns: int
    parents: Parents
    parent: Parent
    scan: Scan
    draft: Draft
    view: View

    @property
    def created(self) -> datetime:
        """When the scan began, in whole seconds as manifests have it."""
        return datetime.fromtimestamp(self.scanned_ns // 1_000_000_000, UTC)

    @property
    def guard(self) -> Guard | None:
        """What looks for alarming changes; a first snapshot changes nothing."""
        newest = self.parent.snapshot
        if newest is None:
            return None
        own = partial(self.parents.last_of, self.ground.options.host, newest)
        return Guard(self.ground.index, self.draft, newest, own)

    def news(self, counts: Mapping[str, int]) -> str | None:
        """Return why a snapshot is worth publishing, or `None`: it would tell nothing that the parent does not."""
        parent = self.parent.snapshot
        if self.parent.has_broken:
            return "the newest snapshot cannot be read"
        if parent is None:
            return "there is no snapshot yet"
        if any(counts.get(status) for status in (NEW, CHANGED, REMOVED)):
            return "something changed"
        if {written(failure) for failure in self.draft.failures()} != self._failed(parent):
            return "other paths fail"
        return "the last snapshot is a week old" if self.created - parent.created >= _OLDEST_UNCHANGED else None

    def _failed(self, parent: IndexedSnapshot) -> set[bytes]:
        return {failed.path for failed in self.ground.index.failed(parent)}


def parents_of(ground: Ground, source: Source) -> Parents:
    """Return what finds the snapshots of a source."""
    number = ground.index.source(ground.job.name, source.label)
    return Parents(
        ground.repository,
        ground.index,
        ground.known,
        ground.progress,
        ground.job.name,
        source.label,
        number,
        ground.relist,
    )


def decide(ground: Ground, source: Source) -> Decision:
    """Scan a source, and compare it with its newest snapshot."""
    index = ground.index
    number = index.source(ground.job.name, source.label)
    parents = parents_of(ground, source)
    parent = parents.newest()
    absent = _absent(ground, number)
    scanned_ns = time.time_ns()
    view = view_of(ground, source, number, parent, scanned_ns)
    scan, draft = _drafted(ground, source, number, parent, view, absent)
    why = doubt_of_look(view.looks) if view.looks is not None and view.why_full is None else None
    if why is not None:
        view.look_everywhere(why)
        scan, draft = _drafted(ground, source, number, parent, view, absent)
    for line in scan.left.odd:
        ground.progress.warning(line)
    return Decision(ground, number, scanned_ns, parents, parent, scan, draft, view)


def _drafted(
    ground: Ground, source: Source, number: int, parent: Parent, view: View, absent: set[bytes]
) -> tuple[Scan, Draft]:
    """Look at the source, and draft what the next snapshot says."""
    scanned_ns = view.began_ns
    skips = Skips(ground.index, is_trusted=ground.job.is_trusted)
    scan = _scan(ground, source, view, skips)
    ground.progress.phase(f"scanning {os.fsdecode(scan.root)}")
    created_us = parent.snapshot.created_us if parent.snapshot else None
    before_ns = 0 if created_us is None else created_us // 1_000_000 * 1_000_000_000 - RACY_NS
    trust = Trust(before_ns, ground.options.is_rehash)
    draft = Draft(ground.index, number, scanned_ns, ground.known.is_stored, skips)
    found = _differences(ground.index, number, scan, trust, absent, view)
    draft.fill(without_large(ground, number, view, found), absent, ground.progress)
    return scan, draft


def _scan(ground: Ground, source: Source, view: View, skips: Skips) -> Scan:
    def tell(skipped: Skipped) -> None:
        skips.tell(skipped)
        view.met.leave_out(skipped.path)

    witness = view.witness() if view.looks is None or view.why_full else view.looks
    return Scan(source.path, ground.job.filters, excluded=ground.options.excluded, tell=tell, witness=witness)


def _differences(
    index: Index, number: int, scan: Scan, trust: Trust, absent: set[bytes], view: View
) -> Iterator[Unmodified | Difference | Failure]:
    if view.looks is not None and view.why_full is None:
        return look(scan, view.looks, trust)
    if absent or trust.is_rehash:
        return compare(entries(scan), index.currents(number), trust)
    return compare_spans(index, number, scan, trust)


def _absent(ground: Ground, number: int) -> set[bytes]:
    """Return the files whose content is gone: what the index does not know is looked for before it is doubted."""
    absent = ground.known.absent(number)
    if absent and not ground.known.has_listed:
        ground.relist("the index does not know all contents of the last snapshot")
        absent = ground.known.absent(number)
    return absent
