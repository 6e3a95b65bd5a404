"""Delete the contents that no snapshot names, in two steps that are days apart: mark, then sweep.

Invariants (docs/format.md, "Marks and epoch"):
1. A mark stands for 72 hours by the storage's own clock before anything that it names is deleted; a backup that
   begins, or looks again, while it stands puts again what it needs of that, and that is another object.
2. A sweep replaces the epoch first, then reads every manifest, and deletes only objects that are marked, are older than
   their mark, are still the very object that was marked, and are named by none. Its marks go last.
3. Whatever is in doubt ends it before it deletes: a manifest that cannot be read or that vanishes, a key that nobody
   knows, clocks that disagree, marks or epoch that moved. Nothing that is only missing is ever a reason to delete.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby

from s3bu.errors import AccessDenied, IntegrityError, StorageError
from s3bu.parallel import each
from s3bu.patience import Stopwatch
from s3bu.progress import Progress
from s3bu.prune.manifests import Named, Reading, list_manifests
from s3bu.prune.marks import Mark, bump_epoch, check_readable, claimed, put_marks, read_all
from s3bu.repository import Repository
from s3bu.repository.layout import EPOCH, parse_content_key
from s3bu.storage import ObjectStat

WAIT = timedelta(hours=72)
"""So long a mark stands before what it names is deleted: longer than any backup takes between two looks."""
YOUNG = timedelta(days=7)
"""A content put so lately is not marked: the backup that put it may be under way, or go on after it was stopped."""
_ABANDONED = timedelta(days=14)
_SKEW = timedelta(minutes=15)
_BATCH = 500
_WORKERS = 8
_SWEEP_SECONDS = 12 * 3600
_BATCH_SECONDS = 600
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How to prune; with `is_dry` nothing is written or deleted."""

    is_dry: bool = False
    is_original_stopped: bool = False


@dataclass(slots=True)
class Amount:
    """A number of contents, and the bytes of their objects."""

    contents: int = 0
    nbytes: int = 0

    def add(self, nbytes: int) -> None:
        """Count one more."""
        self.contents += 1
        self.nbytes += nbytes


