"""The live files: what is missing or bad put back from them, and a spot check of the newest snapshot against them."""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from s3bu.compare import Trust
from s3bu.draft import RACY_NS
from s3bu.index import Index, IndexedSnapshot
from s3bu.known import Known
from s3bu.manifest import FILE, Entry
from s3bu.progress import Failure, Progress
from s3bu.repository import Contents, Repository
from s3bu.rooted import Files, Root
from s3bu.scan.found import Regular, reason
from s3bu.size import Share
from s3bu.store import Store, Stored
from s3bu.verify.contents import DAMAGE, UNOPENED

_SAME, _CHANGED, _DIFFERS = "same", "changed", "differs"
_CHUNK = 1024 * 1024
_PAGE = 1_000
_REPAIRABLE = ", ".join(f"'{problem}'" for problem in (*DAMAGE, UNOPENED))


@dataclass(frozen=True, slots=True)
class Live:
    """A source as this machine has it: its number in the index, and the directory."""

    source: int
    job: str
    label: str
    path: bytes


@dataclass(slots=True)
class Compared:
    """What a spot check found: files as the snapshot has them, files that changed since, and by source the odd ones.

    `differing` look as they did when they were backed up, and are not; `failures` could not be read, `absent` are
    sources that are not here.
    """

    nsame: int = 0
    nchanged: int = 0
    differing: list[tuple[Live, bytes]] = field(default_factory=list)
    failures: list[tuple[Live, Failure]] = field(default_factory=list)
    absent: list[Live] = field(default_factory=list)

    @property
    def has_gaps(self) -> bool:
        """Whether something could not be compared."""
        return bool(self.failures or self.absent)


# --- repair


def repair(repository: Repository, index: Index, live: list[Live], progress: Progress) -> None:
    """Put back each content that is missing or bad and that a live file still has, and note in `checked` that it is.

    It goes the way of every backup, so only bytes that have the hash are stored under it.
    """
    bad = {digest for (digest,) in index.connection.execute(_bad("hash"))}
    if not bad:
        return
    progress.phase("repairing", files=len(bad), noun="content")
    present = {digest for (digest,) in index.connection.execute(_bad("hash") + " AND stored IS NOT NULL")}
    contents = Contents(set(), present)
    repository.probe(live[0].job)
    store = Store(
        repository, repository.pinned_recipients(), contents, is_compressing=False, progress=progress, only=bad
    )
    known = Known(repository, index, progress)
    for one in live:
        root = _opened(one, progress)
        if root is None:
            continue
        with root:
            for result in store.store(root, _candidates(index, one)):
                if isinstance(result, Failure):
                    progress.failure(result)
                elif isinstance(result, Stored) and result.nbytes_sent:
                    known.keep({result.entry.hash: result.nbytes_sent})
                    _note_repaired(index, result.entry)
                    progress.advance(files=1)


def _bad(columns: str) -> str:
    return f"SELECT {columns} FROM checked WHERE problem IN ({_REPAIRABLE}) AND NOT is_repaired"


def _opened(live: Live, progress: Progress) -> Root | None:
    try:
        return Root(live.path)
    except OSError as error:
        progress.warning(f"{os.fsdecode(live.path)}: the source cannot be opened ({reason(error)})")
        return None


def _candidates(index: Index, live: Live) -> Iterator[Entry]:
    """Yield the paths of a source that ever had one of the bad contents, a page at a time, those that are there."""
    last = b""
    while True:
        page = index.connection.execute(
            "SELECT v.sort_key, max(c.nbytes) FROM version v CROSS JOIN checked c "
            "ON c.hash = v.hash AND c.nbytes = v.nbytes WHERE v.source = ? AND v.sort_key > ? AND v.kind = 0 "
            f"AND c.problem IN ({_REPAIRABLE}) AND NOT c.is_repaired GROUP BY v.sort_key LIMIT {_PAGE}",
            (live.source, last),
        ).fetchall()
        if not page:
            return
        last = page[-1][0]
        for key, nbytes in page:
            yield Entry(key.replace(b"\0", b"/"), FILE, nbytes, 0, 0)


def _note_repaired(index: Index, entry: Entry) -> None:
    index.connection.execute(
        "UPDATE checked SET is_repaired = 1 WHERE hash = ? AND nbytes = ?", (bytes.fromhex(entry.hash), entry.nbytes)
    )


# --- spot check


def compare(index: Index, live: list[Live], share: Share, progress: Progress) -> Compared:
    """Read this share of the files of the newest snapshot of each source, at random, and compare them with it."""
    compared = Compared()
    for one in live:
        newest = index.newest(one.source)
        if newest is None:
            continue
        fraction = share.fraction_of(newest.nbytes)
        progress.phase(f"comparing with {os.fsdecode(one.path)}", files=round(newest.nfiles * fraction))
        root = _opened(one, progress)
        if root is None:
            compared.absent.append(one)
            continue
        with root, Files(root) as files:
            for entry in _sample(index.currents(one.source), fraction):
                _compare(files, one, entry, _trust(newest), compared)
                progress.advance(files=1)
    return compared


def _trust(newest: IndexedSnapshot) -> Trust:
    return Trust(newest.created_us // 1_000_000 * 1_000_000_000 - RACY_NS)


def _sample(entries: Iterator[Entry], fraction: float) -> Iterator[Entry]:
    return (entry for entry in entries if entry.hash and (fraction >= 1 or random.random() < fraction))  # noqa: S311


def _compare(files: Files, live: Live, entry: Entry, trust: Trust, compared: Compared) -> None:
    try:
        verdict = _judge(files, entry, trust)
    except FileNotFoundError:
        verdict = _CHANGED
    except OSError as error:
        compared.failures.append((live, Failure(entry.path, reason(error))))
        return
    if verdict == _DIFFERS:
        compared.differing.append((live, entry.path))
    compared.nsame += verdict == _SAME
    compared.nchanged += verdict == _CHANGED


def _judge(files: Files, entry: Entry, trust: Trust) -> str:
    """Say whether a file is what the snapshot has of it; it differs where the next backup would not see that."""
    descriptor, before = files.open(entry.path)
    try:
        found = Regular(entry.path, before).entry()
        if found.nbytes != entry.nbytes:
            return _CHANGED
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, _CHUNK):
            digest.update(chunk)
        after = Regular(entry.path, os.fstat(descriptor)).entry()
    finally:
        os.close(descriptor)
    if digest.hexdigest() == entry.hash:
        return _SAME
    return _DIFFERS if found == after and trust.doubt(found, entry) is None else _CHANGED
