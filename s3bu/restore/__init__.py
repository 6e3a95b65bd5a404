"""Bring a snapshot back: plan what to write, and write it; `stored` says what of it could be.

Invariants: nothing but verified content takes a name; nothing is written outside the target; what cannot come back is
a failure with its path, and everything else comes back. Manifest, contents and secrets are all that it needs.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Protocol

from s3bu.errors import IntegrityError, NoIdentityError, S3buError, StorageError
from s3bu.fetch import fetch
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath
from s3bu.parallel import Budget, batches, each
from s3bu.patience import Patience
from s3bu.progress import Change, Failure, Progress
from s3bu.repository import Repository
from s3bu.repository.layout import content_key
from s3bu.restore.target import TakenError, Target, check_path, is_like_temporary, temporary_paths
from s3bu.scan.found import reason
from s3bu.storage import PART_BOUND, Download

WORKERS = 8
BYTES_IN_FLIGHT = 128 * 1024 * 1024
_CHUNK = 1024 * 1024
_UNOPENED_BOUND = 50
"""After so many contents that no identity opened, and none that one did, the identities are taken to be wrong."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a snapshot is to be written, in order; `failures` are the paths that cannot come back.

    `special` are FIFOs and devices: the snapshot knows of them, and they are not made.
    """

    directories: list[Entry]
    files: list[Entry]
    links: list[Entry]
    special: list[Entry]
    failures: list[Failure]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to regret."""
        return not (self.directories or self.files or self.links or self.special or self.failures)

    @property
    def nbytes(self) -> int:
        """The bytes of all files."""
        return sum(entry.nbytes for entry in self.files)


@dataclass(slots=True)
class Outcome:
    """What came of it: files written and their bytes, files that were right already, links, directories, failures."""

    nfiles: int = 0
    nbytes: int = 0
    nright: int = 0
    nlinks: int = 0
    ndirectories: int = 0
    failures: list[Failure] = field(default_factory=list)


class Holding(Protocol):
    """What can be restored: a snapshot, or what was chosen of several."""

    @property
    def entries(self) -> list[Entry]:
        """What it holds, in order."""

    @property
    def failed(self) -> list[FailedPath]:
        """What it could not take in."""

    @property
    def is_truncated(self) -> bool:
        """Whether its end is missing."""


def plan_restore(snapshot: Holding, pattern: re.Pattern[bytes] | None = None) -> Plan:
    """Decide what to write: all of the snapshot, or the paths in which the pattern is found.

    Paths that would leave the target, files that were never read, and what the run failed to back up are failures.
    Directories above what was chosen come along, for the modes that they had: what lies in a private one may be open.
    """
    plan = Plan([], [], [], [], [])
    lists = {DIRECTORY: plan.directories, FILE: plan.files, SYMLINK: plan.links, SPECIAL: plan.special}
    present = set()
    for entry in snapshot.entries:
        if pattern is not None and not pattern.search(entry.path):
            continue
        fault = check_path(entry.path)
        if fault is None and b"\0" in entry.target:
            fault = "refused: its target is no path"
        if fault is None and entry.kind == FILE and not entry.hash:
            fault = "was never backed up: it could not be read then"
        if fault is None:
            lists[entry.kind].append(entry)
            present.add(entry.path)
        else:
            plan.failures.append(Failure(entry.path, fault))
    _refuse_clashes(plan)
    has_older = present | _above(present)
    for failed in snapshot.failed:
        if pattern is None or pattern.search(failed.path) or failed.path in has_older:
            what = "an older state, since" if failed.path in has_older else "not in the snapshot, since"
            plan.failures.append(Failure(failed.path, f"{what} it failed to be backed up: {failed.error}"))
    if snapshot.is_truncated:
        plan.failures.append(Failure(b"", "the manifest is cut: what stood behind its end is not known"))
    if pattern is not None:
        wanted = {entry.path for entry in plan.directories} | _above(present)
        plan.directories[:] = [entry for entry in snapshot.entries if entry.kind == DIRECTORY and entry.path in wanted]
    return plan


