"""Reading one object of S3: small bodies whole in one go, large ones chunk by chunk."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

import obstore
from obstore.store import S3Store

from s3bu.errors import StorageError
from s3bu.storage.calls import Calls
from s3bu.storage.s3_errors import FAULTS, Request, code_of, fault

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult

_CHUNK_NBYTES = 1024 * 1024

# obstore hands these out beside the user's own metadata, under these very names.
_NOT_METADATA = frozenset(
    ("Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Storage-Class")
)


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer of S3: what it says of the object, and the bytes so far or the stream that they will come from.

    `skip` bytes of the stream are not wanted, then `left` bytes follow.
    """

    metadata: Mapping[str, str]
    nbytes: int
    modified: datetime
    body: bytes
    stream: "BytesStream | None" = None
    skip: int = 0
    left: int = 0


async def open_object(store: S3Store, request: Request, start: int, bound: int) -> Opened:
    """Ask for an object from byte `start` and await the answer, with its body up to `bound` bytes.

    What goes wrong is left for the caller to translate: one of `FAULTS`.
    """
    try:
        return await _asked(store, request, start, bound)
    except FAULTS as error:
        code = code_of(error, request.key)
        if start and code == "InvalidRange":
            return await _past_the_end(store, request)
        if start and not code and "NotPartial" in str(error):
            # Small servers (rclone's is one) do not mark a part as one, so all of it is read.
            return await _opened(await obstore.get_async(store, request.key), start, bound)
        raise


async def _asked(store: S3Store, request: Request, start: int, bound: int) -> Opened:
    options: GetOptions = {"range": {"offset": start}} if start else {}
    return await _opened(await obstore.get_async(store, request.key, options=options), 0, bound)


async def _past_the_end(store: S3Store, request: Request) -> Opened:
    """Return an empty rest, as files do; only the head of the object says what it is."""
    result = await obstore.get_async(store, request.key, options={"head": True})
    return Opened(_metadata(result), result.meta["size"], result.meta["last_modified"], b"")


async def _opened(result: "GetResult", skip: int, bound: int) -> Opened:
    first, end = result.range
    metadata, meta = _metadata(result), result.meta
    if end - first > bound:
        stream = result.stream(min_chunk_size=_CHUNK_NBYTES)
        left = max(end - first - skip, 0)
        return Opened(metadata, meta["size"], meta["last_modified"], b"", stream, skip, left)
    body = (await result.buffer_async()).to_bytes()
    if len(body) != end - first:
        raise OSError("kind: Body")
    return Opened(metadata, meta["size"], meta["last_modified"], body[skip:])


def _metadata(result: "GetResult") -> dict[str, str]:
    return {name.lower(): value for name, value in result.attributes.items() if name not in _NOT_METADATA}


class S3Download:
    """One object being read; holds a chunk or two of it."""

    def __init__(self, calls: Calls, request: Request, opened: Opened, patience: float) -> None:
        self.metadata: Mapping[str, str] = opened.metadata
        self.nbytes = opened.nbytes
        self.modified = opened.modified
        self._calls = calls
        self._request = request
        self._patience = patience
        self._chunk = opened.body
        self._position = 0
        self._stream = opened.stream
        self._skip = opened.skip
        self._left = opened.left
        self._is_closed = False

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left when negative; a body that ends early is a `StorageError`."""
        if self._is_closed:
            raise ValueError(f"read of a closed download: {self._request.url}")
        pieces: list[bytes] = []
        missing = size
        while missing and (self._position < len(self._chunk) or self._pull()):
            end = len(self._chunk) if missing < 0 else self._position + missing
            piece = self._chunk[self._position : end]
            self._position += len(piece)
            missing -= len(piece) if missing > 0 else 0
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the connection back."""
        self._is_closed = True
        self._stream = None
        self._chunk = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _pull(self) -> bool:
        """Fetch the next chunk; false at the end."""
        while self._stream is not None:
            chunk = self._calls.run(self._next_chunk)
            if chunk is None:
                self._stream = None
                self._refuse_short()
                return False
            self._chunk, self._position = chunk[self._skip :], 0
            self._skip = max(self._skip - len(chunk), 0)
            self._left -= len(self._chunk)
            if self._chunk:
                return True
        return False

    def _refuse_short(self) -> None:
        if self._left:
            raise StorageError(f"the body of {self._request.url} has not the length that was promised")

    async def _next_chunk(self) -> bytes | None:
        assert self._stream is not None
        try:
            return await asyncio.wait_for(anext(self._stream), self._patience)
        except StopAsyncIteration:
            return None
        except FAULTS as error:
            raise fault(error, self._request) from error
