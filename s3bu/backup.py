"""One run of a backup: scan, compare, store what is new, publish one manifest a source.

Invariants: a manifest is put last, after every content that it names is known to be stored, whatever a prune did
meanwhile; a failure is a value, never an entry and never a removal; a source that fails leaves the others alone.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from s3bu.compare import CARRIED, CHANGED, NEW, REMOVED, UNMODIFIED, Difference, Trust, carried, compare, is_same
from s3bu.errors import IntegrityError, JobError, ObjectExists, S3buError, StorageError
from s3bu.job import Job, Source
from s3bu.manifest import (
    FAILED_PATH_BOUND,
    FILE,
    Entry,
    FailedPath,
    Header,
    format_entry,
    format_failed,
    is_representable,
)
from s3bu.progress import Failure, Progress
from s3bu.repository import Contents, Repository, Snapshot, StoredManifest
from s3bu.repository.layout import ManifestKey, next_manifest_key
from s3bu.rooted import Root
from s3bu.scan import Left, Scan, SourceMissingError, reason
from s3bu.store import Store, Stored

_RACY_NS = 2_000_000_000
"""An mtime this close to the parent's scan may hide a second write within the clock's tick."""
_OLDEST_UNCHANGED = timedelta(days=7)
"""A source without changes still gets a snapshot this often, so that one can see that it is backed up."""
_FEWEST_GUARDED = 100
_PUBLISH_ATTEMPTS = 20
_LOOKS = 5
"""How often a run looks whether a prune moved anything before it gives up; prunes are days apart."""
_HOST_SEARCH = 10
"""How many manifests are read back to find this machine's own, where several share a label."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `host` is this machine's name, `excluded` the (device, inode) of directories never to enter."""

    host: str
    is_compressing: bool = False
    is_rehash: bool = False
    accepts_deletions: bool = False
    excluded: frozenset[tuple[int, int]] = frozenset()


@dataclass(slots=True)
class Outcome:
    """What came of one source.

    `published` is `None` when nothing had changed, or when `error` says why the source was not backed up at all.
    `counts` counts paths by status; `nfiles` and `nbytes` are what the snapshot holds, `nbytes_sent` what was stored.
    """

    label: str
    published: ManifestKey | None = None
    error: S3buError | None = None
    counts: Counter[str] = field(default_factory=Counter)
    nfiles: int = 0
    nbytes: int = 0
    nbytes_sent: int = 0
    failures: list[Failure] = field(default_factory=list)
    left: Left = field(default_factory=Left)


class DeletionsRefusedError(S3buError):
    """More than half of a source vanished at once, which is more often an unmounted disk than a wish."""


class Known:
    """The contents that a run deduplicates against, as of a state of the repository that it read before listing."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._state = repository.state()
        self.contents = repository.contents(repository.marked(self._state))

    def has_moved(self) -> bool:
        """Say whether a prune changed the state since the last look; if so, `contents` is narrowed to what is left.

        Only marks that are new take anything away: what this run put after it had seen a mark is younger than that.
        """
        state = self._repository.state()
        if state == self._state:
            return False
        self.contents.narrow(self._repository.contents(self._repository.marked(state.since(self._state))))
        self._state = state
        return True


@dataclass(frozen=True, slots=True)
class _Run:
    """What the sources of one run share."""

    repository: Repository
    job: Job
    options: Options
    progress: Progress
    known: Known
    store: Store

    @property
    def contents(self) -> Contents:
        return self.known.contents


