"""One run of a backup: scan, compare, store what is new, publish one manifest a source.

Invariants: a manifest is put last, after every content that it names is known to be stored, and the index is told of
it after that; a failure is a value, never an entry and never a removal; a source that fails leaves the others alone.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s3bu.backup.deciding import Decision, Ground, decide
from s3bu.draft import FAILED, Draft
from s3bu.errors import JobError, S3buError, StorageError
from s3bu.guard import CHANGED, VANISHED
from s3bu.history import keep_seen
from s3bu.index import Index
from s3bu.job import Job, Source
from s3bu.journal import Journal
from s3bu.progress import Failure, Progress
from s3bu.publish import Publisher
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey
from s3bu.rooted import Root
from s3bu.scan.found import Excluded, Left, reason
from s3bu.scan.source import SourceMissingError
from s3bu.spans import renew
from s3bu.store import Gone, Result, Store, Stored

_LOOKS = 5
"""How often a run looks whether a prune moved anything before it gives up; prunes are days apart."""
_KEPT_AT_ONCE = 500
_HINTS = {
    VANISHED: "is the disk mounted? if they are meant to be gone, accept that",
    CHANGED: "did you change them? if not, find out what did before anything else; if so, accept that",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `host` is this machine's name, `excluded` are directories never to enter.

    With `is_full` nothing that the index knows of the repository is trusted: what is stored is listed again.
    `journal` is where a watcher records what changes, if there is one; a file over 256 MiB is taken again at most
    every `large_seconds`.
    """

    host: str
    is_compressing: bool = False
    is_rehash: bool = False
    accepts_deletions: bool = False
    excluded: Excluded = field(default_factory=dict)
    is_full: bool = False
    journal: Journal | None = None
    large_seconds: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of one source.

    `published` is `None` when nothing had changed, or when `error` says why the source was not backed up at all.
    `counts` counts paths by status, `files` the files among them; `nfiles` and `nbytes` are what the snapshot holds,
    `nbytes_sent` what was stored. `why_full` is why all of the source was looked at, `None` where only what changed
    was; `nunwatched` directories were looked at whole even so, and `ndeferred` large files are to be taken later.
    `started` is when the scan began, and `seconds` how long it all took.
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
    why_full: str | None = None
    ndeferred: int = 0
    nunwatched: int = 0
    manifest_nbytes: int | None = None


class DeletionsRefusedError(S3buError):
    """More than half of a source vanished or changed at once, which is more often an accident than a wish."""


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


class _Run(Ground):
    """What the sources of one run share, and what stores their contents."""

    def __init__(self, repository: Repository, index: Index, job: Job, options: Options, progress: Progress) -> None:
        super().__init__(repository, index, job, options, progress)
        self._store: Store | None = None

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

    def run(self) -> None:
        decision = decide(self._shared, self._source)
        root, draft = decision.scan.root, decision.draft
        if decision.view.why_full is not None:
            self._outcome.left = decision.scan.left  # where only some paths were looked at, it tells of these alone
        self._outcome.why_full = decision.view.why_full
        self._outcome.ndeferred = len(decision.view.deferred)
        self._guard(decision)
        self._store(root, draft)
        self._guard(decision)
        draft.settle(self._shared.reasons)
        if decision.news(draft.counts()):
            self._confirm(decision)
            self._report(draft)
            self._publish(decision)
        else:
            self._report(draft)
            keep_seen(self._index, decision.number, draft.seen())
            renew(self._index, decision.number)
        if not self._outcome.failures:
            self._shared.known.keep_checked(decision.number)
        published, newest = self._outcome.published, decision.parent.snapshot
        decision.view.finish(self._index, draft, decision.number, published, newest)
        self._outcome.nunwatched = decision.view.nunwatched

    def _guard(self, decision: Decision) -> None:
        """Refuse to go on when more than half of the files vanished or changed since this machine's last run."""
        guard = decision.guard
        if guard is None or self._shared.options.accepts_deletions:
            return
        alarm = guard.alarm()
        if alarm is not None and (alarm.what == VANISHED or not decision.draft.wanted()[0]):
            message = f"{self._source.label}: {alarm}; nothing published"
            raise DeletionsRefusedError(message, hint=_HINTS[alarm.what])

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

    def _confirm(self, decision: Decision) -> None:
        """Make sure that all contents are stored as of a state that has not moved since.

        What a prune marked or deleted meanwhile is put again, from the source, and the draft is settled anew.
        """
        draft = decision.draft
        for _ in range(_LOOKS):
            if not self._shared.has_moved():
                return
            self._shared.progress.phase("checking what a prune left")
            draft.want(draft.absent())
            self._store(decision.scan.root, draft)
            self._guard(decision)
            draft.settle(self._shared.reasons)
        raise StorageError(
            f"{self._shared.repository.storage.url}: marks and epoch keep moving; nothing published",
            hint="run again when the prune is over; what was stored is kept",
        )

    # --- the snapshot

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

    def _publish(self, decision: Decision) -> None:
        shared = self._shared
        shared.progress.phase("publishing the snapshot")
        publisher = Publisher(
            shared.repository,
            self._index,
            shared.job.name,
            self._source.label,
            shared.options.host,
            decision.created,
            decision.parent.snapshot,
            shared.looked,
        )
        stored = publisher.publish(decision.draft, self._outcome.failures)
        self._outcome.published, self._outcome.manifest_nbytes = stored.key, stored.nbytes


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
