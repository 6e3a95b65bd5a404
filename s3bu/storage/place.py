"""Where a repository lies: what the user wrote is parsed here, and the storage for it is opened here.

A place need not exist: `Storage.exists` and `Storage.create` see to that.
"""

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

from s3bu.errors import UsageError
from s3bu.storage import Storage

# Older buckets of us-east-1 and other makers' stores also have capitals, underscores and long names.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DIRECTORY_STARTS = ("/", "./", "../", "~")
_HINT = "name a bucket (`my-bucket`, `s3://my-bucket/prefix`) or a directory (`/path`, `./path`, `file:///path`)"


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket with a prefix, or a directory.

    `prefix` has no slash at either end and is empty for the whole bucket; `path` is absolute.
    """

    kind: Literal["bucket", "directory"]
    bucket: str = ""
    prefix: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class S3Options:
    """What the command line says of the connection to S3; `None` leaves it to the environment and AWS's files."""

    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None


def parse_place(text: str) -> Place:
    """Parse a REPOSITORY of the command line; `UsageError` says what is wrong with it."""
    if text.startswith(_DIRECTORY_STARTS) or text in (".", ".."):
        return _directory(text)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _bare_bucket(text)
    rest = text[scheme.end() :]
    match scheme[1].lower():
        case "s3":
            bucket, _, prefix = rest.partition("/")
            return _bucket(bucket, prefix)
        case "file":
            return _file_url(text, rest)
    raise UsageError(f"unknown kind of repository: {text!r}", hint=_HINT)


def open_storage(place: Place, options: S3Options) -> Storage:
    """Return the storage of a place; nothing is asked of it yet.

    `CredentialsError` for an unknown profile, `UsageError` for an endpoint that is no URL.
    """
    if place.kind == "directory":
        from s3bu.storage.directory import DirectoryStorage  # noqa: PLC0415 - S3 needs none of it

        return DirectoryStorage(place.path)
    from s3bu.storage.s3 import S3Storage  # noqa: PLC0415 - boto3 takes half a second

    return S3Storage(place, options)


def _bare_bucket(text: str) -> Place:
    if "/" in text:
        hint = f"a prefix in a bucket is `s3://{text}`, a directory `./{text}`"
        raise UsageError(f"bucket or directory? {text!r}", hint=hint)
    return _bucket(text, "")


def _bucket(bucket: str, prefix: str) -> Place:
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"not a bucket's name: {bucket!r}", hint=_HINT)
    prefix = prefix.strip("/")
    if prefix and not all(map(_is_plain, prefix.split("/"))):
        raise UsageError(f"not a prefix: {prefix!r}", hint="no empty parts, no `.` or `..`, no control characters")
    return Place("bucket", bucket=bucket, prefix=prefix)


def _is_plain(segment: str) -> bool:
    """Say whether S3 and its libraries agree on how to write this part of a key."""
    return segment not in ("", ".", "..") and segment.isprintable()


def _file_url(text: str, rest: str) -> Place:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"not a local directory: {text!r}", hint="`file:///path`, with three slashes")
    return _directory("/" + os.fsdecode(unquote_to_bytes(os.fsencode(path))))


def _directory(text: str) -> Place:
    if "\0" in text:
        raise UsageError(f"not a path: {text!r}")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UsageError(f"no such user: {text!r}")
    return Place("directory", path=os.path.abspath(path))
