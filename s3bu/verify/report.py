"""Whom it concerns: the paths and snapshots that need what is missing or bad, and which snapshots are whole."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from s3bu.index import Index, IndexedSnapshot
from s3bu.verify.contents import DAMAGE, UNOPENED, UNVERIFIED

UNREADABLE, ALTERED, VANISHED, LOCKED = "unreadable", "altered", "vanished", "locked"
_LOST = ", ".join(f"'{problem}'" for problem in (*DAMAGE, UNOPENED))


class Broken(NamedTuple):
    """A manifest that is not what it was, or cannot be read, and why."""

    key: str
    problem: str
    detail: str
    is_damage: bool

    @classmethod
    def unreadable(cls, key: str, error: str) -> "Broken":
        """One that is cut, altered, or not the one of that name."""
        return cls(key, UNREADABLE, error.removeprefix(f"{key}: "), is_damage=True)

    @classmethod
    def locked(cls, key: str, error: str) -> "Broken":
        """One whose passphrase is not at hand, so that nobody can say."""
        return cls(key, LOCKED, error.removeprefix(f"{key}: "), is_damage=False)

    @classmethod
    def altered(cls, key: str) -> "Broken":
        """One that is another object than was read before; it can be read, and a copy of a directory looks so too."""
        return cls(key, ALTERED, "altered since it was read; a snapshot never changes", is_damage=False)

    @classmethod
    def vanished(cls, key: str) -> "Broken":
        """One that is not there any more; whether it was meant to go, nobody can see from here."""
        return cls(key, VANISHED, "gone since it was read; was it meant to be?", is_damage=False)


class Fault(NamedTuple):
    """A path and the snapshots, from `first` to `last`, that need a content with something wrong about its object."""

    job: str
    label: str
    path: bytes
    nbytes: int
    hash: str
    stored: int | None
    problem: str
    detail: str | None
    is_repaired: bool
    first: IndexedSnapshot
    last: IndexedSnapshot
    nsnapshots: int


class Gap(NamedTuple):
    """Snapshots of a source, one after the other, of none of which all files can come back; of one, `nfiles` cannot."""

    first: IndexedSnapshot
    last: IndexedSnapshot
    nsnapshots: int
    nfiles: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands: its snapshots, and those of which files are damaged.

    `nunreadable` manifests could not be read; `newest_whole` is `None` where there is none.
    """

    job: str
    label: str
    nsnapshots: int
    nunreadable: int
    gaps: Sequence[Gap]
    newest: IndexedSnapshot | None
    newest_whole: IndexedSnapshot | None
    is_too_old: bool

    @property
    def ndamaged(self) -> int:
        """The snapshots of which files cannot come back."""
        return sum(gap.nsnapshots for gap in self.gaps)

    @property
    def nwhole(self) -> int:
        """The snapshots that can come back whole, as far as is known."""
        return self.nsnapshots - self.nunreadable - self.ndamaged


def counts(index: Index) -> tuple[dict[str, int], int]:
    """Return the number of contents by what is wrong with them, and of those that were repaired."""
    problems: dict[str, int] = {}
    repaired = 0
    rows = index.connection.execute(
        "SELECT problem, is_repaired, count(*) FROM checked WHERE problem IS NOT NULL GROUP BY problem, is_repaired"
    )
    for problem, is_repaired, number in rows:
        if is_repaired:
            repaired += number
        else:
            problems[problem] = number
    return problems, repaired


def faults(index: Index, *, wants_unverified: bool) -> Iterator[Fault]:
    """Yield the paths that need something wrong, by source and path; those nobody read only where that is wanted."""
    snapshots = _snapshots(index)
    names = {number: (job, label) for number, job, label in index.connection.execute("SELECT * FROM source")}
    left_out = "" if wants_unverified else f"AND c.problem <> '{UNVERIFIED}'"
    for row in _concerned(index, f"c.problem IS NOT NULL {left_out}"):
        source, key, first, last, digest, nbytes, stored, problem, detail, is_repaired = row
        begin, end = snapshots[source].bounds(first, last)
        if begin == end:
            continue  # another process let go its snapshots in this moment
        needing = snapshots[source].found
        job, label = names[source]
        yield Fault(
            job,
            label,
            key.replace(b"\0", b"/"),
            nbytes,
            digest.hex(),
            stored,
            problem,
            detail,
            bool(is_repaired),
            needing[begin],
            needing[end - 1],
            end - begin,
        )


