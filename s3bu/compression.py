"""Gzip as streams that are pulled from: what `-c` does to contents, and every job and manifest goes through."""

import zlib
from collections.abc import Iterator
from typing import Protocol

from s3bu.errors import IntegrityError

CHUNK = 256 * 1024
MAGIC = b"\x1f\x8b"
_GZIP = 31
"""What zlib calls a window of 32 KiB within a gzip header and trailer."""


class Readable(Protocol):
    """What can be read from, bytes at a time."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, `b""` at the end."""


class GzipReader:
    """The gzipped form of another stream, made while it is read; equal input gives equal bytes."""

    def __init__(self, reader: Readable, *, level: int = 6) -> None:
        self._reader = reader
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
        self._ready = b""
        self._is_finished = False

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` compressed bytes; all of them when negative."""
        while not self._is_finished and (size < 0 or len(self._ready) < size):
            self._fill()
        if size < 0:
            size = len(self._ready)
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken

    def _fill(self) -> None:
        chunk = self._reader.read(CHUNK)
        if chunk:
            self._ready += self._deflate.compress(chunk)
        else:
            self._ready += self._deflate.flush()
            self._is_finished = True


class Inflater:
    """Unpacks a gzipped stream that is fed to it; however well it was packed, in pieces of at most `CHUNK` bytes.

    Several members one behind the other are one stream, as gzip has it. A stream that is cut, altered or followed by
    other bytes raises `IntegrityError` naming `origin`. `nbytes_taken` counts the packed bytes of what was yielded.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._inflate = zlib.decompressobj(_GZIP)
        self.nbytes_taken = 0

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yield the plain bytes that the next packed ones give."""
        while packed:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(_GZIP)
            plain = self._unpack(packed)
            rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self.nbytes_taken += len(packed) - len(rest)
            yield plain
            packed = rest
        while plain := self._unpack(b""):  # output that the bound held back
            yield plain

    def _unpack(self, packed: bytes) -> bytes:
        try:
            return self._inflate.decompress(packed, CHUNK)
        except zlib.error as error:
            raise IntegrityError(f"{self._origin}: the compressed stream is broken") from error

    def finish(self) -> None:
        """Say that this was all: a stream that wants more is cut."""
        if not self._inflate.eof:
            raise IntegrityError(f"{self._origin}: the compressed stream is cut short")


class GunzipReader:
    """The plain form of a gzipped stream, unpacked while it is read, as `Inflater` has it."""

    def __init__(self, reader: Readable, *, origin: str) -> None:
        self._inflater = Inflater(origin)
        self._pieces = _inflated(reader, self._inflater)
        self._ready = b""

    @property
    def nbytes_taken(self) -> int:
        """How many packed bytes what was read so far stood in, and at most one piece more."""
        return self._inflater.nbytes_taken

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` plain bytes; all of them when negative."""
        if size < 0:
            ready, self._ready = self._ready, b""
            return ready + b"".join(self._pieces)
        while not self._ready:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._ready = piece
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


def _inflated(reader: Readable, inflater: Inflater) -> Iterator[bytes]:
    while packed := reader.read(CHUNK):
        yield from inflater.pieces(packed)
    inflater.finish()


def gzip_member(plain: bytes) -> bytes:
    """Return bytes as one gzip member, without name or time; members one behind the other are one gzipped stream."""
    return zlib.compress(plain, 6, _GZIP)


def gunzip_member(packed: bytes) -> bytes:
    """Return the bytes of one member that `gzip_member` made; `zlib.error` when it is damaged."""
    return zlib.decompress(packed, _GZIP)


def is_worth_compressing(sample: bytes) -> bool:
    """Say whether gzip saves at least a twentieth of a sample; what is packed already is not packed twice."""
    return len(zlib.compress(sample, 1)) < len(sample) * 0.95
