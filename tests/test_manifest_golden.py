import gzip
import io
import json
from functools import cache
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyrage
import pytest
import yaml

from s3bu.manifest import FILE, Entry, format_entry, sort_key
from s3bu.manifest.reader import read_manifest

INTEROP = Path(__file__).parent / "interop"
MANIFESTS = [
    (bucket, key)
    for bucket in ("original-bucket", "leftovers-bucket")
    for key in json.loads((INTEROP / bucket / "expected.json").read_text())
]


@cache
def plain(bucket: str, key: str) -> bytes:
    metadata = json.loads((INTEROP / bucket / "objects.json").read_text())[key]["metadata"]
    secrets = yaml.safe_load((INTEROP / bucket / "secrets.yml").read_text())
    passphrases = {secret["id"]: secret["passphrase"] for secret in secrets}
    sealed = (INTEROP / bucket / "objects" / key).read_bytes()
    return gzip.decompress(pyrage.passphrase.decrypt(sealed, passphrases[metadata["s3bu-scrypt-id"]]))


def parsed(bucket: str, key: str) -> list[Entry]:
    items = list(read_manifest(io.BytesIO(plain(bucket, key)), key=key, job="any", label="any"))
    entries = [item for item in items if isinstance(item, Entry)]
    assert entries == items
    return entries


@pytest.mark.parametrize(("bucket", "key"), MANIFESTS)
def test_entries_of_the_original_are_read_as_they_are(bucket: str, key: str) -> None:
    expected = json.loads((INTEROP / bucket / "expected.json").read_text())[key]
    assert parsed(bucket, key) == [
        Entry(
            path=unquote_to_bytes(row["path"]),
            kind=FILE,
            nbytes=row["size"],
            mtime_ns=row["mtime"] * 1_000_000_000,
            mode=int(row["mode"], 8),
            hash=row["sha256"] or "",
        )
        for row in expected
    ]


@pytest.mark.parametrize(("bucket", "key"), MANIFESTS)
def test_entries_are_written_byte_for_byte_as_the_original_does(bucket: str, key: str) -> None:
    # Which of its times of zero are true cannot be seen in a manifest of the original: no line says so.
    lines = [format_entry(entry, is_carried_forward=True) for entry in parsed(bucket, key) if entry.hash]
    assert lines == [line for line in plain(bucket, key).splitlines(keepends=True) if b",," not in line]


@pytest.mark.parametrize(("bucket", "key"), MANIFESTS)
def test_the_order_of_the_original_is_that_of_the_sort_key(bucket: str, key: str) -> None:
    paths = [entry.path for entry in parsed(bucket, key)]
    assert paths == sorted(paths, key=sort_key)


def test_there_are_manifests_of_the_original_to_test_with() -> None:
    assert len(MANIFESTS) == 5
