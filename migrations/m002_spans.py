"""Spans: digests over stretches of the newest entries, dropped by triggers when one of these changes."""

from sqlite_utils import Database

_COVERING = (
    "UPDATE span SET digest = NULL WHERE source = {row}.source AND digest NOT NULL AND last_key = "
    "(SELECT min(last_key) FROM span WHERE source = {row}.source AND last_key >= {row}.sort_key);"
)
_STATEMENTS = (
    """CREATE TABLE span (
        source INTEGER NOT NULL REFERENCES source,
        last_key BLOB NOT NULL,
        digest BLOB,
        nentries INTEGER NOT NULL,
        nfiles INTEGER NOT NULL,
        nbytes INTEGER NOT NULL,
        PRIMARY KEY (source, last_key)
    ) WITHOUT ROWID""",
    f"CREATE TRIGGER span_insert AFTER INSERT ON version WHEN NEW.last IS NULL BEGIN {_COVERING.format(row='NEW')} END",
    f"CREATE TRIGGER span_delete AFTER DELETE ON version WHEN OLD.last IS NULL BEGIN {_COVERING.format(row='OLD')} END",
    "CREATE TRIGGER span_update AFTER UPDATE ON version WHEN OLD.last IS NULL OR NEW.last IS NULL "
    f"BEGIN {_COVERING.format(row='OLD')} END",
    "PRAGMA user_version = 2",
)


def m002_spans(db: Database) -> None:
    """Make the table and the triggers."""
    for statement in _STATEMENTS:
        db.execute(statement)
