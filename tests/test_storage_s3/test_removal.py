"""Removal from buckets: by version, on condition, and uploads that nobody ended."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3bu.errors import AccessDenied, StorageError
from s3bu.storage import ObjectStat
from s3bu.storage.s3 import S3Storage
from tests.servers import error_response, faulty_server, response
from tests.test_storage_s3.opening import BUCKET, HASTY, opened

_VERSIONING = response("200 OK", b'<?xml version="1.0"?><VersioningConfiguration/>')
GONE = response("204 No Content")


@pytest.fixture
def client(moto_url: str, make_client: Callable[[str], Any]) -> Any:
    return make_client(moto_url)


@pytest.fixture
def versioned(moto_url: str, make_bucket: Callable[[str], str], client: Any) -> Iterator[tuple[S3Storage, str]]:
    bucket = make_bucket(moto_url)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with opened(moto_url, bucket, prefix="some") as storage:
        yield storage, bucket


# --- versions


def test_all_versions_of_a_key_are_listed_the_newest_first_and_without_delete_markers(
    versioned: tuple[S3Storage, str],
) -> None:
    storage, _ = versioned
    for body in (b"1", b"22", b"333"):
        storage.put("data/x", body, {})
    storage.put("data/y", b"4444", {})
    storage.delete("data/y")
    found = list(storage.versions("data/"))
    assert [(stat.key, stat.nbytes) for stat in found] == [("data/x", 3), ("data/x", 2), ("data/x", 1), ("data/y", 4)]
    assert len({stat.version for stat in found} - {""}) == 4


def test_versions_are_listed_page_by_page(
    versioned: tuple[S3Storage, str], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, _ = versioned
    for number in range(7):
        storage.put(f"data/{number % 3}", b"x" * number, {})
    real = storage._connection._patient.list_object_versions
    for one in (storage._connection._patient, storage._connection.quick):
        monkeypatch.setattr(one, "list_object_versions", lambda **asked: real(**asked, MaxKeys=2))
    assert sorted(stat.nbytes for stat in storage.versions("data/")) == list(range(7))


def test_a_version_is_removed_for_good_and_no_other(versioned: tuple[S3Storage, str], client: Any) -> None:
    storage, bucket = versioned
    storage.put("data/x", b"1", {})
    (old,) = storage.versions("data/x")
    storage.put("data/x", b"22", {})
    assert storage.remove(old)
    assert [stat.nbytes for stat in storage.versions("data/")] == [2]
    assert "DeleteMarkers" not in client.list_object_versions(Bucket=bucket)
    assert storage.remove(old)  # by another run, meanwhile


def test_what_was_listed_without_its_version_is_removed_for_good_if_it_is_the_newest(
    versioned: tuple[S3Storage, str], client: Any
) -> None:
    storage, bucket = versioned
    storage.put("data/x", b"1", {})
    (old,) = storage.list("data/x")
    storage.put("data/x", b"22", {})
    (new,) = storage.list("data/x")
    assert not storage.remove(old)
    assert storage.remove(new)
    assert not storage.remove(new)
    found = client.list_object_versions(Bucket=bucket)
    assert [one["Size"] for one in found["Versions"]] == [1]
    assert "DeleteMarkers" not in found


def test_a_bucket_that_kept_versions_once_is_asked_for_them(versioned: tuple[S3Storage, str], client: Any) -> None:
    storage, bucket = versioned
    storage.put("data/x", b"1", {})
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert [bool(stat.version) for stat in storage.versions("data/")] == [True]


def test_what_was_put_meanwhile_is_not_taken_for_the_version_null_that_was_listed(
    versioned: tuple[S3Storage, str], client: Any
) -> None:
    storage, bucket = versioned
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    storage.put("data/x", b"1", {})
    (old,) = storage.versions("data/x")
    storage.put("data/x", b"22", {})
    (new,) = storage.versions("data/x")
    assert old.version == new.version == "null"
    assert not storage.remove(old)
    assert [stat.nbytes for stat in storage.list("data/")] == [2]
    assert storage.remove(new)
    assert list(storage.list("data/")) == []


# --- on condition


STAT = ObjectStat("data/ab/x", 3, None, "abc")  # type: ignore[arg-type]


def test_the_removal_is_on_condition_of_the_etag() -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET"):
            return _VERSIONING
        return error_response("404 Not Found", "NoSuchKey") if b"-none" in head.split(b"\r\n")[0] else GONE

    with faulty_server(answer) as server, opened(server.url) as storage:
        assert storage.remove(STAT)
        assert storage.remove(STAT)
        _, first, *others = server.heads
        assert first.startswith(b"DELETE /" + BUCKET.encode() + b"/data/ab/x-none ")
        assert len(others) == 2
        assert all(b'If-Match: "abc"' in head for head in others)


@pytest.mark.parametrize(
    ("status", "code"), [("412 Precondition Failed", "PreconditionFailed"), ("404 Not Found", "NoSuchKey")]
)
def test_an_object_that_is_another_one_by_then_is_told(status: str, code: str) -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        return _VERSIONING if head.startswith(b"GET") else error_response(status, code)

    with faulty_server(answer) as server, opened(server.url) as storage:
        assert not storage.remove(STAT)


def test_a_server_that_passes_over_the_condition_is_looked_at_just_before() -> None:
    listing = (
        b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>data/ab/x</Key>'
        b"<Size>3</Size><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>%b</ETag></Contents></ListBucketResult>"
    )
    etags = iter([b"other", b"abc"])

    def answer(head: bytes, body: bytes) -> bytes:
        if b"?versioning" in head:
            return _VERSIONING
        return GONE if head.startswith(b"DELETE") else response("200 OK", listing % next(etags))

    with faulty_server(answer) as server, opened(server.url) as storage:
        assert not storage.remove(STAT)
        assert storage.remove(STAT)
        deletes = [head for head in server.heads if head.startswith(b"DELETE")]
    assert [b"-none" in head for head in deletes] == [True, False]


def test_credentials_that_may_not_delete_are_told_what_they_need() -> None:
    denied, may_look = error_response("403 Forbidden", "AccessDenied"), [True]

    def answer(head: bytes, body: bytes) -> bytes:
        return _VERSIONING if may_look[0] and head.startswith(b"GET") else denied

    with faulty_server(answer) as server:
        with opened(server.url, patience=HASTY) as storage, pytest.raises(AccessDenied) as caught:
            storage.remove(STAT)
        assert "s3:DeleteObject" in str(caught.value.hint)
        may_look[0] = False
        with opened(server.url, patience=HASTY) as storage, pytest.raises(AccessDenied) as caught:
            list(storage.versions(""))
        assert "s3:GetBucketVersioning" in str(caught.value.hint)


def test_a_listing_of_versions_that_is_cut_is_an_error_and_not_empty() -> None:
    enabled = b'<?xml version="1.0"?><VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>'

    def answer(head: bytes, body: bytes) -> bytes:
        return response("200 OK", enabled if b"?versioning" in head else b"")

    with (
        faulty_server(answer) as server,
        opened(server.url, patience=HASTY) as storage,
        pytest.raises(StorageError),
    ):
        list(storage.versions("data/"))


def test_a_server_that_does_not_say_what_time_it_is_is_told() -> None:
    listing = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
    with (
        faulty_server(lambda head, body: response("200 OK", listing)) as server,
        opened(server.url) as storage,
        pytest.raises(StorageError, match="does not say what time it is"),
    ):
        storage.now()


# --- uploads that nobody ended


def test_an_upload_that_nobody_ended_is_listed_and_aborted(
    moto_url: str, make_bucket: Callable[[str], str], client: Any
) -> None:
    bucket = make_bucket(moto_url)
    for key in ("some/data/x", "other/data/y"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    with opened(moto_url, bucket, prefix="some") as storage:
        (upload,) = storage.unfinished()
        assert upload.key == "data/x"
        storage.abandon(upload)
        assert list(storage.unfinished()) == []
        storage.abandon(upload)
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["other/data/y"]
