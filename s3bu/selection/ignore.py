"""Lines as a `.gitignore` has them: which paths below a directory they exclude, and which of those they take back.

A path is held against the lines itself; that nothing below an excluded directory can be taken back is so because the
walk never goes there, as git never does. All is bytes, as git takes it: `?` is one byte. Ignore files may come from
anybody, so no line makes an expression that is much longer than itself, or one that tries all combinations.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from s3bu.selection.brackets import Broken, read_set

_LINE_BOUND = 1_000
COSTLY_BOUND = 20_000
"""Bytes of the lines with `*`, `?` or `[` in one file, or in one list of a job: to prepare them takes a second."""
_HALF = 128
_Name: TypeAlias = list[bytes]
"""One name of a pattern: an expression for each letter, but for its asterisks."""
_STAR = b"*"
_DEEP: _Name = [b"**"]
_LETTERS_AND_ASTERISKS = re.compile(rb"([^*?\[\\]*[^*?\[\\/])\*\*+(/|\Z)")
_COSTLY = re.compile(rb"[*?\[]")
_MEANINGFUL = re.compile(rb"[*?\[\\\s!]")


class Unusable(Exception):
    """A line that cannot be held against paths; its text says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: `text` is what stands there; it is about the paths that one of the `expressions` matches whole."""

    text: bytes
    number: int
    is_negated: bool
    is_directory_only: bool
    is_of_name: bool
    expressions: tuple[re.Pattern[bytes], ...]

    def matches(self, path: bytes, name: bytes, *, is_directory: bool) -> bool:
        """Say whether the line is about this path, which is relative to where the line stands."""
        if self.is_directory_only and not is_directory:
            return False
        subject = name if self.is_of_name else path
        return any(one.fullmatch(subject) for one in self.expressions)


class Patterns:
    """The lines of one file, or of one list of a job, in order: the last one that is about a path decides."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._of_directories = _Quick(self._patterns)
        self._of_files = _Quick(pattern for pattern in self._patterns if not pattern.is_directory_only)

    def __bool__(self) -> bool:
        """Whether there is any line."""
        return bool(self._patterns)

    def deciding(self, path: bytes, name: bytes, *, is_directory: bool) -> Pattern | None:
        """Return the line that decides about a path, or `None` where none is about it."""
        if not (self._of_directories if is_directory else self._of_files).has_any(path, name):
            return None
        found = (one for one in reversed(self._patterns) if one.matches(path, name, is_directory=is_directory))
        return next(found, None)


class _Quick:
    """Says whether any of some lines is about a path: of most paths none is, and there may be millions."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        names: set[bytes] = set()
        endings: list[bytes] = []
        of_names: list[re.Pattern[bytes]] = []
        of_paths: list[re.Pattern[bytes]] = []
        for pattern in patterns:
            text = pattern.text.removesuffix(b"/").removeprefix(b"!")
            if pattern.is_of_name and not _MEANINGFUL.search(text):
                names.add(text)
            elif pattern.is_of_name and text.startswith(b"*") and not _MEANINGFUL.search(text[1:]):
                endings.append(text[1:])
            else:
                (of_names if pattern.is_of_name else of_paths).extend(pattern.expressions)
        self._names, self._endings = frozenset(names), tuple(endings)
        self._of_names, self._of_paths = _any_of(of_names), _any_of(of_paths)

    def has_any(self, path: bytes, name: bytes) -> bool:
        """Say so."""
        return (
            name in self._names
            or name.endswith(self._endings)
            or (self._of_names is not None and self._of_names.fullmatch(name) is not None)
            or (self._of_paths is not None and self._of_paths.fullmatch(path) is not None)
        )


def _any_of(expressions: list[re.Pattern[bytes]]) -> re.Pattern[bytes] | None:
    """Return what matches if any of these does."""
    if not expressions:
        return None
    return re.compile(b"|".join(b"(?:%s)" % one.pattern for one in expressions), re.DOTALL)


def is_too_much(lines: Iterable[bytes]) -> bool:
    """Say whether lines hold more patterns than can be held against each of millions of paths."""
    return sum(len(line) for line in lines if _COSTLY.search(line)) > COSTLY_BOUND


def parse_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and pattern of each line of a file that has one."""
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.removesuffix(b"\r"):
            yield number, line.removesuffix(b"\r")


def parse_pattern(text: bytes, number: int) -> Pattern | None:
    """Return what a line means, or `None` if it can match nothing, as a comment; `Unusable`: it is out of bounds."""
    if text.startswith(b"#"):
        return None
    if len(text) > _LINE_BOUND:
        raise Unusable(f"a pattern of more than {_LINE_BOUND:,} bytes")
    line = _without_blanks(text)
    is_negated = line.startswith(b"!")
    whole = line.removeprefix(b"!")
    is_directory_only = whole.endswith(b"/")
    whole = whole.removesuffix(b"/")
    is_of_name = b"/" not in whole
    try:
        expressions = tuple(
            _expression(_names(text), is_of_name=is_of_name)
            for text in _alternatives(whole.removeprefix(b"/"), is_of_name=is_of_name)
        )
    except Broken:
        return None
    return Pattern(line, number, is_negated, is_directory_only, is_of_name, expressions)


