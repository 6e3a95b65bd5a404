"""The guard: a snapshot from which so much vanished, or in which so much changed at once, that it is hardly a wish.

More than half of at least a hundred files: an unmounted disk, a wrong path, or something that encrypts what it finds.
What the job itself leaves out now has not vanished, unless it is one that anybody may have written. Before a file is
read it counts as changed when its size or time is another; once it was read, when its content is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from s3bu.draft import PRESENT, Draft
from s3bu.index import AT, Index, IndexedSnapshot

_FEWEST = 100
VANISHED, CHANGED = "vanished", "changed"
_TOLD = {VANISHED: "files vanished since the last snapshot", CHANGED: "files changed since the last snapshot"}


@dataclass(frozen=True, slots=True)
class Alarm:
    """So many of all files of the last snapshot vanished, or changed, at once."""

    what: str
    count: int
    total: int

    def __str__(self) -> str:
        """Return it as one reads it."""
        return f"{self.count:,} of {self.total:,} {_TOLD[self.what]}"


@dataclass(frozen=True, slots=True)
class Guard:
    """Compares a draft with the newest snapshot; `own` finds this machine's own, where another made that one."""

    index: Index
    draft: Draft
    newest: IndexedSnapshot
    own: Callable[[], IndexedSnapshot | None]

    def alarm(self) -> Alarm | None:
        """Return what is alarming about the draft, if anything is."""
        return self._alarm(VANISHED, _LOST, _VANISHED) or self._alarm(CHANGED, _REWRITTEN, _CHANGED)

    def _alarm(self, what: str, quick: str, exact: str) -> Alarm | None:
        connection = self.index.connection
        if connection.execute(quick).fetchone()[0] < _FEWEST // 2:
            return None  # nearly always: it does not have to be counted exactly
        found = self._count(what, exact, self.newest)
        if found is None:
            return None
        own = self.own()
        return found if own is None or own == self.newest else self._count(what, exact, own)

    def _count(self, what: str, exact: str, snapshot: IndexedSnapshot) -> Alarm | None:
        values = {"source": snapshot.source, "number": snapshot.number}
        count, total = map(int, self.index.connection.execute(exact, values).fetchone())
        return Alarm(what, count, total) if total >= _FEWEST and count * 2 > total else None


_DRAFTED = "FROM draft d WHERE d.sort_key = v.sort_key"
_CURRENT = "FROM version n WHERE n.source = v.source AND n.sort_key = v.sort_key AND n.last IS NULL"
_LOST = f"SELECT count(*) FROM draft WHERE NOT ({PRESENT}) AND NOT is_meant"
_VANISHED = (
    f"SELECT total(CASE (SELECT {PRESENT} OR is_meant {_DRAFTED}) WHEN 0 THEN 1 WHEN 1 THEN 0 "
    f"ELSE NOT EXISTS (SELECT 1 {_CURRENT}) END), count(*) FROM version v WHERE {AT} AND kind = 0"
)
_REWRITTEN = "SELECT count(*) FROM draft WHERE kind = 0"
# A file that was not read yet has no hash in the draft.
_CHANGED = (
    f"SELECT total(coalesce((SELECT CASE WHEN NOT ({PRESENT}) OR d.kind <> 0 THEN 0 "
    f"WHEN d.hash IS NULL THEN d.nbytes <> v.nbytes OR d.mtime <> v.mtime ELSE d.hash <> v.hash END {_DRAFTED}), "
    f"(SELECT n.hash <> v.hash {_CURRENT}), 0)), count(*) FROM version v WHERE {AT} AND kind = 0"
)
