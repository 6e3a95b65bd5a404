"""Sets in brackets, `[a-z]`, `[!0-9]` and `[[:space:]]`, as git reads them."""

import string

_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\v\f\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
_NONE = frozenset(b"/\0")
"""No set matches these: the one parts names, the other is in none."""


class Broken(Exception):
    """A pattern that git takes for one that matches nothing."""


def read_set(text: bytes, start: int) -> tuple[frozenset[int], int]:
    """Return the bytes that a set matches, and where it ends; `start` is behind its opening bracket."""
    reading = _Reading(text, start)
    is_negated = text[start : start + 1] in (b"!", b"^")
    reading.position += is_negated
    reading.read()
    members = frozenset(range(256)) - reading.members if is_negated else frozenset(reading.members)
    return members - _NONE, reading.position


class _Reading:
    """One set being read: its members so far, and the one before, with which a range may begin."""

    def __init__(self, text: bytes, position: int) -> None:
        self._text = text
        self.position = position
        self.members: set[int] = set()
        self._previous: int | None = None

    def read(self) -> None:
        """Read up to and with the closing bracket; one that stands first is a member."""
        self._member()
        while self._peek() != b"]":
            self._member()
        self.position += 1

    def _peek(self, ahead: int = 0) -> bytes:
        at = self.position + ahead
        return self._text[at : at + 1]

    def _take(self) -> int:
        """Return the next byte, or the one that a backslash protects."""
        self.position += self._peek() == b"\\"
        taken = self._peek()
        if not taken:
            raise Broken
        self.position += 1
        return taken[0]

    def _member(self) -> None:
        if self._peek() == b"-" and self._previous is not None and self._peek(1) not in (b"", b"]"):
            self.position += 1
            self.members.update(range(self._previous, self._take() + 1))
            self._previous = None
        elif self._peek() == b"[" and self._peek(1) == b":" and self._has_class():
            self._previous = None
        else:
            self._previous = self._take()
            self.members.add(self._previous)

    def _has_class(self) -> bool:
        """Take a class such as `[:alpha:]`, if it is one; an unknown class breaks the pattern."""
        end = self._text.find(b"]", self.position + 2)
        if end < 0:
            raise Broken
        name = self._text[self.position + 2 : end]
        if not name.endswith(b":"):
            return False
        try:
            self.members.update(map(ord, _CLASSES[name[:-1].decode("latin-1")]))
        except KeyError as error:
            raise Broken from error
        self.position = end + 1
        return True
