"""What a scan left out by rule, in the order of the manifest, in a temporary table: it may be millions of paths."""

from collections import Counter
from collections.abc import Iterator

from s3bu.index import Index
from s3bu.manifest import sort_key
from s3bu.selection import Rule, Skipped

_BATCH = 1_000


class Skips:
    """The skipped paths of one scan; only those of one can be under way on a connection.

    `is_trusted` says whether the job is its owner's word, so that what its rules leave out is meant.
    """

    def __init__(self, index: Index, *, is_trusted: bool) -> None:
        self._is_trusted = is_trusted
        self._connection = index.connection
        self._connection.execute("DROP TABLE IF EXISTS skipped")
        self._connection.execute(
            "CREATE TEMP TABLE skipped (sort_key BLOB PRIMARY KEY, is_directory INTEGER, rule INTEGER) WITHOUT ROWID"
        )
        self._rules: dict[Rule, int] = {}
        self._rows: list[tuple[bytes, int, int]] = []

    def tell(self, skipped: Skipped) -> None:
        """Take a path that a scan left out."""
        number = self._rules.setdefault(skipped.rule, len(self._rules))
        self._rows.append((sort_key(skipped.path), int(skipped.is_directory), number))
        if len(self._rows) == _BATCH:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?)", self._rows)
            self._connection.execute("COMMIT")
            self._rows.clear()

    def rule_of(self, path: bytes) -> Rule | None:
        """Return the rule by which a path was left out, itself or with a directory above it, if it was.

        A file or link in the place of a directory takes nothing along: what lay below it is gone by itself.
        """
        if not self._rules:
            return None
        self._write()
        statement = "SELECT rule FROM skipped WHERE sort_key = ?"
        found = None
        while path and found is None:
            row = self._connection.execute(statement, (sort_key(path),)).fetchone()
            found = None if row is None else list(self._rules)[row[0]]
            path = path.rpartition(b"/")[0]
            statement = "SELECT rule FROM skipped WHERE sort_key = ? AND is_directory"
        return found

    def is_meant(self, rule: Rule) -> bool:
        """Say whether what this rule leaves out is left out on purpose, and not by what somebody else put there."""
        return rule.is_of_job and self._is_trusted

    def counts(self) -> Counter[Rule]:
        """Return how many paths each rule left out; a directory is one, whatever it holds."""
        self._write()
        rules = list(self._rules)
        rows = self._connection.execute("SELECT rule, count(*) FROM skipped GROUP BY rule")
        return Counter({rules[number]: count for number, count in rows})

    def __iter__(self) -> Iterator[Skipped]:
        """Yield them in order."""
        self._write()
        rules, after = list(self._rules), b""
        columns = "sort_key, is_directory, rule"
        statement = f"SELECT {columns} FROM skipped WHERE sort_key > ? ORDER BY sort_key LIMIT {_BATCH}"
        while rows := self._connection.execute(statement, (after,)).fetchall():
            for key, is_directory, rule in rows:
                yield Skipped(key.replace(b"\0", b"/"), bool(is_directory), rules[rule])
            after = rows[-1][0]
