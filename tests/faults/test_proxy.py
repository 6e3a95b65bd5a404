"""The proxy itself: what it finds wrong with a request, and the condition that it enforces for its server."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.proxy import Asked, FaultProxy, asked_in, violations_of
from tests.servers import s3_client

BODY = b"hello"
RIGHT = {
    "x-amz-content-sha256": hashlib.sha256(BODY).hexdigest(),
    "x-amz-checksum-sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    "x-amz-checksum-crc32": "NhCmhg==",
    "content-md5": "XUFAKrxLKna5cZ2REBfFkg==",
}


def test_nothing_is_wrong_with_a_body_that_is_what_its_headers_say() -> None:
    assert list(violations_of(RIGHT, BODY)) == []


@pytest.mark.parametrize("name", RIGHT)
def test_a_header_that_says_something_else_of_the_body_is_wrong(name: str) -> None:
    (violation,) = violations_of(RIGHT | {name: "of another body"}, BODY)
    assert violation.startswith(name)


def test_a_body_that_is_not_signed_is_wrong() -> None:
    assert list(violations_of({}, BODY)) == ["its body is not signed"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET /b?list-type=2&prefix=data%2F HTTP/1.1", Asked("LIST", "b", "data/")),
        (b"GET /b/data/x HTTP/1.1", Asked("GET", "b", "data/x")),
        (b"PUT /b/data/x HTTP/1.1", Asked("PUT", "b", "data/x")),
        (b"POST /b/data/x?uploads HTTP/1.1", Asked("BEGIN", "b", "data/x")),
        (b"PUT /b/data/x?partNumber=1&uploadId=u HTTP/1.1", Asked("PART", "b", "data/x")),
        (b"POST /b/data/x?uploadId=u HTTP/1.1", Asked("COMPLETE", "b", "data/x")),
        (b"DELETE /b/data/x?uploadId=u HTTP/1.1", Asked("ABORT", "b", "data/x")),
    ],
)
def test_requests_are_told_apart(line: bytes, expected: Asked) -> None:
    assert asked_in(line + b"\r\n\r\n") == expected


def test_a_create_of_what_is_there_is_refused_before_a_server_that_would_not(
    rclone_proxy: FaultProxy, rclone_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket, beyond = make_bucket(rclone_url), make_client(rclone_url)
    rclone_proxy.begin()
    client = s3_client(rclone_proxy.url)
    client.put_object(Bucket=bucket, Key="x", Body=b"first", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="x", Body=b"second", IfNoneMatch="*")
    assert beyond.get_object(Bucket=bucket, Key="x")["Body"].read() == b"first"
    client.close()
