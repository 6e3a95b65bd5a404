"""The SQLite file of the journals of one repository: where it lies, its tables, and when it is made anew.

It is a file of its own, since a watcher writes into it while a backup holds a transaction of the index. What stands in
it is worth nothing beyond the life of the watcher that wrote it, so a file that cannot be used is simply made anew.
"""

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

from s3bu.errors import S3buError
from s3bu.lock import turn
from s3bu.mounts import file_system, is_local

SCHEMA = 2
_BUSY_SECONDS = 5
_STATEMENTS = (
    # A watcher: which process of which boot it is, and when it last said that it lives (CLOCK_BOOTTIME).
    "CREATE TABLE session (id INTEGER PRIMARY KEY, boot TEXT NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL, "
    "began_us INTEGER NOT NULL, beat_ns INTEGER NOT NULL, is_ended INTEGER NOT NULL DEFAULT 0)",
    # A watched source, and by what rules it is watched. What stands from `token` on is what the last run left that
    # looked at it whole, or as if whole.
    "CREATE TABLE source (id INTEGER PRIMARY KEY, job TEXT NOT NULL, label TEXT NOT NULL, session INTEGER NOT NULL, "
    "epoch INTEGER NOT NULL DEFAULT 1, watch_rules TEXT NOT NULL, obstacle TEXT, full_seconds INTEGER NOT NULL, "
    "next_run_us INTEGER, "
    "token TEXT, base TEXT, rules TEXT, root BLOB, inode INTEGER, device INTEGER, mounts TEXT, "
    "full_session INTEGER, full_us INTEGER, full_why TEXT, failing_us INTEGER, failure TEXT, UNIQUE (job, label))",
    # A path that changed; `is_tree`: with all below it; not to be taken before a time; why, where that is not obvious.
    "CREATE TABLE dirty (source INTEGER NOT NULL, sort_key BLOB NOT NULL, epoch INTEGER NOT NULL, "
    "is_tree INTEGER NOT NULL, since_us INTEGER NOT NULL, not_before_us INTEGER NOT NULL DEFAULT 0, reason TEXT, "
    "PRIMARY KEY (source, sort_key)) WITHOUT ROWID",
    # A directory that is watched under this path.
    "CREATE TABLE watched (source INTEGER NOT NULL, sort_key BLOB NOT NULL, inode INTEGER NOT NULL, "
    "device INTEGER NOT NULL, PRIMARY KEY (source, sort_key)) WITHOUT ROWID",
    # A directory as it was just before a run listed it; `is_left_out`: for what lies in it.
    "CREATE TABLE directory (source INTEGER NOT NULL, sort_key BLOB NOT NULL, mtime_ns INTEGER NOT NULL, "
    "ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL, is_left_out INTEGER NOT NULL, "
    "PRIMARY KEY (source, sort_key)) WITHOUT ROWID",
    # A file with several links, one of which may lie where nobody watches.
    "CREATE TABLE linked (source INTEGER NOT NULL, sort_key BLOB NOT NULL, PRIMARY KEY (source, sort_key)) "
    "WITHOUT ROWID",
    # A cookie that came out of the queue of a watcher: all that happened before it was laid is written down.
    "CREATE TABLE answer (session INTEGER NOT NULL, cookie TEXT NOT NULL, PRIMARY KEY (session, cookie)) WITHOUT ROWID",
    f"PRAGMA user_version = {SCHEMA}",
)


def journal_path(home: Path, identity: str) -> Path:
    """Return where the journals of the repository of that `Storage.identity` lie."""
    name = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
    return home / "journals" / f"{name}.db"


def cookie_directory(path: Path) -> Path:
    """Return the directory in which runs lay cookies for the watchers whose journal this is."""
    return path.with_suffix(".cookies")


def prepare(path: Path) -> None:
    """Make the directories, for their user alone; `S3buError` where no journal can be kept."""
    try:
        for directory in (path.parent, cookie_directory(path)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        kind = file_system(os.stat(path.parent).st_dev)
    except OSError as error:
        raise S3buError(f"{path.parent}: no journal can be kept there ({(error.strerror or '').lower()})") from error
    if kind and not is_local(kind):
        raise S3buError(
            f"{path.parent}: no journal can be kept there, since changes may come from elsewhere ({kind})",
            hint="set S3BU_HOME to a directory on a local disk",
        )


def made(path: Path) -> sqlite3.Connection:
    """Open the file for a watcher; one that cannot be used, or is of another version, is made anew."""
    prepare(path)
    try:
        with turn(path.with_suffix(".lock")):  # another watcher may be making it in this moment
            return _usable(path) or _new(path)
    except (sqlite3.Error, OSError) as error:
        raise S3buError(f"{path}: the journal cannot be opened ({error})", hint="is the disk full?") from error


def existing(path: Path) -> sqlite3.Connection | None:
    """Open the file for a run, if a watcher made one that can be used."""
    try:
        return _usable(path)
    except (sqlite3.Error, OSError):
        return None


def _usable(path: Path) -> sqlite3.Connection | None:
    if not path.exists():
        return None
    with contextlib.suppress(sqlite3.DatabaseError):
        connection = _opened(path)
        if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA:
            return connection
        connection.close()
    return None


def _new(path: Path) -> sqlite3.Connection:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = _opened(path)
    connection.execute("BEGIN IMMEDIATE")
    for statement in _STATEMENTS:
        connection.execute(statement)
    connection.execute("COMMIT")
    return connection


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    # Nothing here outlives the boot: what the kernel has taken is as good as what the disk has.
    connection.execute("PRAGMA synchronous = OFF")
    return connection
