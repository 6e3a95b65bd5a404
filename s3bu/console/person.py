"""What a person sees: bars where stderr is a terminal, a plain line a phase elsewhere, text, tables and errors."""

import contextlib
import shutil
import sys
import threading
import time
from typing import Any, TextIO

from s3bu.console import Facts, Style, Table
from s3bu.console.text import counted, format_nbytes, format_table, shown, shown_line
from s3bu.errors import JobError, S3buError
from s3bu.progress import Change, Failure

_SHOWN_FAILURES = 100
_LINE_EVERY_SECONDS = 60
_SILENT = Style()


class PersonConsole:
    """The `Console` of a person."""

    def __init__(self, style: Style = _SILENT, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_quiet = style.is_quiet
        self.wants_changes = self.lists_all = style.is_verbose
        self._has_bars = self._stream.isatty() and style.has_progress and not style.is_quiet
        self._has_lines = style.has_progress and not style.is_quiet
        self._bars: list[Any] = []
        self._lock = threading.Lock()
        self._failures = 0
        self._done = (0, 0)
        self._totals: tuple[int | None, int | None] = (None, None)
        self._noun = "file"
        self._spoke = time.monotonic()

    def __enter__(self) -> "PersonConsole":
        """Enter a block at whose end the bars are gone."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take the bars away."""
        self.finish()

    # --- progress

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        """Begin a phase with bars of its own."""
        name = shown_line(name)
        self._close_bars()
        self._done, self._totals, self._noun = (0, 0), (files, nbytes), noun
        self._spoke = time.monotonic()
        if self._has_bars:
            self._open_bars(name, files, nbytes)
        elif self._has_lines and files is not None:
            size = f", {format_nbytes(nbytes)}" if nbytes is not None else ""
            self._say(f"{name}: {counted(files, noun)}{size}")
        elif self._has_lines:
            self._say(name)

    def _open_bars(self, name: str, files: int | None, nbytes: int | None) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - not needed where nobody watches

        self._bars.append(tqdm(total=files, desc=name, unit=f" {self._noun}s", file=self._stream, leave=False))
        if nbytes is not None:
            bar = tqdm(
                total=nbytes,
                desc=" " * len(name),
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=self._stream,
                leave=False,
            )
            self._bars.append(bar)

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        """Move the bars on, from any thread; without a terminal say where it stands now and then."""
        with self._lock:
            self._done = (self._done[0] + files, self._done[1] + nbytes)
            for bar, step in zip(self._bars, (files, nbytes), strict=False):
                bar.update(step)
            if self._has_lines and not self._has_bars and time.monotonic() - self._spoke > _LINE_EVERY_SECONDS:
                self._spoke = time.monotonic()
                self._say(self._standing())

    def _standing(self) -> str:
        total, total_nbytes = self._totals
        files = f"{self._done[0]:,} of {counted(total, self._noun)}" if total else counted(self._done[0], self._noun)
        return f"{files}, {format_nbytes(self._done[1])} of {format_nbytes(total_nbytes)}" if total_nbytes else files

    def change(self, change: Change) -> None:
        """Name a path and what became of it."""
        self._say(f"{change.action:9}  {shown(change.path)}")

    def failure(self, failure: Failure) -> None:
        """Name a path that failed; after a hundred only count them, the summary says how many."""
        self._failures += 1
        if self._failures <= _SHOWN_FAILURES or self.wants_changes:
            self._say(f"s3bu: error: {shown(failure.path)}: {shown_line(failure.error)}")
        elif self._failures == _SHOWN_FAILURES + 1:
            self._say("s3bu: error: further failures are counted, not named; -v names them all")

    def warning(self, message: str) -> None:
        """Print a warning."""
        self._say(f"s3bu: warning: {shown_line(message)}")

    def note(self, message: str) -> None:
        """Print a line."""
        if not self._is_quiet:
            self._say(shown_line(message))

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, or the log's disk is full: no reason to stop
            if self._bars:
                self._bars[0].write(line, file=self._stream)
            else:
                print(line, file=self._stream, flush=True)

    def finish(self) -> None:
        """Take the bars away, before something else is printed."""
        self._close_bars()

    def _close_bars(self) -> None:
        for bar in reversed(self._bars):
            bar.close()
        self._bars.clear()

    # --- facts

    def tell(self, _message_type: str, _facts: Facts, *lines: str) -> None:
        """Print what was asked for."""
        for line in lines:
            print(line)

    def summary(self, _facts: Facts, *lines: str) -> None:
        """Print what came of the command."""
        if not self._is_quiet:
            for line in lines:
                print(shown_line(line))

    def table(self, table: Table) -> None:
        """Print rows in columns, as they fit the terminal."""
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        rows = (row.cells for row in table.rows)
        for line in format_table(table.titles, rows, right=table.right, width=width, measured=table.measured):
            print(shown_line(line))

    # --- errors

    def error(self, error: S3buError, *, during: str) -> None:  # noqa: ARG002 - a person sees it from the message
        """Print an error with its problems and its hint."""
        self._say(f"s3bu: error: {shown_line(error.message)}")
        for problem in error.problems if isinstance(error, JobError) else ():
            self._say(f"s3bu: error: {shown_line(problem)}")
        if error.hint:
            self._say(f"s3bu: hint: {shown_line(error.hint)}")

    def end(self, error: S3buError, code: int) -> None:  # noqa: ARG002 - it is the exit code itself
        """Print the error that ended the command."""
        self.error(error, during="")
