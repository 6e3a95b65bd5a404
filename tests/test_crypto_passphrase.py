"""Passphrase files, held against pyrage, the `age` program and the original's jobs and manifests."""

import gzip
import hashlib
import io
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.crypto import encrypt
from s3bu.crypto.header import age_kind
from s3bu.crypto.identities import new_identity
from s3bu.crypto.passphrase import (
    WORK_FACTOR,
    PassphraseWriter,
    decrypt_with_passphrase,
    encrypt_with_passphrase,
    open_passphrase,
)
from s3bu.crypto.recipients import parse_recipients
from s3bu.errors import IntegrityError, PassphraseNotFoundError

pytestmark = pytest.mark.usefixtures("slow_scrypt")
LOW = 2
BUCKET = Path(__file__).parent / "interop/original-bucket"
CHUNK = 65536
LENGTHS = st.one_of(
    st.sampled_from([chunks * CHUNK + more for chunks in range(4) for more in (-1, 0, 1) if chunks or more >= 0]),
    st.integers(0, 5 * CHUNK),
)


class Broken(Exception):
    """No error of any library."""


def pattern(length: int) -> bytes:
    return hashlib.shake_128(b"plain").digest(length)


def with_terminal(command: list[str], answer: bytes) -> None:
    """Run a program that asks for a passphrase on its terminal, as often as it asks."""
    ours, theirs = pty.openpty()

    command = ["setsid", "--ctty", "--wait", *command]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        while chunk := read_terminal(ours):
            os.write(ours, (answer + b"\n") * chunk.count(b"assphrase"))
    finally:
        os.close(ours)
    assert process.wait() == 0


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1024)
    except OSError:
        # Linux says EIO where the last program has left a terminal
        return b""


@given(length=LENGTHS, size=st.sampled_from([1000, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK]))
@settings(max_examples=40, deadline=None)
def test_passphrase_files_are_read_as_they_were_written(length: int, size: int) -> None:
    plain, encrypted = pattern(length), io.BytesIO()
    with PassphraseWriter(encrypted, "pass", work_factor=LOW) as writer:
        for start in range(0, length, size):
            assert writer.write(plain[start : start + size]) == len(plain[start : start + size])
    reader = open_passphrase(io.BytesIO(encrypted.getvalue()), ["pass"])
    assert b"".join(iter(lambda: reader.read(size), b"")) == plain
    assert pyrage.passphrase.decrypt(encrypted.getvalue(), "pass") == plain


@pytest.mark.parametrize("passphrase", ["correct horse", "Füße ☃", " blank ends ", "x" * 5000])
def test_passphrases_are_any_text(passphrase: str) -> None:
    encrypted = encrypt_with_passphrase(b"plain", passphrase, work_factor=LOW)
    assert pyrage.passphrase.decrypt(encrypted, passphrase) == b"plain"
    assert decrypt_with_passphrase(encrypted, [passphrase]) == b"plain"


def test_work_factor_18_is_written() -> None:
    assert WORK_FACTOR == 18
    encrypted = encrypt_with_passphrase(b"plain", "pass")
    assert encrypted.split(b"\n")[1].endswith(b" 18")
    assert decrypt_with_passphrase(encrypted, ["pass"]) == b"plain"


def test_the_age_program_opens_our_passphrase_file(tmp_path: Path) -> None:
    (tmp_path / "it.age").write_bytes(encrypt_with_passphrase(pattern(70_000), "correct horse", work_factor=LOW))
    with_terminal(["age", "-d", "-o", str(tmp_path / "it"), str(tmp_path / "it.age")], b"correct horse")
    assert (tmp_path / "it").read_bytes() == pattern(70_000)


