"""Bring the index up to the repository: take in what is new, let go what is gone, and say what was altered.

The manifests of a label are read in order, each compared line by line with the one before it, so that a snapshot costs
no more than reading it and its changes. Passphrases, which take about a second each, are worked on ahead.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s3bu.errors import IntegrityError, ObjectNotFound, PassphraseNotFoundError, S3buError
from s3bu.history import Facts, before, holds_any, let_go, take_in, take_in_changes, take_in_failed, whole
from s3bu.index import Index, IndexedSnapshot
from s3bu.known import Known
from s3bu.manifest import Entry, FailedPath
from s3bu.manifest.reader import ManifestReader, parse_lines
from s3bu.progress import Progress
from s3bu.repository import Repository, StoredManifest

_AHEAD = 2
"""So many manifests are opened while another one is taken in."""


@dataclass(slots=True)
class Outcome:
    """What came of it: keys of manifests that were taken in, that vanished, that were altered, and by key what failed.

    An altered manifest is taken in anew, and stands under `taken` or `failed` too; one that says that it was rewritten
    is not altered. `locked` are those of the failed
    ones that no passphrase opens.
    """

    taken: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A manifest open for reading; `stack` closes it."""

    stack: ExitStack
    reader: ManifestReader
    created: datetime


@dataclass(slots=True)
class _Previous:
    """The lines of the manifest read last, and its snapshot, where all its paths are different ones."""

    snapshot: IndexedSnapshot | None = None
    lines: set[bytes] = field(default_factory=set)


class _DiffersOddlyError(S3buError):
    """Line by line it cannot be told what differs: a path comes twice."""


def sync(repository: Repository, index: Index, progress: Progress) -> Outcome:
    """Take in the manifests of all jobs that can be opened, in order; what cannot be is told and kept as such.

    A manifest that is gone or was altered since it was read is said loudly. `PassphraseNotFoundError` when there are
    manifests and not one can be opened for want of a passphrase.
    """
    progress.phase("listing snapshots")
    listed = repository.manifests()
    if not listed:
        _ = repository.recipients()  # says so when this is no repository
    outcome = Outcome()
    contents = Known(repository, index, progress)
    known = _let_go_changed(index, contents, listed, outcome, progress)
    wanted = [manifest for manifest in listed if str(manifest.key) not in known]
    progress.phase("taking in snapshots", files=len(wanted), noun="snapshot")
    _Taking(repository, index, contents, progress, outcome).run(wanted)
    _check_passphrases(repository, index, outcome)
    return outcome


def _let_go_changed(
    index: Index, contents: Known, listed: list[StoredManifest], outcome: Outcome, progress: Progress
) -> set[str]:
    """Let go what is gone or altered; return the keys of what is in the index and need not be read again."""
    etags = {str(manifest.key): manifest.etag for manifest in listed}
    known = set()
    for snapshot in index.snapshots():
        if snapshot.key not in etags:
            outcome.vanished.append(snapshot.key)
            progress.warning(f"{snapshot.key}: gone from the repository since it was read; was it meant to be?")
        elif snapshot.etag != etags[snapshot.key]:
            outcome.altered.append(snapshot.key)  # what it is now tells whether that is right
        else:
            if snapshot.error is None:
                known.add(snapshot.key)
            continue
        contents.doubt(snapshot.source)
        let_go(index, snapshot)
    return known


def _check_passphrases(repository: Repository, index: Index, outcome: Outcome) -> None:
    if outcome.locked and all(snapshot.key in outcome.locked for snapshot in index.snapshots()):
        raise PassphraseNotFoundError(
            f"{repository.storage.url}: none of its snapshots can be opened; {next(iter(outcome.failed.values()))}",
            hint=f"look into {repository.keyring.secrets_path}, or name another file with -s",
        )


