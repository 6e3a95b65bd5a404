"""Fetch one object by its key, decrypted and decompressed, into a file."""

import os
from typing import BinaryIO

from s3bu.compression import Readable
from s3bu.errors import S3buError, UsageError
from s3bu.fetch import fetch
from s3bu.manifest import FILE, Entry
from s3bu.repository import Repository, layout
from s3bu.restore.target import TakenError, Target
from s3bu.scan.found import reason

_CHUNK = 1024 * 1024


def download(repository: Repository, key: str, target: Target) -> bytes:
    """Write the object under `key` into `target` under the last part of the key, and return that name.

    `.gz` is left out of the name when the object was decompressed, as jobs and manifests are.
    """
    name = os.fsencode(key.rpartition("/")[2])
    if not name:
        raise UsageError(f"'{key}' is no object's key", hint="write the whole key, such as jobs/home/home-001.yml")
    content_hash = layout.parse_content_key(key)
    try:
        if content_hash is None:
            return _download_private(repository, key, name, target)
        with target.writing(_entry(name)) as file:
            fetch(repository, content_hash, None, file)
        return name
    except TakenError as error:
        raise S3buError(f"{os.fsdecode(name)}: {error}") from error
    except OSError as error:
        raise S3buError(f"{os.fsdecode(name)}: {reason(error)}") from error


def _download_private(repository: Repository, key: str, name: bytes, target: Target) -> bytes:
    with repository.open_private(key) as private:
        if private.is_packed:
            name = name.removesuffix(b".gz")
        modified_ns = int(private.modified.timestamp()) * 1_000_000_000
        with target.writing(_entry(name, modified_ns)) as file:
            _copy(private.reader, file)
    return name


def _entry(name: bytes, mtime_ns: int = 0) -> Entry:
    return Entry(name, FILE, 0, mtime_ns, 0o600)


def _copy(reader: Readable, file: BinaryIO) -> None:
    while chunk := reader.read(_CHUNK):
        file.write(chunk)
