"""What went wrong with a request to S3, in our own words.

The `<Code>` of S3's answer decides before its status, since 404 is said of a missing bucket and of a missing object.
The text of the answer is never shown, since it can be pages of XML and holds signatures. The codes are those of the
page "Error responses" in the S3 API reference.
"""

import re
from dataclasses import dataclass
from typing import Final

import botocore.exceptions as aws
import pycurl

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
from s3bu.storage.s3_exchange import HttpFault

FAULTS: Final = (HttpFault, aws.BotoCoreError, aws.ClientError, OSError, ValueError, RuntimeError, ArithmeticError)
"""What boto3 and the transport raise; the last four stand for what boto3 lets through of keys, connections, and times
in answers that are none."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the IAM action that allows it, and of which object or bucket (an empty key)."""

    action: str
    bucket: str
    key: str
    endpoint: str

    @property
    def url(self) -> str:
        """The object or bucket as people write it."""
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"


@dataclass(frozen=True, slots=True)
class _Meaning:
    error: type[S3buError]
    message: str
    hint: str | None = None


_LOG_IN = "check `--profile` and the AWS variables, or log in again (`aws sso login`)"
_REGION_HINT = "say which with `--region`"
_UNREACHABLE = _Meaning(
    StorageError, "cannot reach {endpoint}", "check the network, the endpoint (`--endpoint-url`) and the region"
)
_UNTRUSTED = _Meaning(
    StorageError,
    "the certificate of {endpoint} is not trusted",
    "name a file with the authority's certificate in AWS_CA_BUNDLE",
)
_NO_CREDENTIALS = _Meaning(
    CredentialsError, "no usable credentials for {endpoint}", "give `--profile`, or log in (`aws sso login`)"
)
_EXPIRED = _Meaning(CredentialsError, "the credentials have expired", _LOG_IN)
_UNKNOWN_KEY = _Meaning(CredentialsError, "{endpoint} does not know the access key", _LOG_IN)
_WRONG_SECRET = _Meaning(CredentialsError, "the secret key does not fit the access key", _LOG_IN)
_BAD_TOKEN = _Meaning(CredentialsError, "the session token is not valid", _LOG_IN)
_WRONG_CLOCK = _Meaning(CredentialsError, "this machine's clock is too far off for {endpoint}", "set the clock")
_NO_BUCKET = _Meaning(RepositoryNotFoundError, "there is no bucket {bucket} at {endpoint}", "`s3bu init` makes it")
_NO_OBJECT = _Meaning(ObjectNotFound, "there is no object {url}")
_DENIED = _Meaning(AccessDenied, "access to {url} is denied", "the credentials need {action} for it")
_READ_DENIED = _Meaning(
    AccessDenied,
    "access to {url} is denied",
    "the credentials need s3:GetObject for it (without s3:ListBucket this is also said of what is not there)",
)
_WRONG_REGION = _Meaning(StorageError, "wrong region: the bucket {bucket} lies in another one", _REGION_HINT)
_ARCHIVED = _Meaning(ObjectArchived, "{url} lies in an archive class", "bring it back first, which takes hours")
_EXISTS = _Meaning(ObjectExists, "{url} is there already")
_NO_TLS = _Meaning(
    StorageError, "no encrypted connection to {endpoint} can be made", "is it https, and is nothing in between?"
)
_SILENT = _Meaning(StorageError, "{endpoint} does not answer", _UNREACHABLE.hint)
_BUSY = _Meaning(StorageError, "{endpoint} is overloaded ({code})", "try again later")
_BROKEN_OFF = _Meaning(StorageError, "the connection to {endpoint} broke off while {url} was transferred")
_ALTERED = _Meaning(StorageError, "{url} was replaced while it was read", "try again")
_ODD_KEY = _Meaning(StorageError, "no key that can be stored or read here: {key!r}")
_TAKEN = _Meaning(StorageError, "the bucket name {bucket} is taken by someone else", "choose another name")

_CODES: Final = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": _NO_OBJECT,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _BAD_TOKEN,
    "RequestTimeTooSkewed": _WRONG_CLOCK,
    "PermanentRedirect": _WRONG_REGION,
    "TemporaryRedirect": _WRONG_REGION,
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "InvalidObjectState": _ARCHIVED,
    "PreconditionFailed": _EXISTS,
    "BucketAlreadyExists": _TAKEN,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "TooManyRequests": _BUSY,
    "ThrottlingException": _BUSY,
    "InternalError": _Meaning(StorageError, "{endpoint} failed at {action} for {url} ({code})", "try again later"),
}

