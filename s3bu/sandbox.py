"""The process in which SQL of the user's runs: it can read the views of one index, and nothing else.

SQL is a programming language: it can write files (`ATTACH`, `VACUUM INTO`), run for ever, and take all memory, and
within one process no deadline holds. So the statement runs here, behind an authorizer that allows reading alone, with
limits on memory and on the size of files (none may grow), and is killed by its parent when its time is over.

Started by `query` as `python -m s3bu.sandbox INDEX`, with the request on its standard input.
"""

import ctypes
import gc
import marshal
import os
import resource
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from s3bu.errors import S3buError
from s3bu.views import FUNCTIONS, VIEWS

FRAME = struct.Struct(">I")
COLUMNS, ROWS, ERROR, DONE = "columns", "rows", "error", "done"
_BATCH = 200
_BATCH_NBYTES = 64 * 1024
_BATCH_SECONDS = 0.05
"""Rows are sent in batches that grow up to these bounds: their reader waits for none that is there."""
_HEAP_NBYTES = 128 * 1024 * 1024
_MEMORY_NBYTES = 192 * 1024 * 1024
"""Of addresses, besides those that the process has before it runs anything: it stays under 256 MiB."""
_NO_TEXT = "Could not decode to UTF-8"
"""So begins what Python says of text that is none."""
_DIES_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of `prctl`."""
_VALUE_NBYTES = 16 * 1024 * 1024
_TABLES = frozenset({"source", "snapshot", "failed", "owner", "version"})
_READABLE = _TABLES | {"json_each", "json_tree"} | {view.name for view in VIEWS}
# fmt: off
_HARMLESS = frozenset((
    "->", "->>", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg", "ceil", "ceiling", "char",
    "coalesce", "concat", "concat_ws", "cos", "cosh", "count", "cume_dist", "current_date", "current_time",
    "current_timestamp", "date", "datetime", "degrees", "dense_rank", "exp", "first_value", "floor", "format", "glob",
    "group_concat", "hex", "ifnull", "iif", "instr", "json", "json_array", "json_array_length", "json_extract",
    "json_group_array", "json_group_object", "json_insert", "json_object", "json_patch", "json_quote", "json_remove",
    "json_replace", "json_set", "json_type", "json_valid", "julianday", "lag", "last_value", "lead", "length", "like",
    "likelihood", "likely", "ln", "log", "log10", "log2", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile",
    "nullif", "octet_length", "percent_rank", "pi", "pow", "power", "printf", "quote", "radians", "random",
    "randomblob", "rank", "replace", "round", "row_number", "rtrim", "sign", "sin", "sinh", "soundex",
    "sqlite_version", "sqrt", "strftime", "string_agg", "substr", "substring", "sum", "tan", "tanh", "time",
    "timediff", "total", "trim", "trunc", "typeof", "unhex", "unicode", "unixepoch", "unlikely", "upper", "zeroblob",
))
# fmt: on
_OF_SQLITE = ("sqlite_", "pragma_")
_FUNCTIONS = _HARMLESS | FUNCTIONS.keys()


def main() -> None:
    """Run the statement that comes on standard input, and write what comes of it to standard output."""
    _end_with_parent()
    gc.disable()  # rows make no cycles, and looking for some takes a third of the time
    sql, parameters = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - from the parent, which is this program
    faults: list[str] = []
    try:
        _note_faults(faults)
        connection = _connect(sys.argv[1])
        _answer(connection, sql, {name: _bound(value) for name, value in parameters.items()})
        _write(_frame(DONE))
    except sqlite3.Warning:  # what Python says before 3.12 to several statements
        _write(_frame(ERROR, "only one statement at a time"))
    except UnicodeEncodeError:
        _write(_frame(ERROR, "the statement is no text in UTF-8"))
    except (sqlite3.Error, OverflowError, ValueError) as error:
        _write(_frame(ERROR, faults[-1] if faults and "user-defined function" in str(error) else str(error)))
    except MemoryError:
        _write(_frame(ERROR, "out of memory"))


def _end_with_parent() -> None:
    """See to it that the process ends when its parent is killed, which then cannot end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)


