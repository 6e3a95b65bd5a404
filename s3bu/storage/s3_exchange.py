"""One request to S3 and what comes of it, over all its attempts; all of it happens on the transport's thread.

The body of an object is held whole up to a bound. A longer one flows through a `Pipe`, which holds a few chunks of it
and has the transfer paused while nobody takes them; one that breaks off is taken up again where it broke off.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pycurl

_ERROR_BOUND = 8 * 1024
_PIPE_NBYTES = 2 * 1024 * 1024
_OK, _PARTIAL = 200, 206
_ERROR_ELEMENT = b"<Error>"
"""What S3 may send after it said 200: it began to answer before it knew how the request would end."""
_REPEATED_STATUSES = frozenset((429, 500, 502, 503, 504))
_REPEATED_CODES = (b"<Code>RequestTimeout</Code>", b"<Code>SlowDown</Code>", b"<Code>InternalError</Code>")
_REPEATED_FAULTS = frozenset(
    (
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_OPERATION_TIMEDOUT,
        pycurl.E_GOT_NOTHING,
        pycurl.E_SEND_ERROR,
        pycurl.E_RECV_ERROR,
        pycurl.E_PARTIAL_FILE,
    )
)


class HttpFault(Exception):
    """A request that failed: with the status and body of an answer, or with libcurl's number for what went wrong."""

    def __init__(self, *, status: int = 0, body: bytes = b"", number: int = 0, region: str = "") -> None:
        super().__init__(f"status {status}" if status else f"libcurl's error {number}")
        self.status = status
        self.body = body
        self.number = number
        self.region = region

    @property
    def may_pass(self) -> bool:
        """Say whether the same request may succeed a little later."""
        if self.status:
            return self.status in _REPEATED_STATUSES or any(code in self.body for code in _REPEATED_CODES)
        return self.number in _REPEATED_FAULTS


@dataclass(slots=True)
class Answer:
    """What came back of one attempt; header names are in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int | None:
        """Return how long its body is."""
        return _number(self.headers.get("content-length", ""))

    @property
    def start(self) -> int | None:
        """Return the first byte of the object that it brings; small servers do not mark a part by its status."""
        if "content-range" not in self.headers:
            return 0 if self.status == _OK else None
        kind, _, rest = self.headers["content-range"].partition(" ")
        return _number(rest.partition("-")[0]) if kind == "bytes" else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


class Exchange:
    """A request, and when it is settled its `answer`, or the `fault` of its last attempt.

    `path` is escaped and begins with a slash; `headers` are lines as libcurl takes them.
    """

    def __init__(self, method: str, path: str, headers: Sequence[str], body: bytes = b"") -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.answer = Answer()
        self.fault: Exception | None = None
        self.attempts = 0
        self.is_paused = False
        self._error: list[bytes] = []

    @property
    def is_wanted(self) -> bool:
        """Say whether anyone still waits for what is to come."""
        return True

    @property
    def is_open(self) -> bool:
        """Say whether enough of the answer is there for whoever waits, though more is to come."""
        return False

    def begin(self) -> list[str]:
        """Begin an attempt, and return the header lines that it sends."""
        self.attempts += 1
        self.answer, self._error, self.is_paused = Answer(), [], False
        return list(self.headers)

    def take_header(self, line: bytes) -> None:
        """Take one line of the answer's head; an empty one ends it."""
        if line.startswith(b"HTTP/"):
            self.answer = Answer(_number(line[9:12].decode("latin-1")) or 0)
        elif line in (b"\r\n", b"\n"):
            self.take_head()
        else:
            name, _, value = line.partition(b":")
            self.answer.headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")

    def take_head(self) -> None:
        """Look at a head that is complete."""

    def take_body(self, chunk: bytes) -> int | None:
        """Take bytes of the body; what it returns tells libcurl to go on (`None`), to pause, or to break off."""
        if sum(map(len, self._error)) < _ERROR_BOUND:
            self._error.append(chunk[:_ERROR_BOUND])
        return None

    def conclude(self, number: int, status: int) -> None:
        """Note how an attempt ended: `number` is libcurl's, 0 where the answer came whole."""
        if number:
            self.fault = HttpFault(number=number)
        elif not _OK <= status < 300 or _ERROR_ELEMENT in b"".join(self._error):
            region = self.answer.headers.get("x-amz-bucket-region", "")
            self.fault = HttpFault(status=status or 502, body=b"".join(self._error)[:_ERROR_BOUND], region=region)
        else:
            self.fault = None

    def settle(self) -> None:
        """Do what is left when there will be no further attempt."""


