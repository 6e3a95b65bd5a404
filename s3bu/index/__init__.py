"""The index: one SQLite file a repository, with every snapshot that this machine has read.

A snapshot is not stored entry by entry. Each version of a path is one row with the first and the last snapshot that
has it (*interval rows*), so that a snapshot costs no more than its changes; the rows without a last snapshot are the
newest state of their source, and also hold what only this machine knows of a file.

Invariant: the index is a cache. It may be deleted at any time, and is never the only truth; one that is corrupt, of a
newer schema or of another repository is moved aside and made anew, with the same result.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from s3bu.errors import S3buError
from s3bu.index.file import connected, fault, move_aside, prepare_directory, prepared, raw, why
from s3bu.lock import turn
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath, Owner, Seen, sort_key
from s3bu.moment import instant
from s3bu.progress import Progress

_KINDS = (FILE, DIRECTORY, SYMLINK, SPECIAL)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_SECOND = 1_000_000_000
_CHILDREN_AT_ONCE = 500
_COLUMNS = "kind, nbytes, mtime, nanos, mode, hash, target, owner"
AT = "source = :source AND first <= :number AND (last IS NULL OR last >= :number)"
"""The condition for the rows of one snapshot."""
ROW = f"sort_key, {_COLUMNS}, local_nanos, ctime_ns, inode, device"
"""The columns from which `Index.entry` makes an entry."""
_CURRENT = f"SELECT {ROW} FROM version WHERE source = ? AND last IS NULL"


@dataclass(frozen=True, slots=True)
class IndexedSnapshot:
    """A manifest that was taken in, or could not be: then `error` says why.

    `number` orders the snapshots of one source as their keys are ordered; `created_us` is in microseconds of UTC.
    """

    id: int
    source: int
    number: int
    key: str
    etag: str
    created_us: int
    host: str | None
    parent: str | None
    nfiles: int
    nbytes: int
    error: str | None

    @property
    def created(self) -> datetime:
        """The time of the snapshot."""
        return instant(self.created_us)


class Index:
    """An open index. All calls belong to the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self.connection = connection
        self.path = path
        self._owners: dict[int, Owner] = {}
        self._owner_numbers: dict[Owner, int] = {}

    def close(self) -> None:
        """Close the file; what was committed is durable."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold a write transaction: all of it happens, or nothing; one within another is part of that."""
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            self._owner_numbers.clear()
            self._owners.clear()
            raise
        self.connection.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything but which repository it is about."""
        with self.transaction():
            for table in (
                "span",
                "failed",
                "snapshot",
                "version",
                "owner",
                "source",
                "content",
                "evidence",
                "job_version",
            ):
                self.connection.execute(f"DELETE FROM {table}")
            self.connection.execute("DELETE FROM fact WHERE name <> 'repository'")
        self._owners.clear()
        self._owner_numbers.clear()

    # --- facts

    def fact(self, name: str) -> str | None:
        """Return what was kept under that name."""
        row = self.connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def keep_fact(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        self.connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def token(self, source: int) -> str | None:
        """Return by what the run is known again that made the newest entries of a source what they are."""
        return self.fact(f"journal {source}")

    def keep_token(self, source: int, token: str) -> None:
        """Keep it; a journal that has the same token goes on from what that run left."""
        self.keep_fact(f"journal {source}", token)

    def drop_token(self, source: int) -> None:
        """Forget it, when the newest entries become others than the last run on this machine left."""
        self.connection.execute("DELETE FROM fact WHERE name = ?", (f"journal {source}",))

    # --- jobs

    def job(self, name: str, version: int, etag: str) -> tuple[bytes, bool] | None:
        """Return the text of a version of a job, and whether it was encrypted, if it is the one that was kept."""
        row = self.connection.execute(
            "SELECT text, is_encrypted FROM job_version WHERE job = ? AND version = ? AND etag = ?",
            (name, version, etag),
        ).fetchone()
        return (row[0], bool(row[1])) if row else None

    def keep_job(self, name: str, version: int, etag: str, text: bytes, *, is_encrypted: bool) -> None:
        """Keep a version of a job, so that it need not be decrypted again."""
        values = (name, version, etag, text, is_encrypted)
        self.connection.execute("INSERT OR REPLACE INTO job_version VALUES (?, ?, ?, ?, ?)", values)

    # --- sources and snapshots

    def source(self, job: str, label: str) -> int:
        """Return the number of a source, which is given to it when it is first asked for."""
        self.connection.execute("INSERT OR IGNORE INTO source (job, label) VALUES (?, ?)", (job, label))
        row = self.connection.execute("SELECT id FROM source WHERE job = ? AND label = ?", (job, label)).fetchone()
        return int(row[0])

    def snapshots(self, source: int | None = None) -> list[IndexedSnapshot]:
        """Return the snapshots of one source, or of all, those of a source in order; also those with an error."""
        condition = "" if source is None else "WHERE source = :source"
        rows = self.connection.execute(
            "SELECT id, source, number, key, etag, created_us, host, parent, nfiles, nbytes, error "
            f"FROM snapshot {condition} ORDER BY source, number",
            {"source": source},
        )
        return [IndexedSnapshot(*row) for row in rows]

    def newest(self, source: int) -> IndexedSnapshot | None:
        """Return the newest snapshot of a source that was taken in."""
        taken = [snapshot for snapshot in self.snapshots(source) if snapshot.error is None]
        return taken[-1] if taken else None

    def failed(self, snapshot: IndexedSnapshot) -> list[FailedPath]:
        """Return the paths that could not be backed up in a snapshot."""
        rows = self.connection.execute("SELECT path, error, since FROM failed WHERE snapshot = ?", (snapshot.id,))
        return [FailedPath(*row) for row in rows]

    # --- entries

    def entries(self, source: int, number: int) -> Iterator[Entry]:
        """Yield the entries of a snapshot, in order, as its manifest has them."""
        rows = self.connection.execute(
            f"SELECT sort_key, {_COLUMNS}, NULL, NULL, NULL, NULL FROM version WHERE {AT} ORDER BY sort_key",
            {"source": source, "number": number},
        )
        return map(self.entry, rows)

    def currents(self, source: int, *, after: bytes = b"", until: bytes | None = None) -> Iterator[Entry]:
        """Yield the newest entries of a source, in order, with what this machine saw of them.

        `after` and `until` are sort keys: those behind the one, up to and with the other.
        """
        ends, values = ("", ()) if until is None else (" AND sort_key <= ?", (until,))
        rows = self.connection.execute(f"{_CURRENT} AND sort_key > ?{ends} ORDER BY sort_key", (source, after, *values))
        return map(self.entry, rows)

    def current_keys(self, source: int, *, after: bytes, until: bytes) -> list[bytes]:
        """Return the sort keys of the newest entries behind one key, up to and with another, in order."""
        rows = self.connection.execute(
            "SELECT sort_key FROM version WHERE source = ? AND last IS NULL AND sort_key > ? AND sort_key <= ? "
            "ORDER BY sort_key",
            (source, after, until),
        )
        return [row[0] for row in rows]

    def currents_below(self, source: int, path: bytes) -> Iterator[Entry]:
        """Yield the newest entries below a path, in order."""
        key = sort_key(path)
        values = (source, key + b"\0", key + b"\1")
        return map(
            self.entry,
            self.connection.execute(f"{_CURRENT} AND sort_key > ? AND sort_key < ? ORDER BY sort_key", values),
        )

    def child_names(self, source: int, path: bytes) -> Iterator[bytes]:
        """Yield the names of the newest entries in a directory, in order and each once."""
        prefix = sort_key(path) + b"\0" if path else b""
        after, end = prefix, (prefix[:-1] + b"\1" if path else b"\xff" * 256)
        statement = (
            "SELECT sort_key FROM version WHERE source = ? AND last IS NULL AND sort_key >= ? AND sort_key < ? "
            "ORDER BY sort_key LIMIT ?"
        )
        last = None
        while rows := self.connection.execute(statement, (source, after, end, _CHILDREN_AT_ONCE)).fetchall():
            for (key,) in rows:
                name, nested, _ = key[len(prefix) :].partition(b"\0")
                if name != last:
                    yield name
                    last = name
                after = prefix + name + b"\1" if nested else key + b"\0"
                if nested:
                    break

    def current_totals(self, source: int) -> tuple[int, int, int]:
        """Return the number of the newest entries of a source, of the files among them, and their bytes."""
        row = self.connection.execute(
            "SELECT count(*), total(kind = 0), total(CASE kind WHEN 0 THEN nbytes END) FROM version "
            "WHERE source = ? AND last IS NULL",
            (source,),
        ).fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def names_of_files(self, source: int, identities: set[tuple[int, int]]) -> list[bytes]:
        """Return the paths of the newest files that this machine saw with one of these inodes and devices."""
        rows = self.connection.execute(
            "SELECT sort_key FROM version WHERE source = ? AND last IS NULL AND kind = 0 AND (inode, device) IN "
            "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))",
            (source, json.dumps([*identities])),
        )
        return [row[0].replace(b"\0", b"/") for row in rows]

    def count_touched(self, source: int, since: int) -> int:
        """Return how many of the newest files had anything changed of them since then, in seconds since 1970."""
        statement = "SELECT count(*) FROM version WHERE source = ? AND last IS NULL AND kind = 0 AND ctime_ns >= ?"
        return int(self.connection.execute(statement, (source, since * _SECOND)).fetchone()[0])

    def doubtful(
        self, source: int, *, large_nbytes: int, recent: int, touched: int, inodes: Iterable[int]
    ) -> Iterator[Entry]:
        """Yield the newest files of which more than their directory must be asked whether they are as they were.

        Those that are that large, whose content has changed since `recent`, or anything of them since `touched` (both
        in seconds since 1970), those seen with one of these inodes, whatever the device, and those of which not all was
        seen: without a hash, never seen by this machine, or read too soon after they were written.
        """
        rows = self.connection.execute(
            f"{_CURRENT} AND kind = 0 AND (nbytes >= ? OR mtime >= ? OR ctime_ns >= ? OR hash IS NULL "
            "OR ctime_ns IS NULL OR (ctime_ns = 0 AND inode = 0 AND device = 0) "
            "OR inode IN (SELECT value FROM json_each(?))) ORDER BY sort_key",
            (source, large_nbytes, recent, touched * _SECOND, json.dumps([*inodes])),
        )
        return map(self.entry, rows)

    def current(self, source: int, key: bytes) -> Entry | None:
        """Return the newest entry of a source under a sort key."""
        row = self.connection.execute(f"{_CURRENT} AND sort_key = ?", (source, key)).fetchone()
        return self.entry(row) if row else None

    def entry_at(self, snapshot: IndexedSnapshot, path: bytes) -> Entry | None:
        """Return what a snapshot has of a path, if anything."""
        values = {"source": snapshot.source, "number": snapshot.number, "key": sort_key(path)}
        row = self.connection.execute(f"SELECT {ROW} FROM version WHERE {AT} AND sort_key = :key", values).fetchone()
        return self.entry(row) if row else None

    def entry(self, row: tuple[Any, ...]) -> Entry:
        """Return the entry of a row of sort key, columns, and the four columns of what this machine saw."""
        key, kind, nbytes, mtime, nanos, mode, digest, target, owner, local_nanos, ctime_ns, inode, device = row
        return Entry(
            key.replace(b"\0", b"/"),
            _KINDS[kind],
            nbytes,
            mtime * _SECOND + (nanos if local_nanos is None else local_nanos),
            mode,
            digest.hex() if digest else "",
            target or b"",
            self._owner(owner) if owner else None,
            None if ctime_ns is None else Seen(ctime_ns, inode, device),
        )

    def row(self, entry: Entry) -> tuple[object, ...]:
        """Return sort key and columns of an entry; of a file's time only the seconds, as a manifest has them."""
        mtime, nanos = divmod(entry.mtime_ns, _SECOND)
        return (
            sort_key(entry.path),
            _KIND_NUMBERS[entry.kind],
            entry.nbytes,
            mtime,
            0 if entry.kind == FILE else nanos,
            entry.mode,
            bytes.fromhex(entry.hash) if entry.hash else None,
            entry.target or None,
            self._owner_number(entry.owner) if entry.owner else None,
        )

    def _owner(self, number: int) -> Owner:
        if number not in self._owners:
            row = self.connection.execute('SELECT uid, gid, user, "group" FROM owner WHERE id = ?', (number,))
            uid, gid, user, group = row.fetchone()
            self._owners[number] = Owner(uid, gid, os.fsdecode(user), os.fsdecode(group))
        return self._owners[number]

    def _owner_number(self, owner: Owner) -> int:
        if owner not in self._owner_numbers:
            # Names are bytes here: what came from a manifest may be no text.
            values = (owner.uid, owner.gid, os.fsencode(owner.user), os.fsencode(owner.group))
            self.connection.execute('INSERT OR IGNORE INTO owner (uid, gid, user, "group") VALUES (?, ?, ?, ?)', values)
            found = self.connection.execute(
                'SELECT id FROM owner WHERE uid = ? AND gid = ? AND user = ? AND "group" = ?', values
            )
            self._owner_numbers[owner] = found.fetchone()[0]
        return self._owner_numbers[owner]