def _bound(value: object) -> object:
    """Return a parameter as SQLite takes it: an argument that is no text in UTF-8 is the bytes that it came as."""
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")
    return value


def _connect(path: str) -> sqlite3.Connection:
    """Open the index for reading, make the views, and shut all doors."""
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=5)
    for name, (count, function, _) in FUNCTIONS.items():
        connection.create_function(name, count, function, deterministic=True)
    connection.execute("PRAGMA temp_store = MEMORY")
    for view in VIEWS:
        connection.execute(view.statement)
    connection.execute("SELECT 1 FROM json_each('1'), json_tree('1')")  # makes them, which the authorizer would refuse
    connection.execute("PRAGMA query_only = 1")
    connection.execute("BEGIN")  # whatever is recorded meanwhile, a statement that runs again finds the same
    connection.execute(f"PRAGMA hard_heap_limit = {_HEAP_NBYTES}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_NBYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    tables = "SELECT name FROM sqlite_schema UNION SELECT name FROM pragma_module_list"
    hidden = frozenset(name.lower() for (name,) in connection.execute(tables)) - _READABLE
    connection.set_authorizer(partial(_authorize, hidden))
    _limit()
    return connection


def _note_faults(faults: list[str]) -> None:
    """Note why a function of ours fails: SQLite only says that one did."""

    def note(raised: "sys.UnraisableHookArgs") -> None:
        names = [name for name, (_, function, _) in FUNCTIONS.items() if function is raised.object]
        if isinstance(raised.exc_value, S3buError):
            faults.append(raised.exc_value.message)
        elif names:
            faults.append(f"{names[0]}() cannot be asked with these values")

    sys.unraisablehook = note
    sqlite3.enable_callback_tracebacks(True)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it is not heeded, or takes in what every process has
        npages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = npages * os.sysconf("SC_PAGE_SIZE") + _MEMORY_NBYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _authorize(hidden: AbstractSet[str], action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    name = (first or "").lower()
    if action == sqlite3.SQLITE_READ and (not name or name in _READABLE):
        return sqlite3.SQLITE_OK
    # What a statement calls so itself, behind WITH, is named where none of its columns is read, as by `count(*)`.
    if action == sqlite3.SQLITE_READ and not second and name not in hidden and not name.startswith(_OF_SQLITE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _answer(connection: sqlite3.Connection, sql: str, parameters: dict[str, object]) -> None:
    """Send the columns and rows of a statement.

    Text that is none, as a blob that is cast to it, is hardly ever yielded, and to be ready for it takes a third of the
    time of all other text: a statement that yields some is run once more.
    """
    cursor = connection.execute(sql, parameters)
    _write(_frame(COLUMNS, [column[0] for column in cursor.description or ()]))
    nsent = 0
    try:
        for nrows, frame in _batches(cursor):
            _write(frame)
            nsent += nrows
    except sqlite3.OperationalError as error:
        if not str(error).startswith(_NO_TEXT):
            raise
        connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        cursor = connection.execute(sql, parameters)
        for _ in islice(cursor, nsent):
            pass
        for _, frame in _batches(cursor):
            _write(frame)


def _batches(cursor: sqlite3.Cursor) -> Iterator[tuple[int, bytes]]:
    """Yield rows as frames, each with the number of rows in it."""
    count = 1
    while True:
        began = time.monotonic()
        rows = cursor.fetchmany(count)
        if not rows:
            return
        seconds = time.monotonic() - began
        frame = _frame(ROWS, rows)
        yield len(rows), frame
        is_much = seconds > _BATCH_SECONDS or len(frame) > _BATCH_NBYTES
        count = max(1, count // 4) if is_much else min(count * 2, _BATCH)


def _frame(kind: str, value: object = None) -> bytes:
    frame = marshal.dumps((kind, value))  # type: ignore[arg-type] # what SQLite yields
    return FRAME.pack(len(frame)) + frame


def _write(frame: bytes) -> None:
    sys.stdout.buffer.write(frame)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