@dataclass(slots=True)
class _Work:
    """One source under way: what the scan found, as far as it still holds, and by path what came of reading it."""

    scan: Scan
    manifests: list[StoredManifest]
    parent: Snapshot | None
    differences: list[Difference | Failure]
    outcome: Outcome
    results: dict[bytes, Entry | Failure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a snapshot comes from: when its scan began, and what it was compared with."""

    created: datetime
    parent: Snapshot | None


def run(
    repository: Repository, job: Job, sources: Iterable[Source], options: Options, progress: Progress
) -> list[Outcome]:
    """Back up these sources of a job, one after the other, and say what came of each.

    What concerns the whole run raises: no repository, changed recipients, refused or expired credentials, a storage
    that cannot be reached. What concerns one source is its outcome's `error`.
    """
    is_first_contact = repository.remembered.facts.recipients is None
    recipients = repository.pinned_recipients()
    if is_first_contact:
        progress.note(f"accepted the recipients {recipients.fingerprint}, as this machine sees them for the first time")
    repository.probe(job.name)
    progress.phase("listing what is stored")
    known = Known(repository)
    store = Store(repository, recipients, known.contents, is_compressing=options.is_compressing, progress=progress)
    shared = _Run(repository, job, options, progress, known, store)
    return [_back_up(shared, source) for source in sources]


def _back_up(shared: _Run, source: Source) -> Outcome:
    outcome = Outcome(source.label)
    try:
        manifests = shared.repository.manifests(shared.job.name, source.label)
        parent = _read_parent(shared, manifests)
        created = datetime.fromtimestamp(int(time.time()), UTC)
        scan = Scan(source.path, shared.job.filters, excluded=shared.options.excluded)
        outcome.left = scan.left
        work = _Work(scan, manifests, parent, _compare(shared, scan, parent), outcome)
        _guard(shared, work)
        _store(shared, work)
        settling = _Settling(shared, outcome, parent, created, work.results)
        lines = list(settling.lines(work.differences))
        has_broken = bool(manifests) and (parent is None or parent.key != manifests[-1].key)
        if has_broken or settling.is_worth_publishing():
            lines = _confirm(shared, work, settling, lines)
            outcome.published = _publish(shared, source, Origin(created, parent), lines)
    except (SourceMissingError, JobError, DeletionsRefusedError) as error:
        outcome.error = error
    return outcome


def _store(shared: _Run, work: _Work) -> None:
    """Store the contents that are not known to be stored."""
    gone = _read(shared, work)
    if gone:
        work.differences = list(_removed(work.differences, gone))
        _guard(shared, work)


def _confirm(shared: _Run, work: _Work, settling: "_Settling", lines: list[bytes]) -> list[bytes]:
    """Return lines whose contents are all stored as of a state that has not moved since.

    What a prune marked or deleted meanwhile is put again, from the source, and the lines are settled anew.
    """
    for _ in range(_LOOKS):
        if not shared.known.has_moved():
            return lines
        shared.progress.phase("checking what a prune left")
        _store(shared, work)
        lines = list(settling.lines(work.differences))
    raise StorageError(
        f"{shared.repository.storage.url}: marks and epoch keep moving; nothing published",
        hint="run again when the prune is over; what was stored is kept",
    )


def _read_parent(shared: _Run, manifests: list[StoredManifest]) -> Snapshot | None:
    """Return the newest snapshot that can be read; a broken one is told and passed over, and costs only time."""
    for manifest in reversed(manifests):
        shared.progress.phase("reading the last snapshot")
        try:
            parent = shared.repository.read_snapshot(manifest.key)
        except IntegrityError as error:
            shared.progress.warning(f"{error.message}; comparing with an older snapshot instead")
            continue
        for warning in parent.warnings:
            shared.progress.warning(warning)
        return parent
    return None


def _compare(shared: _Run, scan: Scan, parent: Snapshot | None) -> list[Difference | Failure]:
    shared.progress.phase(f"scanning {os.fsdecode(scan.root)}")
    before_ns = int(parent.created.timestamp()) * 1_000_000_000 - _RACY_NS if parent else 0
    trust = Trust(before_ns, shared.options.is_rehash)
    differences = []
    for difference in compare(scan, parent.entries if parent else (), trust):
        differences.append(difference)
        shared.progress.advance(files=1)
    return differences


def _guard(shared: _Run, work: _Work) -> None:
    """Refuse to go on when more than half of at least a hundred files vanished since this machine's last snapshot."""
    parent = work.parent
    if parent is None or shared.options.accepts_deletions:
        return
    present = {one.entry.path for one in work.differences if isinstance(one, Difference) and one.entry is not None}
    vanished, total = _vanished(parent, present)
    if not _is_suspicious(vanished, total):
        return
    own = _own_last(shared, work.manifests, parent)
    if own is not None:
        vanished, total = _vanished(own, present)
    if own is None or _is_suspicious(vanished, total):
        raise DeletionsRefusedError(
            f"{parent.key.label}: {vanished:,} of {total:,} files vanished since the last snapshot; nothing published",
            hint="is the disk mounted? if they are meant to be gone, run again with --accept-deletions",
        )


def _vanished(snapshot: Snapshot, present: set[bytes]) -> tuple[int, int]:
    files = [entry for entry in snapshot.entries if entry.kind == FILE]
    return sum(entry.path not in present for entry in files), len(files)


def _is_suspicious(vanished: int, total: int) -> bool:
    return total >= _FEWEST_GUARDED and vanished * 2 > total


def _own_last(shared: _Run, manifests: list[StoredManifest], parent: Snapshot) -> Snapshot | None:
    """Return this machine's last snapshot where another one made the newest: two may back up under one label."""
    if parent.header is None or parent.header.host == shared.options.host:
        return parent
    older = [manifest.key for manifest in manifests if manifest.key < parent.key]
    for key in reversed(older[-_HOST_SEARCH:]):
        try:
            with shared.repository.open_manifest(key) as (manifest, _):
                host = manifest.header.host if manifest.header else None
            if host == shared.options.host:
                return shared.repository.read_snapshot(key)
        except IntegrityError as error:
            shared.progress.warning(f"{error.message}; looking for an older snapshot of this machine")
    return None


def _read(shared: _Run, work: _Work) -> set[bytes]:
    """Store the contents that must be read, note what came of each, and return the paths that were removed."""
    gone: set[bytes] = set()
    wanted = list(_to_read(work, shared.contents))
    if not wanted:
        return gone
    shared.progress.phase("storing", files=len(wanted), nbytes=sum(entry.nbytes for entry in wanted))
    with _open_source(work.scan.root) as root:
        for result in shared.store.store(root, wanted):
            if isinstance(result, Stored):
                work.results[result.entry.path] = result.entry
                work.outcome.nbytes_sent += result.nbytes_sent
            elif isinstance(result, Failure):
                work.results[result.path] = result
            else:
                gone.add(result.path)
            shared.progress.advance(files=1)
    return gone


def _open_source(path: bytes) -> Root:
    try:
        return Root(path)
    except OSError as error:
        raise SourceMissingError(
            f"{os.fsdecode(path)}: the source went away while it was backed up ({reason(error)})"
        ) from error


def _removed(differences: Iterable[Difference | Failure], gone: set[bytes]) -> Iterator[Difference | Failure]:
    """Yield the differences as they are without the files that were removed after the scan had seen them."""
    for one in differences:
        if isinstance(one, Failure) or one.entry is None or one.entry.path not in gone:
            yield one
        elif one.previous is not None:
            yield Difference(REMOVED, None, one.previous)


def _to_read(work: _Work, contents: Contents) -> Iterator[Entry]:
    """Yield the files whose content is unknown, or known and gone from the repository: then it is put again.

    One that was read before is judged by what was found then, and not tried again if that failed.
    """
    for one in work.differences:
        if isinstance(one, Failure) or one.entry is None or one.entry.kind != FILE or one.status == CARRIED:
            continue
        entry = work.results.get(one.entry.path, one.entry)
        if isinstance(entry, Failure) or not is_representable(entry):
            continue
        if not (entry.hash and bytes.fromhex(entry.hash) in contents.stored):
            yield entry


class _Settling:
    """Turns differences and what came of reading them into the lines of a manifest, counting on the way.

    Lines may be made anew when more was read: then it counts from the start, and tells only failures that are new.
    """

    def __init__(
        self,
        shared: _Run,
        outcome: Outcome,
        parent: Snapshot | None,
        created: datetime,
        results: dict[bytes, Entry | Failure],
    ) -> None:
        self._shared = shared
        self._outcome = outcome
        self._parent = parent
        self._created = created
        self._results = results
        self._since = {failed.path: failed.since for failed in parent.failed} if parent else {}
        self._told: set[Failure] = set()

    def is_worth_publishing(self) -> bool:
        """Say whether the snapshot tells anything that the parent does not, or the parent is a week old."""
        counts = self._outcome.counts
        if self._parent is None or counts[NEW] or counts[CHANGED] or counts[REMOVED]:
            return True
        if {_written(failure) for failure in self._outcome.failures} != self._since.keys():
            return True
        return self._created - self._parent.created >= _OLDEST_UNCHANGED

    def lines(self, differences: Iterable[Difference | Failure]) -> Iterator[bytes]:
        """Yield the manifest's lines between header and trailer, in order."""
        self._outcome.counts.clear()
        self._outcome.failures.clear()
        self._outcome.nfiles = self._outcome.nbytes = 0
        for difference in differences:
            if isinstance(difference, Failure):
                yield self._fail(difference)
            elif difference.entry is None:
                self._outcome.counts[REMOVED] += 1
            else:
                yield from self._settle(difference)

    def _settle(self, difference: Difference) -> Iterator[bytes]:
        entry, previous = difference.entry, difference.previous
        assert entry is not None
        result = self._good(self._results.get(entry.path, entry))
        if isinstance(result, Failure):
            if not self._has_just_failed(result.path):
                yield self._fail(result)
            if previous is not None and self._can_be_carried(previous):
                yield self._count(carried(previous), CARRIED)
        elif difference.status == CARRIED:
            yield self._count(result, CARRIED)
        elif previous is None:
            yield self._count(result, NEW)
        elif is_same(result, previous):
            yield self._count(result, UNMODIFIED)
        else:
            yield self._count(result, CHANGED)

    def _good(self, result: Entry | Failure) -> Entry | Failure:
        """Return the entry, or why there is none: the read failed, or the content that it names did not get there."""
        if isinstance(result, Failure):
            return result
        if not is_representable(result):
            return Failure(result.path, "its name is too long for a manifest")
        if result.kind == FILE and not self._is_stored(result):
            why = self._shared.store.failed.get(result.hash, "its content is not stored any more")
            return Failure(result.path, why)
        return result

    def _can_be_carried(self, previous: Entry) -> bool:
        return previous.kind == FILE and self._is_stored(previous) and is_representable(previous)

    def _is_stored(self, entry: Entry) -> bool:
        return bool(entry.hash) and bytes.fromhex(entry.hash) in self._shared.contents.stored

    def _count(self, entry: Entry, status: str) -> bytes:
        self._outcome.counts[status] += 1
        if entry.kind == FILE:
            self._outcome.nfiles += 1
            self._outcome.nbytes += entry.nbytes
        return format_entry(entry, is_carried_forward=status == CARRIED)

    def _has_just_failed(self, path: bytes) -> bool:
        """Say whether the failure of a path is told: what is carried forward follows the scan's failure of it."""
        failures = self._outcome.failures
        return bool(failures) and failures[-1].path == path

    def _fail(self, failure: Failure) -> bytes:
        self._outcome.failures.append(failure)
        if failure not in self._told:
            self._told.add(failure)
            self._shared.progress.failure(failure)
        since = self._since.get(_written(failure), self._created.isoformat())
        return format_failed(FailedPath(failure.path, failure.error, since))


def _written(failure: Failure) -> bytes:
    """Return the path of a failure as the manifest has it."""
    return failure.path[:FAILED_PATH_BOUND]


def _publish(shared: _Run, source: Source, origin: Origin, lines: list[bytes]) -> ManifestKey:
    """Put the manifest under the next free key; another machine may take one in the same second.

    The label is listed again, since a snapshot that was made elsewhere meanwhile must not come after this one.
    """
    shared.progress.phase("publishing the snapshot")
    manifests = shared.repository.manifests(shared.job.name, source.label)
    newest = manifests[-1].key if manifests else None
    for _ in range(_PUBLISH_ATTEMPTS):
        key = next_manifest_key(shared.job.name, source.label, newest, datetime.now())
        header = Header(
            key=str(key),
            job=shared.job.name,
            label=source.label,
            host=shared.options.host,
            created=origin.created,
            parent=str(origin.parent.key) if origin.parent else "",
        )
        try:
            shared.repository.put_manifest(header, lines)
        except ObjectExists:
            newest = key
        else:
            return key
    raise StorageError(f"{newest}: other runs keep taking the next key", hint="run again a little later")
