"""Data encrypted to recipients, held against the `age` program and the original's contents, and headers and bounds."""

import gzip
import hashlib
import io
import subprocess
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3bu.crypto import MAX_RECIPIENTS, decrypt_stream, encrypt, encrypt_stream
from s3bu.crypto.header import INTRO, MAX_HEADER_NBYTES, MAX_STANZAS, age_kind, read_header
from s3bu.crypto.identities import Identity, new_identity, parse_identities
from s3bu.crypto.passphrase import (
    encrypt_with_passphrase,
)
from s3bu.crypto.recipients import Recipient, parse_recipients
from s3bu.errors import IntegrityError, KeyringError, NoIdentityError

LOW = 2
BUCKET = Path(__file__).parent / "interop/original-bucket"
CHUNK = 65536
LENGTHS = st.one_of(
    st.sampled_from([chunks * CHUNK + more for chunks in range(4) for more in (-1, 0, 1) if chunks or more >= 0]),
    st.integers(0, 5 * CHUNK),
)


@pytest.fixture(scope="module")
def secret_and_public() -> tuple[str, str]:
    return new_identity()


@pytest.fixture
def recipients(secret_and_public: tuple[str, str]) -> tuple[Recipient, ...]:
    return parse_recipients(secret_and_public[1], "recipients.txt")


@pytest.fixture
def identities(secret_and_public: tuple[str, str]) -> tuple[Identity, ...]:
    return parse_identities(secret_and_public[0], "identities.txt")


def opened(encrypted: bytes, identities: tuple[Identity, ...]) -> bytes:
    out = io.BytesIO()
    decrypt_stream(io.BytesIO(encrypted), out, identities)
    return out.getvalue()


def pattern(length: int) -> bytes:
    return hashlib.shake_128(b"plain").digest(length)


# data


