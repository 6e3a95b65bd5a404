"""S3 servers for tests, each a program of its own that listens on 127.0.0.1 and keeps its state in a directory given.

`moto` is faithful in errors, conditional writes, storage classes and IAM, but slow; `rclone` is fast and real, but
ignores conditions and does not check metadata. `FaultyServer` answers what a test tells it to.
"""

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3

ACCESS_KEY = "AKIATESTTESTTEST0000"
SECRET_KEY = "test-secret-key-of-no-value"
_START_SECONDS = 30

Server = TypeVar("Server", bound="FaultyServer")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# What S3 does at once, moto does in two steps between which another request may come: look whether a key is taken, and
# put.
_MOTO = """
import contextlib, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication as Application
from moto.server import main
answer, lock = Application.__call__, threading.Lock()
def answer_alone(self, environ, start_response):
    with lock if "HTTP_IF_NONE_MATCH" in environ else contextlib.nullcontext():
        return answer(self, environ, start_response)
Application.__call__ = answer_alone
main()
"""


@contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """Run moto; yields its URL."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-c", _MOTO]
    with _running([*command, "-H", "127.0.0.1", "-p", str(port)], port, log):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def rclone_server(root: Path, log: Path, *options: str, scheme: str = "http") -> Iterator[str]:
    """Run `rclone serve s3` on a directory, whose directories are its buckets; yields its URL."""
    port = free_port()
    rclone = str(Path(sys.executable).with_name("rclone"))
    command = [rclone, "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    with _running([*command, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", *options], port, log):
        yield f"{scheme}://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _await_port(process, port, log)
            yield
        finally:
            process.terminate()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')}")


def s3_client(url: str) -> Any:
    """Return a boto3 client of a server, to look at it from another side; the caller closes it."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


class FaultyServer(socketserver.ThreadingTCPServer):
    """A server whose answers are bytes that a test wrote; it keeps the heads of the requests.

    `answer` is given the head and the body of each request and returns the whole response. One that sleeps stalls; an
    empty one closes the connection.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, answer: Callable[[bytes, bytes], bytes], handler: "type[Answering] | None" = None) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.has_request = threading.Event()
        super().__init__(("127.0.0.1", 0), handler or Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what the tests are about."""


class Answering(socketserver.StreamRequestHandler):
    """Takes one request of a connection; what derives from it may serve it otherwise."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, FaultyServer)
        head = b""
        while line := self.rfile.readline():
            head += line
            if line == b"\r\n":
                break
        if head:
            self.serve(server, head)

    def serve(self, server: FaultyServer, head: bytes) -> None:
        if b"100-continue" in head.lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(body_nbytes(head))
        server.heads.append(head)
        server.has_request.set()
        self.wfile.write(server.answer(head, body))


def body_nbytes(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


@contextmanager
def faulty_server(answer: Callable[[bytes, bytes], bytes]) -> Iterator[FaultyServer]:
    """Run a `FaultyServer` in this process."""
    with running(FaultyServer(answer)) as server:
        yield server


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run such a server in this process."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def response(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Write one HTTP response, which may promise another length than it has."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def error_response(status: str, code: str, more: str = "") -> bytes:
    """Write an error as S3 does."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>no</Message>{more}</Error>'
    return response(status, body.encode(), "Content-Type: application/xml")


def relayed(url: str, head: bytes, body: bytes) -> bytes:
    """Hand a request on to another server, as it is, and return what that one answers."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1) + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))