@dataclass(slots=True)
class Outcome:
    """What came of a prune, or would come of it.

    `deleted` counts every version of a content by itself; `kept` are marked contents that were named or put again
    since; `waiting` are those whose mark is not old enough, until `due`. `older` are versions that nothing lists any
    more, and that a prune leaves. `requests` counts by kind.
    """

    deleted: Amount = field(default_factory=Amount)
    kept: Amount = field(default_factory=Amount)
    marked: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    needed: Amount = field(default_factory=Amount)
    young: Amount = field(default_factory=Amount)
    older: Amount = field(default_factory=Amount)
    due: datetime | None = None
    uploads: int = 0
    requests: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found in `data/`: the objects to delete, and hash and ETag of the contents to mark."""

    doomed: list[ObjectStat]
    unmarked: list[tuple[bytes, str]]
    nobjects: int


def run(repository: Repository, options: Options, progress: Progress) -> Outcome:
    """Mark what no snapshot names, and delete what is marked and due."""
    return _Prune(repository, options, progress).run()


class _Prune:
    """One prune under way."""

    def __init__(self, repository: Repository, options: Options, progress: Progress) -> None:
        self._repository = repository
        self._storage = repository.storage
        self._options = options
        self._progress = progress
        self._outcome = Outcome()
        self._now = check_clocks(repository)
        self._began = self._checked = Stopwatch()
        self._guarded: dict[str, str] = {}

    def run(self) -> Outcome:
        _ = self._repository.recipients()  # says so when this is no repository
        manifests = list_manifests(self._repository)
        if not manifests:
            raise IntegrityError(
                f"{self._storage.url}: there is not one snapshot, so everything would go; nothing was deleted",
                hint="is it the right place? who wants nothing of it deletes the bucket or directory",
            )
        if not self._options.is_dry:
            self._repository.probe(next(iter(manifests)).job)
        marks = self._marks()
        due = [mark for mark in marks if self._now - mark.stat.modified >= WAIT]
        with claimed(self._storage, self._now) if due and not self._options.is_dry else nullcontext() as claim:
            found = self._look(marks, due, claim)
            if not self._options.is_dry:
                self._mark(found)
                self._sweep(found, due)
        self._abandon()
        self._count_requests(found, len(manifests))
        return self._outcome

    # --- looking

    def _marks(self) -> list[Mark]:
        self._progress.phase("reading marks")
        marks = read_all(self._repository, self._storage.list("repo/"))
        for mark in marks:
            check_readable(mark)
        waiting = [mark.stat.modified + WAIT for mark in marks if self._now - mark.stat.modified < WAIT]
        self._outcome.due = min(waiting, default=None)
        return marks

    def _look(self, marks: list[Mark], due: list[Mark], claim: ObjectStat | None) -> _Found:
        """Find out what may be deleted, and what is to be marked; the epoch is replaced before anything is read."""
        if claim is not None:
            self._replace_epoch(due, claim)
        named = Reading(
            self._repository, self._progress, self._now, is_original_stopped=self._options.is_original_stopped
        ).read()
        found = self._compare(named, marks, due)
        if claim is not None:
            self._check_unmoved()
        return found

    def _replace_epoch(self, due: list[Mark], claim: ObjectStat) -> None:
        """Replace the epoch, and take note of all that must not move from now on until the last object is gone."""
        bump_epoch(self._storage, self._now)
        state = {stat.key: stat for stat in self._storage.list("repo/")}
        expected = {claim.key: claim.etag} | {mark.stat.key: mark.stat.etag for mark in due}
        if EPOCH not in state:
            raise StorageError(f"{EPOCH}: not listed after it was put; nothing was deleted", hint="run again later")
        self._guarded = expected | {EPOCH: state[EPOCH].etag}
        self._compare_state({key: stat.etag for key, stat in state.items()})
        # Both times are the storage's own, of what it stored itself: no other clock takes part.
        early = [mark for mark in due if state[EPOCH].modified - mark.stat.modified < WAIT]
        if early:
            raise StorageError(
                f"{early[0].stat.key}: stands for less than 72 hours by the storage's clock; nothing was deleted",
                hint="run again later",
            )

    def _check_unmoved(self) -> None:
        """Make sure that claim, epoch and marks are what they were; else another machine is at it."""
        self._checked = Stopwatch()
        self._compare_state({stat.key: stat.etag for stat in self._storage.list("repo/")})
        if self._began.seconds >= _SWEEP_SECONDS:
            raise StorageError("this prune took too long to be sure of what it read", hint="run it again")

    def _compare_state(self, etags: dict[str, str]) -> None:
        moved = [key for key, etag in self._guarded.items() if etags.get(key) != etag]
        if moved:
            raise StorageError(
                f"{moved[0]}: changed since this prune began, so another one is under way; it stopped deleting",
                hint="run again when the other one is done",
            )

    def _compare(self, named: Named, marks: list[Mark], due: list[Mark]) -> _Found:
        """List `data/` once, and sort what lies there by what is to become of it."""
        self._progress.phase("listing contents")
        found = _Found([], [], 0)
        waiting = {digest for mark in marks if mark not in due for digest in mark.etags}
        nobjects = 0
        for digest, versions in self._contents():
            nobjects += len(versions)
            is_doomed = False
            if digest in named.hashes:
                self._outcome.needed.add(versions[0].nbytes)
                if any(digest in mark.etags for mark in due):
                    self._outcome.kept.add(versions[0].nbytes)
            elif any(_is_doomed(digest, versions[0], mark) for mark in due):
                is_doomed = True
                found.doomed.extend(versions)
            else:
                self._sort(digest, versions[0], due, waiting, found)
            for version in versions[1:]:
                if not is_doomed:
                    self._outcome.older.add(version.nbytes)
        if self._options.is_dry:
            for stat in found.doomed:
                self._outcome.deleted.add(stat.nbytes)
        return _Found(found.doomed, found.unmarked, nobjects)

    def _contents(self) -> Iterator[tuple[bytes, list[ObjectStat]]]:
        """Yield each content with its object, or all versions of it, the newest first."""
        for key, group in groupby(self._storage.versions("data/"), key=lambda stat: stat.key):
            content_hash = parse_content_key(key)
            if content_hash:
                yield bytes.fromhex(content_hash), list(group)

    def _sort(self, digest: bytes, stat: ObjectStat, due: list[Mark], waiting: set[bytes], found: _Found) -> None:
        """Count a content that no snapshot names and that stays this time; note it if it is to be marked."""
        if any(digest in mark.etags for mark in due):
            self._outcome.kept.add(stat.nbytes)
        if digest in waiting:
            self._outcome.waiting.add(stat.nbytes)
        elif self._now - stat.modified < YOUNG:
            self._outcome.young.add(stat.nbytes)
        else:
            self._outcome.marked.add(stat.nbytes)
            found.unmarked.append((digest, stat.etag))

    # --- writing

    def _mark(self, found: _Found) -> None:
        if found.unmarked:
            self._progress.phase("marking")
            put_marks(self._storage, found.unmarked, self._now)
            if self._outcome.due is None:
                self._outcome.due = self._now + WAIT

    def _sweep(self, found: _Found, due: list[Mark]) -> None:
        """Delete, a batch after the other, each only while nothing moved; then drop the marks that are done with."""
        nbytes = sum(stat.nbytes for stat in found.doomed)
        if found.doomed:
            self._progress.phase("deleting", files=len(found.doomed), nbytes=nbytes, noun="object")
        for batch in _batched(found.doomed):
            self._check_unmoved()
            for stat, was_there in each(self._remove, batch, workers=_WORKERS, give_up=self._storage.stop):
                (self._outcome.deleted if was_there else self._outcome.kept).add(stat.nbytes)
                self._progress.advance(files=1, nbytes=stat.nbytes)
        if due:
            self._check_unmoved()
        for mark in due:
            self._storage.remove(mark.stat)

    def _remove(self, stat: ObjectStat) -> tuple[ObjectStat, bool]:
        if self._checked.seconds >= _BATCH_SECONDS:
            raise StorageError("this machine slept, or is too slow, while it deleted; it stopped", hint="run it again")
        return stat, self._storage.remove(stat)

    def _abandon(self) -> None:
        """Abort uploads that were begun long ago and that nobody will end; nothing else depends on it."""
        try:
            for upload in list(self._storage.unfinished()):
                if self._now - upload.begun >= _ABANDONED:
                    self._outcome.uploads += 1
                    if not self._options.is_dry:
                        self._storage.abandon(upload)
        except AccessDenied as error:
            hint = f" ({error.hint})" if error.hint else ""
            self._progress.warning(f"uploads that nobody ended are left: {error.message}{hint}")

    def _count_requests(self, found: _Found, nmanifests: int) -> None:
        pages = -(-found.nobjects // _PAGE)
        outcome = self._outcome
        self._outcome.requests = {
            "list": 8 + pages + -(-len(found.doomed) // _BATCH),
            "get": nmanifests + 2,
            "put": -(-len(found.unmarked) // 40_000) + (2 if found.doomed else 0),
            "delete": len(found.doomed) + outcome.uploads,
        }


def _is_doomed(digest: bytes, stat: ObjectStat, mark: Mark) -> bool:
    """Say whether an object is the one that was marked, and older than the mark."""
    return mark.etags.get(digest) == stat.etag and stat.modified < mark.stat.modified


def _batched(stats: Sequence[ObjectStat]) -> Iterator[Sequence[ObjectStat]]:
    return (stats[start : start + _BATCH] for start in range(0, len(stats), _BATCH))


@dataclass(frozen=True, slots=True)
class Standing:
    """One object of marks: since when it stands, when it is due, and what there is left to delete by it."""

    key: str
    since: datetime
    due: datetime
    left: Amount


def standing(repository: Repository, progress: Progress) -> list[Standing]:
    """Return what is marked and still there, by one listing of `repo/` and one of `data/`."""
    _ = repository.recipients()
    progress.phase("reading marks")
    marks = read_all(repository, repository.storage.list("repo/"))
    found = [Standing(one.stat.key, one.stat.modified, one.stat.modified + WAIT, Amount()) for one in marks]
    if marks:
        progress.phase("listing contents")
        for stat in repository.storage.versions("data/"):
            content_hash = parse_content_key(stat.key)
            for mark, one in zip(marks, found, strict=True):
                if content_hash and mark.etags.get(bytes.fromhex(content_hash)) == stat.etag:
                    one.left.add(stat.nbytes)
    return found


def check_clocks(repository: Repository) -> datetime:
    """Return what time it is at the storage; `StorageError` when this machine does not agree."""
    before = datetime.now(UTC)
    now = repository.storage.now()
    apart = max(before - now, now - datetime.now(UTC))
    if apart > _SKEW:
        raise StorageError(
            f"{repository.storage.url}: its clock and this machine's are {apart.total_seconds() / 60:,.0f} minutes "
            "apart, and one of them is wrong; nothing was deleted",
            hint="set the clock; more than 15 minutes are not taken",
        )
    return now
