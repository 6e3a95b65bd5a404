"""The header of an age file, read strictly and within a bound.

An object in a bucket may have been written by anyone. pyrage puts no bound on a header: 10,000 stanzas took it 14 s,
and a stanza of 32 MiB minutes. It also takes headers whose stanzas lack their last line. So every header is read here
first, as the age specification has it (C2SP, age-encryption.org/v1), and only then handed on.
"""

import base64
import re
from dataclasses import dataclass
from typing import Literal, Protocol

from s3bu.errors import IntegrityError

MAX_HEADER_NBYTES = 128 * 1024
"""Longest header that is read, in bytes; one X25519 recipient takes about 100, a post-quantum one 1,700."""

MAX_STANZAS = 1_500
"""Most recipients that a header may name: as many of the least kind as its bytes hold. pyrage takes time by their
square, 106 s for the 21,000 empty ones that the bound on bytes lets through."""

INTRO = b"age-encryption.org/v1\n"
_PREFIX = b"age-encryption.org/"
_PIECE_NBYTES = 4096
_MAC_LINE = re.compile(rb"\n---[^\n]*\n")
_ARGUMENT = re.compile(rb"[!-~]+")


class Reader(Protocol):
    """What is read from: a binary file, a `Download`, a decompressor."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, fewer as it likes, `b""` at the end alone."""


class Writer(Protocol):
    """What is written to: a binary file, an `Upload`."""

    def write(self, chunk: bytes, /) -> int | None:
        """Take the chunk, and say how many of its bytes; `None` means all."""


@dataclass(frozen=True, slots=True)
class Stanza:
    """One way to the file key: the kind of recipient, its arguments, and the wrapped key."""

    kind: str
    arguments: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A header that is well formed; nothing of it is authentic until its MAC was checked with the file key."""

    stanzas: tuple[Stanza, ...]
    text: bytes
    mac: bytes

    @property
    def authenticated(self) -> bytes:
        """The bytes that the MAC covers: all up to the three dashes of the last line."""
        return self.text[: self.text.rindex(b"---") + 3]

    @property
    def has_passphrase(self) -> bool:
        """Whether one of the stanzas, rightly the only one, asks for a passphrase."""
        return any(stanza.kind == "scrypt" for stanza in self.stanzas)


def age_kind(start: bytes) -> Literal["passphrase", "recipients"] | None:
    """Say from its first bytes (200 are plenty) what opens an age file; `None` when it is none.

    A file that only claims to be age, of an unknown version or with a broken header, counts as one for recipients, so
    that it fails when it is decrypted and is never taken for a plain one. Text armour is not age here: nothing that
    may lie in a repository is written in it.
    """
    if not start.startswith(_PREFIX):
        return None
    return "passphrase" if start.startswith(INTRO + b"-> scrypt ") else "recipients"


def read_header(reader: Reader, name: str) -> tuple[Header, bytes]:
    """Read the header from the start of an age file, and return it with the first bytes of the payload behind it.

    `name` stands in the messages. Raises `IntegrityError` for anything but a well-formed header of version 1 of at most
    `MAX_HEADER_NBYTES`; that covers truncated headers, armour and files that are not age.
    """
    text, rest = _split(reader, name)
    try:
        return _parse(text), rest
    except ValueError as error:
        raise IntegrityError(f"{name}: its age header is broken: {error}") from error


def encode_base64(plain: bytes) -> bytes:
    """Encode as age does: standard alphabet, no padding."""
    return base64.b64encode(plain).rstrip(b"=")


def decode_base64(text: bytes) -> bytes:
    """Decode base64 without padding; `ValueError` unless `text` is the one canonical form of what it encodes."""
    try:
        plain = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError("something else where base64 belongs") from error
    if encode_base64(plain) != text:
        raise ValueError("base64 that is not canonical")
    return plain


def _split(reader: Reader, name: str) -> tuple[bytes, bytes]:
    seen = bytearray()
    found = None
    while found is None:
        piece = reader.read(_PIECE_NBYTES)
        start = max(0, len(seen) - _PIECE_NBYTES)
        seen += piece
        if not seen.startswith(INTRO[: len(seen)]) or (not piece and len(seen) < len(INTRO)):
            raise IntegrityError(f"{name}: not an age file of version 1")
        if not piece:
            raise IntegrityError(f"{name}: truncated in its age header")
        found = _MAC_LINE.search(seen, start)
        if len(seen if found is None else seen[: found.end()]) > MAX_HEADER_NBYTES:
            raise IntegrityError(f"{name}: its age header is longer than {MAX_HEADER_NBYTES} bytes")
    return bytes(seen[: found.end()]), bytes(seen[found.end() :])


def _parse(text: bytes) -> Header:
    lines = text.split(b"\n")
    position = 1
    stanzas = []
    while lines[position].startswith(b"-> "):
        stanza, position = _stanza(lines, position)
        stanzas.append(stanza)
        if len(stanzas) > MAX_STANZAS:
            raise ValueError(f"more than {MAX_STANZAS:,} stanzas")
    word, _, mac = lines[position].partition(b" ")
    if word != b"---" or not stanzas:
        raise ValueError("no stanza where one belongs")
    mac_bytes = decode_base64(mac)
    if len(mac_bytes) != 32:
        raise ValueError("a MAC of the wrong length")
    return Header(tuple(stanzas), text, mac_bytes)


def _stanza(lines: list[bytes], position: int) -> tuple[Stanza, int]:
    words = lines[position].split(b" ")[1:]
    if not all(_ARGUMENT.fullmatch(word) for word in words):
        raise ValueError("an argument that is empty or holds a foreign character")
    end = position + 1
    while len(lines[end]) == 64:
        end += 1
    if len(lines[end]) > 64:
        raise ValueError("a line that is too long")
    body = decode_base64(b"".join(lines[position + 1 : end + 1]))
    kind, *arguments = (word.decode("ascii") for word in words)
    return Stanza(kind, tuple(arguments), body), end + 1
