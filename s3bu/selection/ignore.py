"""Lines as a `.gitignore` has them: which paths below a directory they exclude, and which of those they take back.

A path is held against the lines itself; that nothing below an excluded directory can be taken back is so because the
walk never goes there, as git never does. pathspec makes the regular expressions. It is given each line in a form whose
meaning is plain, since it reads sets in brackets, escapes and trailing blanks otherwise than git. All is bytes, as git
takes it: `?` is one byte.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from s3bu.selection.brackets import Broken, read_set

_LINE_BOUND = 1_000
_STARS_BOUND = 4
"""So many `*` in one name cost no more than seconds, whatever the name; each further one would cost hundreds of times
that."""
_EVERYTHING = re.compile(rb".*", re.DOTALL)
_LETTERS_AND_ASTERISKS = re.compile(rb"([^*?\[\\]*[^*?\[\\/])\*\*+(/|\Z)")
_MEANINGFUL = re.compile(rb"[*?\[\\\s!]")
_PROTECTED = re.compile(r"\\.|\[\]?[^\]]*\]", re.DOTALL)


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
    """Return what matches if any of these does; their groups are nobody's concern."""
    if not expressions:
        return None
    texts = (re.sub(rb"\(\?P<\w+>", b"(?:", one.pattern) for one in expressions)
    return re.compile(b"|".join(b"(?:%s)" % text for text in texts), re.DOTALL)


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
            _expression(_plain_names(text), is_of_name=is_of_name)
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


def _is_everything(names: list[str], *, is_of_name: bool) -> bool:
    if is_of_name:
        return names[0] in ("*", "**")
    *above, last = names
    return bool(above) and all(name == "**" for name in above) and last in ("*", "**")


def _expression(names: list[str], *, is_of_name: bool) -> re.Pattern[bytes]:
    """Return what matches a whole name, or a whole path."""
    if not all(names):
        raise Broken
    if any(_PROTECTED.sub("", name).count("*") > _STARS_BOUND for name in names):
        raise Unusable(f"more than {_STARS_BOUND} asterisks in one name")
    if _is_everything(names, is_of_name=is_of_name):
        return _EVERYTHING
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # noqa: PLC0415 - few jobs have patterns

    text = "/".join(names)
    made = GitIgnoreSpecPattern((text if is_of_name else f"/{text}").encode("latin-1"))
    assert made.regex is not None  # the line was brought into a form that has one
    expression: bytes = made.regex.pattern
    if names[-1] == "**":  # then it matches the beginning of what is inside
        expression = (b"" if expression.startswith(b"^") else b".*") + expression + b".*"
    return re.compile(expression, re.DOTALL)


def _plain_names(text: bytes) -> list[str]:
    """Return the names of a pattern, one letter a byte, in the form in which git and pathspec read them alike."""
    names, position = [""], 0
    while position < len(text):
        piece = text[position : position + 1]
        position += 1
        if piece == b"[":
            members, position = read_set(text, position)
            names[-1] += _set_of(members)
        elif piece == b"\\":
            names = _with(names, text[position : position + 1])
            position += 1
        elif piece == b"*":
            names[-1] += "*"
        elif piece == b"?":
            names[-1] += "?"
        else:
            names = _with(names, piece)
    return [_with_few_stars(name) for name in names]


def _with(names: list[str], letter: bytes) -> list[str]:
    """Add a letter that stands for itself; a slash begins a new name."""
    if not letter:
        raise Broken
    if letter == b"/":
        return [*names, ""]
    return [*names[:-1], names[-1] + _literal(letter.decode("latin-1"))]


def _literal(letter: str) -> str:
    if letter.isspace():
        return f"[{letter}]"  # it would be lost at the end of a line
    return letter if letter.isalnum() else f"\\{letter}"


def _set_of(members: frozenset[int]) -> str:
    if not members:
        raise Broken
    letters = [chr(member) for member in sorted(members)]
    if len(letters) == 1:
        return _literal(letters[0])
    # `]` first, and what has a meaning there not.
    last = [letter for letter in letters if letter in "!^-["]
    first = [letter for letter in letters if letter == "]"]
    middle = [letter for letter in letters if letter not in "]!^-["]
    if not (first or middle):
        return "[\0" + "".join(sorted(last, key="^![-".index)) + "]"  # no name has that byte
    return "[" + "".join([*first, *middle, *(one for one in last if one != "-"), *(["-"] if "-" in last else [])]) + "]"


def _with_few_stars(name: str) -> str:
    """Return a name whose runs of asterisks are one each, unless it is nothing but asterisks."""
    if name and not name.strip("*"):
        return "*" if name == "*" else "**"
    return re.sub(r"(?<!\\)((?:\\\\)*)\*+", r"\1*", name)
