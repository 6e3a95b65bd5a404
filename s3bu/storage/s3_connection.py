"""How to reach a bucket: one boto3 session, its clients, and the transport that is given all that it found out.

Profiles, single sign-on, roles and endpoints are boto3's business (`AWS_REGION`, which it ignores, is read here).
"""

import os
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlsplit

import boto3
import botocore.exceptions
import botocore.httpsession
import botocore.session
from botocore.config import Config

from s3bu.errors import CredentialsError, StorageError, UsageError
from s3bu.storage.place import S3Options
from s3bu.storage.s3_errors import Request, fault
from s3bu.storage.s3_transport import Transport

# A time with a zone that is none, in a server's answer, is no business of whoever reads stderr.
warnings.filterwarnings("ignore", message="tzname .* identified but not understood")

S3Client: TypeAlias = Any
"""A client of boto3, which makes their classes while it runs."""

Checksums: TypeAlias = Literal["when_supported", "when_required"]

# Asking botocore takes a lock and a look at the clock; it renews credentials 10 minutes before they run out.
_KEYS_SECONDS = 60.0
_OK = 200
_TOLD_IN_BODY = frozenset(
    (
        "ListObjectsV2",
        "ListObjectVersions",
        "ListMultipartUploads",
        "GetBucketVersioning",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
    )
)
"""Operations whose answer is never without a body."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds to wait for S3, and how often to try again.

    `connect` for a connection, `answer` between two signs of life, `first` for the first answer of all, so that a
    wrong endpoint is told soon; `most` bounds the time in which repetitions may begin. Five repetitions have about
    20 s of pauses between them; a server that cannot be reached costs a minute or so.
    """

    connect: float = 10
    answer: float = 60
    first: float = 30
    most: float = 180
    retries: int = 5


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with; the token is there for keys that are lent for a while."""

    access_key: str
    secret_key: str
    token: str | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where the transport sends requests: the endpoint, with the bucket in its name where the style is virtual."""

    url: str
    is_virtual: bool

    def path(self, bucket: str, key: str) -> str:
        """Return the path of an object, escaped as signatures want it."""
        escaped = quote(key, safe="/~")
        return f"/{escaped}" if self.is_virtual else f"/{bucket}/{escaped}"


def address(endpoint: str, bucket: str, style: str | None) -> Address:
    """Return the address that boto3 would use for the bucket, by the same rules.

    A custom endpoint gets the bucket in the path unless the profile says `addressing_style = virtual`; AWS gets it in
    the host name, unless it has dots, which no certificate covers, or the profile says `path`.
    """
    endpoint = endpoint.rstrip("/")
    is_virtual = style == "virtual" or (style != "path" and is_aws(endpoint) and "." not in bucket)
    if not is_virtual:
        return Address(endpoint, is_virtual=False)
    parts = urlsplit(endpoint)
    return Address(parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl(), is_virtual=True)


