"""The views of the index that SQL sees: what each column says, and the functions that they rest on.

They are stable: columns are added, and never changed. All of it comes from manifests alone, so an index that was made
anew answers the same (docs/query.md). Views are made anew in each connection that asks, and are not in the file: they
need functions that SQLite does not have.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from s3bu.pattern import compile_pattern, compile_regex


class Column(NamedTuple):
    """A column: its name, the expression that it is, and what it says."""

    name: str
    expression: str
    meaning: str


class View(NamedTuple):
    """A view: its name, what a row of it is, its columns, and the tables that they come from."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    source: str

    @property
    def statement(self) -> str:
        """The statement that makes it, in the connection's own temporary schema."""
        columns = ", ".join(f'{column.expression} AS "{column.name}"' for column in self.columns)
        return f"CREATE TEMP VIEW {self.name} AS SELECT {columns} FROM {self.source}"


def _moment(name: str, seconds: str, meaning: str) -> tuple[Column, Column]:
    """Return a time as two columns: seconds since 1970, and ISO text in UTC."""
    text = f"strftime('%Y-%m-%dT%H:%M:%SZ', {seconds}, 'unixepoch')"
    return Column(name, seconds, f"{meaning}, seconds since 1970"), Column(f"{name}_text", text, "the same as ISO text")


def _of_snapshot(column: str, number: str) -> str:
    return f"(SELECT {column} FROM snapshot n WHERE n.source = v.source AND n.number = {number})"


_SECONDS = "created_us / 1000000"
_NEWEST = "(SELECT max(number) FROM snapshot n WHERE n.source = v.source AND n.error IS NULL)"
_LAST = f"coalesce(v.last, {_NEWEST})"
_FOLLOWING = "(SELECT min(number) FROM snapshot n WHERE n.source = v.source AND n.number > v.last AND n.error IS NULL)"
_SOURCE = (Column("job", "so.job", "the job"), Column("label", "so.label", "the label of the source"))
_ENTRY = (
    Column("path", "path_text(v.sort_key)", "below the source; `\\` is doubled, and a byte that is no text is `\\xff`"),
    Column("path_raw", "path_raw(v.sort_key)", "the bytes of the path"),
    Column("path_key", "v.sort_key", "the path as it is sorted and found quickly: `path_key = path_key('a/b')`"),
    Column(
        "kind",
        "CASE v.kind WHEN 0 THEN 'file' WHEN 1 THEN 'dir' WHEN 2 THEN 'symlink' ELSE 'special' END",
        "`file`, `dir`, `symlink` or `special`",
    ),
    Column("size", "v.nbytes", "bytes of a file, otherwise 0"),
    *_moment("mtime", "v.mtime", "when it was last written"),
    Column("mode", "v.mode", "permission bits, as a number"),
    Column("hash", "CASE WHEN v.hash IS NOT NULL THEN lower(hex(v.hash)) END", "SHA-256 of a file's content, or null"),
    Column("target", "path_text(v.target)", "of a link its target, of a special file what it is, otherwise null"),
    *(
        Column(
            name,
            f'(SELECT {"path_text" if name in ("user", "group") else ""}("{name}") FROM owner o WHERE o.id = v.owner)',
            f"owner: {meaning}; null of files",
        )
        for name, meaning in (("uid", "number"), ("gid", "number of the group"), ("user", "name"), ("group", "group"))
    ),
)
_FIRST = (
    Column("first_snapshot", _of_snapshot("key", "v.first"), "the first snapshot that has it so"),
    *_moment("first_seen", _of_snapshot(_SECONDS, "v.first"), "time of that snapshot"),
)
_LAST_SEEN = (
    Column("last_snapshot", _of_snapshot("key", _LAST), "the last snapshot that has it so"),
    *_moment("last_seen", _of_snapshot(_SECONDS, _LAST), "time of that snapshot"),
)
_VERSIONS = "source so CROSS JOIN version v ON v.source = so.id"
_TIME = _moment("time", f"s.{_SECONDS}", "when it was made")

