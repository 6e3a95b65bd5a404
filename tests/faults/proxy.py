"""A proxy before a real S3 server, which spoils some of what passes.

What passes unspoilt is looked at as moto and rclone do not: the hash of each body must be the one that was signed, and
a create (`If-None-Match: *`) of what is there is refused. A `Rule` says which request is struck by which `Fault`.
"""

import base64
import hashlib
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from tests.servers import Answering, FaultyServer, body_nbytes, error_response, relayed, running, s3_client

_RESET = struct.pack("ii", 1, 0)
_HANG_SECONDS = 120


class Asked(NamedTuple):
    """What a request asks for: an operation, and of which key, or below which prefix."""

    operation: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.operation} {self.key}"


def asked_in(head: bytes) -> Asked:
    """Return what the head of a request asks for."""
    method, target = head.decode("latin-1").split(" ")[:2]
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    options = parse_qs(query, keep_blank_values=True)
    if method == "GET" and not key:
        return Asked("LIST", bucket, options.get("prefix", [""])[0])
    return Asked(_operation(method, options), bucket, key)


def _operation(method: str, options: dict[str, list[str]]) -> str:
    if "uploads" in options:
        return "BEGIN"
    if "uploadId" in options:
        return {"PUT": "PART", "POST": "COMPLETE", "DELETE": "ABORT"}[method]
    return method


