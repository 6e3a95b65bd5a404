"""How to reach a bucket: one boto3 session, its clients, and the obstore stores that are given all that it found out.

Profiles, single sign-on, roles and endpoints are boto3's business (`AWS_REGION`, which it ignores, is read here).
obstore reads AWS variables by itself, so whatever boto3 decided is told to it outright.
"""

import asyncio
import os
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import botocore.session
from botocore.config import Config
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import UnauthenticatedError
from obstore.store import S3Store

from s3bu.errors import CredentialsError, StorageError, UsageError
from s3bu.storage.calls import Work
from s3bu.storage.place import S3Options
from s3bu.storage.s3_errors import Request, fault

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

S3Client: TypeAlias = Any
"""A client of boto3, which makes their classes while it runs."""

Checksums: TypeAlias = Literal["when_supported", "when_required"]

# botocore promises credentials for 10 minutes at least; obstore would keep them for 30.
_CREDENTIALS_TTL = timedelta(minutes=8)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds to wait for S3, and how often to try again.

    `connect` for a connection, `answer` between two signs of life, `first` for the first answer of all, so that a
    wrong endpoint is told soon; `put_most` bounds the transfer of one body. Five repetitions have about 20 s of pauses
    between them; a server that cannot be reached costs a minute or so.
    """

    connect: float = 10
    answer: float = 60
    first: float = 30
    put_most: float = 900
    retries: int = 5


@dataclass(frozen=True, slots=True)
class Stores:
    """The two obstore stores of one bucket.

    The one for reading gives up after a silence. The one for writing does not: to reqwest silence is also the time in
    which a body is being sent, so with many bodies on a slow line it would break them off.
    """

    writing: S3Store
    reading: S3Store


@dataclass(frozen=True, slots=True)
class Address:
    """Where obstore sends requests: the endpoint, with the bucket in its name where the style is virtual."""

    url: str
    is_virtual: bool


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


class Credentials:
    """The session's credentials for obstore, which asks again before they run out.

    Getting them can take a while (single sign-on, roles), so it happens outside the loop thread. The error is kept,
    since obstore makes text of it.
    """

    def __init__(self, provider: Boto3CredentialProvider) -> None:
        self._provider = provider
        self.error: Exception | None = None

    async def __call__(self) -> "S3Credential":
        """Return the credentials as they are now."""
        try:
            found = await asyncio.wrap_future(Work(self._provider).outcome)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            self.error = error
            raise
        self.error = None
        return found


class Connection:
    """All that is known of the way to one bucket.

    Until `has_answered` is set, by whoever got the first answer, requests of boto3 are given up sooner.
    """

    def __init__(self, bucket: str, options: S3Options, patience: Patience) -> None:
        self.bucket = bucket
        self.patience = patience
        self.has_answered = False
        self._credentials: Credentials | None = None
        self._core = botocore.session.Session(profile=options.profile)
        self._session = _session(self._core, options)
        self._lock = threading.Lock()
        self._stores: Stores | None = None
        soon = min(patience.answer, patience.first)
        self.quick = self._client(options.endpoint_url, None, retries=min(1, patience.retries), answer=soon)
        self.endpoint: str = self.quick.meta.endpoint_url.rstrip("/")
        self.region: str = self.quick.meta.region_name
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

    def stores(self) -> Stores:
        """Return obstore's side of the connection; `CredentialsError` where there are no credentials."""
        with self._lock:
            if self._stores is None:
                self._stores = self._made_stores()
            return self._stores

    def cause(self, error: Exception) -> Exception:
        """Return the error of boto3 behind one of obstore, where credentials could not be had; else the same error."""
        credentials = self._credentials
        if isinstance(error, UnauthenticatedError) and credentials is not None and credentials.error is not None:
            return credentials.error
        return error

    def close(self) -> None:
        """Close boto3's connections; obstore's close with their stores."""
        with self._lock:
            self._stores = None
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
            return self._session.client("s3", endpoint_url=endpoint_url, config=config)
        except botocore.exceptions.BotoCoreError as error:
            raise fault(error, Request("s3:ListBucket", self.bucket, "", endpoint_url or "S3")) from error
        except ValueError as error:
            # Also boto3's words for a bad `endpoint_url` in a profile or a variable.
            hint = "it must be a URL such as https://s3.example.com"
            raise UsageError("the endpoint is not a URL", hint=hint) from error

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

    def _made_stores(self) -> Stores:
        try:
            credentials = Credentials(Boto3CredentialProvider(self._session, ttl=_CREDENTIALS_TTL))
        except ValueError as error:
            hint = "give `--profile`, or log in (`aws sso login`)"
            raise CredentialsError(f"no usable credentials for {self.endpoint}", hint=hint) from error
        self._credentials = credentials
        put_most = timedelta(seconds=self.patience.put_most)
        silence = timedelta(seconds=self.patience.answer)
        return Stores(
            writing=self._store(credentials, {"timeout": put_most}),
            # A large object is one request, however long it takes; silence is what ends it.
            reading=self._store(credentials, {"timeout": timedelta(days=7), "read_timeout": silence}),
        )

    def _store(self, credentials: Credentials, timeouts: "ClientConfig") -> S3Store:
        where = address(self.endpoint, self.bucket, (self.quick.meta.config.s3 or {}).get("addressing_style"))
        config: S3Config = {
            "endpoint": where.url,
            # It wins over `endpoint`, and obstore would take it from the environment.
            "aws_endpoint_url_s3": where.url,
            "region": self.region,
            "virtual_hosted_style_request": where.is_virtual,
            "skip_signature": False,
            "conditional_put": "etag",
        }
        if self.has_checksums:
            config["checksum_algorithm"] = "sha256"
        options: ClientConfig = {
            **timeouts,
            "allow_http": where.url.startswith("http:"),
            "connect_timeout": timedelta(seconds=self.patience.connect),
        }
        authorities = self._authorities()
        if authorities is not None:
            options["root_certificate"] = authorities
        return S3Store(
            self.bucket,
            config=config,
            client_options=options,
            retry_config=_retries(self.patience.retries),
            credential_provider=credentials,
        )

    def _authorities(self) -> bytes | None:
        path = self._core.get_config_variable("ca_bundle")
        path = path or os.environ.get("REQUESTS_CA_BUNDLE")
        if not path or os.path.isdir(path):
            return None
        try:
            with open(path, "rb") as bundle:
                return bundle.read()
        except OSError as error:
            hint = "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or `ca_bundle` of the profile names it"
            raise StorageError(f"cannot read the certificates in {path}: {error.strerror}", hint=hint) from error


def _session(core: botocore.session.Session, options: S3Options) -> boto3.Session:
    try:
        region = options.region or os.environ.get("AWS_REGION") or core.get_config_variable("region") or "us-east-1"
        return boto3.Session(botocore_session=core, region_name=region)
    except botocore.exceptions.ConfigParseError as error:
        raise CredentialsError("the AWS configuration cannot be read", hint="check ~/.aws/config") from error
    except botocore.exceptions.ProfileNotFound as error:
        hint = "`--profile` and AWS_PROFILE take one of `aws configure list-profiles`"
        raise CredentialsError(f"unknown AWS profile: {core.profile}", hint=hint) from error


def _retries(most: int) -> "RetryConfig":
    return {
        "max_retries": most,
        "retry_timeout": timedelta(seconds=180),
        "backoff": {"init_backoff": timedelta(milliseconds=500), "max_backoff": timedelta(seconds=10), "base": 4},
    }
