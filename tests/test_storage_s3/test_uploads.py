"""Large objects in parts: what is left of one that is broken off, and steps that go wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from s3bu.errors import (
    CredentialsError,
    ObjectExists,
    StorageError,
    StorageStopped,
)
from s3bu.storage import part_nbytes
from s3bu.storage.s3 import S3Storage
from tests.servers import (
    error_response,
    faulty_server,
    relayed,
)
from tests.test_storage_s3.opening import MIB, large_write, opened


def unfinished_uploads(client: Any, bucket: str) -> int:
    return len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


def fail_midway(storage: S3Storage) -> None:
    with storage.writer("x", 30 * MIB, {}) as upload:
        upload.write(bytes(20 * MIB))
        raise KeyboardInterrupt


def stop_midway(storage: S3Storage) -> None:
    with storage.writer("x", 30 * MIB, {}) as upload:
        upload.write(bytes(20 * MIB))
        storage.stop()
        upload.commit()


def abandon_midway(storage: S3Storage) -> None:
    with storage.writer("x", 30 * MIB, {}) as upload:
        upload.write(bytes(20 * MIB))
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", [fail_midway, stop_midway, abandon_midway])
def test_an_upload_that_is_broken_off_leaves_no_parts(
    end: Callable[[S3Storage], None],
    moto_url: str,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
) -> None:
    bucket, client = make_bucket(moto_url), make_client(moto_url)
    with opened(moto_url, bucket) as storage, pytest.raises((KeyboardInterrupt, StorageStopped)):
        end(storage)
    assert unfinished_uploads(client, bucket) == 0
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_refused_create_leaves_no_parts(
    moto_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket, client = make_bucket(moto_url), make_client(moto_url)
    with opened(moto_url, bucket) as storage:
        assert storage.probe("repo/probe")
        storage.put("x", b"first", {})
        with pytest.raises(ObjectExists):
            large_write(storage, create=True)
        assert storage.open("x").read() == b"first"
    assert unfinished_uploads(client, bucket) == 0


def test_a_part_that_fails_is_told_and_leaves_no_parts(
    moto_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket, client = make_bucket(moto_url), make_client(moto_url)

    def answer(head: bytes, body: bytes) -> bytes:
        if b"partNumber=2" in head:
            return error_response("403 Forbidden", "ExpiredToken")
        return relayed(moto_url, head, body)

    with (
        faulty_server(answer) as server,
        opened(server.url, bucket) as storage,
        pytest.raises(CredentialsError, match="expired"),
    ):
        large_write(storage, mib=50)
    assert unfinished_uploads(client, bucket) == 0


def test_a_lost_answer_to_the_last_step_does_not_fail_the_upload(
    moto_url: str, make_bucket: Callable[[str], str]
) -> None:
    bucket, lost = make_bucket(moto_url), []

    def answer(head: bytes, body: bytes) -> bytes:
        answered = relayed(moto_url, head, body)
        if head.startswith(b"POST") and b"uploadId=" in head:
            lost.append(head)
            return b"" if len(lost) == 1 else error_response("404 Not Found", "NoSuchUpload")
        return answered

    with faulty_server(answer) as server, opened(server.url, bucket) as storage:
        large_write(storage)
        assert len(lost) == 2
        assert storage.open("x").read() == bytes(9 * MIB)


def test_an_upload_that_vanished_is_not_taken_for_done(moto_url: str, make_bucket: Callable[[str], str]) -> None:
    bucket = make_bucket(moto_url)

    def answer(head: bytes, body: bytes) -> bytes:
        if head.startswith(b"POST") and b"uploadId=" in head:
            return error_response("404 Not Found", "NoSuchUpload")
        return relayed(moto_url, head, body)

    with faulty_server(answer) as server, opened(server.url, bucket) as storage:
        storage.put("x", bytes(9 * MIB), {})
        with pytest.raises(StorageError, match="NoSuchUpload"):
            large_write(storage)


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [(0, 8 * MIB), (8 * MIB * 9000, 8 * MIB), (8 * MIB * 9000 + 1, 9 * MIB), (5 * 1024**4, 583 * MIB)],
)
def test_parts_are_large_enough_for_the_number_that_is_allowed(nbytes: int, expected: int) -> None:
    assert part_nbytes(nbytes) == expected
    assert part_nbytes(nbytes) * 9000 >= nbytes
