"""One run of a backup: scan, compare, store what is new, publish one manifest a source.

Invariants: a manifest is put last, after every content that it names is known to be stored, and the index is told of
it after that; a failure is a value, never an entry and never a removal; a source that fails leaves the others alone.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from s3bu.compare import CHANGED, NEW, REMOVED, Difference, Trust, compare
from s3bu.draft import FAILED, RACY_NS, Draft
from s3bu.errors import JobError, S3buError, StorageError
from s3bu.history import keep_seen
from s3bu.index import Index
from s3bu.job import Job, Source
from s3bu.known import Known
from s3bu.parent import Parent, Parents
from s3bu.patience import Stopwatch
from s3bu.progress import Failure, Progress
from s3bu.publish import Publisher, written
from s3bu.repository import Repository, layout
from s3bu.repository.layout import ManifestKey
from s3bu.repository.state import State
from s3bu.rooted import Root
from s3bu.scan import Left, Scan, SourceMissingError, entries, reason
from s3bu.spans import Unmodified, compare_spans, renew
from s3bu.store import Gone, Result, Store, Stored

_OLDEST_UNCHANGED = timedelta(days=7)
"""A source without changes still gets a snapshot this often, so that one can see that it is backed up."""
_FEWEST_GUARDED = 100
_LOOKS = 5
"""How often a run looks whether a prune moved anything before it gives up; prunes are days apart."""
_KEPT_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `host` is this machine's name, `excluded` the (device, inode) of directories never to enter.

    With `is_full` nothing that the index knows of the repository is trusted: what is stored is listed again.
    """

    host: str
    is_compressing: bool = False
    is_rehash: bool = False
    accepts_deletions: bool = False
    excluded: frozenset[tuple[int, int]] = frozenset()
    is_full: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of one source.

    `published` is `None` when nothing had changed, or when `error` says why the source was not backed up at all.
    `counts` counts paths by status, `files` the files among them; `nfiles` and `nbytes` are what the snapshot holds,
    `nbytes_sent` what was stored. `started` is when the scan began, and `seconds` how long it all took.
    """

    label: str
    published: ManifestKey | None = None
    error: S3buError | None = None
    counts: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    started: datetime | None = None
    seconds: float = 0
    nfiles: int = 0
    nbytes: int = 0
    nbytes_sent: int = 0
    failures: list[Failure] = field(default_factory=list)
    left: Left = field(default_factory=Left)


class DeletionsRefusedError(S3buError):
    """More than half of a source vanished at once, which is more often an unmounted disk than a wish."""


def run(
    repository: Repository, index: Index, job: Job, sources: Iterable[Source], options: Options, progress: Progress
) -> list[Outcome]:
    """Back up these sources of a job, one after the other, and say what came of each.

    What concerns the whole run raises: no repository, changed recipients, refused or expired credentials, a storage
    that cannot be reached. What concerns one source is its outcome's `error`.
    """
    shared = _Run(repository, index, job, options, progress)
    shared.begin()
    return [_back_up(shared, source) for source in sources]


class _Run:
    """What the sources of one run share."""

    def __init__(self, repository: Repository, index: Index, job: Job, options: Options, progress: Progress) -> None:
        self.repository = repository
        self.index = index
        self.job = job
        self.options = options
        self.progress = progress
        self.known = Known(repository, index, progress)
        self.state = State({})
        self.looked = Stopwatch()
        self._store: Store | None = None

    def begin(self) -> None:
        """Look at the state of the repository, and decide what of the index's knowledge of it may be trusted."""
        self.state = self.repository.state()
        self.begin_recipients()
        self.repository.probe(self.job.name)
        if self.options.is_full:
            self.known.list(self.state)
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
        recipients = self.repository.pinned_recipients()
        if is_first_contact:
            self.progress.note(
                f"accepted the recipients {recipients.fingerprint}, as this machine sees them for the first time"
            )
        self.index.keep_fact("recipients", self._recipients_seen())

    def relist(self) -> None:
        """List what is stored, unless this run did already."""
        if not self.known.has_listed:
            self.known.list(self.state)

    def has_moved(self) -> bool:
        """Say whether a prune changed the state since the last look; if so, what is stored is listed again."""
        self.looked = Stopwatch()
        state = self.repository.state()
        if state == self.state:
            return False
        self.known.list(state)
        self.state = state
        self.begin_recipients()
        return True

    @property
    def store(self) -> Store:
        """What stores contents; the recipients are read and checked when the first one needs it."""
        if self._store is None:
            recipients = self.repository.pinned_recipients()
            self._store = Store(
                self.repository,
                recipients,
                self.known.contents,
                is_compressing=self.options.is_compressing,
                progress=self.progress,
            )
        return self._store

    @property
    def reasons(self) -> dict[str, str]:
        """Why contents could not be stored, by hash."""
        return self._store.failed if self._store else {}


