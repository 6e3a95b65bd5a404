"""What an S3 server says: listings, heads and bodies of any bytes, over a real connection, and errors by themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from s3bu.errors import S3buError
from s3bu.storage.s3_errors import Request, code_of, fault
from s3bu.storage.s3_exchange import HttpFault
from tests.fuzz.engine import Target
from tests.servers import ACCESS_KEY, SECRET_KEY, error_response, faulty_server, response
from tests.test_storage_s3.opening import HASTY, found, opened
from tests.test_storage_s3.test_objects_of_others import listing

_ENOUGH = 3_000
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class _Speaker:
    """A server that says what it was told last."""

    answer = b""

    def __call__(self, head: bytes, body: bytes) -> bytes:
        return self.answer


@contextmanager
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        for name, text in _ENVIRONMENT.items():
            monkeypatch.setenv(name, text)
        yield


@contextmanager
def listing_target() -> Iterator[Target]:
    speaker = _Speaker()
    with _environment(), faulty_server(speaker) as server, opened(server.url, prefix="p", patience=HASTY) as storage:

        def run(document: bytes) -> None:
            speaker.answer = response("200 OK", document, "Content-Type: application/xml")
            last = ""
            for count, stat in enumerate(storage.list("")):
                assert stat.key > last
                assert stat.modified.tzinfo is not None
                assert isinstance(stat.nbytes, int)
                assert isinstance(stat.etag, str)
                last = stat.key
                if count > _ENOUGH:
                    return

        bodies = [listing("p/a", "p/b"), listing(), listing("p/", "p/c", more="<IsTruncated>true</IsTruncated>")]
        seeds = [body.split(b"\r\n\r\n", 1)[1] for body in [*bodies, error_response("403 No", "AccessDenied")]]
        tokens = [
            b"<Contents>",
            b"</Contents>",
            b"<Key>p/z</Key>",
            b"<Size>",
            b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
            b"&b;",
        ]
        tokens += [
            b"<EncodingType>url</EncodingType>",
            b"<NextContinuationToken>x</NextContinuationToken>",
            b"<![CDATA[",
        ]
        yield Target("listing", run, seeds, tokens)


@contextmanager
def answer_target() -> Iterator[Target]:
    """Read an object from a server whose answers are any bytes, head and all."""
    speaker = _Speaker()
    with _environment(), faulty_server(speaker) as server, opened(server.url, patience=HASTY) as storage:

        def run(document: bytes) -> None:
            speaker.answer = document if document.startswith(b"HTTP/1.") else b"HTTP/1.1 200 OK\r\n" + document
            for start in (0, 3):
                with suppress(S3buError), storage.open("x", start=start) as download:
                    assert all(isinstance(text, str) for pair in download.metadata.items() for text in pair)
                    assert download.modified.tzinfo is not None
                    body = download.read(10_000_000)
                    assert len(body) <= max(download.nbytes - start, 0)

        seeds = [
            found(b"hello", "x-amz-meta-s3bu-encrypt: age"),
            response("206 Partial Content", b"lo", "Content-Range: bytes 3-4/5", 'ETag: "abc"'),
            response("416 No", b"<Error><Code>InvalidRange</Code></Error>"),
            error_response("404 Not Found", "NoSuchKey"),
            error_response("403 Forbidden", "InvalidObjectState"),
            found(bytes(100_000), "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT"),
        ]
        tokens = [b"Content-Length: ", b"Content-Range: bytes ", b"Last-Modified: ", b"ETag: ", b"\r\n\r\n", b"\r\n"]
        tokens += [b"x-amz-meta-a: ", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 "]
        yield Target("answer", run, seeds, tokens)


@contextmanager
def error_target() -> Iterator[Target]:
    request = Request("s3:GetObject", "my-bucket", "a/{key}", "http://127.0.0.1:1")

    def run(document: bytes) -> None:
        for status in (200, 301, 403, 404, 503, 999):
            body, region = document[:8192], document[:100].decode("latin-1")
            error = fault(HttpFault(status=status, body=body, region=region), request)
            assert isinstance(error, S3buError)
            assert len(error.message) < 1_000
            assert len(code_of(HttpFault(status=status, body=body))) <= 64

    seeds = [
        error_response("403 No", code, "<Region>eu-west-1</Region>") for code in ("AccessDenied", "PermanentRedirect")
    ]
    yield Target(
        "error", run, seeds, [b"<Code>", b"</Code>", b"<Region>", b"NoSuchKey", b"{0.__class__}", b"{}", b"404"]
    )
