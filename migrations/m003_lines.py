"""Lines: what a span says in a manifest, packed, so that it need not be formatted and compressed again."""

from sqlite_utils import Database

_STATEMENTS = (
    "ALTER TABLE span ADD COLUMN lines BLOB",
    "PRAGMA user_version = 3",
)


def m003_lines(db: Database) -> None:
    """Add the column; as long as nothing stands in it, the lines are formatted from the rows."""
    for statement in _STATEMENTS:
        db.execute(statement)