def test_we_open_a_passphrase_file_of_the_age_program(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(pattern(70_000))
    with_terminal(["age", "-p", "-o", str(tmp_path / "it.age"), str(tmp_path / "it")], b"correct horse")
    assert decrypt_with_passphrase((tmp_path / "it.age").read_bytes(), ["correct horse"]) == pattern(70_000)


def test_we_open_every_job_and_manifest_of_the_original() -> None:
    secrets = yaml.load((BUCKET / "secrets.yml").read_text(), Loader=yaml.BaseLoader)  # a test reads its own file
    passphrases = [secret["passphrase"] for secret in reversed(secrets)]
    paths = [path for path in BUCKET.glob("objects/*/nimbus/**/*") if path.is_file()]
    encrypted = [path for path in paths if age_kind(path.read_bytes()[:200]) == "passphrase"]
    for path in encrypted:
        plain = gzip.decompress(decrypt_with_passphrase(path.read_bytes(), passphrases, name=path.name))
        assert b"sources:" in plain if path.suffix == ".yml" else b"," in plain
    assert [path.name for path in paths if path not in encrypted] == ["nimbus-000.yml"]
    assert len(encrypted) == 4


def test_passphrases_are_tried_in_order_until_one_fits() -> None:
    tried = []

    def passphrases() -> Iterator[str]:
        for passphrase in ("first", "second", "third"):
            tried.append(passphrase)
            yield passphrase

    encrypted = encrypt_with_passphrase(b"plain", "second", work_factor=LOW)
    assert decrypt_with_passphrase(encrypted, passphrases()) == b"plain"
    assert tried == ["first", "second"]


def test_no_fitting_passphrase_is_an_error_that_names_the_object() -> None:
    encrypted = encrypt_with_passphrase(b"plain", "right", work_factor=LOW)
    with pytest.raises(PassphraseNotFoundError, match=r"jobs/a/a-001\.yml: no passphrase"):
        decrypt_with_passphrase(encrypted, ["wrong", ""], name="jobs/a/a-001.yml")


def test_a_high_work_factor_is_refused_before_any_work() -> None:
    encrypted = encrypt_with_passphrase(b"plain", "pass", work_factor=LOW).replace(b" 2\n", b" 21\n", 1)
    with pytest.raises(IntegrityError, match="refuses work factor 21, the highest allowed is 20"):
        decrypt_with_passphrase(encrypted, ["pass"])


def test_the_caller_may_lower_the_work_factor() -> None:
    encrypted = encrypt_with_passphrase(b"plain", "pass", work_factor=3)
    with pytest.raises(IntegrityError, match="refuses work factor 3"):
        decrypt_with_passphrase(encrypted, ["pass"], 2)


def test_data_for_recipients_is_no_passphrase_file() -> None:
    recipients = parse_recipients(new_identity()[1], "recipients.txt")
    with pytest.raises(IntegrityError, match="not encrypted with a passphrase"):
        decrypt_with_passphrase(encrypt(b"plain", recipients), ["pass"])


@given(cut=st.integers(0, 66_000))
@settings(max_examples=80, deadline=None)
def test_a_truncated_passphrase_file_is_an_integrity_error(cut: int) -> None:
    encrypted = encrypt_with_passphrase(pattern(CHUNK + 10), "pass", work_factor=LOW)
    with pytest.raises(IntegrityError):
        decrypt_with_passphrase(encrypted[: cut % len(encrypted)], ["pass"])


@pytest.mark.parametrize("length", [0, 10, CHUNK, 2 * CHUNK])
@pytest.mark.parametrize("extra", [1, 16, CHUNK + 16])
def test_trailing_bytes_are_an_integrity_error(length: int, extra: int) -> None:
    encrypted = encrypt_with_passphrase(pattern(length), "pass", work_factor=LOW)
    with pytest.raises(IntegrityError):
        decrypt_with_passphrase(encrypted + bytes(extra), ["pass"])


def test_every_altered_byte_of_a_passphrase_file_is_noticed() -> None:
    encrypted = encrypt_with_passphrase(b"plain", "pass", work_factor=LOW)
    for place in range(len(encrypted)):
        altered = bytearray(encrypted)
        altered[place] ^= 1
        with pytest.raises((IntegrityError, PassphraseNotFoundError)):
            decrypt_with_passphrase(bytes(altered), ["pass"], 10)


def test_chunks_come_before_the_rest_was_read_and_only_when_authentic() -> None:
    encrypted = bytearray(encrypt_with_passphrase(pattern(3 * CHUNK), "pass", work_factor=LOW))
    encrypted[-CHUNK - 17] ^= 1
    reader = open_passphrase(io.BytesIO(bytes(encrypted)), ["pass"])
    assert reader.read(CHUNK) == pattern(3 * CHUNK)[:CHUNK]
    for _ in range(2):
        with pytest.raises(IntegrityError, match="truncated or altered"):
            reader.read(CHUNK)


def test_an_error_leaves_a_passphrase_file_without_its_end() -> None:
    encrypted = io.BytesIO()

    def fail() -> None:
        with PassphraseWriter(encrypted, "pass", work_factor=LOW) as writer:
            writer.write(b"plain")
            raise Broken

    with pytest.raises(Broken):
        fail()
    with pytest.raises(IntegrityError):
        decrypt_with_passphrase(encrypted.getvalue(), ["pass"])


def test_a_closed_passphrase_file_takes_no_more() -> None:
    encrypted = io.BytesIO()
    writer = PassphraseWriter(encrypted, "pass", work_factor=LOW)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    assert decrypt_with_passphrase(encrypted.getvalue(), ["pass"]) == b""


def test_gzip_reads_and_writes_through_passphrase_files() -> None:
    encrypted = io.BytesIO()
    with PassphraseWriter(encrypted, "pass", work_factor=LOW) as writer, gzip.open(writer, "wb") as zipped:
        zipped.write(pattern(200_000))
    reader = open_passphrase(io.BytesIO(encrypted.getvalue()), ["pass"])
    with gzip.open(reader) as unzipped:
        assert unzipped.read() == pattern(200_000)