# An answer without a body (HEAD, proxies, small servers) has its status alone.
_STATUS: Final = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}

_CODE_ELEMENT = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_REGION_ELEMENT = re.compile(rb"<Region>([a-z0-9-]{1,32})</Region>")

_NUMBERS: Final = {
    pycurl.E_PEER_FAILED_VERIFICATION: _UNTRUSTED,
    pycurl.E_SSL_CACERT_BADFILE: _UNTRUSTED,
    pycurl.E_SSL_CONNECT_ERROR: _NO_TLS,
    pycurl.E_COULDNT_RESOLVE_HOST: _UNREACHABLE,
    pycurl.E_COULDNT_RESOLVE_PROXY: _UNREACHABLE,
    pycurl.E_COULDNT_CONNECT: _UNREACHABLE,
    pycurl.E_URL_MALFORMAT: _UNREACHABLE,
    pycurl.E_OPERATION_TIMEDOUT: _SILENT,
}
"""What libcurl's numbers mean that stand for a request without an answer; the others came in mid-transfer."""

_TYPES: Final[tuple[tuple[tuple[type[Exception], ...], _Meaning], ...]] = (
    (
        (aws.UnauthorizedSSOTokenError, aws.TokenRetrievalError, aws.SSOTokenLoadError, aws.SSOError),
        _Meaning(CredentialsError, "the AWS login has expired or is missing", "log in (`aws sso login`)"),
    ),
    (
        (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError),
        _NO_CREDENTIALS,
    ),
    (
        (aws.ProfileNotFound,),
        _Meaning(
            CredentialsError, "the AWS profile is not known", "`--profile` takes one of `aws configure list-profiles`"
        ),
    ),
    (
        (aws.InvalidConfigError, aws.ConfigParseError, aws.ConfigNotFound, aws.RefreshWithMFAUnsupportedError),
        _Meaning(
            CredentialsError, "the AWS configuration cannot be used", "check ~/.aws/config and ~/.aws/credentials"
        ),
    ),
    ((aws.SSLError,), _UNTRUSTED),
    ((TimeoutError,), _SILENT),
    ((aws.ConnectionError, aws.HTTPClientError), _UNREACHABLE),
    ((aws.IncompleteReadError,), _BROKEN_OFF),
    ((aws.ParamValidationError, UnicodeError), _ODD_KEY),
)


def code_of(error: Exception) -> str:
    """Return S3's code for what went wrong, or the one that its status stands for, or nothing."""
    if isinstance(error, aws.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        return _STATUS.get(int(code), code) if code.isdecimal() else code
    if not isinstance(error, HttpFault) or not error.status:
        return ""
    found = _CODE_ELEMENT.search(error.body)
    return found[1].decode() if found else _STATUS.get(error.status, f"status {error.status}")


def fault(error: Exception, request: Request) -> S3buError:
    """Return our error for what boto3 or the transport raised."""
    code = code_of(error)
    meaning = _meaning(error, request, code)
    fields = {
        "url": request.url,
        "bucket": request.bucket,
        "key": request.key,
        "endpoint": request.endpoint,
        "action": request.action,
        "code": code,
    }
    hint = meaning.hint and meaning.hint.format(**fields)
    region = _region(error) if meaning is _WRONG_REGION else None
    if region:
        hint = f"`--region {region}`"
    return meaning.error(meaning.message.format(**fields), hint=hint)


def _meaning(error: Exception, request: Request, code: str) -> _Meaning:
    if code:
        return _meaning_of_code(code, request)
    for types, meaning in _TYPES:
        if isinstance(error, types):
            return meaning
    if isinstance(error, HttpFault):
        return _NUMBERS.get(error.number, _BROKEN_OFF)
    return _Meaning(StorageError, "{action} for {url} failed at {endpoint}")


def _meaning_of_code(code: str, request: Request) -> _Meaning:
    if code == "AccessDenied" and request.action == "s3:GetObject":
        return _READ_DENIED
    if code == "PreconditionFailed" and request.action == "s3:GetObject":
        return _ALTERED
    if code == "NoSuchKey" and not request.key:
        return _NO_BUCKET
    return _CODES.get(code) or _Meaning(StorageError, "{action} for {url} failed at {endpoint} ({code})")


def _region(error: Exception) -> str | None:
    if isinstance(error, aws.ClientError):
        found = _REGION.fullmatch(str(error.response.get("Error", {}).get("Region", "")))
        return found[0] if found else None
    if not isinstance(error, HttpFault):
        return None
    element = _REGION_ELEMENT.search(error.body)
    found = _REGION.fullmatch(element[1].decode() if element else error.region)
    return found[0] if found else None