@given(length=LENGTHS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_both_ways_to_encrypt_are_opened_by_any_recipient(
    length: int, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    plain = pattern(length)
    both = (*parse_recipients(new_identity()[1], "other"), *recipients)
    streamed = io.BytesIO()
    encrypt_stream(io.BytesIO(plain), streamed, both)
    assert opened(streamed.getvalue(), identities) == plain
    assert opened(encrypt(plain, both), identities) == plain


@pytest.mark.parametrize("length", [0, 1, CHUNK, 3 * CHUNK + 1])
def test_the_age_program_opens_our_data(length: int, tmp_path: Path, secret_and_public: tuple[str, str]) -> None:
    (tmp_path / "identities.txt").write_text(secret_and_public[0])
    encrypted = encrypt(pattern(length), parse_recipients(secret_and_public[1], "recipients.txt"))
    command = ["age", "-d", "-i", str(tmp_path / "identities.txt")]
    assert subprocess.run(command, input=encrypted, capture_output=True, check=True).stdout == pattern(length)


@pytest.mark.parametrize("length", [0, 1, CHUNK, 3 * CHUNK + 1])
def test_we_open_data_of_the_age_program(
    length: int, secret_and_public: tuple[str, str], identities: tuple[Identity, ...]
) -> None:
    command = ["age", "-r", secret_and_public[1]]
    encrypted = subprocess.run(command, input=pattern(length), capture_output=True, check=True).stdout
    assert opened(encrypted, identities) == pattern(length)


def test_we_open_every_content_of_the_original() -> None:
    identities = parse_identities((BUCKET / "identities.txt").read_text(), "identities.txt")
    paths = [path for path in (BUCKET / "objects/data").rglob("*") if path.is_file()]
    for path in paths:
        plain = opened(path.read_bytes(), identities)
        forms = [plain, gzip.decompress(plain)] if plain.startswith(b"\x1f\x8b") else [plain]
        assert path.name in [hashlib.sha256(form).hexdigest() for form in forms]
    assert len(paths) > 30


def test_encrypting_to_nobody_is_an_error() -> None:
    with pytest.raises(KeyringError, match="no recipients"):
        encrypt(b"plain", [])


def test_the_most_recipients_still_make_a_header_that_is_read() -> None:
    texts = [new_identity() for _ in range(MAX_RECIPIENTS)]
    recipients = parse_recipients("\n".join(public for _, public in texts), "recipients.txt")
    assert opened(encrypt(b"plain", recipients), parse_identities(texts[-1][0], "identities.txt")) == b"plain"
    with pytest.raises(KeyringError, match=f"{MAX_RECIPIENTS + 1} recipients"):
        encrypt(b"plain", (*recipients, *parse_recipients(new_identity()[1], "one more")))


def test_another_identity_does_not_open_it(recipients: tuple[Recipient, ...]) -> None:
    other = parse_identities(new_identity()[0], "identities.txt")
    with pytest.raises(NoIdentityError, match="data/ab/cd: no identity"):
        decrypt_stream(io.BytesIO(encrypt(b"plain", recipients)), io.BytesIO(), other, name="data/ab/cd")


def test_without_identities_nothing_opens(recipients: tuple[Recipient, ...]) -> None:
    with pytest.raises(NoIdentityError):
        opened(encrypt(b"plain", recipients), ())


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_truncated_data_is_an_integrity_error(
    share: float, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    encrypted = encrypt(pattern(CHUNK + 10), recipients)
    with pytest.raises(IntegrityError):
        opened(encrypted[: int(share * len(encrypted))], identities)


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_altered_data_never_yields_other_bytes(
    place: int, bit: int, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    encrypted = bytearray(encrypt(bytes(200), recipients))
    encrypted[place % len(encrypted)] ^= 1 << bit
    with pytest.raises((IntegrityError, NoIdentityError)):
        opened(bytes(encrypted), identities)


@pytest.mark.parametrize(
    "content",
    [b"", b"age", b"age-encryption.org/v1", b"age-encryption.org/v2\n-> X\n", b"\x1f\x8b\x08", bytes(100_000)],
)
def test_what_is_not_age_is_an_integrity_error(content: bytes, identities: tuple[Identity, ...]) -> None:
    with pytest.raises(IntegrityError, match="not an age file"):
        opened(content, identities)


def test_a_passphrase_file_is_no_data(identities: tuple[Identity, ...]) -> None:
    with pytest.raises(IntegrityError, match="with a passphrase where recipients belong"):
        opened(encrypt_with_passphrase(b"plain", "pass", work_factor=LOW), identities)


class Broken(Exception):
    """No error of any library."""


class BrokenReader:
    def __init__(self, good: bytes) -> None:
        self.good = io.BytesIO(good)
        self.error = Broken("reading")

    def read(self, size: int = -1, /) -> bytes:
        chunk = self.good.read(size)
        if not chunk:
            raise self.error
        return chunk


class BrokenWriter:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def write(self, _chunk: bytes, /) -> int:
        raise self.error


class SlowWriter:
    """Takes at most 1,000 bytes at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def write(self, chunk: bytes, /) -> int:
        self.taken += chunk[:1000]
        return min(1000, len(chunk))


@pytest.mark.parametrize("length", [0, 10, 300_000])
def test_an_error_of_the_reader_comes_out_of_encryption_as_it_is(
    length: int, recipients: tuple[Recipient, ...]
) -> None:
    reader = BrokenReader(pattern(length))
    with pytest.raises(Broken) as caught:
        encrypt_stream(reader, io.BytesIO(), recipients)
    assert caught.value is reader.error


@pytest.mark.parametrize("length", [0, 10, 300_000])
@pytest.mark.parametrize("error", [Broken("writing"), OSError(28, "no space"), KeyboardInterrupt()])
def test_an_error_of_the_writer_comes_out_of_encryption_as_it_is(
    length: int, error: BaseException, recipients: tuple[Recipient, ...]
) -> None:
    with pytest.raises(type(error)) as caught:
        encrypt_stream(io.BytesIO(pattern(length)), BrokenWriter(error), recipients)
    assert caught.value is error


@pytest.mark.parametrize("kept", [0, 30, 250, 200_000])
def test_an_error_of_the_reader_comes_out_of_decryption_as_it_is(
    kept: int, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    reader = BrokenReader(encrypt(pattern(300_000), recipients)[:kept])
    with pytest.raises(Broken) as caught:
        decrypt_stream(reader, io.BytesIO(), identities)
    assert caught.value is reader.error


@pytest.mark.parametrize("length", [10, 300_000])
@pytest.mark.parametrize("error", [Broken("writing"), OSError(28, "no space"), KeyboardInterrupt()])
def test_an_error_of_the_writer_comes_out_of_decryption_as_it_is(
    length: int, error: BaseException, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    encrypted = encrypt(pattern(length), recipients)
    with pytest.raises(type(error)) as caught:
        decrypt_stream(io.BytesIO(encrypted), BrokenWriter(error), identities)
    assert caught.value is error


def test_a_writer_that_takes_a_part_is_offered_the_rest(
    recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    encrypted, plain = SlowWriter(), SlowWriter()
    encrypt_stream(io.BytesIO(pattern(200_000)), encrypted, recipients)
    decrypt_stream(io.BytesIO(bytes(encrypted.taken)), plain, identities)
    assert plain.taken == pattern(200_000)


def test_many_threads_may_encrypt_and_decrypt_at_once(
    recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        plain, encrypted = bytes([number]) * 100_000, io.BytesIO()
        encrypt_stream(io.BytesIO(plain), encrypted, recipients)
        results[number] = opened(encrypted.getvalue(), identities) + opened(encrypt(plain, recipients), identities)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: bytes([number]) * 200_000 for number in range(8)}


# headers


def stanzas(count: int) -> bytes:
    return b"-> X25519 AAAA\nAAAA\n" * count


@pytest.mark.parametrize(
    "start",
    [
        INTRO + b"-> " + b"A" * 5_000_000,
        INTRO + b"-> a\n" + (b"A" * 64 + b"\n") * 100_000,
        INTRO + stanzas(100_000) + b"--- " + b"A" * 43 + b"\n",
        INTRO + stanzas(1) + b"---" + b"A" * 5_000_000 + b"\n",
    ],
    ids=["no newline", "endless stanza", "endless stanzas", "endless last line"],
)
def test_a_header_without_bound_is_refused_early_and_in_little_memory(start: bytes) -> None:
    reader = io.BytesIO(start)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="longer than"):
            read_header(reader, "the object")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.tell() <= MAX_HEADER_NBYTES + 4096
    assert peak < 4 * MAX_HEADER_NBYTES


@given(content=st.binary(max_size=300), tail=st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_bytes_make_a_header_or_an_integrity_error(content: bytes, tail: bytes) -> None:
    try:
        header, rest = read_header(io.BytesIO(INTRO + b"-> " + content + b"\n--- " + tail + b"\n"), "x")
    except IntegrityError:
        return
    assert header.stanzas
    assert (header.text + rest).startswith(INTRO + b"-> " + content[:1])


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_header_is_found_in_pieces_of_any_size(
    size: int, recipients: tuple[Recipient, ...], identities: tuple[Identity, ...]
) -> None:
    class Trickle(io.BytesIO):
        def read(self, wanted: int | None = -1, /) -> bytes:
            return super().read(min(size, wanted or size))

    out = io.BytesIO()
    decrypt_stream(Trickle(encrypt(pattern(10_000), recipients)), out, identities)
    assert out.getvalue() == pattern(10_000)


def test_the_kind_of_an_age_file_shows_in_its_first_200_bytes(recipients: tuple[Recipient, ...]) -> None:
    assert age_kind(encrypt(b"plain", recipients)[:200]) == "recipients"
    assert age_kind(encrypt_with_passphrase(b"plain", "pass", work_factor=LOW)[:200]) == "passphrase"


@pytest.mark.parametrize("start", [b"", b"sources:\n", b"\x1f\x8b", b"-----BEGIN AGE ENCRYPTED FILE-----"])
def test_other_files_are_no_age(start: bytes) -> None:
    assert age_kind(start) is None


@pytest.mark.parametrize("start", [b"age-encryption.org/v2\n", b"age-encryption.org/v1\r\n", b"age-encryption.org/v1"])
def test_a_broken_age_file_is_not_taken_for_a_plain_one(start: bytes) -> None:
    assert age_kind(start) == "recipients"


@pytest.mark.parametrize(
    ("count", "error", "words"),
    [
        (MAX_STANZAS, NoIdentityError, "no identity"),
        (MAX_STANZAS + 1, IntegrityError, "more than 1,500 stanzas"),
        (20_000, IntegrityError, "more than 1,500 stanzas"),
    ],
)
def test_a_header_of_too_many_recipients_is_refused_before_a_library_takes_minutes_for_it(
    count: int, error: type[Exception], words: str
) -> None:
    header = INTRO + b"-> a\n\n" * count + b"--- " + b"A" * 43 + b"\n"
    with pytest.raises(error, match=words):
        decrypt_stream(io.BytesIO(header + bytes(64)), io.BytesIO(), parse_identities(new_identity()[0], "here"))
