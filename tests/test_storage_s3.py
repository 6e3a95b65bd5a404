"""What S3 does beyond the contract: its errors, credentials, regions, slowness and large uploads."""

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
    StorageStopped,
    UsageError,
)
from s3bu.storage import Put, part_nbytes
from s3bu.storage.place import Place, S3Options
from s3bu.storage.s3 import S3Storage
from s3bu.storage.s3_connection import Address, Patience, address
from tests.servers import (
    ACCESS_KEY,
    FaultyServer,
    body_nbytes,
    error_response,
    faulty_server,
    free_port,
    moto_server,
    rclone_server,
    relayed,
    response,
)

BUCKET = "my-bucket"
HASTY = Patience(connect=1, answer=1, first=1, put_most=1, retries=0)
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


# Errors


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


# Permissions


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


# Credentials and configuration


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


def test_variables_that_obstore_reads_by_itself_do_not_count(
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


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with an authority's certificate, and a server's certificate and key signed by it."""
    directory = tmp_path_factory.mktemp("authority")
    write_certificates(directory)
    return directory


def write_certificates(directory: Path) -> None:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    root_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_root: bool) -> bytes:
        builder = (
            x509.CertificateBuilder(root_name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )
        if not is_root:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    server_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test server")])
    (directory / "root.pem").write_bytes(certificate(root_name, root_key, is_root=True))
    (directory / "server.pem").write_bytes(certificate(server_name, server_key, is_root=False))
    (directory / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture(scope="module")
def tls_url(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("tls")
    (base / "buckets" / BUCKET).mkdir(parents=True)
    options = ("--cert", str(authority / "server.pem"), "--key", str(authority / "server.key"))
    with rclone_server(base / "buckets", base / "log", *options, scheme="https") as url:
        yield url


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    tls_url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "root.pem"))
    with opened(tls_url) as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"
        assert storage.exists()


def test_an_unknown_authority_is_told(tls_url: str) -> None:
    with opened(tls_url, patience=HASTY) as storage:
        for call in (lambda: storage.open("x"), lambda: storage.put("x", b"", {}), storage.exists):
            with pytest.raises(StorageError, match="certificate") as raised:
                call()
            assert raised.value.hint is not None
            assert "AWS_CA_BUNDLE" in raised.value.hint


def test_a_missing_file_of_authorities_is_named(monkeypatch: pytest.MonkeyPatch, rclone_url: str) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file.pem")
    with opened(rclone_url) as storage, pytest.raises(StorageError, match=r"/no/such/file\.pem"):
        storage.put("x", b"", {})


# Servers that are away, slow or broken


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


def large_write(storage: S3Storage, *, mib: int = 9, create: bool = False) -> None:
    with storage.writer("x", mib * MIB, {}, create=create) as upload:
        for _ in range(mib):
            upload.write(bytes(MIB))
        upload.commit()


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


# Listings and objects of others


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


# Large objects


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
