"""Get, decrypt, verify: the bytes of a content, or an error, and nothing in between.

The hash alone is trusted: anybody who knows the public recipients can make an age file, and metadata may be lost or
lie. So what was decrypted must hash to its key, as it is or unzipped, or it is not the content (docs/format.md).
"""

import hashlib
from typing import Protocol

from s3bu.compression import MAGIC, Inflater
from s3bu.crypto import decrypt_stream
from s3bu.errors import IntegrityError
from s3bu.repository import Repository, layout
from s3bu.storage import Download


class Target(Protocol):
    """Where a content is written to: a file, or memory, that is begun again when what came was not it."""

    def write(self, chunk: bytes, /) -> int:
        """Take the next bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def truncate(self) -> int:
        """Forget what stands behind the position."""


def fetch(
    repository: Repository, content_hash: str, nbytes: int | None, target: Target, begun: Download | None = None
) -> None:
    """Write the content with that hash, and that length where it is known, to `target`.

    `begun` is its object where that is open already, as `Storage.open_all` gives it; it is closed here.
    What stands in `target` is not that content before this returns: it is for a temporary file, or for memory.
    `IntegrityError` when another content, or none, is stored there; `NoIdentityError` when no identity opens it.
    """
    key = layout.content_key(content_hash)
    first = _Attempt(repository, key, content_hash, nbytes, is_packed=None)
    with begun or repository.storage.open(key) as download:
        if first.run(download, target):
            return
    if first.is_packed or first.starts_like_gzip:
        second = _Attempt(repository, key, content_hash, nbytes, is_packed=not first.is_packed)
        with repository.storage.open(key) as download:
            if second.run(download, target):
                return
    raise IntegrityError(f"{key}: what is stored there is not the content of that name")


class _Attempt:
    """One try at a content, either as it was decrypted or unzipped; with `is_packed=None` what looks right is taken.

    A gzipped file that was stored as it is, and a file that was zipped when it was stored, look alike without
    metadata: only the hash tells, so the other reading is tried after the first.
    """

    def __init__(
        self, repository: Repository, key: str, content_hash: str, nbytes: int | None, *, is_packed: bool | None
    ) -> None:
        self.is_packed = is_packed
        self.starts_like_gzip = False
        self._repository = repository
        self._key = key
        self._content_hash = content_hash
        self._nbytes = nbytes

    def run(self, download: Download, target: Target) -> bool:
        """Read the object once, and say whether it was the content."""
        target.seek(0)
        target.truncate()
        if self.is_packed is None:
            self.is_packed = _looks_packed(download, self._nbytes)
        sink = _Sink(target, self._key, self._nbytes, is_packed=self.is_packed)
        try:
            decrypt_stream(download, sink, self._repository.keyring.identities, name=self._key)
            sink.finish()
        except _NotThis:
            return False
        finally:
            self.starts_like_gzip = sink.head == MAGIC
        return sink.hexdigest() == self._content_hash and self._nbytes in (None, sink.nbytes)


def _looks_packed(download: Download, nbytes: int | None) -> bool:
    """Guess from the metadata, and without any of ours from the size: age only ever adds to what it encrypts."""
    is_packed = layout.says_compressed(download.metadata)
    if is_packed is not None:
        return is_packed
    return nbytes is not None and download.nbytes < layout.smallest_object(nbytes)


class _NotThis(Exception):
    """What comes out is not the content that is looked for, whatever follows."""


class _Sink:
    """Takes the plain bytes as they are decrypted, unzips them if told to, hashes and writes them.

    It ends with the byte that is one too many, so that nothing well packed fills a disk.
    """

    def __init__(self, target: Target, key: str, bound: int | None, *, is_packed: bool) -> None:
        self.head = b""
        self.nbytes = 0
        self._target = target
        self._bound = bound
        self._inflater = Inflater(key) if is_packed else None
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes, /) -> int:
        if len(self.head) < len(MAGIC):
            self.head = (self.head + bytes(chunk[: len(MAGIC)]))[: len(MAGIC)]
        try:
            for piece in self._inflater.pieces(bytes(chunk)) if self._inflater else (chunk,):
                self._take(piece)
        except IntegrityError as error:
            raise _NotThis from error
        return len(chunk)

    def _take(self, piece: bytes) -> None:
        self.nbytes += len(piece)
        if self._bound is not None and self.nbytes > self._bound:
            raise _NotThis
        self._hash.update(piece)
        self._target.write(piece)

    def flush(self) -> None:
        """Nothing is kept back."""

    def finish(self) -> None:
        try:
            if self._inflater:
                self._inflater.finish()
        except IntegrityError as error:
            raise _NotThis from error

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