def _alternatives(whole: bytes, *, is_of_name: bool) -> list[bytes]:
    """Return the patterns that together match what git matches with one.

    Two asterisks that end a name are one, says its manual; but right behind the first letters of a path, which git
    compares before it looks for asterisks, they take slashes too.
    """
    found = None if is_of_name else _LETTERS_AND_ASTERISKS.match(whole)
    if found is None:
        return [whole]
    letters, rest = found[1], whole[found.end() :]
    if not found[2]:
        return [letters + b"*", letters + b"*/**"]
    return [letters + rest, letters + b"*/" + rest, letters + b"*/**/" + rest]


def _without_blanks(line: bytes) -> bytes:
    """Take the spaces from the end of a line, but for one that a backslash protects."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return kept + b" " if backslashes % 2 and len(kept) < len(line) else kept


def _expression(names: list[_Name], *, is_of_name: bool) -> re.Pattern[bytes]:
    """Return what matches a whole name, or a whole path."""
    if not all(names):
        raise Broken
    if is_of_name and names[0] == _DEEP:
        names = [[_STAR]]
    return re.compile(_of_path(names), re.DOTALL)


def _of_path(names: list[_Name]) -> bytes:
    """Return an expression whose time grows with the path, but not with the number of asterisks in the pattern.

    What stands between two `**` is as well taken where it is found first: behind that is all that is behind any later
    place. So the expression never looks for another one. The last names are held against the end.
    """
    *above, last = _between_deep(names)
    expression = b""
    for number, group in enumerate(above):
        if group:
            found = b"".join(_of_name(name) + b"/" for name in group)
            expression += b"(?>(?:[^/]++/)*?%s)" % found if number else found
    beginning = b"(?:[^/]++/)*" if above else b""
    return expression + (beginning + b"/".join(map(_of_name, last)) if last else b".+")


def _between_deep(names: list[_Name]) -> list[list[_Name]]:
    """Return the names before, between and behind `**`; several of those in a row are one."""
    groups: list[list[_Name]] = [[]]
    for number, name in enumerate(names):
        if name != _DEEP:
            groups[-1].append(name)
        elif number == 0 or names[number - 1] != _DEEP:
            groups.append([])
    return groups


def _of_name(name: _Name) -> bytes:
    """Return the same for one name, where what stands between two asterisks is taken where it is found first."""
    first, *others = _between_stars(name)
    if not others:
        return first
    return first + b"".join(b"(?>[^/]*?%s)" % piece for piece in others[:-1]) + b"[^/]*" + others[-1]


def _between_stars(name: _Name) -> list[bytes]:
    pieces = [b""]
    for letter in name:
        if letter == _STAR:
            pieces.append(b"")
        else:
            pieces[-1] += letter
    return pieces


def _names(text: bytes) -> list[_Name]:
    """Return the names of a pattern."""
    names: list[_Name] = [[]]
    position = 0
    while position < len(text):
        piece = text[position : position + 1]
        position += 1
        if piece == b"[":
            members, position = read_set(text, position)
            names[-1].append(_set_of(members))
        elif piece == b"*":
            names[-1].append(_STAR)
        elif piece == b"?":
            names[-1].append(b"[^/]")
        else:
            if piece == b"\\":
                piece = text[position : position + 1]
                position += 1
            _add(names, piece)
    return [_with_few_stars(name) for name in names]


def _add(names: list[_Name], letter: bytes) -> None:
    """Add a letter that stands for itself; a slash begins a new name."""
    if not letter:
        raise Broken
    if letter == b"/":
        names.append([])
    else:
        names[-1].append(re.escape(letter))


def _set_of(members: frozenset[int]) -> bytes:
    """Return a set as an expression, by what is in it or by what is not, and that in ranges: most take few bytes."""
    if not members:
        raise Broken
    is_negated = len(members) > _HALF
    listed = sorted(frozenset(range(256)) - members if is_negated else members)
    ranges = [[number for _, number in run] for _, run in groupby(enumerate(listed), lambda one: one[1] - one[0])]
    texts = (b"\\x%02x-\\x%02x" % (run[0], run[-1]) if run[1:] else b"\\x%02x" % run[0] for run in ranges)
    return (b"[^%s]" if is_negated else b"[%s]") % b"".join(texts)


def _with_few_stars(name: _Name) -> _Name:
    """Return a name whose runs of asterisks are one each, unless it is nothing but asterisks."""
    if len(name) > 1 and all(letter == _STAR for letter in name):
        return _DEEP
    return [letter for number, letter in enumerate(name) if number == 0 or [letter, name[number - 1]] != [_STAR] * 2]