def _back_up(shared: _Run, source: Source) -> Outcome:
    outcome = Outcome(source.label, started=datetime.now(UTC))
    began = time.monotonic()
    try:
        _Backup(shared, source, outcome).run()
    except (SourceMissingError, JobError, DeletionsRefusedError) as error:
        outcome.error = error
    outcome.seconds = time.monotonic() - began
    return outcome


class _Backup:
    """The backup of one source under way."""

    def __init__(self, shared: _Run, source: Source, outcome: Outcome) -> None:
        self._shared = shared
        self._source = source
        self._outcome = outcome
        self._index = shared.index
        self._number = shared.index.source(shared.job.name, source.label)
        self._scanned_ns = 0
        self._parents = Parents(
            shared.repository,
            shared.index,
            shared.known,
            shared.progress,
            shared.job.name,
            source.label,
            self._number,
            shared.relist,
        )
        self._parent = Parent(None, has_broken=False)

    def run(self) -> None:
        self._parent = self._parents.newest()
        scan = self._scan()
        self._outcome.left = scan.left
        draft = self._compare(scan)
        self._guard(draft)
        self._store(scan.root, draft)
        self._guard(draft)
        draft.settle(self._shared.reasons)
        if self._parent.has_broken or self._is_worth_publishing(draft):
            self._confirm(scan.root, draft)
            self._report(draft)
            self._publish(draft)
        else:
            self._report(draft)
            keep_seen(self._index, self._number, draft.seen())
            renew(self._index, self._number)
        if not self._outcome.failures:
            self._shared.known.keep_checked(self._number)

    # --- what differs

    def _scan(self) -> Scan:
        self._scanned_ns = time.time_ns()
        return Scan(self._source.path, self._shared.job.filters, excluded=self._shared.options.excluded)

    def _compare(self, scan: Scan) -> Draft:
        shared, parent = self._shared, self._parent.snapshot
        absent = self._absent()
        shared.progress.phase(f"scanning {os.fsdecode(scan.root)}")
        before_ns = parent.created_us // 1_000_000 * 1_000_000_000 - RACY_NS if parent else 0
        trust = Trust(before_ns, shared.options.is_rehash)
        draft = Draft(self._index, self._number, self._scanned_ns, shared.known.is_stored)
        draft.fill(self._differences(scan, trust, absent), absent, shared.progress)
        return draft

    def _differences(self, scan: Scan, trust: Trust, absent: set[bytes]) -> Iterator[Unmodified | Difference | Failure]:
        if absent or trust.is_rehash:
            return compare(entries(scan), self._index.currents(self._number), trust)
        return compare_spans(self._index, self._number, scan, trust)

    def _absent(self) -> set[bytes]:
        """Return the files whose content is gone: what the index does not know is looked for before it is doubted."""
        absent = self._shared.known.absent(self._number)
        if absent and not self._shared.known.has_listed:
            self._shared.relist()
            absent = self._shared.known.absent(self._number)
        return absent

    def _guard(self, draft: Draft) -> None:
        """Refuse to go on when more than half of at least a hundred files vanished since this machine's last run."""
        parent = self._parent.snapshot
        if parent is None or self._shared.options.accepts_deletions:
            return
        if draft.lost() < _FEWEST_GUARDED // 2:
            return  # nearly always: what vanished does not have to be counted exactly
        vanished, total = draft.vanished_since(parent)
        if not _is_suspicious(vanished, total):
            return
        own = self._parents.last_of(self._shared.options.host, parent)
        if own is not None:
            vanished, total = draft.vanished_since(own)
        if own is None or _is_suspicious(vanished, total):
            raise DeletionsRefusedError(
                f"{self._source.label}: {vanished:,} of {total:,} files vanished since the last snapshot; "
                "nothing published",
                hint="is the disk mounted? if they are meant to be gone, run again with --accept-deletions",
            )

    # --- storing

    def _store(self, root: bytes, draft: Draft) -> None:
        """Store the contents that are not known to be stored."""
        nfiles, nbytes = draft.wanted()
        if not nfiles:
            return
        self._shared.progress.phase("storing", files=nfiles, nbytes=nbytes)
        with _open_source(root) as opened, self._shared.known.adding():
            for results in _batched(self._shared.store.store(opened, draft.to_read()), self._shared.progress):
                self._keep(draft, results)

    def _keep(self, draft: Draft, results: list[Result]) -> None:
        sent = {one.entry.hash: one.nbytes_sent for one in results if isinstance(one, Stored) and one.nbytes_sent}
        self._shared.known.keep(sent)
        self._outcome.nbytes_sent += sum(sent.values())
        draft.keep_read(one.entry if isinstance(one, Stored) else one for one in results if not isinstance(one, Gone))
        for one in results:
            if isinstance(one, Gone):
                draft.remove(one.path)

    def _confirm(self, root: bytes, draft: Draft) -> None:
        """Make sure that all contents are stored as of a state that has not moved since.

        What a prune marked or deleted meanwhile is put again, from the source, and the draft is settled anew.
        """
        for _ in range(_LOOKS):
            if not self._shared.has_moved():
                return
            self._shared.progress.phase("checking what a prune left")
            draft.want(draft.absent())
            self._store(root, draft)
            self._guard(draft)
            draft.settle(self._shared.reasons)
        raise StorageError(
            f"{self._shared.repository.storage.url}: marks and epoch keep moving; nothing published",
            hint="run again when the prune is over; what was stored is kept",
        )

    # --- the snapshot

    def _is_worth_publishing(self, draft: Draft) -> bool:
        """Say whether the snapshot tells anything that the parent does not, or the parent is a week old."""
        counts, parent = draft.counts(), self._parent.snapshot
        if parent is None or counts.get(NEW) or counts.get(CHANGED) or counts.get(REMOVED):
            return True
        if {written(failure) for failure in draft.failures()} != {failed.path for failed in self._index.failed(parent)}:
            return True
        return self._created - parent.created >= _OLDEST_UNCHANGED

    @property
    def _created(self) -> datetime:
        """When the scan began, in whole seconds as manifests have it."""
        return datetime.fromtimestamp(self._scanned_ns // 1_000_000_000, UTC)

    def _report(self, draft: Draft) -> None:
        self._outcome.counts, self._outcome.files = Counter(draft.counts()), Counter(draft.file_counts())
        for counts in (self._outcome.counts, self._outcome.files):
            counts.pop(FAILED, None)
        self._outcome.nfiles, self._outcome.nbytes = draft.totals()
        for failure in draft.failures():
            self._outcome.failures.append(failure)
            self._shared.progress.failure(failure)
        if self._shared.progress.wants_changes:
            for change in draft.changes():
                self._shared.progress.change(change)

    def _publish(self, draft: Draft) -> None:
        shared = self._shared
        shared.progress.phase("publishing the snapshot")
        publisher = Publisher(
            shared.repository,
            self._index,
            shared.job.name,
            self._source.label,
            shared.options.host,
            self._created,
            self._parent.snapshot,
            shared.looked,
        )
        self._outcome.published = publisher.publish(draft, self._outcome.failures)


def _is_suspicious(vanished: int, total: int) -> bool:
    return total >= _FEWEST_GUARDED and vanished * 2 > total


def _open_source(path: bytes) -> Root:
    try:
        return Root(path)
    except OSError as error:
        raise SourceMissingError(
            f"{os.fsdecode(path)}: the source went away while it was backed up ({reason(error)})"
        ) from error


def _batched(results: Iterator[Result], progress: Progress) -> Iterator[list[Result]]:
    """Yield results in lists, also those that came before an error: what was stored is known, whatever comes then."""
    batch: list[Result] = []
    try:
        for result in results:
            progress.advance(files=1)
            batch.append(result)
            if len(batch) == _KEPT_AT_ONCE:
                yield batch
                batch = []
    except GeneratorExit:
        raise  # nobody takes anything any more
    except BaseException:
        yield batch
        raise
    yield batch
