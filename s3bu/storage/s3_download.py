"""Reading one object of S3: small bodies whole in one go, large ones chunk by chunk."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

from s3bu.errors import StorageError
from s3bu.storage.s3_errors import FAULTS, Request
from s3bu.storage.s3_exchange import Answer, Exchange, Fetch
from s3bu.storage.s3_transport import Transport

_METADATA = "x-amz-meta-"
_EMPTY = hashlib.sha256(b"").hexdigest()


def fetch_exchange(path: str, common: Sequence[str], *, start: int, bound: int) -> Fetch:
    """Return the exchange that reads an object from byte `start`; `common` are the header lines of all requests."""
    return Fetch(path, [f"x-amz-content-sha256: {_EMPTY}", *common], start=start, bound=bound)


def head_exchange(path: str, common: Sequence[str]) -> Exchange:
    """Return the exchange that asks what an object is."""
    return Exchange("HEAD", path, [f"x-amz-content-sha256: {_EMPTY}", *common])


class S3Download:
    """One object being read; holds a few chunks of it.

    `nbytes` is the length of the whole object, whose `answer` tells of it; `fetch` is absent where nothing is to come.
    """

    def __init__(
        self,
        request: Request,
        answer: Answer,
        nbytes: int,
        fetch: Fetch | None,
        transport: Transport,
        explain: Callable[[Exception, Request], Exception],
    ) -> None:
        self.metadata: Mapping[str, str] = _metadata(answer)
        self.nbytes = nbytes
        self.modified = _modified(answer, request)
        self._request = request
        self._fetch = fetch
        self._transport = transport
        self._explain = explain
        self._chunk = fetch.held if fetch is not None and fetch.pipe is None else b""
        self._position = 0
        self._is_over = fetch is None or fetch.pipe is None
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
        if not self._is_closed and not self._is_over and self._fetch is not None:
            self._fetch.is_given_up = True
            self._transport.give_up(self._fetch)
        self._is_closed = True
        self._fetch = None
        self._chunk = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _pull(self) -> bool:
        """Take what has come; false at the end."""
        if self._is_over or self._fetch is None or self._fetch.pipe is None:
            return False
        self._chunk, self._position = self._taken(), 0
        self._is_over = not self._chunk
        if self._fetch.is_paused:
            self._transport.resume(self._fetch)
        return bool(self._chunk)

    def _taken(self) -> bytes:
        assert self._fetch is not None
        assert self._fetch.pipe is not None
        try:
            return self._fetch.pipe.take()
        except FAULTS as error:
            self._is_over = True
            raise self._explain(error, self._request) from error


def _metadata(answer: Answer) -> dict[str, str]:
    return {name.removeprefix(_METADATA): value for name, value in answer.headers.items() if name.startswith(_METADATA)}


def _modified(answer: Answer, request: Request) -> datetime:
    try:
        modified = parsedate_to_datetime(answer.headers.get("last-modified", ""))
        # HTTP has no other zone, so one that is not named is that.
        return (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise StorageError(f"{request.endpoint} answers for {request.url} without saying since when it is") from error
