"""What a job leaves out by patterns and by what lies in a directory: the rules that stand below `s3bu:` in it.

A `Selection` is what the job says. A `Place` is what of it holds in one directory of a walk, with the ignore files
above it; it decides about the names in there, and says by which rule.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from s3bu.selection.ignore import COSTLY_BOUND, Pattern, Patterns, Unusable, is_too_much, parse_lines, parse_pattern
from s3bu.selection.presets import PRESETS

CACHEDIR_TAG = b"CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_FILE_BOUND = 1024 * 1024
_LINES_BOUND = 5_000
"""In one file of a tree; a job has bounds of its own."""
TOO_MUCH = f"more than {COSTLY_BOUND:,} bytes of lines with '*', '?' or '['"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Rule(NamedTuple):
    """By what a path is left out, or taken back in again.

    `key` is the key of the job (`exclude`, `skip_dirs` …), `detail` the pattern, name or bound, and `file` with `line`
    the ignore file where it stands. `is_of_job`: it is the job alone that decides, and nothing that lies in the tree.
    """

    key: str
    detail: bytes
    is_of_job: bool = True
    file: bytes | None = None
    line: int | None = None
    is_excluding: bool = True

    def __str__(self) -> str:
        """Return it as one reads it: `exclude: *.o`, `ignore_files: *.o (a/.s3buignore:3)`."""
        place = f" ({os.fsdecode(self.file)}:{self.line})" if self.file is not None else ""
        return f"{self.key}: {os.fsdecode(self.detail)}{place}" if self.detail else self.key


class Skipped(NamedTuple):
    """A path that a walk left out, with all below it, and by which rule."""

    path: bytes
    is_directory: bool
    rule: Rule


@dataclass(frozen=True, slots=True)
class _Listed:
    """Patterns and where they stand: below which directory they hold, under which key, in which file."""

    prefix: bytes
    key: str
    file: bytes | None
    patterns: Patterns

    def rule(self, path: bytes, name: bytes, *, is_directory: bool) -> Rule | None:
        below = path[len(self.prefix) :]
        found = self.patterns.deciding(below, name, is_directory=is_directory)
        return None if found is None else self._rule(found)

    def _rule(self, found: Pattern) -> Rule:
        line = None if self.file is None else found.number
        return Rule(self.key, found.text, self.file is None, self.file, line, is_excluding=not found.is_negated)


@dataclass(frozen=True, slots=True)
class Selection:
    """What stands below `s3bu:` in a job; without any of it nothing is left out."""

    exclude: tuple[bytes, ...] = ()
    ignore_files: tuple[bytes, ...] = ()
    has_cachedir_tag: bool = False
    max_file_size: int | None = None
    is_one_file_system: bool = False
    presets: tuple[str, ...] = ()
    _lists: tuple[_Listed, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        presets = [
            _Listed(b"", f"presets: {name}", None, _patterns(line.encode() for line in PRESETS[name]))
            for name in self.presets
        ]
        lists = (*presets, _Listed(b"", "exclude", None, _patterns(self.exclude)))
        object.__setattr__(self, "_lists", tuple(one for one in lists if one.patterns))

    def top(self) -> "Place":
        """Return what holds in the source itself, before its ignore files."""
        return Place(self, self._lists)


@dataclass(frozen=True, slots=True)
class Place:
    """The rules that hold for the names in one directory; those of the innermost ignore file stand last."""

    selection: Selection
    _lists: tuple[_Listed, ...]

    def deciding(self, path: bytes, name: bytes, *, is_directory: bool) -> Rule | None:
        """Return the pattern that decides about a path; it may take the path back in."""
        for listed in reversed(self._lists):
            found = listed.rule(path, name, is_directory=is_directory)
            if found is not None:
                return found
        return None

    def excluding(self, path: bytes, name: bytes, *, is_directory: bool) -> Rule | None:
        """Return the pattern by which a path is left out, if it is."""
        found = self.deciding(path, name, is_directory=is_directory) if self._lists else None
        return found if found is not None and found.is_excluding else None

    def entered(self, prefix: bytes, names: set[bytes], descriptor: int, odd: list[str]) -> "Place":
        """Return the rules for a directory, with those of the ignore files in it; `odd` takes what is wrong with them.

        `prefix` is its path with a slash behind it, or nothing for the source.
        """
        lists = self._lists
        for file in self.selection.ignore_files:
            if file in names:
                listed = _read_ignore_file(descriptor, prefix, file, odd)
                lists = (*lists, listed) if listed.patterns else lists
        return self if lists is self._lists else replace(self, _lists=lists)


def is_cache(descriptor: int) -> bool:
    """Say whether the `CACHEDIR.TAG` of an open directory is one, by how it begins."""
    try:
        return _read(descriptor, CACHEDIR_TAG, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False  # what cannot be read marks nothing


class Fault(NamedTuple):
    """What is wrong with a pattern; one that is harmless matches nothing."""

    text: str
    is_harmless: bool


def check_pattern(text: bytes) -> Fault | None:
    """Return what is wrong with a pattern of a job, if anything."""
    try:
        return None if parse_pattern(text, 0) else Fault("it matches nothing", is_harmless=True)
    except Unusable as error:
        return Fault(str(error), is_harmless=False)


def _patterns(lines: Iterable[bytes]) -> Patterns:
    parsed = (parse_pattern(line, number) for number, line in enumerate(lines, 1))
    return Patterns(pattern for pattern in parsed if pattern is not None)


def _read_ignore_file(descriptor: int, prefix: bytes, file: bytes, odd: list[str]) -> _Listed:
    """Return the patterns of an ignore file; what cannot be read or understood excludes nothing."""
    path = prefix + file
    patterns: list[Pattern] = []
    try:
        text = _read(descriptor, file, _FILE_BOUND + 1)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        odd.append(f"{os.fsdecode(path)}: excludes nothing, since it cannot be read ({why})")
        text = b""
    if len(text) > _FILE_BOUND or text.count(b"\n") > _LINES_BOUND:
        odd.append(f"{os.fsdecode(path)}: excludes nothing, since it is too long")
        text = b""
    if is_too_much(line for _, line in parse_lines(text)):
        odd.append(f"{os.fsdecode(path)}: excludes nothing, since it has {TOO_MUCH}")
        text = b""
    for number, line in parse_lines(text):
        try:
            pattern = parse_pattern(line, number)
        except Unusable as error:
            odd.append(f"{os.fsdecode(path)}:{number}: excludes nothing: {error}")
            continue
        if pattern is not None:
            patterns.append(pattern)
    return _Listed(prefix, "ignore_files", path, Patterns(patterns))


def _read(directory: int, name: bytes, nbytes: int) -> bytes:
    """Read the beginning of a regular file; a link is not followed, and a FIFO not waited for."""
    descriptor = os.open(name, _FLAGS, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        text = b""
        while len(text) < nbytes and (piece := os.read(descriptor, nbytes - len(text))):
            text += piece
        return text
    finally:
        os.close(descriptor)
