"""The SQLite file of an index: where it may lie, whether it can be used, and its schema."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from s3bu.errors import S3buError
from s3bu.mounts import file_system

SCHEMA = 4
"""The newest schema that this version knows: `PRAGMA user_version` of the file."""
_BUSY_SECONDS = 60
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "glusterfs"})
"""File systems on which SQLite's locks, or its shared memory, cannot be trusted."""


def why(error: Exception) -> str:
    """Return what the system, or SQLite, has to say, without a number and the path."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def storable(text: str) -> str:
    r"""Return text as SQLite takes it: bytes that are no text, as paths and manifests may have them, as `\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def prepare_directory(directory: Path) -> None:
    """Make the directory of the indexes, for its user alone; `S3buError` where none can be kept."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise S3buError(f"{directory}: no index can be kept there ({why(error)})") from error
    kind = file_system(os.stat(directory).st_dev)
    if kind in _NETWORK:
        raise S3buError(
            f"{directory}: no index can be kept there, since it lies on a network file system ({kind})",
            hint="set S3BU_HOME to a directory on a local disk",
        )


def fault(path: Path, identity: str) -> str | None:
    """Return why the file is of no use, or `None`; one that was closed in order is not read through each time.

    `sqlite3.OperationalError` when that does not show now, since the disk is full or nothing may be written: the file
    may well be sound. An empty one is as good as none: its making was cut off.
    """
    if path.stat().st_size == 0:
        return None
    was_left_open = path.with_name(f"{path.name}-wal").exists()  # by a run that was killed, or is under way
    try:
        with contextlib.closing(raw(path)) as connection:
            schema = connection.execute("PRAGMA user_version").fetchone()[0]
            if schema > SCHEMA:
                return "made by a newer version of s3bu"
            if was_left_open and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return "the index is damaged"
            found = connection.execute("SELECT value FROM fact WHERE name = 'repository'").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return None
        if "no such table" in str(error):
            return "not an index of s3bu"
        raise
    except sqlite3.DatabaseError as error:
        return f"the index is damaged ({error})"
    return None if found and found[0] == storable(identity) else "the index of another repository"


def move_aside(path: Path) -> Path:
    """Rename a file that cannot be used, without what belongs to it, and return its new name."""
    aside = path.with_name(f"{path.stem}.{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.aside")
    try:
        with contextlib.suppress(FileNotFoundError):  # another process found it damaged too
            path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise S3buError(f"{path}: the index is of no use and cannot be moved aside ({why(error)})") from error
    return aside


def raw(path: Path) -> sqlite3.Connection:
    """Open a file as it is."""
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)


def connected(path: Path, identity: str) -> sqlite3.Connection:
    """Open the file, or make it, with the newest schema."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise S3buError(f"{path}: the index cannot be opened ({why(error)})") from error
    return prepared(raw(path), identity)


def prepared(connection: sqlite3.Connection, identity: str) -> sqlite3.Connection:
    """Return a connection as an index uses it, with the newest schema."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:
        _migrate(connection)
        connection.execute("INSERT OR REPLACE INTO fact VALUES ('repository', ?)", (storable(identity),))
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # noqa: PLC0415 - only a new or older file needs it, and start-up counts

    from s3bu.migrations import migrations  # noqa: PLC0415

    migrations.apply(Database(connection))