def _refuse_clashes(plan: Plan) -> None:
    """Leave out what has the very name under which another path is written: one would take the other's place."""
    lists = (plan.directories, plan.files, plan.links)
    if not any(is_like_temporary(entry.path) for entries in lists for entry in entries):
        return
    needed = {path for entry in (*plan.files, *plan.links) for path in temporary_paths(entry.path)}
    for entries in lists:
        clashes = [entry for entry in entries if entry.path in needed]
        plan.failures.extend(Failure(entry.path, "not restored: restore needs this name itself") for entry in clashes)
        entries[:] = [entry for entry in entries if entry.path not in needed]


def _above(paths: Iterable[bytes]) -> set[bytes]:
    """Return the directories in which these paths lie, up to the top."""
    above: set[bytes] = set()
    for path in paths:
        parent = path.rpartition(b"/")[0]
        while parent and parent not in above:
            above.add(parent)
            parent = parent.rpartition(b"/")[0]
    return above


def need_identities(repository: Repository, plan: Plan) -> None:
    """Raise, before anything is written, when the file of identities is missing or open to others."""
    if plan.files:
        _ = repository.keyring.identities


def run(repository: Repository, plan: Plan, target: Target, progress: Progress) -> Outcome:
    """Write what was planned, and say what came of it.

    Files that are there with the right content are not fetched again, so a restore that was killed is finished by
    running it once more.
    """
    return _Restore(repository, plan, target, progress).run()


