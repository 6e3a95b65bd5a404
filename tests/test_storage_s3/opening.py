"""How the tests open a bucket, and answers for a server that is told what to say."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from s3bu.storage.place import Place, S3Options
from s3bu.storage.s3 import S3Storage
from s3bu.storage.s3_connection import Patience
from tests.servers import (
    response,
)

BUCKET = "my-bucket"
HASTY = Patience(connect=1, answer=1, first=1, retries=0)
MIB = 1024 * 1024


@contextmanager
def opened(
    url: str | None,
    bucket: str = BUCKET,
    *,
    prefix: str = "",
    profile: str | None = None,
    region: str | None = None,
    patience: Patience | None = None,
) -> Iterator[S3Storage]:
    options = S3Options(profile=profile, region=region, endpoint_url=url)
    storage = S3Storage(Place("bucket", bucket=bucket, prefix=prefix), options, patience)
    try:
        yield storage
    finally:
        storage.close()


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the first requests, then one for all the others."""

    first: list[bytes]
    others: bytes = b""

    def __call__(self, head: bytes, body: bytes) -> bytes:
        return self.first.pop(0) if self.first else self.others


def always(answer: bytes) -> Answers:
    return Answers([], answer)


STORED = response("200 OK", b"", 'ETag: "abc"')
MODIFIED = "Last-Modified: Mon, 02 Jan 2023 03:04:05 GMT"


def found(body: bytes, *headers: str, length: int | None = None) -> bytes:
    return response("200 OK", body, MODIFIED, 'ETag: "abc"', *headers, length=length)


def large_write(storage: S3Storage, *, mib: int = 9, create: bool = False) -> None:
    with storage.writer("x", mib * MIB, {}, create=create) as upload:
        for _ in range(mib):
            upload.write(bytes(MIB))
        upload.commit()
