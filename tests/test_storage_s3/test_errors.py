"""What S3 says went wrong, and what the user is told of it."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from s3bu.errors import (
    AccessDenied,
    CredentialsError,
    ObjectArchived,
    ObjectExists,
    ObjectNotFound,
    RepositoryNotFoundError,
    S3buError,
    StorageError,
)
from s3bu.storage import Put
from s3bu.storage.s3_connection import Patience
from tests.servers import (
    error_response,
    faulty_server,
    free_port,
    moto_server,
    response,
)
from tests.test_storage_s3.opening import HASTY, STORED, always, opened

CODES = [
    ("404 Not Found", "NoSuchBucket", RepositoryNotFoundError, "no bucket my-bucket"),
    ("404 Not Found", "NoSuchKey", ObjectNotFound, "s3://my-bucket/data/x"),
    ("403 Forbidden", "AccessDenied", AccessDenied, "s3://my-bucket/data/x"),
    ("403 Forbidden", "InvalidObjectState", ObjectArchived, "archive"),
    ("403 Forbidden", "InvalidAccessKeyId", CredentialsError, "access key"),
    ("403 Forbidden", "SignatureDoesNotMatch", CredentialsError, "secret key"),
    ("403 Forbidden", "RequestTimeTooSkewed", CredentialsError, "clock"),
    ("400 Bad Request", "ExpiredToken", CredentialsError, "expired"),
    ("400 Bad Request", "InvalidToken", CredentialsError, "token"),
    ("400 Bad Request", "AuthorizationHeaderMalformed", StorageError, "wrong region"),
    ("400 Bad Request", "IllegalLocationConstraintException", StorageError, "wrong region"),
    ("301 Moved Permanently", "PermanentRedirect", StorageError, "wrong region"),
    ("503 Slow Down", "SlowDown", StorageError, "overloaded"),
    ("500 Internal Server Error", "InternalError", StorageError, "InternalError"),
    ("400 Bad Request", "SomethingNew", StorageError, "SomethingNew"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), CODES, ids=[code for _, code, _, _ in CODES])
def test_the_code_decides_what_an_error_is(status: str, code: str, kind: type[S3buError], words: str) -> None:
    answer = error_response(status, code, "<StringToSign>SIGNED-SECRET</StringToSign>")
    with faulty_server(always(answer)) as server, opened(server.url, patience=Patience(retries=0)) as storage:
        for call in (lambda: storage.open("data/x"), lambda: storage.put("data/x", b"", {})):
            with pytest.raises(S3buError, match=words) as raised:
                call()
            assert type(raised.value) is kind
            shown = f"{raised.value} {raised.value.hint}"
            assert "<" not in shown
            assert "SIGNED-SECRET" not in shown


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchBucket", RepositoryNotFoundError),
        ("AccessDenied", AccessDenied),
        ("InvalidAccessKeyId", CredentialsError),
        ("ExpiredToken", CredentialsError),
        ("AuthorizationHeaderMalformed", StorageError),
        ("SomethingNew", StorageError),
    ],
)
def test_the_code_decides_for_listings_and_deletes_too(code: str, kind: type[S3buError]) -> None:
    answer = error_response("400 Bad Request", code, "<StringToSign>SIGNED-SECRET</StringToSign>")
    with faulty_server(always(answer)) as server, opened(server.url, patience=HASTY) as storage:
        for call in (lambda: list(storage.list("")), lambda: storage.delete("data/x")):
            with pytest.raises(S3buError) as raised:
                call()
            assert type(raised.value) is kind
            assert "SIGNED-SECRET" not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [("403 Forbidden", AccessDenied), ("404 Not Found", ObjectNotFound), ("418 Teapot", StorageError)],
)
def test_an_error_without_a_body_is_told_by_its_status(status: str, kind: type[S3buError]) -> None:
    with faulty_server(always(response(status))) as server, opened(server.url, patience=HASTY) as storage:
        with pytest.raises(S3buError) as raised:
            storage.open("data/x")
        assert type(raised.value) is kind


def test_of_several_puts_each_has_its_own_error() -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        return error_response("403 Forbidden", "AccessDenied") if b"/data/b " in head else STORED

    with faulty_server(answer) as server, opened(server.url) as storage:
        errors = storage.put_all([Put(f"data/{name}", b"", {}) for name in "abc"])
        assert [type(error) for error in errors] == [type(None), AccessDenied, type(None)]


def test_a_key_that_looks_like_an_error_is_not_taken_for_one() -> None:
    key = "<Code>NoSuchBucket</Code>"
    answer = error_response("404 Not Found", "NoSuchKey")
    with (
        faulty_server(always(answer)) as server,
        opened(server.url, patience=HASTY) as storage,
        pytest.raises(ObjectNotFound),
    ):
        storage.open(key)


def test_a_wrong_region_is_told_with_the_right_one() -> None:
    answer = error_response("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>")
    with faulty_server(always(answer)) as server, opened(server.url, patience=HASTY) as storage:
        for call in (lambda: storage.open("x"), storage.exists):
            with pytest.raises(StorageError, match="wrong region") as raised:
                call()
            assert raised.value.hint == "`--region eu-west-3`"


def test_a_page_of_html_is_not_shown() -> None:
    answer = response("502 Bad Gateway", b"<html>secret</html>" * 100_000)
    with faulty_server(always(answer)) as server, opened(server.url, patience=HASTY) as storage:
        with pytest.raises(StorageError) as raised:
            storage.open("x")
        assert len(str(raised.value)) < 200
        assert "<" not in str(raised.value)


@pytest.fixture(scope="module")
def iam_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a server of its own, since enforcement holds for all of a server's requests."""
    with moto_server(tmp_path_factory.mktemp("iam") / "log") as url:
        yield url