class Pipe:
    """The bytes of a long body, between the transport's thread, which fills it, and one reader."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._nbytes = 0
        self._is_over = False
        self._fault: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Say whether no more should come for now."""
        return self._nbytes >= _PIPE_NBYTES

    def put(self, chunk: bytes) -> None:
        """Add bytes."""
        with self._changed:
            self._chunks.append(chunk)
            self._nbytes += len(chunk)
            self._changed.notify()

    def finish(self, fault: Exception | None) -> None:
        """End it, well or with what went wrong."""
        with self._changed:
            self._is_over, self._fault = True, fault
            self._changed.notify()

    def take(self) -> bytes:
        """Wait for bytes and return all that are there, none at the end; raise what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._is_over)
            taken = b"".join(self._chunks)
            self._chunks.clear()
            self._nbytes = 0
            if not taken and self._fault is not None:
                raise self._fault
            return taken


class Fetch(Exchange):
    """The reading of an object from byte `start`: its body is held up to `bound` bytes, else the `pipe` brings it.

    `nbytes` is the length of the whole object, `first` the answer to the first attempt that brought any of it.
    """

    def __init__(self, path: str, headers: Sequence[str], *, start: int, bound: int) -> None:
        super().__init__("GET", path, headers)
        self.start = start
        self.nbytes = 0
        self.first = Answer()
        self.pipe: Pipe | None = None
        self.is_given_up = False
        self._bound = bound
        self._held: list[bytes] = []
        self._position = start
        self._skip = 0
        self._is_wrong = False

    @property
    def held(self) -> bytes:
        """The body, where there is no pipe."""
        return b"".join(self._held)

    @property
    def is_wanted(self) -> bool:
        """Say whether the reader has not closed it."""
        return not self.is_given_up

    @property
    def is_open(self) -> bool:
        """Say whether the pipe is there."""
        return self.pipe is not None

    def begin(self) -> list[str]:
        """Begin an attempt, for what did not come yet."""
        lines = super().begin()
        self._is_wrong, self._skip = False, 0
        etag = self.first.headers.get("etag")
        if etag:
            lines.append(f"If-Match: {etag}")
        return [*lines, f"Range: bytes={self._position}-"] if self._position else lines

    def take_head(self) -> None:
        """Find out which bytes are to come: a server may send all of them where only the rest was asked for."""
        answer = self.answer
        if answer.status not in (_OK, _PARTIAL):
            return
        length, start = answer.length, answer.start
        if length is None or start not in (0, self._position):
            self._is_wrong = True
        elif not self.first.status:
            self.first, self.nbytes = answer, start + length
            if self.nbytes - self._position > self._bound:
                self.pipe = Pipe()
        else:
            was, now = self.first.headers.get("etag"), answer.headers.get("etag")
            self._is_wrong = start + length != self.nbytes or was != now
        self._skip = self._position - (start or 0)

    def take_body(self, chunk: bytes) -> int | None:
        """Take bytes of the object, or of an error."""
        if self.answer.status not in (_OK, _PARTIAL):
            return super().take_body(chunk)
        if self._is_wrong or self.is_given_up:
            return 0
        if self.pipe is not None and self.pipe.is_full:
            self.is_paused = True
            return int(pycurl.WRITEFUNC_PAUSE)
        skipped = min(self._skip, len(chunk))
        self._skip -= skipped
        self._keep(chunk[skipped:] if skipped else chunk)
        return None

    def _keep(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._position += len(chunk)
        self.attempts = 1  # it goes on, so what breaks it off next is a trouble of its own
        if self.pipe is None:
            self._held.append(chunk)
        else:
            self.pipe.put(chunk)

    def conclude(self, number: int, status: int) -> None:
        """Note how an attempt ended; what counts is whether the whole rest came."""
        super().conclude(number, status)
        is_whole = bool(self.first.status) and self._position == max(self.nbytes, self.start)
        if is_whole:
            self.fault = None
        elif self.fault is None:
            self.fault = HttpFault(number=pycurl.E_PARTIAL_FILE)

    def settle(self) -> None:
        """Tell the reader of the pipe how it ended."""
        if self.pipe is not None:
            self.pipe.finish(self.fault)
