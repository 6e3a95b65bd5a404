"""The journal: which paths of a source changed since the last run, written by a watcher and read by every backup.

A watcher writes down a path before it counts as seen, in the current epoch of its source. A run freezes what stands
there, by beginning a new epoch, and drops it only when it is done: a run that fails, or is killed, has lost nothing.
Beside the paths stands what a run must know to believe that they are all: which directories are watched, how each
directory was when it was last listed, which files have further links, and what the last run left (`Left`).

A journal tells where to look, never what is there. Nothing here says whether it may be believed (`backup.doubts`).
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from s3bu import __version__
from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.journal.batch import Batch
from s3bu.journal.file import cookie_directory, existing, journal_path, made
from s3bu.journal.keys import TREE, path_of, tree_of
from s3bu.journal.met import Directory, Met
from s3bu.journal.session import Session, boot_id, start_ticks
from s3bu.journal.watched import GONE, Failing, Left, Watched
from s3bu.manifest import sort_key
from s3bu.scan.found import signed

BEAT_SECONDS = 10
"""How often a watcher says that it lives."""
_COOKIE_POLL_SECONDS = 0.01
_OLD_COOKIE_SECONDS = 3600
_WATCHER_BUSY_MS = 2_000
_MOST_DIRTY = 200_000
NEVER_ALONE_US = 2**62
"""Before when a path is no reason for a run, if what was left of it never is one; a change of it is, at any time."""
_ANEW = "the source is watched anew"
_TOO_MANY = f"more than {_MOST_DIRTY:,} paths changed since the last run"


class JournalError(S3buError):
    """The journal cannot be used just now; whoever reads it can do without, and who writes it tries again."""


class Dirty(NamedTuple):
    """A path that changed; `is_tree`: with all below it. `reason` says why a whole source has to be looked at."""

    path: bytes
    is_tree: bool
    since_us: int
    not_before_us: int = 0
    reason: str | None = None


class Journal:
    """The journals of one repository; one object is for one thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self._inode = os.stat(path).st_ino

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction; `JournalError` when the file cannot be read or written."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: the journal cannot be written ({error})") from error

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query; `JournalError` when the file cannot be read."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: the journal cannot be read ({error})") from error

    def _row(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        return next(iter(self._rows(statement, *values)), None)

    @property
    def cookies(self) -> Path:
        """The directory where runs lay cookies; a watcher watches it through the same queue as its sources."""
        return cookie_directory(self.path)

    @property
    def is_in_place(self) -> bool:
        """Whether the file still lies where runs look for it."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    # --- what a watcher writes

    def begin_session(self) -> int:
        """Begin to watch, as this process; return the number of the session. Those that ended are forgotten."""
        self._sweep_cookies()
        now_ns, pid = time.clock_gettime_ns(time.CLOCK_BOOTTIME), os.getpid()
        with self._transaction() as connection:
            for row in connection.execute(
                "SELECT * FROM session WHERE id NOT IN (SELECT session FROM source)"
            ).fetchall():
                if not Session(*row).is_running:
                    connection.execute("DELETE FROM session WHERE id = ?", row[:1])
            connection.execute("DELETE FROM answer WHERE session NOT IN (SELECT id FROM session)")
            cursor = connection.execute(
                "INSERT INTO session (boot, pid, ticks, began_us, beat_ns) VALUES (?, ?, ?, ?, ?)",
                (boot_id(), pid, start_ticks(pid), time.time_ns() // 1000, now_ns),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _sweep_cookies(self) -> None:
        """Remove cookies of runs that were killed while they waited for an answer."""
        with contextlib.suppress(OSError):
            for path in self.cookies.iterdir():
                if time.time() - path.stat().st_mtime > _OLD_COOKIE_SECONDS:
                    path.unlink()

    def beat(self, session: int) -> None:
        """Say that the watcher lives, and takes events."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._rows("UPDATE session SET beat_ns = ? WHERE id = ?", now_ns, session)

    def end_session(self, session: int) -> None:
        """Say that the watcher takes no more events."""
        self._rows("UPDATE session SET is_ended = 1 WHERE id = ?", session)

    def watch_source(self, session: int, job: str, label: str, full_seconds: int, rules: str) -> int:
        """Begin to watch a source, and return its number; what earlier watchers wrote of it is forgotten.

        `full_seconds` is how old a full scan may be that runs still go by; `rules` are those of `rules_of` by which
        the watcher passes over what is left out.
        """
        with self._transaction() as connection:
            row = connection.execute("SELECT id FROM source WHERE job = ? AND label = ?", (job, label)).fetchone()
            if row is None:
                statement = "INSERT INTO source (job, label, session, full_seconds, watch_rules) VALUES (?, ?, ?, ?, ?)"
                number = connection.execute(statement, (job, label, session, full_seconds, rules)).lastrowid
                assert number is not None
                return number
            for table in ("dirty", "watched"):
                connection.execute(f"DELETE FROM {table} WHERE source = ?", row)
            connection.execute(
                "UPDATE source SET session = ?, full_seconds = ?, watch_rules = ?, obstacle = NULL, "
                "next_run_us = NULL WHERE id = ?",
                (session, full_seconds, rules, row[0]),
            )
            # Nor may a run forget it that begins in this moment.
            self._mark(row[0], Dirty(b"", True, time.time_ns() // 1000, 0, _ANEW))
            return int(row[0])

    def record(self, session: int, batch: Batch) -> None:
        """Write down what a watcher has seen, in the current epoch of each source, and then answer cookies."""
        with self._transaction() as connection:
            for (source, path), (since_us, is_tree, reason) in batch.changed.items():
                self._mark(source, Dirty(path, is_tree, since_us, 0, reason))
            for source in batch.sources:
                self._bound(source)
            for is_watched, watches in groupby(batch.watches, key=lambda one: one[2] is not None):
                if is_watched:
                    connection.executemany("INSERT OR REPLACE INTO watched VALUES (?, ?, ?, ?)", map(_watched, watches))
                    continue
                for source, path, _ in watches:
                    connection.execute(f"DELETE FROM watched WHERE {TREE}", tree_of(source, path))
            for source, why in batch.obstacles.items():
                connection.execute("UPDATE source SET obstacle = ? WHERE id = ?", (why, source))
            rows = ((session, name) for name in batch.cookies)
            connection.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?)", rows)

    def _mark(self, source: int, one: Dirty) -> None:
        self._connection.execute(
            "INSERT INTO dirty (source, sort_key, epoch, is_tree, since_us, not_before_us, reason) "
            "VALUES (?, ?, (SELECT epoch FROM source WHERE id = ?), ?, ?, ?, ?) "
            "ON CONFLICT (source, sort_key) DO UPDATE SET epoch = excluded.epoch, "
            "is_tree = max(is_tree, excluded.is_tree), reason = coalesce(excluded.reason, reason), "
            "not_before_us = min(not_before_us, excluded.not_before_us)",
            (source, sort_key(one.path), source, one.is_tree, one.since_us, one.not_before_us, one.reason),
        )

    def _bound(self, source: int) -> None:
        """Let the whole source be dirty when so many paths are that a run has no use for them."""
        counted = self._connection.execute("SELECT count(*) FROM dirty WHERE source = ?", (source,)).fetchone()[0]
        if counted > _MOST_DIRTY:
            self._connection.execute("DELETE FROM dirty WHERE source = ?", (source,))
            self._mark(source, Dirty(b"", True, time.time_ns() // 1000, 0, _TOO_MANY))

    def plan_run(self, source: int, next_run_us: int | None) -> None:
        """Note when the watcher means to back a source up, in microseconds since 1970; `None`: when it changes."""
        self._rows("UPDATE source SET next_run_us = ? WHERE id = ?", next_run_us, source)

    def note_failure(self, source: int, failure: str | None) -> None:
        """Note what was wrong with the last run of a source, if anything was; a run that takes all ends that too."""
        self._rows(
            "UPDATE source SET failure = ?, failing_us = CASE WHEN ? THEN coalesce(failing_us, ?) END WHERE id = ?",
            failure,
            failure is not None,
            time.time_ns() // 1000,
            source,
        )

    # --- what runs ask

    def find(self, job: str, label: str) -> Watched | None:
        """Return what is known of the watching of a source, if it ever was watched."""
        row = self._row(
            "SELECT id, job, label, session, watch_rules, obstacle, full_seconds, next_run_us, token, base, rules, "
            "root, inode, device, mounts, full_session, full_us, full_why, failing_us, failure "
            "FROM source WHERE job = ? AND label = ?",
            job,
            label,
        )
        if row is None:
            return None
        session = self._row("SELECT * FROM session WHERE id = ?", row[3])
        if session is None:
            return None
        left = None if row[8] is None else Left(*row[8:-2])
        number, job, label, _, rules, obstacle, full_seconds, next_run_us, *_, since_us, failure = row
        failing = None if failure is None else Failing(since_us, failure)
        return Watched(number, job, label, Session(*session), rules, obstacle, full_seconds, next_run_us, left, failing)

    def sources(self) -> list[tuple[str, str]]:
        """Return job and label of what is watched, or was when its watcher ended."""
        return self._rows("SELECT job, label FROM source WHERE obstacle IS NOT ? ORDER BY job, label", GONE)

    def count_unwatched(self, source: int) -> int:
        """Return how many of the directories that the last run met are not watched under their path."""
        statement = (
            "SELECT count(*) FROM directory WHERE source = ? AND NOT is_left_out AND NOT EXISTS (SELECT 1 FROM watched "
            "WHERE watched.source = directory.source AND watched.sort_key = directory.sort_key)"
        )
        return int(self._rows(statement, source)[0][0])

    def await_answer(self, session: int, seconds: float) -> bool:
        """Lay a cookie, and wait until the watcher has taken it out of its queue, with all that came before it.

        Nothing stays of a cookie that was answered.
        """
        name = secrets.token_hex(8)
        path = self.cookies / name
        deadline = time.monotonic() + seconds
        try:
            path.touch(mode=0o600)
            while not self._is_answered(session, name):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_COOKIE_POLL_SECONDS)
            with contextlib.suppress(JournalError):  # one that stays does no harm
                self._rows("DELETE FROM answer WHERE session = ? AND cookie = ?", session, name)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        return True

    def _is_answered(self, session: int, cookie: str) -> bool:
        return self._row("SELECT 1 FROM answer WHERE session = ? AND cookie = ?", session, cookie) is not None

    def freeze(self, source: int) -> tuple[int, list[Dirty]]:
        """Begin a new epoch, and return its number and what is dirty from earlier ones."""
        with self._transaction() as connection:
            connection.execute("UPDATE source SET epoch = epoch + 1 WHERE id = ?", (source,))
            epoch = connection.execute("SELECT epoch FROM source WHERE id = ?", (source,)).fetchone()[0]
            return int(epoch), self.dirty(source)

    def dirty(self, source: int) -> list[Dirty]:
        """Return what is dirty, in order."""
        rows = self._rows(
            "SELECT sort_key, is_tree, since_us, not_before_us, reason FROM dirty WHERE source = ? ORDER BY sort_key",
            source,
        )
        return [Dirty(path_of(key), bool(is_tree), *rest) for key, is_tree, *rest in rows]

    def watched(self, source: int) -> dict[bytes, tuple[int, int]]:
        """Return inode and device of each directory that is watched, by its path."""
        rows = self._rows("SELECT sort_key, inode, device FROM watched WHERE source = ?", source)
        return {path_of(key): (inode, device) for key, inode, device in rows}

    def directories(self, source: int) -> dict[bytes, Directory]:
        """Return the directories as the last runs listed them, by path and in order."""
        rows = self._rows(
            "SELECT sort_key, mtime_ns, ctime_ns, inode, device, is_left_out FROM directory WHERE source = ? "
            "ORDER BY sort_key",
            source,
        )
        return {path_of(key): Directory(*rest) for key, *rest in rows}

    def linked(self, source: int) -> list[bytes]:
        """Return the files that have further links, in order."""
        rows = self._rows("SELECT sort_key FROM linked WHERE source = ? ORDER BY sort_key", source)
        return [path_of(key) for (key,) in rows]

    # --- what a run leaves

    def finish(self, source: int, epoch: int, left: Left, met: Met, deferred: Iterable[Dirty]) -> None:
        """Drop what was dirty before an epoch, since a run has seen it all, and keep what it leaves.

        `deferred` are paths that it did see, and did not take yet.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM dirty WHERE source = ? AND epoch < ?", (source, epoch))
            for one in deferred:
                self._mark(source, one)
            met.keep(connection, source)
            connection.execute(
                "UPDATE source SET token = ?, base = ?, rules = ?, root = ?, inode = ?, device = ?, mounts = ?, "
                "full_session = ?, full_us = ?, full_why = ?, failing_us = NULL, failure = NULL WHERE id = ?",
                (
                    left.token,
                    left.base,
                    left.rules,
                    left.root,
                    left.inode,
                    left.device,
                    left.mounts,
                    left.full_session,
                    left.full_us,
                    left.full_why,
                    source,
                ),
            )


def _watched(one: tuple[int, bytes, tuple[int, int] | None]) -> tuple[object, ...]:
    source, path, identity = one
    assert identity is not None
    return source, sort_key(path), *map(signed, identity)


def rules_of(filters: Filters) -> str:
    """Return by what the rules of a job are known again, as this version of the program takes them."""
    return hashlib.sha256(repr((__version__, filters)).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def open_for_watching(home: Path, identity: str) -> Journal:
    """Open the journals of a repository, making them where there are none; `S3buError` where none can be kept."""
    path = journal_path(home, identity)
    connection = made(path)
    # A watcher that waits hears no signal, and what it cannot write now it writes later.
    connection.execute(f"PRAGMA busy_timeout = {_WATCHER_BUSY_MS}")
    return Journal(connection, path)


def open_for_run(home: Path, identity: str) -> Journal | None:
    """Open the journals of a repository, if a watcher of this version ever kept any."""
    path = journal_path(home, identity)
    connection = existing(path)
    return None if connection is None else Journal(connection, path)