class IndexDamagedError(S3buError):
    """The index turned out to be damaged while it was used; it was moved aside, and a new one may take its place."""


@contextmanager
def held(index: Index) -> Iterator[Index]:
    """Hold an index open for a block; an error of SQLite becomes one of ours, and a damaged file is moved aside."""
    try:
        yield index
    except sqlite3.OperationalError as error:
        raise S3buError(
            f"{index.path or 'a copy'}: the index cannot be used ({error})",
            hint="is its disk full, or another program using it? it may be deleted, and is made again",
        ) from error
    except sqlite3.DatabaseError as error:
        index.close()
        aside = f"; moved to {move_aside(index.path).name}" if index.path else ""
        message = f"{index.path or 'a copy'}: the index is damaged ({error}){aside}"
        raise IndexDamagedError(message, hint="run again") from error
    finally:
        index.close()


def index_path(home: Path, identity: str) -> Path:
    """Return where the index of the repository of that `Storage.identity` lies."""
    name = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
    return home / "index" / f"{name}.db"


def open_index(home: Path, identity: str, progress: Progress) -> Index:
    """Open the index of a repository, making it where there is none.

    One that cannot be used is moved aside with a warning, and a new one takes its place. An `S3buError` says that no
    index can be had in this `home` at all: the directory cannot be written, or lies on a network file system.
    """
    path = index_path(home, identity)
    try:
        prepare_directory(path.parent)
        with turn(path.with_suffix(".lock")):  # another process may be making it in this moment
            found = fault(path, identity) if path.exists() else None
            if found is not None:
                aside = move_aside(path)
                progress.warning(f"{path}: {found}; moved to {aside.name}, and a new index is made from the repository")
            return Index(connected(path, identity), path)
    except (sqlite3.Error, OSError) as error:
        raise S3buError(f"{path}: the index cannot be opened ({why(error)})", hint="is the disk full?") from error


def open_passing_index(identity: str) -> Index:
    """Return an index in memory, for where none can be kept: it knows what the run tells it, and ends with it."""
    return Index(prepared(sqlite3.connect(":memory:", isolation_level=None), identity), None)


def open_copied_index(home: Path, identity: str) -> Index:
    """Return a copy of an index, empty where none can be used; what is written into it ends with it."""
    path = index_path(home, identity)
    connection = sqlite3.connect("", isolation_level=None)  # a file without a name, that SQLite takes away itself
    try:
        if path.exists() and fault(path, identity) is None:
            with contextlib.closing(raw(path)) as existing:
                existing.backup(connection)
        return Index(prepared(connection, identity), None)
    except (sqlite3.Error, OSError) as error:
        raise S3buError(f"{path}: the index cannot be read ({why(error)})") from error