def enforce_permissions(url: str, *, is_on: bool) -> None:
    skipped = b"0" if is_on else b"inf"
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", skipped, {"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture
def make_user(
    iam_url: str, monkeypatch: pytest.MonkeyPatch, make_client: Callable[[str], Any]
) -> Iterator[Callable[..., str]]:
    """Yield a maker of buckets that the credentials of the environment may use for the actions given."""

    def make(*actions: str) -> str:
        iam = boto3.client("iam", endpoint_url=iam_url, region_name="us-east-1")
        name = f"user-{len(actions)}-{free_port()}"
        make_client(iam_url).create_bucket(Bucket=name)
        make_client(iam_url).put_object(Bucket=name, Key="data/x", Body=b"hello")
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        iam.close()
        enforce_permissions(iam_url, is_on=True)
        return name

    yield make
    enforce_permissions(iam_url, is_on=False)


def test_what_is_denied_is_said_with_the_action_that_is_missing(iam_url: str, make_user: Callable[..., str]) -> None:
    bucket = make_user("s3:CreateBucket")
    with opened(iam_url, bucket) as storage:
        for action, call in (
            ("s3:GetObject", lambda: storage.open("data/x")),
            ("s3:PutObject", lambda: storage.put("data/y", b"", {})),
            ("s3:ListBucket", lambda: list(storage.list(""))),
            ("s3:ListBucket", storage.exists),
            ("s3:DeleteObject", lambda: storage.delete("data/x")),
        ):
            with pytest.raises(AccessDenied, match=bucket) as raised:
                call()
            assert raised.value.hint is not None
            assert action in raised.value.hint


def test_a_backup_needs_no_permission_to_read(iam_url: str, make_user: Callable[..., str]) -> None:
    bucket = make_user("s3:PutObject", "s3:ListBucket")
    with opened(iam_url, bucket) as storage:
        storage.put("data/y", b"", {}, create=True)
        with pytest.raises(ObjectExists):
            storage.put("data/y", b"", {}, create=True)


def test_a_probe_that_is_denied_leaves_the_question_open(iam_url: str, make_user: Callable[..., str]) -> None:
    bucket = make_user("s3:ListBucket")
    with opened(iam_url, bucket) as storage:
        assert not storage.probe("repo/probe")
        assert storage.has_conditional_writes is None


def test_unknown_access_keys_are_told(
    iam_url: str, make_user: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = make_user("s3:GetObject")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOSUCHKEY0000000")
    with opened(iam_url, bucket) as storage:
        for call in (lambda: storage.open("data/x"), storage.exists):
            with pytest.raises(CredentialsError, match="access key"):
                call()


def test_a_wrong_secret_is_told(rclone_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with opened(rclone_url) as storage:
        for call in (lambda: storage.open("data/x"), lambda: storage.put("x", b"", {}), storage.exists):
            with pytest.raises(CredentialsError, match="secret key"):
                call()
