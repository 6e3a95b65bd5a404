"""Credentials, profiles, endpoints, regions and checksums."""

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3bu.errors import (
    CredentialsError,
    UsageError,
)
from s3bu.storage.s3_connection import Address, address
from tests.servers import (
    ACCESS_KEY,
    faulty_server,
    free_port,
)
from tests.test_storage_s3.opening import (
    MIB,
    STORED,
    always,
    opened,
)


def write_config(text: str) -> None:
    directory = Path(os.environ["HOME"]) / ".aws"
    directory.mkdir(exist_ok=True)
    (directory / "config").write_text(text)


def forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def test_missing_credentials_are_told(rclone_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_credentials(monkeypatch)
    with opened(rclone_url) as storage:
        for call in (lambda: storage.open("x"), lambda: storage.put("x", b"", {}), storage.exists):
            with pytest.raises(CredentialsError, match="no usable credentials"):
                call()


def test_an_unknown_profile_is_told() -> None:
    with pytest.raises(CredentialsError, match="nobody"), opened(None, profile="nobody"):
        pass


def test_an_endpoint_that_is_no_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="endpoint"), opened("not a url"):
        pass


def test_a_broken_configuration_is_told() -> None:
    write_config("[profile x\nnot = closed")
    with pytest.raises(CredentialsError, match="configuration"), opened(None):
        pass


def test_an_expired_login_is_told(rclone_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_credentials(monkeypatch)
    write_config(
        "[profile work]\nsso_session = home\nsso_account_id = 123456789012\nsso_role_name = backup\n"
        "[sso-session home]\nsso_region = us-east-1\nsso_start_url = https://127.0.0.1/start\n"
    )
    with opened(rclone_url, profile="work") as storage, pytest.raises(CredentialsError, match="login") as raised:
        storage.put("x", b"", {})
    assert raised.value.hint is not None
    assert "aws sso login" in raised.value.hint


def test_a_profile_brings_its_endpoint_and_its_keys(
    rclone_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, secret = make_bucket(rclone_url), os.environ["AWS_SECRET_ACCESS_KEY"]
    write_config(
        f"[profile there]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"
        f"region = eu-west-2\nendpoint_url = {rclone_url}\n"
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong, and beaten by the profile")
    with opened(None, bucket, profile="there") as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"
        assert [stat.key for stat in storage.list("")] == ["data/x"]


def test_credentials_of_a_program_are_used(
    rclone_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket, secret = make_bucket(rclone_url), os.environ["AWS_SECRET_ACCESS_KEY"]
    forget_credentials(monkeypatch)
    (tmp_path / "answer").write_text(json.dumps({"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": secret}))
    write_config(f"[profile program]\ncredential_process = cat {tmp_path / 'answer'}\n")
    with opened(rclone_url, bucket, profile="program") as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"


def test_credentials_that_cannot_be_renewed_are_told(
    rclone_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket, secret = make_bucket(rclone_url), os.environ["AWS_SECRET_ACCESS_KEY"]
    forget_credentials(monkeypatch)
    answer = tmp_path / "answer"
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    expiring = {"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": secret, "Expiration": soon.isoformat()}
    answer.write_text(json.dumps(expiring))
    write_config(f"[profile program]\ncredential_process = cat {answer}\n")
    with opened(rclone_url, bucket, profile="program") as storage:
        assert storage.exists()
        answer.unlink()
        with pytest.raises(CredentialsError) as raised:
            storage.put("data/x", b"hello", {})
    assert str(answer) not in str(raised.value)


def test_variables_of_other_programs_do_not_count(
    rclone_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    with opened(rclone_url, make_bucket(rclone_url)) as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"


def test_the_endpoint_of_the_environment_is_used(
    rclone_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = make_bucket(rclone_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone_url)
    with opened(None, bucket) as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [(None, None, "us-east-1"), (None, "eu-west-1", "eu-west-1"), ("eu-west-2", "eu-west-1", "eu-west-2")],
)
def test_requests_are_signed_for_the_region(
    option: str | None, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("AWS_REGION", variable)
    with faulty_server(always(STORED)) as server, opened(server.url, region=option) as storage:
        storage.put("x", b"", {})
        storage.delete("x")
        assert [f"/{expected}/s3/".encode() in head for head in server.heads] == [True, True]


def test_a_bucket_is_made_in_the_region(moto_url: str, make_client: Callable[[str], Any]) -> None:
    bucket = f"test-{free_port()}"
    with opened(moto_url, bucket, region="eu-west-1") as storage:
        storage.create()
    where = make_client(moto_url).get_bucket_location(Bucket=bucket)
    assert where["LocationConstraint"] == "eu-west-1"


def test_checksums_are_sent_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_server(always(STORED)) as server:
        with opened(server.url) as storage:
            storage.put("x", b"hello", {})
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
        with opened(server.url) as storage:
            storage.put("x", b"hello", {})
        assert [b"x-amz-checksum-sha256" in head.lower() for head in server.heads] == [False, True]


@pytest.mark.parametrize("server", ["moto_url", "rclone_url"])
def test_bodies_with_checksums_are_taken(
    server: str, request: pytest.FixtureRequest, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    url: str = request.getfixturevalue(server)
    body = b"x" * (17 * MIB)
    with opened(url, make_bucket(url)) as storage:
        storage.put("small", b"hello", {})
        with storage.writer("large", len(body), {}) as upload:
            upload.write(body)
            upload.commit()
        assert storage.open("small").read() == b"hello"
        assert storage.open("large").read() == body


AWS = "https://s3.eu-west-1.amazonaws.com"
ADDRESSES = [
    (AWS, "my-bucket", None, Address("https://my-bucket.s3.eu-west-1.amazonaws.com", is_virtual=True)),
    (AWS, "my.dotted.bucket", None, Address(AWS, is_virtual=False)),
    (AWS, "my-bucket", "path", Address(AWS, is_virtual=False)),
    ("https://s3.cn-north-1.amazonaws.com.cn", "b", None, Address("https://b.s3.cn-north-1.amazonaws.com.cn", True)),
    ("http://127.0.0.1:9000/", "my-bucket", None, Address("http://127.0.0.1:9000", is_virtual=False)),
    ("http://store.example/s3", "my-bucket", "auto", Address("http://store.example/s3", is_virtual=False)),
    ("https://oss.example", "my-bucket", "virtual", Address("https://my-bucket.oss.example", is_virtual=True)),
    ("https://amazonaws.com.evil.example", "b", None, Address("https://amazonaws.com.evil.example", is_virtual=False)),
]


@pytest.mark.parametrize(("endpoint", "bucket", "style", "expected"), ADDRESSES)
def test_the_address_has_the_style_of_the_endpoint(
    endpoint: str, bucket: str, style: str | None, expected: Address
) -> None:
    assert address(endpoint, bucket, style) == expected


def test_the_bucket_stands_in_the_path_of_a_custom_endpoint() -> None:
    with faulty_server(always(STORED)) as server, opened(server.url, prefix="some/prefix") as storage:
        storage.put("data/x", b"", {})
        assert server.heads[0].startswith(b"PUT /my-bucket/some/prefix/data/x HTTP")


def test_an_identity_does_not_depend_on_the_spelling() -> None:
    def identity(url: str | None, region: str | None = None) -> str:
        with opened(url, region=region, prefix="p") as storage:
            return storage.identity

    assert identity("http://LOCALHOST:9/") == identity("http://localhost:9")
    assert identity("http://localhost:9") != identity("http://localhost:8")
    assert identity(None, "eu-west-1") == identity(None, "us-east-1")
    assert identity(None, "eu-west-1") != identity("http://localhost:9")