class _Restore:
    """One restore under way."""

    def __init__(self, repository: Repository, plan: Plan, target: Target, progress: Progress) -> None:
        self._repository = repository
        self._plan = plan
        self._target = target
        self._progress = progress
        self._outcome = Outcome()
        self._budget = Budget(BYTES_IN_FLIGHT)
        self._patience = Patience()
        self._unopened: list[NoIdentityError] = []
        self._has_opened = False

    def run(self) -> Outcome:
        need_identities(self._repository, self._plan)
        for failure in self._plan.failures:
            self._fail(failure)
        self._progress.phase("making directories")
        directories = [
            entry for entry in self._plan.directories if self._attempt(self._target.prepare_directory, entry)
        ]
        self._write_files()
        for entry in self._plan.links:
            is_made = self._attempt(self._target.write_link, entry)
            self._outcome.nlinks += is_made
            self._tell("restored", [entry] if is_made else [])
        for path in sorted(self._target.root.created - {entry.path for entry in directories}):
            self._attempt(self._target.finish_unnamed_directory, Entry(path, DIRECTORY, 0, 0, 0))
        for entry in reversed(directories):
            is_made = self._attempt(self._target.finish_directory, entry)
            self._outcome.ndirectories += is_made
            self._tell("restored", [entry] if is_made else [])
        return self._outcome

    def _tell(self, action: str, entries: Iterable[Entry]) -> None:
        if self._progress.wants_changes:
            for entry in entries:
                self._progress.change(Change(action, entry.path, entry.kind, entry.nbytes))

    def _fail(self, failure: Failure) -> None:
        self._outcome.failures.append(failure)
        self._progress.failure(failure)

    def _attempt(self, action: Callable[[Entry], None], entry: Entry) -> bool:
        try:
            action(entry)
        except (OSError, OverflowError, TakenError) as error:
            self._fail(Failure(entry.path, explain(error)))
            return False
        return True

    def _write_files(self) -> None:
        # By length too: where a row lies about it, only that row fails.
        by_content: dict[tuple[str, int], list[Entry]] = {}
        for entry in self._plan.files:
            by_content.setdefault((entry.hash, entry.nbytes), []).append(entry)
        self._progress.phase("restoring", files=len(self._plan.files), nbytes=self._plan.nbytes)
        together = batches(by_content.values(), lambda group: group[0].nbytes)
        for batch in each(self._write_batch, together, workers=WORKERS, give_up=self._repository.storage.stop):
            for written in batch:
                self._count(written)
        if self._unopened and not (self._outcome.nfiles or self._outcome.nright):
            raise self._unopened[0]

    def _count(self, written: "_Written") -> None:
        for entry in written.entries:
            self._outcome.nfiles += 1
            self._outcome.nbytes += entry.nbytes
        self._outcome.nright += len(written.right)
        for failure in written.failures:
            self._fail(failure)
        self._tell("restored", written.entries)
        self._tell("unmodified", written.right)
        done = [*written.entries, *written.right]
        told = {entry.path for entry in written.entries if entry.nbytes > PART_BOUND}
        nbytes = sum(entry.nbytes for entry in done if entry.path not in told)
        self._progress.advance(files=len(done) + len(written.failures), nbytes=nbytes)

    def _write_batch(self, groups: list[list[Entry]]) -> "list[_Written]":
        """Write a few contents, each to every path that has it; runs on a thread of the pool."""
        written = [_Written() for _ in groups]
        wanted = [
            ([entry for entry in group if not self._is_settled(entry, one)], one)
            for group, one in zip(groups, written, strict=True)
        ]
        wanted = [(entries, one) for entries, one in wanted if entries]
        if wanted and wanted[0][0][0].nbytes > PART_BOUND:
            self._write_content(*wanted[0], self._write_large)
        elif wanted:
            self._write_together(wanted)
        return written

    def _write_together(self, wanted: "list[tuple[list[Entry], _Written]]") -> None:
        """Fetch small contents all at once, and write each."""
        with self._budget.claim(2 * sum(entries[0].nbytes for entries, _ in wanted) + _CHUNK):
            keys = [content_key(entries[0].hash) for entries, _ in wanted]
            # What somebody put there instead may be longer, many times over.
            bound = max(entries[0].nbytes for entries, _ in wanted) + _CHUNK // 8
            opened = self._repository.storage.open_all(keys, bound=bound)
            for (entries, written), begun in zip(wanted, opened, strict=True):
                self._write_content(entries, written, partial(self._write_small, begun))

    def _write_content(
        self, entries: list[Entry], written: "_Written", write: "Callable[[list[Entry], _Written], None]"
    ) -> None:
        try:
            write(entries, written)
            self._patience.reward()
            self._has_opened = True
        except (IntegrityError, StorageError, NoIdentityError) as error:
            self._judge(error)
            done = {entry.path for entry in written.entries} | {failure.path for failure in written.failures}
            written.failures += [Failure(entry.path, error.message) for entry in entries if entry.path not in done]

    def _judge(self, error: S3buError) -> None:
        """Raise what ends the run: a storage that is gone, or identities that open nothing of many contents.

        One content that no identity opens may be of other recipients than the rest, or have a broken header.
        """
        if isinstance(error, StorageError):
            self._patience.judge(error)
        if isinstance(error, NoIdentityError):
            self._unopened.append(error)
            if len(self._unopened) >= _UNOPENED_BOUND and not self._has_opened:
                raise error

    def _is_settled(self, entry: Entry, written: "_Written") -> bool:
        try:
            is_right = self._target.is_right(entry)
        except (OSError, OverflowError, TakenError) as error:
            written.failures.append(Failure(entry.path, explain(error)))
            return True
        if is_right:
            written.right.append(entry)
        return is_right

    def _write_small(self, begun: Download | StorageError, entries: list[Entry], written: "_Written") -> None:
        if isinstance(begun, StorageError):
            raise begun
        content = io.BytesIO()
        fetch(self._repository, entries[0].hash, entries[0].nbytes, content, begun)
        for entry in entries:
            with written.noting(entry), self._target.writing(entry) as file:
                file.write(content.getbuffer())

    def _write_large(self, entries: list[Entry], written: "_Written") -> None:
        for entry in entries:
            with written.noting(entry), self._target.writing(entry) as file:
                fetch(self._repository, entry.hash, entry.nbytes, _Watched(file, self._progress))


class _Watched:
    """A file whose growth the progress is told of, since a large one takes long."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress

    def write(self, chunk: bytes, /) -> int:
        self._progress.advance(nbytes=len(chunk))
        return self._file.write(chunk)

    def seek(self, position: int, /) -> int:
        return self._file.seek(position)

    def truncate(self) -> int:
        return self._file.truncate()


@dataclass(slots=True)
class _Written:
    """What came of the paths of one content: written, right already, failed."""

    entries: list[Entry] = field(default_factory=list)
    right: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def noting(self, entry: Entry) -> Iterator[None]:
        """Note the entry as written, or the target's refusal as its failure."""
        try:
            yield
        except (OSError, OverflowError, TakenError) as error:
            self.failures.append(Failure(entry.path, explain(error)))
        else:
            self.entries.append(entry)


def explain(error: Exception) -> str:
    """Return why one path could not be written, in a few words."""
    if isinstance(error, OSError):
        return reason(error)
    return "its time is out of range" if isinstance(error, OverflowError) else str(error)
