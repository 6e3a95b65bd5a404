"""What every snapshot needs against what is stored: one listing of `data/`, merged with the hashes of the index.

Both come in the order of hashes, so that nothing is held but one of each; what has to be kept stands in a temporary
table of the index's connection, `checked`: a row for each content, with its object and what is wrong with that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from sqlite3 import Connection
from typing import NamedTuple

from s3bu import evidence
from s3bu.errors import AccessDenied, ObjectNotFound, StorageError
from s3bu.evidence import Evidence, note
from s3bu.index import Index
from s3bu.parallel import each
from s3bu.patience import Patience
from s3bu.progress import Progress
from s3bu.repository import Repository
from s3bu.repository.layout import content_key, says_compressed, smallest_object
from s3bu.storage import ObjectStat

MISSING, EMPTY, CUT, DAMAGED = "missing", "empty", "cut", "damaged"
DAMAGE = (MISSING, EMPTY, CUT, DAMAGED)
"""What is so cannot come back."""
UNOPENED = "unopened"
"""No identity opens it, although they open others: of other recipients, or its header is damaged."""
ARCHIVED, UNREADABLE, UNVERIFIED = "archived", "unreadable", "unverified"
"""It must be brought back first; it could not be read now; it is compressed, and nobody read it yet."""
_CONDEMNED = {evidence.UNOPENED: UNOPENED, evidence.BAD: DAMAGED, evidence.TOO_SHORT: CUT}
_SHORT, _SHRUNK = "short", "shrunk"
"""Until it is looked up: shorter than its content, and also shorter than what this machine knew there."""
_LOOKED_FOR = f"problem IN ('{_SHORT}', '{_SHRUNK}')"
WORKERS = 8
_PAGE = 1_000

_TABLES = (
    "DROP TABLE IF EXISTS temp.chosen",
    "DROP TABLE IF EXISTS temp.checked",
    "CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)",
    """CREATE TEMP TABLE checked (
        hash BLOB, nbytes INTEGER, stored INTEGER, etag TEXT, problem TEXT, detail TEXT,
        is_repaired INTEGER DEFAULT 0, PRIMARY KEY (hash, nbytes)
    ) WITHOUT ROWID""",
)
AMBIGUOUS = "SELECT hash FROM checked GROUP BY hash HAVING count(*) > 1"
"""Hashes of which manifests name several lengths: all but one lie, and that is no fault of the object."""
_NEEDS = """
SELECT v.hash, v.nbytes, v.is_chosen, e.nbytes, e.etag, e.state FROM (
    SELECT hash, nbytes, max(source IN (SELECT id FROM chosen)) AS is_chosen FROM version
    WHERE kind = 0 AND hash IS NOT NULL GROUP BY hash, nbytes
) v LEFT JOIN evidence e ON e.hash = v.hash ORDER BY v.hash, v.nbytes
"""


class Checked(NamedTuple):
    """A content that snapshots need, and its object: `stored` and `etag` are `None` where there is none."""

    hash: bytes
    nbytes: int
    stored: int | None
    etag: str | None
    problem: str | None

    @property
    def key(self) -> str:
        """The key of the object."""
        return content_key(self.hash.hex())


class _Need(NamedTuple):
    hash: bytes
    nbytes: int
    is_chosen: int
    known_nbytes: int | None
    known_etag: str | None
    known_state: int | None

    @property
    def known(self) -> Evidence | None:
        if self.known_nbytes is None or self.known_state is None:
            return None
        return Evidence(self.hash, self.known_nbytes, self.known_etag, self.known_state)


@dataclass(slots=True)
class Tally:
    """Contents that the chosen snapshots need, their bytes and those of their objects; objects that nobody needs."""

    ncontents: int = 0
    nbytes: int = 0
    nbytes_stored: int = 0
    norphans: int = 0
    orphan_nbytes: int = 0


def check(
    repository: Repository, index: Index, sources: Sequence[int], progress: Progress, *, keeps_all: bool
) -> Tally:
    """Fill `checked` with what is wrong with the contents of these sources; with `keeps_all`, with all of them."""
    connection = index.connection
    for statement in _TABLES:
        connection.execute(statement)
    connection.executemany("INSERT INTO chosen VALUES (?)", ((source,) for source in sources))
    progress.phase("checking what is stored", noun="content")
    tally = Tally()
    connection.execute("BEGIN")
    try:
        needs = map(_Need._make, connection.execute(_NEEDS))
        rows = _rows(needs, repository.objects(), tally, progress, keeps_all=keeps_all)
        insert = "INSERT INTO checked (hash, nbytes, stored, etag, problem) VALUES (?, ?, ?, ?, ?)"
        connection.executemany(insert, rows)
    finally:
        connection.execute("COMMIT")
    _look_up(repository, index, progress)
    _pin(index)
    return tally


def _rows(
    needs: Iterable[_Need],
    objects: Iterator[tuple[str, ObjectStat]],
    tally: Tally,
    progress: Progress,
    *,
    keeps_all: bool,
) -> Iterator[Checked]:
    for need, found, has_others in _merge(needs, objects, tally):
        if not need.is_chosen:
            continue
        tally.ncontents += 1
        tally.nbytes += need.nbytes
        tally.nbytes_stored += found.nbytes if found else 0
        if tally.ncontents % _PAGE == 0:
            progress.advance(files=_PAGE)
        problem = _judge(need, found, is_ambiguous=has_others)
        is_new = need.known_state == evidence.STORED and need.known_etag is None
        if problem or keeps_all or is_new or has_others:
            stored, etag = (found.nbytes, found.etag) if found else (None, None)
            yield Checked(need.hash, need.nbytes, stored, etag, problem)


def _merge(
    needs: Iterable[_Need], objects: Iterator[tuple[str, ObjectStat]], tally: Tally
) -> Iterator[tuple[_Need, ObjectStat | None, bool]]:
    """Yield each need with its object, and whether others name another length; count the objects that nobody needs."""
    stored = ((bytes.fromhex(name), status) for name, status in objects)
    following = next(stored, None)
    for digest, group in groupby(needs, key=attrgetter("hash")):
        while following is not None and following[0] < digest:
            _count_orphan(following[1], tally)
            following = next(stored, None)
        found = None
        if following is not None and following[0] == digest:
            found, following = following[1], next(stored, None)
        same = list(group)
        for need in same:
            yield need, found, len(same) > 1
    while following is not None:
        _count_orphan(following[1], tally)
        following = next(stored, None)


def _count_orphan(status: ObjectStat, tally: Tally) -> None:
    tally.norphans += 1
    tally.orphan_nbytes += status.nbytes


def _judge(need: _Need, found: ObjectStat | None, *, is_ambiguous: bool) -> str | None:
    """Return what is wrong with an object, as far as size, ETag and what is known of it tell."""
    if found is None:
        return MISSING
    if found.nbytes < smallest_object(0):
        return CUT if found.nbytes else EMPTY
    known = need.known
    is_about = known is not None and known.is_about(found.nbytes, found.etag)
    if known is not None and is_about and known.state in _CONDEMNED:
        return _CONDEMNED[known.state]
    if found.is_archived:
        return ARCHIVED
    is_short = found.nbytes < smallest_object(need.nbytes)
    if known is not None and known.state in (evidence.STORED, evidence.READ) and not is_ambiguous:
        return None if is_about else _judge_changed(known, found, is_short=is_short)
    if not is_short:
        return None
    return UNVERIFIED if known is not None and is_about and known.state == evidence.LOOKED_UP else _SHORT


def _judge_changed(known: Evidence, found: ObjectStat, *, is_short: bool) -> str:
    """Judge an object that is not the one that this machine stored or read: another run may have put it again."""
    if not is_short:
        return UNVERIFIED
    return _SHRUNK if found.nbytes < known.nbytes else _SHORT


def rows(connection: Connection, condition: str) -> Iterator[Checked]:
    """Yield what was checked and fulfils a condition, in order, a page at a time: the table may change meanwhile."""
    last: tuple[bytes, int] = (b"", -1)
    while True:
        page = connection.execute(
            "SELECT hash, nbytes, stored, etag, problem FROM checked "
            f"WHERE (hash, nbytes) > (?, ?) AND {condition} ORDER BY hash, nbytes LIMIT {_PAGE}",
            last,
        ).fetchall()
        if not page:
            return
        last = page[-1][:2]
        yield from map(Checked._make, page)


def settle(connection: Connection, row: Checked, problem: str | None, detail: str | None = None) -> None:
    """Note what is wrong with a content, or that nothing is."""
    connection.execute(
        "UPDATE checked SET problem = ?, detail = ? WHERE hash = ? AND nbytes = ?",
        (problem, detail, row.hash, row.nbytes),
    )


class _Looked(NamedTuple):
    row: Checked
    problem: str
    detail: str | None = None


def _look_up(repository: Repository, index: Index, progress: Progress) -> None:
    """Ask of each object that is shorter than its content whether it is compressed: one request each, once."""
    (number,) = index.connection.execute(f"SELECT count(*) FROM checked WHERE {_LOOKED_FOR}").fetchone()
    if not number:
        return
    progress.phase("asking what is compressed", files=number, noun="content")
    patience = Patience()
    short = rows(index.connection, _LOOKED_FOR)
    looked = each(lambda row: _look(repository, row, patience), short, workers=WORKERS, give_up=repository.storage.stop)
    for row, problem, detail in looked:
        settle(index.connection, row, problem, detail)
        if problem == UNVERIFIED and row.stored is not None and detail is None:
            note(index, [Evidence(row.hash, row.stored, row.etag, evidence.LOOKED_UP)])
        progress.advance(files=1)


def _look(repository: Repository, row: Checked, patience: Patience) -> _Looked:
    try:
        metadata = repository.storage.metadata(row.key)
    except ObjectNotFound:
        return _Looked(row, MISSING)
    except AccessDenied as error:
        return _Looked(row, UNVERIFIED, error.message)  # credentials that may only list are enough for all else
    except StorageError as error:
        patience.judge(error)
        return _Looked(row, UNREADABLE, error.message)
    patience.reward()
    is_packed = says_compressed(metadata)
    if is_packed is None:
        is_packed = row.problem != _SHRUNK
    return _Looked(row, UNVERIFIED if is_packed else CUT)


def _pin(index: Index) -> None:
    """Keep the ETags of what this machine put and sees in a listing for the first time: then a change shows."""
    seen = "FROM checked c WHERE c.hash = evidence.hash AND c.stored = evidence.nbytes AND c.problem IS NULL"
    with index.transaction():
        index.connection.execute(
            f"UPDATE evidence SET etag = (SELECT c.etag {seen}) "
            f"WHERE etag IS NULL AND state = ? AND EXISTS (SELECT 1 {seen})",
            (evidence.STORED,),
        )


def _too_short(connection: Connection) -> Iterator[Evidence]:
    for row in rows(connection, f"problem = '{CUT}' AND NOT is_repaired AND hash NOT IN ({AMBIGUOUS})"):
        if row.stored is not None:
            yield Evidence(row.hash, row.stored, row.etag, evidence.TOO_SHORT)


def tell_index(index: Index) -> None:
    """Let the index say of the contents what was found, so that the next backup puts again what it has."""
    lost = f"SELECT hash FROM checked WHERE NOT is_repaired AND hash NOT IN ({AMBIGUOUS}) AND problem"
    connection = index.connection
    bad = ", ".join(f"'{problem}'" for problem in DAMAGE)
    if connection.execute(f"{lost} IN ({bad}) LIMIT 1").fetchone() is None:
        return
    with index.transaction():
        note(index, _too_short(connection))
        connection.execute(f"DELETE FROM content WHERE hash IN ({lost} = ?)", (MISSING,))
        connection.execute(
            f"UPDATE content SET is_damaged = 1 WHERE hash IN ({lost} IN (?, ?, ?))", (EMPTY, CUT, DAMAGED)
        )
        connection.execute("DELETE FROM fact WHERE name LIKE 'checked %'")