VIEWS = (
    View(
        "snapshots",
        "every snapshot",
        (
            Column("snapshot", "s.key", "its key in the repository"),
            *_SOURCE,
            *_TIME,
            Column("host", "s.host", "the machine that made it; null where nothing says so"),
            Column("parent", "s.parent", "the key of the snapshot that it was compared with; empty of the first"),
            Column("files", "s.nfiles", "files in it"),
            Column("size", "s.nbytes", "their bytes"),
            Column(
                "failed",
                "(SELECT count(*) FROM failed f WHERE f.snapshot = s.id)",
                "paths that could not be backed up",
            ),
            Column("error", "s.error", "why it could not be read; null where it could"),
        ),
        "snapshot s JOIN source so ON so.id = s.source",
    ),
    View(
        "files",
        "every path in the newest snapshot of each source",
        (*_SOURCE, *_ENTRY, *_FIRST),
        f"{_VERSIONS} AND v.last IS NULL",
    ),
    View(
        "versions",
        "every version of every path: as long as nothing of it changed, one row",
        (
            *_SOURCE,
            *_ENTRY,
            *_FIRST,
            *_LAST_SEEN,
            Column("is_current", "v.last IS NULL", "1 where the newest snapshot has it so, otherwise 0"),
            Column(
                "ended",
                f"CASE WHEN v.last IS NULL THEN NULL WHEN EXISTS (SELECT 1 FROM version e WHERE e.source = v.source "
                f"AND e.sort_key = v.sort_key AND e.first = {_FOLLOWING}) THEN 'changed' ELSE 'deleted' END",
                "what the next snapshot has of it: `changed`, `deleted`; null where it is current",
            ),
        ),
        _VERSIONS,
    ),
    View(
        "entries",
        "every path in every snapshot; ask it for one snapshot, or for one path",
        (Column("snapshot", "s.key", "the snapshot's key"), *_SOURCE, *_TIME, *_ENTRY),
        "snapshot s JOIN source so ON so.id = s.source CROSS JOIN version v ON v.source = s.source "
        "AND v.first <= s.number AND (v.last IS NULL OR v.last >= s.number) AND s.error IS NULL",
    ),
    View(
        "deleted",
        "every path that was there and is not in the newest snapshot, as it was last",
        (
            *_SOURCE,
            *_ENTRY,
            *_LAST_SEEN,
            Column("deleted_in", _of_snapshot("key", _FOLLOWING), "the first snapshot without it"),
            *_moment("deleted_seen", _of_snapshot(_SECONDS, _FOLLOWING), "time of that snapshot"),
        ),
        f"{_VERSIONS} AND v.last IS NOT NULL AND NOT EXISTS (SELECT 1 FROM version n "
        "WHERE n.source = v.source AND n.sort_key = v.sort_key AND n.first > v.last)",
    ),
    View(
        "contents",
        "every different content of files",
        (
            Column("hash", "lower(hex(c.hash))", "SHA-256"),
            Column("size", "c.nbytes", "bytes"),
            Column("paths", "c.paths", "different paths that had it at any time"),
            Column("versions", "c.versions", "versions of files that had it"),
        ),
        "(SELECT hash, max(nbytes) AS nbytes, count(*) AS versions, "
        "count(DISTINCT source || ':' || hex(sort_key)) AS paths FROM version WHERE hash IS NOT NULL GROUP BY hash) c",
    ),
)


def path_text(key: bytes | None) -> str | None:
    r"""Return the text of a path, or of another name, so that no two look alike: `\` doubled, other bytes as `\xff`."""
    if key is None:
        return None
    raw = key.replace(b"\0", b"/")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return text.replace("\\", "\\\\") if "\\" in text else text


def path_raw(key: bytes) -> bytes:
    """Return the bytes of a path from what it is sorted by."""
    return key.replace(b"\0", b"/")


def raw_of_text(text: str | bytes) -> bytes:
    r"""Undo `path_text`; a `\` that it never wrote stands for itself, and so do bytes that are no text."""

    def byte(found: re.Match[bytes]) -> bytes:
        return b"\\" if found[0] == b"\\\\" else bytes.fromhex(found[1].decode())

    return re.sub(rb"\\\\|\\x([0-9a-f]{2})", byte, _bytes_of(text))


def _bytes_of(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def path_key(text: str | bytes) -> bytes:
    """Return what the path of a text is sorted by."""
    return raw_of_text(text).replace(b"/", b"\0")


def path_head(key: bytes, depth: int) -> str | None:
    """Return the directory in which a path lies, cut at a depth; `.` is the source itself."""
    return path_text(b"/".join(key.split(b"\0")[:-1][:depth])) or "."


def _regexp(pattern: str | bytes, value: str | bytes | None) -> bool | None:
    return None if value is None else _compiled(compile_regex, pattern).search(_bytes_of(value)) is not None


def _matches(pattern: str | bytes, raw: bytes) -> bool:
    return _compiled(compile_pattern, pattern).search(raw) is not None


@lru_cache(64)
def _compiled(compile_text: Callable[[str], re.Pattern[bytes]], text: str | bytes) -> re.Pattern[bytes]:
    return compile_text(_bytes_of(text).decode("utf-8", "surrogateescape"))


FUNCTIONS: dict[str, tuple[int, Callable[..., str | bytes | int | None], str]] = {
    "path_text": (1, path_text, "the text of a `path_key` or of bytes"),
    "path_raw": (1, path_raw, "the bytes of a path from its `path_key`"),
    "path_key": (1, path_key, "the `path_key` of a path's text"),
    "path_head": (2, path_head, "the directory of a `path_key`, cut at a depth: `path_head(path_key, 1)`"),
    "path_matches": (2, _matches, "whether a glob, or `re:` and a regular expression, matches a `path_raw`"),
    "regexp": (2, _regexp, "`path REGEXP '…'`: whether a regular expression is found in it"),
}
"""The functions that SQLite lacks: number of arguments, what it does, and what it is for."""
