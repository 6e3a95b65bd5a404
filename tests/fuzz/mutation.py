"""Makes hostile documents of valid ones: flips, splices, repeats, cuts, extreme numbers, and tokens known to be bad."""

import random
import re
from collections.abc import Callable, Sequence

LONGEST = 256 * 1024
"""No case is longer, so that many are tried; larger documents are tried one by one, in `tests/test_bombs.py`."""

_NUMBER = re.compile(rb"-?[0-9]+")
_FIELD = re.compile(rb"[^\s,=:/\x00]+")
_NUMBERS = (
    b"0",
    b"-0",
    b"-1",
    b"1",
    b"00",
    b"08",
    b"255",
    b"256",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"9" * 19,
    b"9" * 5000,
    b"1e999",
    b"0x10",
    b"1_000",
    b"NaN",
    "\u0663\u0664".encode(),
)
_TOKENS = (
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    "\ufeff".encode(),
    "\u2028".encode(),
    "\x85".encode(),
    b"%00",
    b"%2F",
    b"%",
    b"%zz",
    b"../",
    b"//",
    b"/",
    b".",
    b",",
    b"=",
    b":",
    b"'",
    b'"',
    b"\\",
    b"\x1b[2J",
    b" ",
    b"\t",
    b"-",
    b"#",
    b"@",
    b"{",
    b"[" * 2000,
    b"{}",
    b"A" * 70_000,
)


class Mutator:
    """Makes one case after another of seeds; `tokens` are words of the format, besides those that are bad anywhere."""

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        self._seeds = seeds
        self._tokens = (*_TOKENS, *tokens)

    def case(self, draw: random.Random) -> bytes:
        """Return a case; an equal `draw` gives an equal one."""
        document = draw.choice(self._seeds)
        for _ in range(draw.choice((1, 1, 1, 2, 3, 5, 8, 20))):
            document = draw.choice(_MUTATIONS)(self, document, draw)[:LONGEST]
        return document

    def flip(self, document: bytes, draw: random.Random) -> bytes:
        if not document:
            return b"\x00"
        changed = bytearray(document)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)

    def set_byte(self, document: bytes, draw: random.Random) -> bytes:
        at = draw.randrange(len(document) + 1)
        return document[:at] + bytes([draw.randrange(256)]) + document[at + 1 :]

    def insert(self, document: bytes, draw: random.Random) -> bytes:
        at = draw.randrange(len(document) + 1)
        return document[:at] + draw.choice(self._tokens) + document[at:]

    def overwrite(self, document: bytes, draw: random.Random) -> bytes:
        at, token = draw.randrange(len(document) + 1), draw.choice(self._tokens)
        return document[:at] + token + document[at + len(token) :]

    def noise(self, document: bytes, draw: random.Random) -> bytes:
        start, end = _span(document, draw)
        return document[:start] + draw.randbytes(draw.choice((1, 4, 32, 300))) + document[end:]

    def drop(self, document: bytes, draw: random.Random) -> bytes:
        start, end = _span(document, draw)
        return document[:start] + document[end:]

    def cut(self, document: bytes, draw: random.Random) -> bytes:
        return document[: draw.randrange(len(document) + 1)]

    def repeat(self, document: bytes, draw: random.Random) -> bytes:
        start, end = _span(document, draw)
        times = min(draw.choice((1, 2, 10, 1000, 30_000)), 1 + LONGEST // max(end - start, 1))
        return document[:end] + document[start:end] * times + document[end:]

    def splice(self, document: bytes, draw: random.Random) -> bytes:
        other = draw.choice(self._seeds)
        return document[: draw.randrange(len(document) + 1)] + other[draw.randrange(len(other) + 1) :]

    def number(self, document: bytes, draw: random.Random) -> bytes:
        return _replaced(document, _NUMBER, draw.choice(_NUMBERS), draw)

    def field(self, document: bytes, draw: random.Random) -> bytes:
        return _replaced(document, _FIELD, draw.choice(self._tokens), draw)

    def lines(self, document: bytes, draw: random.Random) -> bytes:
        """Move, double or drop a line."""
        lines = document.splitlines(keepends=True)
        if not lines:
            return document
        line = lines.pop(draw.randrange(len(lines)))
        for _ in range(draw.randrange(3)):
            lines.insert(draw.randrange(len(lines) + 1), line)
        return b"".join(lines)


_MUTATIONS: tuple[Callable[[Mutator, bytes, random.Random], bytes], ...] = (
    Mutator.flip,
    Mutator.set_byte,
    Mutator.insert,
    Mutator.overwrite,
    Mutator.noise,
    Mutator.drop,
    Mutator.cut,
    Mutator.repeat,
    Mutator.splice,
    Mutator.number,
    Mutator.number,
    Mutator.field,
    Mutator.field,
    Mutator.lines,
)


def _span(document: bytes, draw: random.Random) -> tuple[int, int]:
    """Return a stretch of the document, short ones more often."""
    start = draw.randrange(len(document) + 1)
    return start, min(len(document), start + draw.choice((1, 2, 8, 64, 1000, len(document))))


def _replaced(document: bytes, what: re.Pattern[bytes], by: bytes, draw: random.Random) -> bytes:
    found = [match.span() for match in what.finditer(document[:20_000])]
    if not found:
        return document + by
    start, end = draw.choice(found)
    return document[:start] + by + document[end:]
