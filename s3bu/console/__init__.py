"""All that is printed: for a person, or as JSON lines for a program, with the same facts in both.

Facts go to stdout; progress, warnings and errors go to stderr. What a command has to say is told once, as facts by
name and as text, and the console that the user chose prints the one or the other (docs/json.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, TypeAlias

from s3bu.errors import S3buError
from s3bu.progress import Progress

Facts: TypeAlias = Mapping[str, object]
"""What a message says, by the name of each field; a value of `bytes` is the name of a path."""


@dataclass(frozen=True, slots=True)
class Style:
    """How the user wants to be told: as JSON, only what was asked for, every path, without bars and status."""

    is_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    has_progress: bool = True


class Row(NamedTuple):
    """One row of a table: its facts, and its cells as a person reads them."""

    facts: Facts
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Messages of one type that a person sees as rows; the columns in `right` hold numbers.

    Columns are as wide as the first `measured` rows need, and the others are printed as they come; `None`: as wide as
    all need.
    """

    message_type: str
    titles: Sequence[str]
    rows: Iterable[Row]
    right: frozenset[int] = frozenset()
    measured: int | None = None


class Console(Progress, Protocol):
    """Where a command says what it has to say; `lists_all`: it takes however many rows there are, ungrouped."""

    lists_all: bool

    def __enter__(self) -> "Console":
        """Enter a block at whose end nothing moves any more."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Take the bars away."""

    def finish(self) -> None:
        """Take the bars away, before something else is printed."""

    def tell(self, message_type: str, facts: Facts, *lines: str) -> None:
        """Say a fact that was asked for."""

    def summary(self, facts: Facts, *lines: str) -> None:
        """Say what came of a command; a person who wants quiet takes that from the exit code."""

    def table(self, table: Table) -> None:
        """Say many facts of one kind."""

    def error(self, error: S3buError, *, during: str) -> None:
        """Say what ended a part of the command; the rest goes on."""

    def end(self, error: S3buError, code: int) -> None:
        """Say what ended the command, with its exit code."""


def make_console(style: Style) -> Console:
    """Return the console for a style, on the streams of the process."""
    if style.is_json:
        from s3bu.console.lines import JsonConsole  # noqa: PLC0415 - only one of the two is ever needed

        return JsonConsole(style)
    from s3bu.console.person import PersonConsole  # noqa: PLC0415

    return PersonConsole(style)
