"""What a run tells the world outside: how far it is, what failed, and what came of it.

Operations are handed a `Progress` and are silent by default; `console` is the one that draws.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Failure:
    """One path that could not be backed up or restored, and why; a value, so that the run goes on."""

    path: bytes
    error: str


@dataclass(frozen=True, slots=True)
class Change:
    """One path, and what became of it (`new`, `changed`, `removed`, `restored` …); `kind` is its entry's."""

    action: str
    path: bytes
    kind: str
    nbytes: int


class Progress(Protocol):
    """What an operation reports while it runs; only `advance` may be called from any thread.

    `wants_changes` says whether to tell each path and what became of it: there may be millions.
    """

    wants_changes: bool

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        """Begin a new phase (`scanning`, `storing` …), with its totals where they are known.

        `noun` says what is counted as files, where that is something else.
        """

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        """So many files and bytes more are done."""

    def change(self, change: Change) -> None:
        """Something became of a path; only called where that is wanted."""

    def failure(self, failure: Failure) -> None:
        """One path failed; the run goes on."""

    def warning(self, message: str) -> None:
        """Something that the user should know but that fails nothing."""

    def note(self, message: str) -> None:
        """Say a plain line to whoever follows the run."""


class Silent:
    """A `Progress` that says nothing."""

    wants_changes = False

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        """Say nothing."""

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        """Say nothing."""

    def change(self, change: Change) -> None:
        """Say nothing."""

    def failure(self, failure: Failure) -> None:
        """Say nothing."""

    def warning(self, message: str) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""
