"""All that is printed: progress on a terminal or as plain lines, tables, and what went wrong.

Facts go to stdout; progress, warnings and errors go to stderr. Names come from file systems and buckets, so whatever
in them could steer a terminal is escaped on the way.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from s3bu.errors import JobError, S3buError
from s3bu.progress import Failure

_SHOWN_FAILURES = 100
_LINE_EVERY_SECONDS = 60


def shown(name: bytes | str) -> str:
    r"""Return a name as it may be printed: control characters, bidi marks and bytes that are no text as `\x1b`."""
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    return "".join(one if one.isprintable() and one != "\\" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    # The lone surrogates from U+DC80 on stand for bytes of a name that are no text; others come from broken documents.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def shown_line(text: str) -> str:
    """Return a message as it may be printed, on one line; names in it were not escaped one by one."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def format_nbytes(nbytes: int) -> str:
    """Return a size for a person: `0 B`, `1.5 KiB`, `3.0 GiB`."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1023.95 or unit == "TiB":  # more would be rounded to 1,024.0
            break
        size /= 1024
    return f"{nbytes} B" if unit == "B" else f"{size:,.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `1,234 files`, `2 directories`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def print_error(error: S3buError, stream: TextIO | None = None) -> None:
    """Print an error with its problems and its hint."""
    stream = stream or sys.stderr
    print(f"s3bu: error: {shown_line(error.message)}", file=stream)
    for problem in error.problems if isinstance(error, JobError) else ():
        print(f"s3bu: error: {shown_line(problem)}", file=stream)
    if error.hint:
        print(f"s3bu: hint: {shown_line(error.hint)}", file=stream)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Print rows in columns as wide as they need to be; those in `right` hold numbers."""
    cells = [list(titles), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(padded).rstrip())


class Console:
    """A `Progress` for a person: bars where stderr is a terminal, a plain line a phase elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._bars: list[Any] = []
        self._lock = threading.Lock()
        self._failures = 0
        self._done = (0, 0)
        self._totals: tuple[int | None, int | None] = (None, None)
        self._noun = "file"
        self._spoke = time.monotonic()

    def __enter__(self) -> "Console":
        """Enter a block at whose end the bars are gone."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take the bars away."""
        self.finish()

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        """Begin a phase with bars of its own."""
        name = shown_line(name)
        self._close_bars()
        self._done, self._totals, self._noun = (0, 0), (files, nbytes), noun
        self._spoke = time.monotonic()
        if self._is_terminal:
            self._open_bars(name, files, nbytes)
        elif files is not None:
            size = f", {format_nbytes(nbytes)}" if nbytes is not None else ""
            self._say(f"{name}: {counted(files, noun)}{size}")
        else:
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
            if not self._is_terminal and time.monotonic() - self._spoke > _LINE_EVERY_SECONDS:
                self._spoke = time.monotonic()
                self._say(self._standing())

    def _standing(self) -> str:
        total, total_nbytes = self._totals
        files = f"{self._done[0]:,} of {counted(total, self._noun)}" if total else counted(self._done[0], self._noun)
        return f"{files}, {format_nbytes(self._done[1])} of {format_nbytes(total_nbytes)}" if total_nbytes else files

    def failure(self, failure: Failure) -> None:
        """Name a path that failed; after a hundred only count them, the summary says how many."""
        self._failures += 1
        if self._failures <= _SHOWN_FAILURES:
            self._say(f"s3bu: error: {shown(failure.path)}: {shown_line(failure.error)}")
        elif self._failures == _SHOWN_FAILURES + 1:
            self._say("s3bu: error: further failures are counted, not named")

    def warning(self, message: str) -> None:
        """Print a warning."""
        self._say(f"s3bu: warning: {shown_line(message)}")

    def note(self, message: str) -> None:
        """Print a line."""
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
