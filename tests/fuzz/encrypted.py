"""What is encrypted: headers of age, passphrase files and contents. What opens is what was sealed, to the last byte."""

import gzip
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from s3bu.crypto.header import MAX_HEADER_NBYTES, MAX_STANZAS, age_kind, read_header
from s3bu.crypto.passphrase import encrypt_with_passphrase, open_passphrase, open_payload
from s3bu.errors import S3buError
from s3bu.fetch import fetch
from s3bu.storage.memory import StoredObject
from tests.fakes import World, hash_of, key_of, quicken_scrypt
from tests.fuzz.engine import Target
from tests.fuzz.readers import PieceReader, examples

_PASSPHRASE = "a passphrase"
_PLAIN = b"some text that is sealed\n" * 6000
_TOKENS = (
    b"-> X25519 ",
    b"-> scrypt ",
    b"-> a\n\n",
    b"---",
    b"\n--- ",
    b"age-encryption.org/v1\n",
    b"age-encryption.org/",
)
_UNSEALED = 64 * 1024 * 1024


@contextmanager
def header_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        outcomes: list[object] = []
        for most in (1 << 20, 100 + len(document) // 20):
            try:
                reader = PieceReader(document, most)
                header, rest = read_header(reader, "the object")
                outcomes.append((header, rest + b"".join(iter(reader.read, b""))))
            except S3buError as error:
                assert len(error.message) < 1_000
                outcomes.append(type(error))  # which fault is met first may hang on how the bytes come
        assert outcomes[0] == outcomes[1]
        if isinstance(outcomes[0], tuple):
            header, rest = outcomes[0]
            assert header.text + rest == document
            assert len(header.text) <= MAX_HEADER_NBYTES
            assert 0 < len(header.stanzas) <= MAX_STANZAS
            assert age_kind(document[:200]) is not None

    seeds = [encrypted[:2000] for encrypted in examples("data/*/*")[:5] + examples("jobs/*/*.yml")]
    seeds += [b"age-encryption.org/v1\n" + b"-> a\n\n" * 30 + b"--- " + b"A" * 43 + b"\nrest"]
    yield Target("header", run, [seed for seed in seeds if age_kind(seed)], _TOKENS)


@contextmanager
def passphrase_target() -> Iterator[Target]:
    """Read files as they are, without a passphrase that would fit, and payloads with a file key that is known."""
    sealed = encrypt_with_passphrase(_PLAIN, _PASSPHRASE, work_factor=1)
    file_key = bytes(16)
    payload, empty = _payload(file_key, _PLAIN), _payload(file_key, b"")

    def run(document: bytes) -> None:
        with suppress(S3buError):
            open_passphrase(PieceReader(document, 3000), (), name="the object").read()
            raise AssertionError("it opens without a passphrase")
        reader = open_payload(PieceReader(document, 30_000), b"", file_key, "the object")
        read = reader.read()
        assert (document, read) in ((payload, _PLAIN), (empty, b""))

    yield Target("passphrase", run, [sealed, payload, empty, *examples("jobs/*/*.yml")], _TOKENS)


def _payload(file_key: bytes, plain: bytes) -> bytes:
    """Seal a payload alone: what a passphrase file has behind its header, under this file key."""
    sink = io.BytesIO()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("s3bu.crypto.passphrase.os.urandom", bytes)
        sealed = encrypt_with_passphrase(plain, _PASSPHRASE, work_factor=1)
    sink.write(sealed[sealed.index(b"\n---") :].split(b"\n", 2)[2])
    assert file_key == bytes(16)
    return sink.getvalue()


@contextmanager
def content_target() -> Iterator[Target]:
    """Fetch a content whose object is anything: it is the content of that name, or an error."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        quicken_scrypt(monkeypatch)
        world = World.make(Path(directory))
        contents = (b"plain text\n" * 9000, gzip.compress(b"x" * 500_000), b"")
        for content in contents:
            world.put_content(content)
        world.put_content(contents[0], packed=True, at=b"packed")
        world.put_content(gzip.compress(bytes(_UNSEALED)), at=b"bomb")
        seeds = [stored.body for key, stored in world.storage.objects.items() if key.startswith("data/")]
        _ = world.repository.keyring.identities

        def run(document: bytes) -> None:
            for metadata in ({}, {"s3bu-encrypt": "age", "s3bu-compress": "gzip"}):
                for content in contents:
                    world.storage.objects[key_of(content)] = StoredObject(document, metadata)
                    target = io.BytesIO()
                    with suppress(S3buError):
                        fetch(world.repository, hash_of(content), len(content), target)
                        assert target.getvalue() == content

        yield Target("content", run, seeds, _TOKENS)
