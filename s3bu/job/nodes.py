"""What a job's document is made of, each part with its line, and what was found wrong with it."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NoReturn

from s3bu.errors import JobError

SIZE_BOUND = 1024 * 1024
"""The most bytes that a job may have."""

_SHOWN = 60


def shown(text: str) -> str:
    """Return text from a document as one short line in quotes, fit for a message."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, or `None` where YAML has nothing."""

    line: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    line: int
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and what stands under them; each key is a string that comes once."""

    line: int
    values: "dict[str, Node]"
    key_lines: dict[str, int]


Node = Scalar | Listing | Mapping


def is_nothing(node: Node | None) -> bool:
    """Say whether a key is absent, or there without a value."""
    return node is None or (isinstance(node, Scalar) and node.text is None)


@dataclass(frozen=True, slots=True)
class Findings:
    """The problems and warnings of one document so far; `origin` is the file or key that they name."""

    origin: str
    is_strict: bool
    problems: list[tuple[int, str]] = field(default_factory=list)
    warnings: list[tuple[int, str]] = field(default_factory=list)

    def problem(self, line: int, text: str) -> None:
        """Note what makes the job unusable."""
        self.problems.append((line, text))

    def doubt(self, line: int, text: str) -> None:
        """Note what is a problem of a job that is being written, but only a warning in one that is in use."""
        (self.problems if self.is_strict else self.warnings).append((line, text))

    def stop(self, line: int, text: str, cause: Exception | None = None) -> NoReturn:
        """Give up at a problem after which nothing sound can be said of the rest."""
        self.problem(line, text)
        raise self.error() from cause

    def lines(self, found: list[tuple[int, str]]) -> tuple[str, ...]:
        """Return findings as lines for people, in order of place."""
        in_order = sorted(found, key=lambda finding: finding[0])
        return tuple(f"{self.origin}:{line}: {text}" for line, text in in_order)

    def error(self) -> JobError:
        """Return all problems as one error."""
        count = len(self.problems)
        return JobError(f"{self.origin}: {count:,} problem{'' if count == 1 else 's'}", self.lines(self.problems))


def keys_of(
    node: Node | None, what: str, known: tuple[str, ...], findings: Findings, *, below_s3bu: tuple[str, ...] = ()
) -> dict[str, Node]:
    """Return the values of a mapping, having noted the unknown keys in it; some are known `below_s3bu`."""
    if node is None or is_nothing(node):
        return {}
    if not isinstance(node, Mapping):
        findings.problem(node.line, f"{what} must be a mapping, lines of 'key: value'")
        return {}
    for key, line in node.key_lines.items():
        if key not in known:
            close = get_close_matches(key[:64].lower(), known, 1)
            advice = f", did you mean {close[0]!r}" if close else ""
            advice = ", which belongs below 's3bu'" if key in below_s3bu else advice
            findings.doubt(line, f"unknown key {shown(key)}{advice}")
    return node.values


def items_of(node: Node | None, key: str, findings: Findings) -> tuple[Node, ...]:
    """Return the items of a list, without those that are nothing."""
    if node is None or is_nothing(node):
        return ()
    if not isinstance(node, Listing):
        findings.problem(node.line, f"{key!r} must be a list, each item on a line of its own after '- '")
        return ()
    for item in node.items:
        if is_nothing(item):
            findings.doubt(item.line, f"an item of {key!r} is empty; one that is spelled ~ or null needs quotes")
    return tuple(item for item in node.items if not is_nothing(item))


def names_of(node: Node | None, key: str, findings: Findings) -> list[tuple[int, str]]:
    """Return the strings of a list, each with its line."""
    names = []
    for item in items_of(node, key, findings):
        if isinstance(item, Scalar):
            names.append((item.line, item.text or ""))
        else:
            findings.problem(item.line, f"an item of {key!r} must be a single text")
    return names