class _Taking:
    """Takes in manifests one after the other, while the next ones are opened ahead."""

    def __init__(
        self, repository: Repository, index: Index, contents: Known, progress: Progress, outcome: Outcome
    ) -> None:
        self._repository = repository
        self._index = index
        self._contents = contents
        self._progress = progress
        self._outcome = outcome
        self._previous = _Previous()

    def run(self, manifests: list[StoredManifest]) -> None:
        """Take in all of them."""
        # Closed at once when this ends early: an error's traceback would keep it, and the threads, for longer.
        with closing(self._open_ahead(manifests)) as opened_ahead:
            for manifest, opening in opened_ahead:
                self._take_in_or_fail(manifest, opening)
                self._progress.advance(files=1)

    def _take_in_or_fail(self, manifest: StoredManifest, opening: "Future[_Opened]") -> None:
        try:
            self._take_in(manifest, opening)
        except (IntegrityError, PassphraseNotFoundError) as error:
            self._fail(manifest, error)
        except ObjectNotFound:
            pass  # it went away since it was listed: the next sync finds the same as if it had come before

    def _open_ahead(self, manifests: list[StoredManifest]) -> "Generator[tuple[StoredManifest, Future[_Opened]]]":
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="open")
        under_way: deque[tuple[StoredManifest, Future[_Opened]]] = deque()
        try:
            for manifest in manifests:
                under_way.append((manifest, pool.submit(self._open, manifest)))
                if len(under_way) > _AHEAD:
                    yield under_way.popleft()
            while under_way:
                yield under_way.popleft()
        finally:
            self._abandon(under_way)
            pool.shutdown(cancel_futures=True)

    def _abandon(self, under_way: "deque[tuple[StoredManifest, Future[_Opened]]]") -> None:
        """Close what was opened ahead and is not wanted any more; what is being opened is given up."""
        if under_way:
            self._repository.storage.stop()
        for _, opening in under_way:
            if not opening.cancel() and opening.exception() is None:
                opening.result().stack.close()

    def _open(self, manifest: StoredManifest) -> _Opened:
        with ExitStack() as stack:
            reader, created = stack.enter_context(self._repository.open_manifest(manifest.key))
            return _Opened(stack.pop_all(), reader, created)

    def _take_in(self, manifest: StoredManifest, opening: "Future[_Opened]") -> None:
        opened = opening.result()
        self._contents.doubt(self._index.source(manifest.key.job, manifest.key.label))
        with opened.stack:
            try:
                self._take_in_differing(manifest, opened)
            except _DiffersOddlyError:
                self._previous = _Previous()
                again = self._open(manifest)
                with again.stack:
                    self._take_in_whole(manifest, again)
        self._outcome.taken.append(str(manifest.key))
        self._judge_altered(str(manifest.key), is_rewritten=opened.reader.is_rewritten)
        for warning in opened.reader.warnings:
            self._progress.warning(warning)

    def _take_in_differing(self, manifest: StoredManifest, opened: _Opened) -> None:
        earlier = before(self._index, manifest.key)
        if earlier is None or self._previous.snapshot is None or earlier.id != self._previous.snapshot.id:
            self._take_in_whole(manifest, opened)
            return
        lines: set[bytes] = set()
        items = list(whole(opened.reader, self._previous.lines, lines))
        entries = {item.path for item in items if isinstance(item, Entry)}
        gone = {item.path for item in parse_lines(self._previous.lines - lines) if isinstance(item, Entry)}
        if opened.reader.nlines != len(lines) or len(entries) != sum(isinstance(item, Entry) for item in items):
            raise _DiffersOddlyError("a line or path comes twice")
        if holds_any(self._index, earlier, entries - gone):
            raise _DiffersOddlyError("a path comes twice")
        take_in_changes(self._index, self._facts(manifest, opened), items, gone - entries)
        self._previous = _Previous(self._snapshot(manifest), lines)

    def _take_in_whole(self, manifest: StoredManifest, opened: _Opened) -> None:
        lines: set[bytes] = set()
        counted = _Counted(whole(opened.reader, frozenset(), lines))
        npaths = take_in(self._index, self._facts(manifest, opened), counted)
        is_plain = npaths == counted.nentries and opened.reader.nlines == len(lines)
        self._previous = _Previous(self._snapshot(manifest), lines) if is_plain else _Previous()

    def _facts(self, manifest: StoredManifest, opened: _Opened) -> Facts:
        return Facts(manifest.key, manifest.etag, opened.created, opened.reader.header)

    def _snapshot(self, manifest: StoredManifest) -> IndexedSnapshot:
        source = self._index.source(manifest.key.job, manifest.key.label)
        return next(one for one in self._index.snapshots(source) if one.key == str(manifest.key))

    def _judge_altered(self, key: str, *, is_rewritten: bool) -> None:
        """Say of one that was altered by whom: only who has the passphrase can write that it was rewritten."""
        if key not in self._outcome.altered:
            return
        if is_rewritten:
            self._outcome.altered.remove(key)
            self._progress.note(f"{key}: rewritten since it was read; paths were taken out of it")
        else:
            self._progress.warning(f"{key}: ALTERED in the repository since it was read; a snapshot never changes")

    def _fail(self, manifest: StoredManifest, error: S3buError) -> None:
        self._judge_altered(str(manifest.key), is_rewritten=False)
        self._outcome.failed[str(manifest.key)] = error.message
        if isinstance(error, PassphraseNotFoundError):
            self._outcome.locked.add(str(manifest.key))
        self._progress.warning(f"{error.message}; this snapshot is left out of the index")
        modified = manifest.modified.astimezone(UTC)
        take_in_failed(self._index, Facts(manifest.key, manifest.etag, modified, error=error.message))


class _Counted:
    """Hands on what a manifest holds, and counts its entries."""

    def __init__(self, items: Iterator[Entry | FailedPath]) -> None:
        self._items = items
        self.nentries = 0

    def __iter__(self) -> Iterator[Entry | FailedPath]:
        for item in self._items:
            self.nentries += isinstance(item, Entry)
            yield item
