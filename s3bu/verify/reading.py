"""Reading what is stored: got, decrypted and hashed, what was not read for the longest time first.

What was read is noted in the index as it goes on, so that a run that is stopped keeps what it did, and repeated runs of
a share cover everything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from s3bu import evidence
from s3bu.errors import IntegrityError, NoIdentityError, ObjectArchived, ObjectNotFound, S3buError, StorageError
from s3bu.evidence import Evidence, note
from s3bu.fetch import fetch
from s3bu.index import Index
from s3bu.parallel import Budget, batches, each
from s3bu.patience import Patience
from s3bu.progress import Progress
from s3bu.repository import Repository
from s3bu.size import Share
from s3bu.storage import PART_BOUND, Download
from s3bu.verify.contents import (
    AMBIGUOUS,
    ARCHIVED,
    CUT,
    DAMAGED,
    MISSING,
    UNOPENED,
    UNREADABLE,
    UNVERIFIED,
    WORKERS,
    Checked,
    settle,
)

_BYTES_IN_FLIGHT = 128 * 1024 * 1024
_CHUNK = 1024 * 1024
_NOTED_AT_ONCE = 100
_UNOPENED_BOUND = 50
"""After so many contents that no identity opened, and none that one did, the identities are taken to be wrong."""
_PROBLEMS: dict[type[S3buError], str] = {ObjectNotFound: MISSING, ObjectArchived: ARCHIVED, NoIdentityError: UNOPENED}
_STATES = {None: evidence.READ, DAMAGED: evidence.BAD, CUT: evidence.BAD, UNOPENED: evidence.UNOPENED}
_READABLE = f"(problem IS NULL OR problem IN ('{UNVERIFIED}', '{UNOPENED}', '{DAMAGED}', '{CUT}')) AND stored > 0"


@dataclass(slots=True)
class Read:
    """What was read: contents, the bytes of their objects, and what share of all was read at any time so far."""

    ncontents: int = 0
    nbytes: int = 0
    covered: float = 0.0


class _Seen(NamedTuple):
    row: Checked
    problem: str | None
    detail: str | None = None


def read(repository: Repository, index: Index, share: Share, progress: Progress) -> Read:
    """Read this share of the checked contents, by the bytes of their objects, and settle what is wrong with them.

    `NoIdentityError` when no identity opens any of them.
    """
    return _Reading(repository, index, progress).run(share)


class _Reading:
    """One reading under way."""

    def __init__(self, repository: Repository, index: Index, progress: Progress) -> None:
        self._repository = repository
        self._index = index
        self._connection = index.connection
        self._progress = progress
        self._budget = Budget(_BYTES_IN_FLIGHT)
        self._patience = Patience()
        self._unopened: list[NoIdentityError] = []
        self._has_opened = False
        self._evidence: list[Evidence] = []
        self._ambiguous = {digest for (digest,) in index.connection.execute(AMBIGUOUS)}
        self._read = Read()

    def run(self, share: Share) -> Read:
        number, nbytes = self._choose(share)
        self._progress.phase("reading contents", files=number, nbytes=nbytes, noun="content")
        try:
            self._read_all()
        finally:
            self._note()
        if self._unopened and not self._has_opened:
            raise self._unopened[0]
        self._read.covered = self._covered()
        return self._read

    def _choose(self, share: Share) -> tuple[int, int]:
        """Fill the table of what to read: what was condemned, what was never read, then what was read first."""
        connection = self._connection
        total = connection.execute(f"SELECT total(stored) FROM checked WHERE {_READABLE}").fetchone()[0]
        for statement in (
            "DROP TABLE IF EXISTS temp.queue",
            "CREATE TEMP TABLE queue (number INTEGER PRIMARY KEY, hash BLOB, nbytes INTEGER)",
        ):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO queue (hash, nbytes) SELECT hash, nbytes FROM "
            "(SELECT c.hash, c.nbytes, c.stored, sum(c.stored) OVER "
            "(ORDER BY coalesce(e.state >= ?, 0) DESC, e.read_s NULLS FIRST, c.hash, c.nbytes) AS until "
            "FROM checked c LEFT JOIN evidence e ON e.hash = c.hash AND e.nbytes = c.stored AND e.etag = c.etag "
            f"WHERE {_READABLE.replace('stored', 'c.stored')}) WHERE until - stored < ? ORDER BY until",
            (evidence.UNOPENED, share.of(int(total))),
        )
        chosen = "queue q JOIN checked c ON c.hash = q.hash AND c.nbytes = q.nbytes"
        found = connection.execute(f"SELECT count(*), total(c.stored) FROM {chosen}").fetchone()
        return int(found[0]), int(found[1])

    def _queued(self) -> Iterator[Checked]:
        """Yield what was chosen, in order, a page at a time."""
        last = 0
        while True:
            page = self._connection.execute(
                "SELECT q.number, c.hash, c.nbytes, c.stored, c.etag, c.problem FROM queue q "
                "CROSS JOIN checked c ON c.hash = q.hash AND c.nbytes = q.nbytes "
                "WHERE q.number > ? ORDER BY q.number LIMIT 1000",
                (last,),
            ).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield from (Checked(*row[1:]) for row in page)

    def _read_all(self) -> None:
        together = batches(self._queued(), lambda row: row.stored or 0)
        give_up = self._repository.storage.stop
        for seen in each(self._read_batch, together, workers=WORKERS, give_up=give_up):
            for row, problem, detail in seen:
                self._settle(row, problem, detail)

    def _settle(self, row: Checked, problem: str | None, detail: str | None) -> None:
        if problem == DAMAGED and row.problem == CUT:
            problem = CUT  # which says more of it
        settle(self._connection, row, problem, detail)
        self._progress.advance(files=1, nbytes=row.stored or 0)
        if problem in _STATES and row.stored is not None:
            self._read.ncontents += 1
            self._read.nbytes += row.stored
            if problem is None or row.hash not in self._ambiguous:
                self._evidence.append(Evidence(row.hash, row.stored, row.etag, _STATES[problem]))
        if len(self._evidence) >= _NOTED_AT_ONCE:
            self._note()

    def _note(self) -> None:
        with self._index.transaction():
            note(self._index, self._evidence)
        self._evidence.clear()

    def _covered(self) -> float:
        """Return the share of what is stored that was read, as it is now, in this run or an earlier one."""
        found = self._connection.execute(
            "SELECT total(c.stored), total(CASE WHEN e.read_s IS NULL THEN 0 ELSE c.stored END) FROM checked c "
            "LEFT JOIN evidence e ON e.hash = c.hash AND e.nbytes = c.stored AND e.etag = c.etag"
        ).fetchone()
        return found[1] / found[0] if found[0] else 1.0

    # --- on the threads of the pool

    def _read_batch(self, batch: list[Checked]) -> list[_Seen]:
        """Read a few small objects that are asked for together, or a large one."""
        sizes = [row.stored or 0 for row in batch]
        if sizes[0] > PART_BOUND:
            return [self._seen(batch[0], None)]
        with self._budget.claim(2 * sum(sizes) + _CHUNK):
            # What somebody put there meanwhile may be longer, many times over.
            opened = self._repository.storage.open_all([row.key for row in batch], bound=max(sizes) + _CHUNK // 8)
            return [self._seen(row, begun) for row, begun in zip(batch, opened, strict=True)]

    def _seen(self, row: Checked, begun: Download | StorageError | None) -> _Seen:
        try:
            self._fetch(row, begun)
        except IntegrityError as error:
            return _Seen(row, DAMAGED, error.message)
        except (StorageError, NoIdentityError) as error:
            return self._unseen(row, error)
        self._patience.reward()
        self._has_opened = True
        return _Seen(row, None)

    def _fetch(self, row: Checked, begun: Download | StorageError | None) -> None:
        """Read a content; what comes out wrong is read once more, since a line may err too."""
        if isinstance(begun, StorageError):
            raise begun
        try:
            fetch(self._repository, row.hash.hex(), row.nbytes, _Nowhere(), begun)
        except IntegrityError:
            fetch(self._repository, row.hash.hex(), row.nbytes, _Nowhere())

    def _unseen(self, row: Checked, error: S3buError) -> _Seen:
        """Return that a content could not be read, or raise what ends the run."""
        if isinstance(error, StorageError):
            self._patience.judge(error)
        if isinstance(error, NoIdentityError):
            self._unopened.append(error)
            if len(self._unopened) >= _UNOPENED_BOUND and not self._has_opened:
                raise error
        problem = next((problem for kind, problem in _PROBLEMS.items() if isinstance(error, kind)), UNREADABLE)
        return _Seen(row, problem, error.message)


class _Nowhere:
    """A target that keeps nothing: what counts is that it could be written."""

    def write(self, chunk: bytes, /) -> int:
        return len(chunk)

    def seek(self, position: int, /) -> int:
        return position

    def truncate(self) -> int:
        return 0
