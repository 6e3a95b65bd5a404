"""The first schema: snapshots as interval rows."""

from sqlite_utils import Database

_STATEMENTS = (
    "CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE source (id INTEGER PRIMARY KEY, job TEXT NOT NULL, label TEXT NOT NULL, UNIQUE (job, label))",
    # `number` orders the snapshots of a source as their keys do. `error` says why one could not be taken in.
    """CREATE TABLE snapshot (
        id INTEGER PRIMARY KEY,
        source INTEGER NOT NULL REFERENCES source,
        number INTEGER NOT NULL,
        key TEXT NOT NULL UNIQUE,
        etag TEXT NOT NULL,
        created_us INTEGER NOT NULL,
        host TEXT,
        parent TEXT,
        nfiles INTEGER NOT NULL DEFAULT 0,
        nbytes INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        UNIQUE (source, number)
    )""",
    """CREATE TABLE failed (
        snapshot INTEGER NOT NULL REFERENCES snapshot ON DELETE CASCADE,
        path BLOB NOT NULL,
        error TEXT NOT NULL,
        since TEXT NOT NULL
    )""",
    "CREATE INDEX failed_snapshot ON failed (snapshot)",
    """CREATE TABLE owner (
        id INTEGER PRIMARY KEY, uid INTEGER NOT NULL, gid INTEGER NOT NULL, user BLOB NOT NULL, "group" BLOB NOT NULL,
        UNIQUE (uid, gid, user, "group")
    )""",
    # One row a version of a path: the snapshots of its source from `first` to `last` have it, and the newest one too
    # where there is no last. The last four columns are what only this machine knows of a file.
    """CREATE TABLE version (
        source INTEGER NOT NULL REFERENCES source,
        sort_key BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER,
        kind INTEGER NOT NULL,
        nbytes INTEGER NOT NULL,
        mtime INTEGER NOT NULL,
        nanos INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        hash BLOB,
        target BLOB,
        owner INTEGER REFERENCES owner,
        local_nanos INTEGER,
        ctime_ns INTEGER,
        inode INTEGER,
        device INTEGER,
        PRIMARY KEY (source, sort_key, first)
    ) WITHOUT ROWID""",
    "CREATE TABLE content (hash BLOB PRIMARY KEY, nbytes INTEGER NOT NULL, is_damaged INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE job_version (
        job TEXT NOT NULL, version INTEGER NOT NULL, etag TEXT NOT NULL, text BLOB NOT NULL,
        is_encrypted INTEGER NOT NULL, PRIMARY KEY (job, version)
    )""",
    "PRAGMA user_version = 1",
)


def m001_intervals(db: Database) -> None:
    """Make the tables."""
    for statement in _STATEMENTS:
        db.execute(statement)
