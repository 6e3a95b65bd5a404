"""Servers that are away, slow or broken, and calls that are given up."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3bu.errors import (
    StorageError,
    StorageStopped,
)
from s3bu.storage.s3 import S3Storage
from s3bu.storage.s3_connection import Patience
from tests.servers import (
    FaultyServer,
    body_nbytes,
    error_response,
    faulty_server,
    free_port,
    response,
)
from tests.test_storage_s3.opening import HASTY, MIB, MODIFIED, STORED, Answers, always, found, large_write, opened


def test_a_closed_port_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with opened(url, patience=Patience(retries=0)) as storage:
        for call in (
            storage.exists,
            lambda: storage.open("x"),
            lambda: storage.put("x", b"", {}),
            lambda: list(storage.list("")),
        ):
            with pytest.raises(StorageError, match=f"cannot reach {url}"):
                call()


def test_an_unknown_host_is_told() -> None:
    with opened("http://no-such-host.invalid", patience=Patience(retries=0)) as storage:
        for call in (storage.exists, lambda: storage.open("x")):
            with pytest.raises(StorageError, match="cannot reach"):
                call()


@contextmanager
def stalling_server() -> Iterator[FaultyServer]:
    release = threading.Event()

    def stall(head: bytes, body: bytes) -> bytes:
        release.wait(60)
        return b""

    with faulty_server(stall) as server:
        try:
            yield server
        finally:
            release.set()


def test_a_server_that_forgets_to_answer_is_told() -> None:
    with stalling_server() as server, opened(server.url, patience=HASTY) as storage:
        for call in (
            lambda: storage.open("x"),
            lambda: storage.put("x", b"hello", {}),
            lambda: list(storage.list("")),
            storage.exists,
        ):
            with pytest.raises(StorageError, match=r"does not answer|cannot reach"):
                call()


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.put("x", b"hello", {}),
        lambda storage: storage.open("x"),
        lambda storage: list(storage.list("")),
        lambda storage: storage.exists(),
        lambda storage: storage.delete("x"),
        large_write,
    ],
    ids=["put", "open", "list", "exists", "delete", "writer"],
)
def test_a_stop_lets_a_waiting_call_go(call: Callable[[S3Storage], object]) -> None:
    with stalling_server() as server, opened(server.url) as storage:
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                call(storage)
            except StorageStopped as error:
                raised.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert server.has_request.wait(20)
        storage.stop()
        waiting.join(20)
        assert not waiting.is_alive()
        assert len(raised) == 1


def test_a_stop_lets_a_reading_call_go() -> None:
    body = found(b"x" * MIB, length=9 * MIB)
    release = threading.Event()

    def answer(head: bytes, sent: bytes) -> bytes:
        if len(server.heads) > 1:
            release.wait(60)
        return body

    with faulty_server(answer) as server, opened(server.url) as storage, storage.open("x") as download:
        timer = threading.Timer(0.3, storage.stop)
        timer.start()
        with pytest.raises(StorageStopped):
            download.read()
        release.set()
        timer.join()


INTERRUPTED = """
import signal, sys
from s3bu.storage import Put, part_nbytes
from s3bu.storage.place import Place, S3Options, open_storage
storage = open_storage(Place("bucket", bucket="my-bucket"), S3Options(endpoint_url=sys.argv[1]))
try:
    storage.put("x", b"hello", {}) if sys.argv[2] == "put" else storage.exists()
except KeyboardInterrupt:
    storage.close()
    sys.exit(42)
"""


@pytest.mark.parametrize("call", ["put", "exists"])
def test_ctrl_c_ends_a_waiting_call(call: str) -> None:
    with stalling_server() as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url, call]
        with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process:
            assert server.has_request.wait(30)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 42


def test_what_fails_for_a_while_is_tried_again() -> None:
    busy = error_response("503 Slow Down", "SlowDown")
    answers = Answers([busy, STORED, busy, found(b"hello")])
    with faulty_server(answers) as server, opened(server.url) as storage:
        storage.put("x", b"hello", {})
        assert storage.open("x").read() == b"hello"
        assert len(server.heads) == 4


def test_a_conflict_of_creates_is_tried_again() -> None:
    conflict = error_response("409 Conflict", "ConditionalRequestConflict")
    with faulty_server(Answers([conflict, conflict, STORED])) as server, opened(server.url) as storage:
        storage.has_conditional_writes = True
        storage.put("x", b"hello", {}, create=True)
        assert [b"if-none-match: *" in head.lower() for head in server.heads] == [True, True, True]


@pytest.mark.parametrize("nbytes", [5, 9 * MIB])
def test_a_body_that_breaks_off_is_gone_on_with(nbytes: int) -> None:
    whole = bytes(range(251)) * (nbytes // 251 + 1)
    whole = whole[:nbytes]
    cut = nbytes // 2

    def answer(head: bytes, sent: bytes) -> bytes:
        if b"range: bytes=" not in head.lower():
            return found(whole[:cut], length=nbytes)
        start = int(head.lower().partition(b"range: bytes=")[2].partition(b"-")[0])
        headers = (MODIFIED, 'ETag: "abc"', f"Content-Range: bytes {start}-{nbytes - 1}/{nbytes}")
        return response("206 Partial Content", whole[start:], *headers)

    with faulty_server(answer) as server, opened(server.url) as storage:
        assert storage.open("x").read() == whole
        assert len(server.heads) == 2


@pytest.mark.parametrize("nbytes", [5, 9 * MIB])
def test_a_body_that_is_always_cut_is_an_error(nbytes: int) -> None:
    cut = found(b"x" * (nbytes // 2), length=nbytes)
    with (
        faulty_server(always(cut)) as server,
        opened(server.url, patience=Patience(retries=1)) as storage,
        pytest.raises(StorageError),
    ):
        storage.open("x").read()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error_response("412 Precondition Failed", "PreconditionFailed"), True),
        (error_response("409 Conflict", "ConditionalRequestConflict"), True),
        (STORED, False),
        (error_response("501 Not Implemented", "NotImplemented"), False),
        (error_response("400 Bad Request", "InvalidArgument"), False),
    ],
)
def test_a_probe_understands_what_servers_say(answer: bytes, expected: bool) -> None:
    with faulty_server(Answers([STORED], answer)) as server, opened(server.url, patience=HASTY) as storage:
        assert storage.probe("repo/probe") is expected
        assert storage.has_conditional_writes is expected


@contextmanager
def slow_server() -> Iterator[str]:
    """Run a server that takes half a MiB in 0.3 s, and answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve_slowly, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def serve_slowly(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            left = body_nbytes(head)
            while left > 0:
                left -= len(stream.read(min(left, MIB // 2)))
                time.sleep(0.3)
            connection.sendall(STORED)


def test_a_slow_line_does_not_break_a_put_off() -> None:
    with slow_server() as url, opened(url, patience=Patience(connect=1, answer=1, retries=0)) as storage:
        storage.put("x", bytes(4 * MIB), {})
