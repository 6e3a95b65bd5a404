"""A source, keys and a repository in a bucket behind the proxy, and what must hold of that bucket whatever happened.

The bucket is looked at past the proxy, by means of its own.
"""

import hashlib
import io
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s3bu.crypto.identities import new_identity
from s3bu.crypto.passphrase import PassphraseWriter
from s3bu.fetch import fetch
from s3bu.keyring import new_secret, write_identities, write_secrets
from s3bu.manifest import FILE
from s3bu.repository import Repository, layout
from s3bu.storage.memory import MemoryStorage, StoredObject
from s3bu.storage.s3_connection import Patience
from tests.fakes import OLD, open_repository
from tests.faults.proxy import FaultProxy
from tests.running import Argument, Result, run, tree, write_file, write_job

MIB = 1024 * 1024
LARGE = 9 * MIB
"""More than one request takes: it is put in two parts."""
NSMALL = 24
"""Files that are put together, a few at a time."""
_METADATA = "x-amz-meta-"


@dataclass(frozen=True, slots=True)
class Place:
    """A machine with a source, a job file, keys, and a repository in a bucket behind the proxy."""

    root: Path
    proxy: FaultProxy
    client: Any
    bucket: str

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def job(self) -> Path:
        return self.root / "home.yml"

    @property
    def target(self) -> Path:
        return self.root / "target"

    @property
    def state(self) -> Path:
        """What the machine keeps besides its keys."""
        return self.root / "keys" / "index"

    @classmethod
    def make(cls, root: Path, proxy: FaultProxy, client: Any, bucket: str) -> "Place":
        """Make keys, an empty repository, and a source of small files and a large one."""
        place = cls(root, proxy, client, bucket)
        identity, recipient = new_identity()
        write_secrets(root / "keys" / "secrets.yml", [new_secret()])
        write_identities(root / "keys" / "identities.txt", [(identity, recipient)])
        client.put_object(Bucket=bucket, Key=layout.RECIPIENTS, Body=f"{recipient}\n".encode())
        for number in range(NSMALL):
            write_file(place.source / f"{number % 3}" / f"{number:02}", f"content {number}\n" * (number + 1))
        write_file(place.source / "large", random.Random(1).randbytes(LARGE))
        write_job(place.job, {"src": place.source})
        return place

    def change(self, number: int) -> None:
        """Change a few files, and bring a new large one."""
        for name in ("0/00", "1/01", "new"):
            write_file(self.source / name, f"changed {number} {name}", mtime=OLD + number)
        write_file(self.source / "large", random.Random(number).randbytes(LARGE), mtime=OLD + number)

    def backup(self, *options: Argument) -> Result:
        return run("backup", self.bucket, self.job, *options)

    def restore(self, *options: Argument) -> Result:
        return run("restore", self.bucket, "home/src", self.target, *options)

    def sync(self) -> Result:
        return run("index", "sync", self.bucket)

    def forget_state(self) -> None:
        """Take the index away."""
        shutil.rmtree(self.state, ignore_errors=True)

    # --- what is in the bucket

    def keys(self, below: str = "") -> list[str]:
        """Return the keys that are there."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def manifests(self) -> list[str]:
        return self.keys("manifests/home/src/")

    def uploads(self) -> list[str]:
        """Return the keys of uploads that are neither complete nor aborted."""
        try:
            found = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        except self.client.exceptions.NoSuchUpload:  # how rclone says that there are none
            return []
        return [one["Key"] for one in found]

    def repository(self) -> Repository:
        """Return a copy of the repository in memory, got without the program."""
        storage = MemoryStorage("copy")
        for key in self.keys():
            found = self.client.get_object(Bucket=self.bucket, Key=key)
            storage.objects[key] = StoredObject(found["Body"].read(), found["Metadata"])
        return open_repository(self.root, storage, "copy")

    def check(self) -> "dict[bytes, str] | None":
        """Hold all that is stored to its names, and return what the newest snapshot says: hashes by path.

        Each object below `data/` hashes to its name, and each content that any manifest names is there.
        """
        repository = self.repository()
        stored = {found for found, _ in repository.objects()}
        for found in stored:
            plain = io.BytesIO()
            fetch(repository, found, None, plain)
            assert hashlib.sha256(plain.getvalue()).hexdigest() == found
        newest = None
        for manifest in repository.manifests("home", "src"):
            entries = [one for one in repository.read_snapshot(manifest.key).entries if one.kind == FILE]
            newest = {entry.path: entry.hash for entry in entries}
            assert set(newest.values()) <= stored, f"{manifest.key} names contents that are not there"
        return newest

    def files(self, root: Path | None = None) -> dict[bytes, str]:
        """Return the hashes of the files in a directory, the source unless another is named."""
        nodes = tree(root or self.source)
        return {path: node.content for path, node in nodes.items() if isinstance(node.content, str)}


@contextmanager
def in_haste(retries: int = 3) -> Iterator[None]:
    """Have patience for seconds instead of minutes, and as little work for scrypt as there may be."""
    hasty = partial(Patience, connect=2, answer=2, first=2, most=30, retries=retries)
    scales = {"throttling_base_scale": 0.02, "non_throttling_base_scale": 0.02}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("s3bu.storage.s3.Patience", hasty)
        monkeypatch.setattr("s3bu.storage.s3_transport._FIRST_PAUSE", 0.02)
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff._DEFAULT_BACKOFF_CONFIG", scales)
        monkeypatch.setattr("s3bu.repository.PassphraseWriter", partial(PassphraseWriter, work_factor=1))
        yield