def is_aws(endpoint: str) -> bool:
    """Say whether the endpoint is Amazon's own."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class Connection:
    """All that is known of the way to one bucket.

    Until `has_answered` is set, by whoever got the first answer, requests of boto3 are given up sooner.
    """

    def __init__(self, bucket: str, options: S3Options, patience: Patience) -> None:
        self.bucket = bucket
        self.patience = patience
        self.has_answered = False
        self._core = botocore.session.Session(profile=options.profile)
        self._session = _session(self._core, options)
        self._lock = threading.Lock()
        self._keys: tuple[float, Keys] | None = None
        self._transport: Transport | None = None
        soon = min(patience.answer, patience.first)
        self.quick = self._client(options.endpoint_url, None, retries=min(1, patience.retries), answer=soon)
        self.endpoint: str = self.quick.meta.endpoint_url.rstrip("/")
        self.region: str = self.quick.meta.region_name
        self.address = address(self.endpoint, bucket, (self.quick.meta.config.s3 or {}).get("addressing_style"))
        self.has_checksums = self._wants_checksums()
        checksums: Checksums = "when_supported" if self.has_checksums else "when_required"
        self._patient = self._client(options.endpoint_url, checksums, retries=patience.retries, answer=patience.answer)

    @property
    def client(self) -> S3Client:
        """The client for requests that may be repeated for a minute or so."""
        return self._patient if self.has_answered else self.quick

    @property
    def identity(self) -> str:
        """The bucket's own name: at AWS it has one the world over, elsewhere one at each endpoint."""
        if is_aws(self.endpoint):
            return f"{self.quick.meta.partition}:s3://{self.bucket}"
        return f"{self.endpoint.lower()}/{self.bucket}"

    @property
    def transport(self) -> Transport:
        """The way for objects, made when it is first needed."""
        with self._lock:
            if self._transport is None:
                self._transport = Transport(
                    self.address.url, self.region, authorities=self._authorities(), connect=self.patience.connect
                )
            return self._transport

    @property
    def fresh_keys(self) -> Keys | None:
        """What requests are signed with, if that was asked for a moment ago."""
        found = self._keys
        return found[1] if found is not None and time.monotonic() - found[0] < _KEYS_SECONDS else None

    def keys(self) -> Keys:
        """Ask for what requests are signed with; a single sign-on or a role may take its time."""
        credentials = self._session.get_credentials()
        if credentials is None:
            hint = "give `--profile`, or log in (`aws sso login`)"
            raise CredentialsError(f"no usable credentials for {self.endpoint}", hint=hint)
        found = credentials.get_frozen_credentials()
        keys = Keys(found.access_key or "", found.secret_key or "", found.token)
        self._keys = (time.monotonic(), keys)
        return keys

    def stop(self) -> None:
        """Give up what the transport has under way."""
        if self._transport is not None:
            self._transport.stop()

    def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            self._transport.close()
        self.quick.close()
        self._patient.close()

    def _client(
        self, endpoint_url: str | None, checksums: Checksums | None, *, retries: int, answer: float
    ) -> S3Client:
        config = Config(
            connect_timeout=self.patience.connect,
            read_timeout=answer,
            retries={"mode": "standard", "total_max_attempts": retries + 1},
            max_pool_connections=64,
            tcp_keepalive=True,
            request_checksum_calculation=checksums,
        )
        try:
            client = self._session.client("s3", endpoint_url=endpoint_url, config=config)
        except botocore.exceptions.BotoCoreError as error:
            raise fault(error, Request("s3:ListBucket", self.bucket, "", endpoint_url or "S3")) from error
        except ValueError as error:
            # Also boto3's words for a bad `endpoint_url` in a profile or a variable.
            hint = "it must be a URL such as https://s3.example.com"
            raise UsageError("the endpoint is not a URL", hint=hint) from error
        client.meta.events.register("before-parse.s3", _distrust)
        return client

    def _wants_checksums(self) -> bool:
        """Say whether bodies carry a checksum of S3's.

        AWS demands one for buckets with Object Lock; some other makers refuse it (Backblaze B2), so there it is only
        sent when AWS's own setting asks for it.
        """
        # botocore's own answer does not tell a setting from its default.
        setting = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION")
        setting = setting or self._core.get_scoped_config().get("request_checksum_calculation")
        if setting:
            return str(setting).lower() == "when_supported"
        return is_aws(self.endpoint)

    def _authorities(self) -> str:
        """Return the file, or directory, of the authorities whose certificates count; boto3 has the same."""
        path = self._core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        if not path:
            return str(botocore.httpsession.get_cert_path(verify=True))
        try:
            os.stat(path)
            if not os.path.isdir(path):
                open(path, "rb").close()
        except OSError as error:
            hint = "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or `ca_bundle` of the profile names it"
            raise StorageError(f"cannot read the certificates in {path}: {error.strerror}", hint=hint) from error
        return str(path)


def _distrust(operation_model: Any, response_dict: dict[str, Any], **_rest: Any) -> None:
    """Take an answer that is cut for a failure of the server, which is asked again.

    Python takes a head that breaks off for a whole one without a body, and botocore an empty body for an empty listing:
    a bucket in which nothing is left.
    """
    is_cut = operation_model.name in _TOLD_IN_BODY and not response_dict["body"]
    if operation_model.name == "UploadPart":
        is_cut = "ETag" not in response_dict["headers"]
    if is_cut and response_dict["status_code"] == _OK:
        response_dict["status_code"] = 500


def _session(core: botocore.session.Session, options: S3Options) -> boto3.Session:
    try:
        region = options.region or os.environ.get("AWS_REGION") or core.get_config_variable("region") or "us-east-1"
        return boto3.Session(botocore_session=core, region_name=region)
    except botocore.exceptions.ConfigParseError as error:
        raise CredentialsError("the AWS configuration cannot be read", hint="check ~/.aws/config") from error
    except botocore.exceptions.ProfileNotFound as error:
        hint = "`--profile` and AWS_PROFILE take one of `aws configure list-profiles`"
        raise CredentialsError(f"unknown AWS profile: {core.profile}", hint=hint) from error
