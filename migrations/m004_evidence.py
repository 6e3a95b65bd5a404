"""Evidence: what this machine knows of an object because it stored it, or read it; and when it read a manifest."""

from sqlite_utils import Database

_STATEMENTS = (
    # `nbytes` and `etag` are those of the object that it is about; no ETag where the object was put and not listed yet.
    """CREATE TABLE evidence (
        hash BLOB PRIMARY KEY, nbytes INTEGER NOT NULL, etag TEXT, state INTEGER NOT NULL, read_s INTEGER
    ) WITHOUT ROWID""",
    "ALTER TABLE snapshot ADD COLUMN read_s INTEGER",
    "PRAGMA user_version = 4",
)


def m004_evidence(db: Database) -> None:
    """Make the table and the column."""
    for statement in _STATEMENTS:
        db.execute(statement)