def _concerned(index: Index, condition: str) -> Iterator[tuple[Any, ...]]:
    return index.connection.execute(
        "SELECT v.source, v.sort_key, v.first, v.last, c.hash, c.nbytes, c.stored, c.problem, c.detail, c.is_repaired "
        "FROM version v CROSS JOIN checked c ON c.hash = v.hash AND c.nbytes = v.nbytes "
        f"WHERE v.source IN (SELECT id FROM chosen) AND v.kind = 0 AND {condition} "
        "ORDER BY v.source, v.sort_key, v.first"
    )


class _Snapshots(NamedTuple):
    """The snapshots of a source that were taken in, in order, and their numbers."""

    found: list[IndexedSnapshot]
    numbers: list[int]

    def bounds(self, first: int, last: int | None) -> tuple[int, int]:
        """Return where those begin and end that have a version, which is told by numbers as the index does."""
        end = len(self.numbers) if last is None else bisect_right(self.numbers, last)
        return bisect_left(self.numbers, first), end


def _snapshots(index: Index) -> Mapping[int, _Snapshots]:
    """Return the snapshots by source."""
    found: defaultdict[int, _Snapshots] = defaultdict(lambda: _Snapshots([], []))
    for snapshot in index.snapshots():
        if snapshot.error is None:
            found[snapshot.source].found.append(snapshot)
            found[snapshot.source].numbers.append(snapshot.number)
    return found


def standings(
    index: Index, sources: Mapping[int, tuple[str, str]], broken: Sequence[Broken], oldest: datetime | None
) -> list[Standing]:
    """Return how each source stands."""
    snapshots = _snapshots(index)
    damaged = _damaged(index, snapshots)
    unreadable = {one.key for one in broken if one.problem in (UNREADABLE, LOCKED)}
    totals = dict(index.connection.execute("SELECT source, count(*) FROM snapshot GROUP BY source"))
    return [
        _standing(
            names,
            [one for one in snapshots[number].found if one.key not in unreadable],
            damaged,
            totals[number],
            oldest,
        )
        for number, names in sources.items()
    ]


def _standing(
    names: tuple[str, str],
    taken: list[IndexedSnapshot],
    damaged: Mapping[int, int],
    total: int,
    oldest: datetime | None,
) -> Standing:
    whole = [one for one in taken if not damaged.get(one.id)]
    newest = taken[-1] if taken else None
    is_too_old = oldest is not None and (newest is None or newest.created < oldest)
    newest_whole = whole[-1] if whole else None
    return Standing(*names, total, total - len(taken), list(_gaps(taken, damaged)), newest, newest_whole, is_too_old)


def _gaps(taken: list[IndexedSnapshot], damaged: Mapping[int, int]) -> Iterator[Gap]:
    for is_damaged, group in groupby(taken, key=lambda one: bool(damaged.get(one.id))):
        if is_damaged:
            found = list(group)
            yield Gap(found[0], found[-1], len(found), max(damaged[one.id] for one in found))


def _damaged(index: Index, snapshots: Mapping[int, _Snapshots]) -> dict[int, int]:
    """Return the number of files that cannot come back, by snapshot."""
    steps: dict[int, list[int]] = {source: [0] * (len(one.found) + 1) for source, one in snapshots.items()}
    for source, _, first, last, *_ in _concerned(index, f"c.problem IN ({_LOST}) AND NOT c.is_repaired"):
        begin, end = snapshots[source].bounds(first, last)
        steps[source][begin] += 1
        steps[source][end] -= 1
    return {
        snapshot.id: number
        for source, one in snapshots.items()
        for snapshot, number in zip(one.found, accumulate(steps[source]), strict=False)
    }
