"""How bodies travel: many at a time, slowly, in pieces, and with keys that are lent."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3bu.errors import StorageError
from s3bu.storage import Put
from s3bu.storage.s3_connection import Patience
from tests.servers import faulty_server, response
from tests.test_storage_s3.opening import MIB, MODIFIED, STORED, Answers, always, found, opened


def test_many_threads_put_and_read_at_the_same_time(moto_url: str, make_bucket: Callable[[str], str]) -> None:
    # rclone's server loses a file now and then when it makes several directories at once.
    with opened(moto_url, make_bucket(moto_url)) as storage, ThreadPoolExecutor(8) as pool:

        def put(number: int) -> list[StorageError | None]:
            return storage.put_all([Put(f"data/{number}/{one}", b"%d %d" % (number, one), {}) for one in range(20)])

        def read(number: int) -> list[bytes | StorageError]:
            opened_all = storage.open_all([f"data/{number}/{one}" for one in range(20)], bound=MIB)
            return [one if isinstance(one, StorageError) else one.read() for one in opened_all]

        assert [error for errors in pool.map(put, range(16)) for error in errors if error] == []
        assert list(pool.map(read, range(16))) == [
            [b"%d %d" % (number, one) for one in range(20)] for number in range(16)
        ]


def test_a_reader_may_take_its_time(rclone_url: str, make_bucket: Callable[[str], str]) -> None:
    body = bytes(range(256)) * 4096 * 24
    with opened(rclone_url, make_bucket(rclone_url), patience=Patience(answer=1, retries=0)) as storage:
        with storage.writer("x", len(body), {}) as upload:
            upload.write(body)
            upload.commit()
        with storage.open("x") as download:
            first = download.read(10)
            time.sleep(4)
            assert first + download.read() == body


def test_a_download_that_is_closed_early_disturbs_no_other(rclone_url: str, make_bucket: Callable[[str], str]) -> None:
    body = bytes(24 * MIB)
    with opened(rclone_url, make_bucket(rclone_url)) as storage:
        with storage.writer("x", len(body), {}) as upload:
            upload.write(body)
            upload.commit()
        for _ in range(5):
            with storage.open("x") as download:
                assert download.read(5) == bytes(5)
        assert storage.open("x").read() == body


def test_a_body_that_was_replaced_while_it_was_read_is_told() -> None:
    nbytes = 9 * MIB

    def answer(head: bytes, sent: bytes) -> bytes:
        if b"if-match:" in head.lower():
            return response("412 Precondition Failed")
        return found(b"x" * MIB, length=nbytes)

    with faulty_server(answer) as server, opened(server.url) as storage, storage.open("x") as download:
        with pytest.raises(StorageError, match="was replaced while it was read"):
            download.read()
        assert b'if-match: "abc"' in server.heads[-1].lower()


@pytest.mark.parametrize("etag", ['"abc"', '"other"'])
def test_of_a_server_without_ranges_all_is_read_again_unless_it_is_another_object(etag: str) -> None:
    whole = bytes(range(251)) * (9 * MIB // 251)
    again = response("200 OK", whole, MODIFIED, f"ETag: {etag}")
    answers = Answers([found(whole[:MIB], length=len(whole))], again)
    with faulty_server(answers) as server, opened(server.url) as storage, storage.open("x") as download:
        if etag == '"abc"':
            assert download.read() == whole
        else:
            with pytest.raises(StorageError, match="broke off"):
                download.read()


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Range: bytes 7-8/10",),
        ("Content-Range: nonsense",),
        (),
    ],
)
def test_a_part_that_is_not_the_one_asked_for_is_refused(headers: tuple[str, ...]) -> None:
    answer = response("206 Partial Content", b"ab", MODIFIED, *headers)
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, patience=Patience(retries=0)) as storage,
        pytest.raises(StorageError, match="broke off"),
    ):
        storage.open("x", start=3)


def test_an_answer_without_a_length_is_refused() -> None:
    answer = f"HTTP/1.1 200 OK\r\n{MODIFIED}\r\nConnection: close\r\n\r\nhello".encode()
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, patience=Patience(retries=0)) as storage,
        pytest.raises(StorageError, match="broke off"),
    ):
        storage.open("x")


def test_an_answer_that_is_no_http_is_an_error() -> None:
    with faulty_server(always(b"hello\r\n\r\n")) as server, opened(server.url, patience=Patience(retries=0)) as storage:
        for call in (lambda: storage.open("x"), lambda: storage.put("x", b"", {})):
            with pytest.raises(StorageError):
                call()


def test_keys_that_are_lent_send_their_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a+token/=")
    with faulty_server(Answers([STORED], found(b"x"))) as server, opened(server.url) as storage:
        storage.put("x", b"", {})
        storage.open("x").close()
        assert all(b"x-amz-security-token: a+token/=" in head.lower() for head in server.heads)
        assert all(b"x-amz-security-token" in head.lower().partition(b"signedheaders=")[2] for head in server.heads)


def test_a_server_that_never_answered_is_not_asked_for_long() -> None:
    released = threading.Event()

    def stall(head: bytes, body: bytes) -> bytes:
        released.wait(60)
        return b""

    with faulty_server(stall) as server, opened(server.url, patience=Patience(first=1)) as storage:
        with pytest.raises(StorageError, match="does not answer"):
            storage.open("x")
        assert len(server.heads) == 1
        released.set()


def test_a_put_that_got_no_answer_is_tried_again() -> None:
    answers = Answers([b"", b"", STORED])
    with faulty_server(answers) as server, opened(server.url) as storage:
        storage.put("x", b"hello", {})
        assert len(server.heads) == 3


def test_what_was_put_is_not_held_any_longer(rclone_url: str, make_bucket: Callable[[str], str]) -> None:
    import gc

    class Body(bytes):
        pass

    with opened(rclone_url, make_bucket(rclone_url)) as storage:
        storage.put("x", Body(b"hello"), {})
        gc.collect()
        assert [one for one in gc.get_objects() if isinstance(one, Body)] == []


def test_closing_ends_the_thread_also_when_nothing_was_sent(rclone_url: str, make_bucket: Callable[[str], str]) -> None:
    with opened(rclone_url):
        pass
    with opened(rclone_url, make_bucket(rclone_url)) as storage:
        storage.put_all([Put("x", b"", {})])
    assert not any(thread.name == "s3bu-transport" for thread in threading.enumerate())