class Passing:
    """One request on its way through the proxy; a fault decides how far it comes."""

    def __init__(self, proxy: "FaultProxy", connection: socket.socket, head: bytes, stream: Any) -> None:
        self.head = head
        self.body = b""
        self._proxy = proxy
        self._connection = connection
        self._stream = stream

    def take(self, share: float = 1.0) -> None:
        """Read the body of the request, or the first part of it."""
        if b"100-continue" in self.head.lower():
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.body = self._stream.read(int(body_nbytes(self.head) * share))

    def relay(self) -> tuple[bytes, bytes]:
        """Let the server have the request, and return head and body of its answer."""
        self.take()
        head, _, body = self._proxy.relay(self.head, self.body).partition(b"\r\n\r\n")
        return head + b"\r\n\r\n", body

    def send(self, answer: bytes) -> None:
        """Send bytes to the client."""
        self._connection.sendall(answer)

    def reset(self) -> None:
        """Break the connection off, as a machine does that knows nothing of it."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def hang(self) -> None:
        """Be silent until the proxy is released, or the client must have lost its patience."""
        self._proxy.released.wait(_HANG_SECONDS)


Fault = Callable[[Passing], None]
"""What befalls a request; it has to take its body and send an answer, or not."""
Rule = Callable[[Asked, int], Fault | None]
"""Which fault strikes a request, which comes the so-manieth time (from 0), if any does."""


def pass_all(asked: Asked, number: int) -> None:
    """Strike nothing."""


def first_times(fault: Fault, pattern: str = "", times: int = 1) -> Rule:
    """Strike each request that fits the pattern, such as `^PUT data/`, the first times that it comes."""
    return lambda asked, number: fault if number < times and re.search(pattern, str(asked)) else None


def always(fault: Fault, pattern: str = "") -> Rule:
    """Strike all requests that fit the pattern."""
    return lambda asked, number: fault if re.search(pattern, str(asked)) else None


def in_turn(first: Fault, others: Fault, pattern: str = "") -> Rule:
    """Strike requests that fit the pattern, the first time by one fault, then by another."""
    return lambda asked, number: (others if number else first) if re.search(pattern, str(asked)) else None


def from_nth(nth: int, fault: Fault, times: int | None = None) -> Rule:
    """Strike the nth request of all (from 0) and those that follow, or only so many."""
    lock, came = threading.Lock(), [0]

    def rule(asked: Asked, number: int) -> Fault | None:
        with lock:
            came[0] += 1
            return fault if nth < came[0] <= (nth + times if times is not None else came[0]) else None

    return rule


class FaultProxy(FaultyServer):
    """The proxy; `rule` may be set at any time.

    `log` has each request with the moment when it came, `struck` those that met a fault, and `violations` what was
    wrong with a request by itself. For `delay` seconds each request is held back.
    """

    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(pass_none, Proxying)
        self.rule: Rule = pass_all
        self.log: list[tuple[float, Asked]] = []
        self.struck: list[tuple[Asked, str]] = []
        self.violations: list[str] = []
        self.released = threading.Event()
        self.delay = 0.0
        self._upstream = upstream
        self._client = s3_client(upstream)
        self._came: Counter[Asked] = Counter()
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def server_close(self) -> None:
        self.released.set()
        super().server_close()
        self._client.close()

    def shutdown_request(self, request: Any) -> None:
        """Close without the goodbye that would come before a reset."""
        self.close_request(request)

    def begin(self, rule: Rule = pass_all) -> None:
        """Forget what came, let go what hangs, and go by this rule from now on."""
        with self._lock:
            self.released.set()
            self.released = threading.Event()
            self.log, self.struck, self._came, self.rule = [], [], Counter(), rule
            self.delay = 0.0

    def keys(self, operation: str) -> list[str]:
        """Return the keys for which an operation was asked, as often as it was."""
        return [asked.key for _, asked in self.log if asked.operation == operation]

    def fault_of(self, head: bytes) -> Fault:
        """Note a request, and say what shall befall it."""
        asked = asked_in(head)
        with self._lock:
            self.log.append((time.monotonic(), asked))
            fault = self.rule(asked, self._came[asked])
            self._came[asked] += 1
            if fault is not None:
                self.struck.append((asked, fault.__name__))
        return fault or unspoilt

    def relay(self, head: bytes, body: bytes) -> bytes:
        """Hand a request on if it is right, and return what the server says."""
        asked = asked_in(head)
        headers = headers_of(head)
        self.violations += [f"{asked}: {what}" for what in violations_of(headers, body)]
        head = re.sub(rb"\r\nexpect:[^\r\n]*", b"", head, flags=re.IGNORECASE)
        if asked.operation in ("LIST", "GET", "HEAD"):
            return relayed(self._upstream, head, body)
        # One at a time: between look and write of a create nothing may come, and rclone loses a file now and then
        # where several are written at once.
        with self._writing:
            if headers.get("if-none-match") == "*" and self._is_there(asked):
                return error_response("412 Precondition Failed", "PreconditionFailed")
            return relayed(self._upstream, head, body)

    def _is_there(self, asked: Asked) -> bool:
        try:
            self._client.head_object(Bucket=asked.bucket, Key=asked.key)
        except self._client.exceptions.ClientError:
            return False
        return True


class Proxying(Answering):
    """Takes one request and lets its fault have it."""

    def serve(self, server: FaultyServer, head: bytes) -> None:
        assert isinstance(server, FaultProxy)
        fault = server.fault_of(head)
        server.released.wait(server.delay)
        fault(Passing(server, self.connection, head, self.rfile))


def pass_none(head: bytes, body: bytes) -> bytes:
    """Answer nothing: a proxy has no answers of its own."""
    return b""


def unspoilt(passing: Passing) -> None:
    """Let the request and its answer pass."""
    head, body = passing.relay()
    passing.send(head + body)


def headers_of(head: bytes) -> dict[str, str]:
    """Return the headers of a request, by names in lower case."""
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return {name.lower(): value.strip() for name, _, value in lines}


def violations_of(headers: dict[str, str], body: bytes) -> Iterator[str]:
    """Yield what the headers say of the body and is not so; that nothing is said of it is wrong too."""
    digest = hashlib.sha256(body)
    right = {
        "x-amz-content-sha256": digest.hexdigest(),
        "x-amz-checksum-sha256": base64.b64encode(digest.digest()).decode(),
        "x-amz-checksum-crc32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
        "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
    }
    for name, value in right.items():
        if headers.get(name, value) != value:
            yield f"{name} is {headers[name]}, and the body has {value}"
    if "x-amz-content-sha256" not in headers:
        yield "its body is not signed"


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before a server in this process, and hold all requests to be right by themselves."""
    with running(FaultProxy(upstream)) as proxy:
        yield proxy
    assert proxy.violations == []
