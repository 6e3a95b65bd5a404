"""Listings and objects that s3bu did not write, or that no server should send."""

from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest

from s3bu.errors import (
    ObjectArchived,
    StorageError,
)
from tests.servers import (
    faulty_server,
    response,
)
from tests.test_storage_s3.opening import HASTY, always, found, opened


def listing(*keys: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    stat = "<Size>1</Size><LastModified>2023-01-02T03:04:05.000Z</LastModified><ETag>abc</ETag>"
    contents = "".join(f"<Contents><Key>{key}</Key>{stat}</Contents>" for key in keys)
    head = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return response("200 OK", f"{head}{more}{contents}</ListBucketResult>".encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (listing("p/b", "p/a"), "out of order"),
        (listing("p/a", "p/a"), "out of order"),
        (listing("q/a"), "makes no sense"),
        (listing("p/a").replace(b"<Size>1</Size>", b"<Sise>1</Sise>"), "makes no sense"),
        (listing("p/a", more="<IsTruncated>true</IsTruncated>"), "breaks off"),
        (response("200 OK", b"<ListBucketResult><Contents>"), "s3:ListBucket"),
    ],
)
def test_a_listing_that_cannot_be_is_refused(answer: bytes, words: str) -> None:
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, prefix="p", patience=HASTY) as storage,
        pytest.raises(StorageError, match=words),
    ):
        list(storage.list(""))


def test_the_folder_that_a_console_draws_is_no_object(
    moto_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket = make_bucket(moto_url)
    for key in ("p/", "p/x", "pq"):
        make_client(moto_url).put_object(Bucket=bucket, Key=key)
    with opened(moto_url, bucket, prefix="p") as storage:
        assert [stat.key for stat in storage.list("")] == ["x"]


def test_odd_keys_of_others_are_listed_and_can_be_deleted(
    moto_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket, odd = make_bucket(moto_url), ["a//b", "data//x", "folder/"]
    for key in odd:
        make_client(moto_url).put_object(Bucket=bucket, Key=key)
    with opened(moto_url, bucket) as storage:
        assert [stat.key for stat in storage.list("")] == odd
        for key in odd:
            storage.delete(key)
        assert list(storage.list("")) == []


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_told(
    storage_class: str, moto_url: str, make_bucket: Callable[[str], str], make_client: Callable[[str], Any]
) -> None:
    bucket = make_bucket(moto_url)
    make_client(moto_url).put_object(Bucket=bucket, Key="data/x", Body=b"hello", StorageClass=storage_class)
    make_client(moto_url).put_object(Bucket=bucket, Key="data/y", Body=b"hello", StorageClass="STANDARD_IA")
    with opened(moto_url, bucket) as storage:
        assert [stat.is_archived for stat in storage.list("")] == [True, False]
        with pytest.raises(ObjectArchived, match="data/x") as raised:
            storage.open("data/x")
        assert raised.value.hint is not None


def test_metadata_in_capitals_is_read_in_lower_case() -> None:
    answer = found(
        b"hello",
        "X-AMZ-META-S3BU-ENCRYPT: age",
        "x-amz-meta-S3bu-Scrypt-Id: Key 1",
        "Content-Type: text/plain",
        "x-amz-storage-class: STANDARD_IA",
        "Content-Encoding: identity",
    )
    with faulty_server(always(answer)) as server, opened(server.url) as storage, storage.open("x") as download:
        assert dict(download.metadata) == {"s3bu-encrypt": "age", "s3bu-scrypt-id": "Key 1"}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("Mon, 02 Jan 2023 03:04:05", 1672628645), ("Mon, 02 Jan 2023 05:04:05 +0200", 1672628645)],
)
def test_the_time_of_an_object_is_of_utc_whatever_zone_it_is_written_in(written: str, seconds: int) -> None:
    answer = response("200 OK", b"hello", f"Last-Modified: {written}", 'ETag: "abc"')
    with faulty_server(always(answer)) as server, opened(server.url) as storage, storage.open("x") as download:
        assert download.modified.tzinfo is UTC
        assert download.modified.timestamp() == seconds


@pytest.mark.parametrize(
    "written", ["never", "", "Mon, 32 Jan 2023 03:04:05 GMT", "Mon, 2 Jan 99999999999999 3:04:05 GMT"]
)
def test_an_object_without_a_time_is_an_error(written: str) -> None:
    answer = response("200 OK", b"hello", f"Last-Modified: {written}", 'ETag: "abc"')
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, patience=HASTY) as storage,
        pytest.raises(StorageError, match="without saying since when"),
    ):
        storage.open("x")


@pytest.mark.parametrize("written", ["never", "3:9999999999", "3:" + "9" * 22, ""])
def test_a_listing_with_times_that_are_none_is_an_error(written: str) -> None:
    answer = listing("p/a").replace(b"2023-01-02T03:04:05.000Z", written.encode().ljust(24))
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, prefix="p", patience=HASTY) as storage,
        pytest.raises(StorageError, match="failed at"),
    ):
        list(storage.list(""))
