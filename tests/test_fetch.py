"""A content is what hashes to its name, whatever the metadata, the manifest or the object say."""

import gzip
import io
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest

from s3bu.crypto import encrypt
from s3bu.crypto.passphrase import encrypt_with_passphrase
from s3bu.errors import AccessDenied, IntegrityError, NoIdentityError, ObjectNotFound
from s3bu.fetch import fetch
from s3bu.storage.memory import StoredObject
from tests.fakes import OF_OTHERS, PACKED, RAW, World, another_recipient, hash_of, key_of, refuse

TEXT = b"some text that packs well " * 200
ZIPPED = gzip.compress(b"a file that was zipped by its owner " * 50, mtime=0)
TWICE = gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0)
CONTENTS = (b"", b"x", b"\x1f\x8b", b"\x1f", TEXT, ZIPPED, ZIPPED + b"trailing", ZIPPED[:-4], TWICE)
METADATA: tuple[Mapping[str, str], ...] = (RAW, PACKED, {}, OF_OTHERS)


class Counted(io.BytesIO):
    """A target that counts what was written to it in all."""

    written = 0

    def write(self, chunk: bytes, /) -> int:  # type: ignore[override]
        self.written += len(chunk)
        return super().write(chunk)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def fetched(world: World, content_hash: str, nbytes: int | None) -> bytes:
    target = io.BytesIO(b"left from something else, and longer than any content" * 100)
    fetch(world.repository, content_hash, nbytes, target)
    return target.getvalue()


@pytest.mark.parametrize("metadata", METADATA, ids=["raw", "packed", "lost", "foreign"])
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("knows_length", [False, True])
def test_every_content_comes_back_whatever_the_metadata_says(
    world: World, metadata: Mapping[str, str], is_packed: bool, knows_length: bool
) -> None:
    for plain in CONTENTS:
        found = world.put_content(plain, metadata, packed=is_packed)
        assert fetched(world, found, len(plain) if knows_length else None) == plain


def test_a_long_content_comes_back(world: World) -> None:
    plain = bytes(range(256)) * 8192
    for is_packed in (False, True):
        found = world.put_content(plain, {}, packed=is_packed)
        assert fetched(world, found, len(plain)) == plain


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("metadata", METADATA[:3], ids=["raw", "packed", "lost"])
def test_another_content_under_the_name_is_refused(world: World, metadata: Mapping[str, str], is_packed: bool) -> None:
    for other in (b"poison", b"", ZIPPED, TEXT[:-1] + b"!"):
        found = world.put_content(other, metadata, at=TEXT, packed=is_packed)
        with pytest.raises(IntegrityError, match=f"data/{found[:4]}/{found}: what is stored there is not"):
            fetched(world, found, len(TEXT))


@pytest.mark.parametrize("nbytes", [0, len(TEXT) - 1, len(TEXT) + 1, 10**15])
def test_a_length_that_is_not_the_contents_is_refused(world: World, nbytes: int) -> None:
    found = world.put_content(TEXT)
    with pytest.raises(IntegrityError, match="is not the content"):
        fetched(world, found, nbytes)


@pytest.mark.parametrize("metadata", METADATA[:3], ids=["raw", "packed", "lost"])
def test_a_bomb_writes_no_more_than_the_content_is_long(world: World, metadata: Mapping[str, str]) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
    found = world.put_content(bomb, metadata, at=b"small")
    target = Counted()
    with pytest.raises(IntegrityError, match="is not the content"):
        fetch(world.repository, found, 5, target)
    assert target.written <= 2 * 5


def test_a_huge_object_under_a_small_name_is_not_written_out(world: World) -> None:
    found = world.put_content(bytes(20 * 1024 * 1024), at=b"small")
    target = Counted()
    with pytest.raises(IntegrityError, match="is not the content"):
        fetch(world.repository, found, 5, target)
    assert target.written <= 5


@pytest.mark.parametrize("kept", [0, 1, 100, 199, -17, -1])
@pytest.mark.parametrize("metadata", METADATA[:3], ids=["raw", "packed", "lost"])
def test_a_cut_object_is_refused(world: World, kept: int, metadata: Mapping[str, str]) -> None:
    found = world.put_content(TEXT, metadata)
    key = key_of(TEXT)
    world.storage.objects[key] = StoredObject(world.storage.objects[key].body[:kept], metadata)
    with pytest.raises(IntegrityError, match=key):
        fetched(world, found, len(TEXT))


def test_an_altered_object_is_refused(world: World) -> None:
    found = world.put_content(TEXT)
    body = bytearray(world.storage.objects[key_of(TEXT)].body)
    body[-20] ^= 1
    world.storage.objects[key_of(TEXT)] = StoredObject(bytes(body), RAW)
    with pytest.raises(IntegrityError, match="truncated or altered"):
        fetched(world, found, len(TEXT))


def test_the_ciphertext_is_never_taken_for_the_file(world: World) -> None:
    body = encrypt(TEXT, world.recipients)
    world.storage.objects[key_of(body)] = StoredObject(body, {})
    with pytest.raises(IntegrityError, match="is not the content"):
        fetched(world, hash_of(body), len(body))


@pytest.mark.parametrize("body", [b"", b"plain", TEXT, gzip.compress(TEXT, mtime=0)])
def test_an_object_that_is_not_encrypted_is_refused(world: World, body: bytes) -> None:
    world.storage.objects[key_of(body)] = StoredObject(body, {})
    with pytest.raises(IntegrityError):
        fetched(world, hash_of(body), len(body))


def test_an_object_for_a_passphrase_is_refused(world: World) -> None:
    body = encrypt_with_passphrase(TEXT, world.passphrase, work_factor=1)
    world.storage.objects[key_of(TEXT)] = StoredObject(body, {})
    with pytest.raises(IntegrityError, match="passphrase"):
        fetched(world, hash_of(TEXT), len(TEXT))


def test_an_object_for_another_identity_says_so(world: World) -> None:
    world.storage.objects[key_of(TEXT)] = StoredObject(encrypt(TEXT, [another_recipient()]), RAW)
    with pytest.raises(NoIdentityError, match=key_of(TEXT)):
        fetched(world, hash_of(TEXT), len(TEXT))


def test_an_object_that_is_not_there_says_so(world: World) -> None:
    with pytest.raises(ObjectNotFound, match=key_of(TEXT)):
        fetched(world, hash_of(TEXT), len(TEXT))


def test_an_error_of_the_storage_comes_out_as_it_is(world: World) -> None:
    found = world.put_content(TEXT)
    world.storage.before_read = refuse([key_of(TEXT)], AccessDenied)
    with pytest.raises(AccessDenied):
        fetched(world, found, len(TEXT))


def test_an_error_of_the_target_comes_out_as_it_is(world: World) -> None:
    class Full(io.BytesIO):
        def write(self, chunk: bytes, /) -> int:  # type: ignore[override]
            raise OSError(28, "no space left on device")

    for is_packed in (False, True):
        found = world.put_content(TEXT, {}, packed=is_packed)
        with pytest.raises(OSError, match="no space left"):
            fetch(world.repository, found, len(TEXT), Full())


def test_an_ordinary_content_is_fetched_once(world: World) -> None:
    reads: list[str] = []
    world.storage.before_read = reads.append
    for metadata, is_packed in ((RAW, False), (PACKED, True), *product(({}, OF_OTHERS), (False, True))):
        reads.clear()
        found = world.put_content(TEXT, metadata, packed=is_packed)
        fetched(world, found, len(TEXT))
        assert reads.count(key_of(TEXT)) == 1
