"""Every vector of C2SP's age test kit (https://c2sp.org/CCTV/age), each through what would meet such a file in s3bu.

Text armour and post-quantum identities are refused by policy. Files with a passphrase go through our own reader, the
others through `decrypt_stream`; and since each vector tells its file key, those of headers and streams hold our own
header and payload reader to the specification too.
"""

import hashlib
import io
import os
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3bu.crypto import decrypt_stream
from s3bu.crypto.header import read_header
from s3bu.crypto.identities import new_identity, parse_identities
from s3bu.crypto.passphrase import _check_mac, decrypt_with_passphrase, open_payload
from s3bu.errors import IntegrityError, KeyringError, NoIdentityError, PassphraseNotFoundError, S3buError

VECTORS = Path(__file__).parents[2] / "shared/vectors/age"
NAMES = sorted(path.name for path in VECTORS.glob("*"))

POLICY: dict[str, tuple[type[S3buError], str]] = {
    "scrypt_uppercase": (
        IntegrityError,
        "no stanza asks for a passphrase: where s3bu expects a passphrase file, another kind of file was put there",
    ),
}
"""Vectors whose outcome differs from the kit's for passphrase files, and why."""


@dataclass(frozen=True, slots=True)
class Vector:
    expect: str
    payload: str | None
    file_key: bytes | None
    identities: tuple[str, ...]
    passphrases: tuple[str, ...]
    is_armored: bool
    body: bytes

    @property
    def is_success(self) -> bool:
        return self.expect == "success"


def load(name: str) -> Vector:
    head, _, body = (VECTORS / name).read_bytes().partition(b"\n\n")
    fields = [line.split(": ", 1) for line in head.decode().split("\n")]
    known = {"expect", "payload", "file key", "identity", "passphrase", "armored", "compressed", "comment"}
    assert {key for key, _ in fields} <= known
    single = dict(fields)
    return Vector(
        single["expect"],
        single.get("payload"),
        bytes.fromhex(single["file key"]) if "file key" in single else None,
        tuple(value for key, value in fields if key == "identity"),
        tuple(value for key, value in fields if key == "passphrase"),
        "armored" in single,
        zlib.decompress(body) if single.get("compressed") == "zlib" else body,
    )


def branch(name: str, vector: Vector) -> str:
    if vector.is_armored:
        return "armor"
    if any(identity.startswith("AGE-SECRET-KEY-PQ-") for identity in vector.identities):
        return "hybrid"
    if vector.passphrases:
        return "passphrase"
    return "identity" if vector.identities else "neither"


def of(kind: str) -> list[str]:
    return [name for name in NAMES if branch(name, load(name)) == kind]


def decrypt(vector: Vector) -> bytes:
    out = io.BytesIO()
    identities = parse_identities("\n".join(vector.identities or new_identity()[:1]), "the vector")
    decrypt_stream(io.BytesIO(vector.body), out, identities)
    return out.getvalue()


def test_the_vectors_are_there() -> None:
    if not NAMES and not os.environ.get("CI"):
        pytest.skip(f"no vectors in {VECTORS}")
    counted = Counter(branch(name, load(name)) for name in NAMES)
    assert counted == {"armor": 33, "hybrid": 18, "passphrase": 25, "identity": 66, "neither": 1}


@pytest.mark.parametrize("name", of("armor"))
def test_armour_is_refused(name: str) -> None:
    vector = load(name)
    with pytest.raises(IntegrityError, match="not an age file"):
        decrypt_with_passphrase(vector.body, ["password"])
    with pytest.raises(IntegrityError, match="not an age file"):
        decrypt_stream(io.BytesIO(vector.body), io.BytesIO(), parse_identities(new_identity()[0], "new"))


@pytest.mark.parametrize("name", of("hybrid"))
def test_post_quantum_identities_are_refused_and_others_do_not_open_their_files(name: str) -> None:
    vector = load(name)
    with pytest.raises(KeyringError, match="post-quantum"):
        parse_identities("\n".join(vector.identities), "the vector")
    with pytest.raises((NoIdentityError, IntegrityError)):
        decrypt_stream(io.BytesIO(vector.body), io.BytesIO(), parse_identities(new_identity()[0], "new"))


@pytest.mark.parametrize("name", of("passphrase"))
def test_passphrase_files_open_or_fail_as_the_kit_says(name: str) -> None:
    vector = load(name)
    if vector.is_success:
        plain = decrypt_with_passphrase(vector.body, vector.passphrases)
        assert hashlib.sha256(plain).hexdigest() == vector.payload
        return
    by_kit = PassphraseNotFoundError if vector.expect == "no match" else IntegrityError
    expected, _why = POLICY.get(name, (by_kit, "as the kit says"))
    with pytest.raises(expected):
        decrypt_with_passphrase(vector.body, vector.passphrases)


@pytest.mark.parametrize("name", of("identity"))
def test_files_for_recipients_open_or_fail_as_the_kit_says(name: str) -> None:
    vector = load(name)
    if vector.is_success:
        assert hashlib.sha256(decrypt(vector)).hexdigest() == vector.payload
        return
    with pytest.raises(NoIdentityError if vector.expect == "no match" else IntegrityError):
        decrypt(vector)


@pytest.mark.parametrize("name", of("neither"))
def test_files_without_a_key_fail(name: str) -> None:
    vector = load(name)
    assert not vector.is_success
    with pytest.raises(IntegrityError):
        decrypt(vector)
    with pytest.raises(IntegrityError):
        decrypt_with_passphrase(vector.body, ["password"])


@pytest.mark.parametrize("name", [name for name in of("identity") if name.startswith(("stream_", "hmac_", "stanza_"))])
def test_our_own_header_and_payload_reader_open_or_fail_as_the_kit_says(name: str) -> None:
    vector = load(name)
    assert vector.file_key is not None
    if vector.is_success:
        assert hashlib.sha256(open_with_file_key(vector.body, vector.file_key)).hexdigest() == vector.payload
        return
    with pytest.raises(IntegrityError):
        open_with_file_key(vector.body, vector.file_key)


def open_with_file_key(body: bytes, file_key: bytes) -> bytes:
    reader = io.BytesIO(body)
    header, rest = read_header(reader, "the vector")
    _check_mac(header, file_key, "the vector")
    return open_payload(reader, rest, file_key, "the vector").read()
