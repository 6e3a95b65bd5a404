"""Read-only SQL over the views of the index, run in a process of its own (`sandbox`) that is killed at its deadline."""

import contextlib
import difflib
import marshal
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from s3bu.errors import S3buError, UsageError
from s3bu.sandbox import COLUMNS, DONE, ERROR, FRAME
from s3bu.views import FUNCTIONS, VIEWS

Value: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = tuple[Value, ...]

SECONDS = 5.0
"""How long a statement of the user's may take, unless told otherwise: one that never ends shall not go unnoticed."""
_CHUNK = 1024 * 1024
_SHOWN = 500
"""So much of a message is shown: it may name what was given, which may be long."""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its parameters by name; `seconds` are those that it may keep its reader waiting in all."""

    sql: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    seconds: float = SECONDS

    @property
    def shown(self) -> str:
        """The statement on one line, and its parameters."""
        values = ", ".join(f":{name} = {value!r}" for name, value in self.parameters.items())
        return " ".join(self.sql.split()) + (f"  with {values}" if values else "")


class QueryError(UsageError):
    """A statement that cannot be run, or that reached beyond what it may."""


class QueryTimeoutError(S3buError):
    """A statement that took too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The names of the columns, and the rows, which come as they are read."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


@contextmanager
def asked(path: Path, query: Query) -> Iterator[Answer]:
    """Run a query over the index at `path`, which must be held open meanwhile; what still runs at the end is killed.

    `QueryError` says what is wrong with the statement, also while its rows are read; `QueryTimeoutError` that its time
    is over.
    """
    process = _start(path)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(marshal.dumps((query.sql, dict(query.parameters))))
        frames = _frames(process, query)
        columns = next(frames)
        yield Answer(tuple(str(name) for name in columns), _rows(frames))
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def ask(path: Path, query: Query) -> list[Row]:
    """Return all rows of a query."""
    with asked(path, query) as answer:
        return list(answer.rows)


def _start(path: Path) -> subprocess.Popen[bytes]:
    # `-P` keeps what lies in the current directory from being imported.
    command = [sys.executable, "-P", "-m", "s3bu.sandbox", str(path)]
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter; the statement goes through a pipe
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise S3buError(f"cannot start a process for the query: {(error.strerror or str(error)).lower()}") from error


def _rows(frames: Iterator[list[Row]]) -> Iterator[Row]:
    for rows in frames:
        yield from rows


def _frames(process: subprocess.Popen[bytes], query: Query) -> "Iterator[list[Row]]":
    """Yield the columns, then lists of rows."""
    pipe = _Pipe(process, query.seconds)
    while True:
        (length,) = FRAME.unpack(pipe.read(FRAME.size))
        kind, value = marshal.loads(pipe.read(length))  # noqa: S302 - from our own program, which the statement is not
        if kind == ERROR:
            raise _explained(str(value))
        if kind == DONE:
            return
        if kind == COLUMNS and not value:
            raise QueryError("the statement yields no columns", hint="only a SELECT can be asked")
        yield value


class _Pipe:
    """What the process writes; waiting for it is bounded, and so is the work on it.

    Time in which whoever reads the output keeps us waiting takes no processor, and does not count.
    """

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        assert process.stdout is not None
        self._descriptor = process.stdout.fileno()
        self._seconds = self._left = seconds
        self._worked = time.process_time()
        self._ready = bytearray()

    def read(self, nbytes: int) -> bytes:
        """Return just so many bytes."""
        while len(self._ready) < nbytes:
            self._wait()
            chunk = os.read(self._descriptor, _CHUNK)
            if not chunk:
                raise QueryError("the query was ended", hint=_MEMORY_HINT)
            self._ready += chunk
        taken = bytes(self._ready[:nbytes])
        del self._ready[:nbytes]
        return taken

    def _wait(self) -> None:
        self._left -= time.process_time() - self._worked
        began = time.monotonic()
        readable, _, _ = select.select([self._descriptor], [], [], max(self._left, 0))
        self._left -= time.monotonic() - began
        self._worked = time.process_time()
        if not readable or self._left < 0:
            raise QueryTimeoutError(
                f"the query took longer than {self._seconds:g} seconds, and was ended",
                hint="--timeout allows more; one snapshot, or one path by its path_key, is found quickly",
            )


_MEMORY_HINT = "it may want more memory than it is given: ask for fewer rows, or sort fewer"


def _explained(message: str) -> QueryError:
    """Return what SQLite says of a statement in our words, with the name that may have been meant."""
    missing = re.fullmatch(r"no such (table|column|function): (?:\w+\.)?(.*)", message)
    if missing:
        kind = "view" if missing[1] == "table" else missing[1]
        return QueryError(f"there is no {kind} '{missing[2][:_SHOWN]}'", hint=_nearest(kind, missing[2]))
    if re.search("not authorized|authorization denied|prohibited|cannot be opened", message):
        return QueryError(f"a query may only read the views: {message[:_SHOWN]}", hint="`--tables` lists them")
    if "memory" in message or "too big" in message or "too large" in message:
        return QueryError(f"the query takes too much memory ({message.lower()})", hint=_MEMORY_HINT)
    return QueryError(f"the query cannot be run: {message[:1].lower()}{message[1:_SHOWN].rstrip('.')}")


def _nearest(kind: str, name: str) -> str:
    names = {
        "view": [view.name for view in VIEWS],
        "column": sorted({column.name for view in VIEWS for column in view.columns}),
        "function": list(FUNCTIONS),
    }[kind]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there are {', '.join(names)}" if kind == "view" else "`--tables` lists views and columns"
