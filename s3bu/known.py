"""Which contents are stored, as the index knows it, for as long as that may be trusted.

What the index knows counts only while nothing moved in `repo/` (recipients, epoch, marks), while `data/` was listed
within a week, and while the newest manifest that it knows is still there: a bucket may be emptied or made anew, and a
prune on another machine may be under way. Otherwise `data/` is listed first. A content that a prune has marked counts
as absent.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from s3bu.evidence import BAD, note_stored
from s3bu.index import Index
from s3bu.progress import Progress
from s3bu.repository import Contents, Repository
from s3bu.repository.state import State

_LISTED_SECONDS = 7 * 86_400


class Known:
    """What a run knows of the contents of a repository; `contents` is loaded when it is first asked for."""

    def __init__(self, repository: Repository, index: Index, progress: Progress) -> None:
        self._repository = repository
        self._index = index
        self._progress = progress
        self._contents: Contents | None = None
        self.has_listed = False
        self.why_listed = ""

    @property
    def contents(self) -> Contents:
        """The contents that are stored, and those whose objects must be written over; `Store` adds to them."""
        if self._contents is None:
            self._contents = Contents(set(), set())
            self._load(self._contents)
        return self._contents

    def is_stored(self, content_hash: str) -> bool:
        """Say whether a content is stored."""
        return bytes.fromhex(content_hash) in self.contents.stored

    def trust(self, state: State) -> None:
        """Go by what the index knows if it may be trusted in this state of the repository, else list."""
        listed = self._index.fact("listed")
        if listed is None:
            self.list(state, why="this machine never listed it, or a run broke off")
        elif self._index.fact("state") != _text(state):
            self.list(state, why="something moved below repo/")
        elif not 0 <= time.time() - float(listed) < _LISTED_SECONDS:
            self.list(state, why="it was last listed over a week ago")

    def list(self, state: State, *, why: str) -> None:
        """List `data/`, and know from then on what is there and will not be deleted by what marked it in that state."""
        self.why_listed = why
        self._progress.phase("listing what is stored")
        marked = self._repository.marked(state)
        connection = self._index.connection
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS listed (hash BLOB, nbytes INTEGER, is_damaged INTEGER)")
        connection.execute("DELETE FROM listed")
        connection.execute("BEGIN")
        try:
            connection.executemany("INSERT INTO listed VALUES (?, ?, ?)", self._repository.contents(marked))
        finally:
            connection.execute("COMMIT")
        with self._index.transaction():
            connection.execute("DELETE FROM content")
            connection.execute("INSERT OR REPLACE INTO content SELECT * FROM listed ORDER BY hash")
            self._weigh_evidence()
            connection.execute("DELETE FROM fact WHERE name LIKE 'checked %'")
            self._index.keep_fact("listed", str(int(time.time())))
            self._index.keep_fact("state", _text(state))
        connection.execute("DELETE FROM listed")
        self.has_listed = True
        self._reload()

    def _weigh_evidence(self) -> None:
        """Let count as absent what was found bad, so that whoever has the file puts it again; forget what is gone."""
        connection = self._index.connection
        connection.execute("DELETE FROM evidence WHERE hash NOT IN (SELECT hash FROM content)")
        connection.execute(
            "UPDATE content SET is_damaged = 1 WHERE EXISTS "
            "(SELECT 1 FROM evidence e WHERE e.hash = content.hash AND e.nbytes = content.nbytes AND e.state >= ?)",
            (BAD,),
        )

    def _reload(self) -> None:
        """Bring the sets up to date in place, since a store under way has them too."""
        if self._contents is not None:
            self._contents.stored.clear()
            self._contents.damaged.clear()
            self._load(self._contents)

    def _load(self, contents: Contents) -> None:
        for digest, is_damaged in self._index.connection.execute("SELECT hash, is_damaged FROM content"):
            (contents.damaged if is_damaged else contents.stored).add(digest)

    def keep(self, stored: dict[str, int]) -> None:
        """Note contents that were put, by hash and bytes: a run that is killed later need not put them again."""
        sizes = {bytes.fromhex(content_hash): nbytes for content_hash, nbytes in stored.items()}
        with self._index.transaction():
            self._index.connection.executemany("INSERT OR REPLACE INTO content VALUES (?, ?, 0)", sizes.items())
            note_stored(self._index, sizes)

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Hold a block in which contents are put: where it breaks off, not all are noted, and the next run lists."""
        listed = self._index.fact("listed")
        self._index.connection.execute("DELETE FROM fact WHERE name = 'listed'")
        yield
        if listed is not None:
            self._index.keep_fact("listed", listed)

    # --- sources all of whose contents are known to be there

    def absent(self, source: int) -> set[bytes]:
        """Return the sort keys of the newest files of a source whose content is not stored, once after each listing."""
        if self._index.fact(f"checked {source}"):
            return set()
        rows = self._index.connection.execute(
            "SELECT sort_key FROM version v WHERE source = ? AND last IS NULL AND kind = 0 AND hash IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM content c WHERE c.hash = v.hash AND NOT c.is_damaged)",
            (source,),
        )
        return {row[0] for row in rows}

    def keep_checked(self, source: int) -> None:
        """Note that every content of the newest snapshot of a source is stored, until `data/` is listed again."""
        self._index.keep_fact(f"checked {source}", "1")

    def doubt(self, source: int) -> None:
        """Forget that, before its newest snapshot becomes one that was not made here just now."""
        self._index.connection.execute("DELETE FROM fact WHERE name = ?", (f"checked {source}",))


def _text(state: State) -> str:
    return json.dumps(sorted(state.etags.items()))
