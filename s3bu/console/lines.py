"""What a program reads: one JSON object a line, each with its `message_type` (docs/json.md).

Facts go to stdout, errors and warnings to stderr. Fields are added from version to version, and never changed.
"""

import base64
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from s3bu.console import Facts, Style, Table
from s3bu.errors import JobError, S3buError
from s3bu.progress import Change, Failure

_STATUS_EVERY_SECONDS = 1.0


class JsonConsole:
    """The `Console` of a program."""

    def __init__(self, style: Style) -> None:
        self.wants_changes = style.is_verbose
        self.lists_all = True
        self._has_status = style.has_progress and not style.is_quiet
        self._lock = threading.Lock()
        self._began = self._spoke = time.monotonic()
        self._phase: dict[str, object] = {}
        self._done = (0, 0)
        self._failures = 0

    def __enter__(self) -> "JsonConsole":
        """Enter a block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave it: nothing moves here."""

    def finish(self) -> None:
        """Do nothing: nothing moves here."""

    # --- progress

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        """Begin a phase; `noun` says what its files are."""
        with self._lock:
            self._phase = {"phase": name, "noun": noun, "total_files": files, "total_bytes": nbytes}
            self._done = (0, 0)
            self._say_status()

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        """Count, and say how far it is once a second."""
        with self._lock:
            self._done = (self._done[0] + files, self._done[1] + nbytes)
            if time.monotonic() - self._spoke >= _STATUS_EVERY_SECONDS:
                self._say_status()

    def _say_status(self) -> None:
        self._spoke = time.monotonic()
        if not self._has_status:
            return
        totals = (self._phase.get("total_files"), self._phase.get("total_bytes"))
        facts = {**self._phase, "files_done": self._done[0], "bytes_done": self._done[1]}
        facts |= {"percent_done": _share(self._done, totals), "error_count": self._failures}
        _print("status", facts | {"seconds_elapsed": int(self._spoke - self._began)}, sys.stdout)

    def change(self, change: Change) -> None:
        """Name a path and what became of it."""
        facts = {"action": change.action, "item": change.path, "type": change.kind, "size": change.nbytes}
        with self._lock:
            _print("change", facts, sys.stdout)

    def failure(self, failure: Failure) -> None:
        """Name a path that failed."""
        self._failures += 1
        facts = {"error": {"message": failure.error}, "during": self._phase.get("phase", ""), "item": failure.path}
        _print("error", facts, sys.stderr)

    def warning(self, message: str) -> None:
        """Say a warning."""
        _print("warning", {"message": message}, sys.stderr)

    def note(self, message: str) -> None:
        """Say a line."""
        _print("note", {"message": message}, sys.stderr)

    # --- facts

    def tell(self, message_type: str, facts: Facts, *_lines: str) -> None:
        """Say what was asked for."""
        _print(message_type, facts, sys.stdout)

    def summary(self, facts: Facts, *_lines: str) -> None:
        """Say what came of the command."""
        _print("summary", facts, sys.stdout)

    def table(self, table: Table) -> None:
        """Say each row."""
        for row in table.rows:
            _print(table.message_type, row.facts, sys.stdout)

    # --- errors

    def error(self, error: S3buError, *, during: str) -> None:
        """Say what ended a part of the command."""
        _print("error", {"error": _explained(error), "during": during}, sys.stderr)

    def end(self, error: S3buError, code: int) -> None:
        """Say what ended the command."""
        _print("exit_error", {"code": code, **_explained(error)}, sys.stderr)


def _explained(error: S3buError) -> dict[str, object]:
    explained: dict[str, object] = {"message": error.message}
    if error.hint:
        explained["hint"] = error.hint
    if isinstance(error, JobError) and error.problems:
        explained["problems"] = list(error.problems)
    return explained


def _share(done: tuple[int, int], totals: tuple[object, object]) -> float | None:
    """Return how much of it is done, by bytes where they are known, else by files."""
    for number, total in ((done[1], totals[1]), (done[0], totals[0])):
        if isinstance(total, int) and total:
            return round(min(number / total, 1), 4)
    return None


def _print(message_type: str, facts: Facts, stream: TextIO) -> None:
    """Print one object; what cannot be said on stderr is no reason to end the run."""
    line = json_object({"message_type": message_type, **facts})
    with contextlib.suppress(OSError) if stream is sys.stderr else contextlib.nullcontext():
        print(line, file=stream, flush=stream is sys.stderr or message_type == "status")


def json_object(facts: Facts) -> str:
    """Return facts as one JSON object on one line; a name that is no text has its bytes beside it, in base64."""
    return json.dumps(dict(_fields(facts)))


def _fields(facts: Facts) -> Iterator[tuple[str, object]]:
    for name, value in facts.items():
        yield name, _plain(value)
        if isinstance(value, bytes) and not _is_text(value):
            yield f"{name}_raw", base64.b64encode(value).decode()


def _plain(value: object) -> object:
    """Return a value as JSON takes it; bytes that are no text are escaped, as every reader of JSON wants UTF-8."""
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case datetime():
            return rfc3339(value)
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list():
            return [_plain(one) for one in value]
    return value


def rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 has it, in UTC."""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
