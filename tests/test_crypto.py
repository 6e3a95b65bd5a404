"""Encryption to recipients and with passphrases, held against pyrage, the `age` program and the original's files."""

import base64
import gzip
import hashlib
import io
import os
import pty
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3bu.crypto import MAX_RECIPIENTS, decrypt_stream, encrypt, encrypt_stream
from s3bu.crypto.header import INTRO, MAX_HEADER_NBYTES, age_kind, read_header
from s3bu.crypto.identities import Identity, new_identity, parse_identities
from s3bu.crypto.passphrase import (
    WORK_FACTOR,
    PassphraseWriter,
    decrypt_with_passphrase,
    encrypt_with_passphrase,
    open_passphrase,
)
from s3bu.crypto.recipients import Recipient, fingerprint, parse_recipients
from s3bu.errors import IntegrityError, KeyringError, NoIdentityError, PassphraseNotFoundError

LOW = 2
BUCKET = Path(__file__).parent / "interop/original-bucket"
CHUNK = 65536
LENGTHS = st.one_of(
    st.sampled_from([chunks * CHUNK + more for chunks in range(4) for more in (-1, 0, 1) if chunks or more >= 0]),
    st.integers(0, 5 * CHUNK),
)

PLUGIN = """#!{python}
import os, sys

def receive():
    words, body = sys.stdin.readline().split()[1:], ""
    while True:
        line = sys.stdin.readline().strip()
        body += line
        if len(line) < 64:
            return words, body

def say(*words, body=""):
    print("->", *words)
    print(body, flush=True)

received = []
while not received or received[-1][0][0] != "done":
    received.append(receive())
if os.environ.get("TOY_FAILS"):
    sys.exit(3)
for words, body in received:
    if words[0] == "wrap-file-key":
        say("recipient-stanza", "0", "toy", body=body)
        receive()
    if words[0] == "recipient-stanza" and words[2] == "toy":
        say("file-key", words[1], body=body)
        receive()
say("done")
"""


@pytest.fixture(scope="module")
def secret_and_public() -> tuple[str, str]:
    return new_identity()


@pytest.fixture
def recipients(secret_and_public: tuple[str, str]) -> tuple[Recipient, ...]:
    return parse_recipients(secret_and_public[1], "recipients.txt")


@pytest.fixture
def identities(secret_and_public: tuple[str, str]) -> tuple[Identity, ...]:
    return parse_identities(secret_and_public[0], "identities.txt")


@pytest.fixture
def toy_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "age-plugin-toy"
    program.write_text(PLUGIN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def opened(encrypted: bytes, identities: tuple[Identity, ...]) -> bytes:
    out = io.BytesIO()
    decrypt_stream(io.BytesIO(encrypted), out, identities)
    return out.getvalue()


def pattern(length: int) -> bytes:
    return hashlib.shake_128(b"plain").digest(length)


def bech32(prefix: str, content: bytes) -> str:
    """BIP 173, without its bound on length."""
    number, nbits = int.from_bytes(content), len(content) * 8
    count = -(-nbits // 5)
    number <<= count * 5 - nbits
    values = [number >> 5 * index & 31 for index in reversed(range(count))]
    expanded = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    check = 1
    for value in [*expanded, *values, 0, 0, 0, 0, 0, 0]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    values += [(check ^ 1) >> 5 * index & 31 for index in reversed(range(6))]
    return prefix + "1" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[value] for value in values)


def ssh_key(directory: Path, *options: str) -> tuple[str, str]:
    path = directory / "key"
    subprocess.run(["ssh-keygen", "-q", *options, "-C", "someone@home", "-f", path], check=True)
    return path.read_text(), path.with_suffix(".pub").read_text()


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


# recipients and identities


def test_recipients_are_parsed_among_comments_and_empty_lines(secret_and_public: tuple[str, str]) -> None:
    text = f"# created: today\r\n\r\n  {secret_and_public[1]}  \n\n"
    (recipient,) = parse_recipients(text, "recipients.txt")
    assert (recipient.text, recipient.kind) == (secret_and_public[1], "x25519")


def test_a_file_of_comments_alone_names_no_recipient() -> None:
    assert parse_recipients("# nobody\n", "recipients.txt") == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "not a recipient"),
        ("age1", "not a recipient"),
        ("age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", "mistyped or cut off"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "mistyped or cut off"),
        ("ssh-dss AAAAB3NzaC1kc3MAAAA", "not a recipient"),
        ("age1pq1qqqqqqqqqqqqqq", "post-quantum"),
        (bech32("age1../../bin/sh", b"content"), "not a recipient"),
        ("age1\x00", "not a recipient"),
    ],
)
def test_a_bad_recipient_is_refused_with_its_line(line: str, says: str) -> None:
    with pytest.raises(KeyringError, match=says) as caught:
        parse_recipients(f"# first\n\n{line}\n", "repo/recipients.txt")
    assert caught.value.message.startswith("repo/recipients.txt, line 3: ")


@pytest.mark.parametrize("make", [str, str.lower])
def test_an_identity_among_recipients_is_refused_and_not_repeated(
    make: Callable[[str], str], secret_and_public: tuple[str, str]
) -> None:
    secret = make(secret_and_public[0])
    with pytest.raises(KeyringError, match="line 1: an identity, which is secret") as caught:
        parse_recipients(secret, "recipients.txt")
    assert secret not in f"{caught.value.message} {caught.value.hint}"


def test_a_huge_recipient_file_is_refused_at_once(secret_and_public: tuple[str, str]) -> None:
    with pytest.raises(KeyringError, match="longer than"):
        parse_recipients(f"{secret_and_public[1]}\n" * 100_000, "recipients.txt")


def test_fingerprints_ignore_order_repetition_and_comments() -> None:
    (_, first), (_, second) = new_identity(), new_identity()
    one = fingerprint(parse_recipients(f"{first}\n{second}\n", "a"))
    other = fingerprint(parse_recipients(f"{second}\n# again\n{first}\n{second}\n", "b"))
    assert one == other


def test_a_fingerprint_is_the_documented_digest(recipients: tuple[Recipient, ...]) -> None:
    digest = base64.b32encode(hashlib.sha256(f"{recipients[0].text}\n".encode()).digest()).decode()
    assert fingerprint(recipients) == "-".join(digest[start : start + 4] for start in range(0, 20, 4))


def test_fingerprints_of_different_sets_differ(recipients: tuple[Recipient, ...]) -> None:
    more = (*recipients, *parse_recipients(new_identity()[1], "b"))
    assert fingerprint(recipients) != fingerprint(more)


def test_an_identity_tells_its_recipient_and_not_its_secret(secret_and_public: tuple[str, str]) -> None:
    secret, public = secret_and_public
    (identity,) = parse_identities(f"# public key: {public}\n{secret}\n", "identities.txt")
    assert identity.recipient == public
    assert secret not in repr(identity)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing\n", "holds no identity"),
        ("AGE-SECRET-KEY-1QQQQQQQQ", "line 1: an identity that is mistyped"),
        ("AGE-SECRET-KEY-PQ-1QQQQ", "post-quantum identities"),
        ("\n" + new_identity()[1], "line 2: a recipient stands where"),
        ("hunter2", "line 1: not an identity"),
        ("age-encryption.org/v1\n-> scrypt", "encrypted with a passphrase"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", "encrypted with a passphrase"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "line 1: an identity that is mistyped"),
        ("AGE-PLUGIN-TOY-1QQQQ", "line 1: an identity that is mistyped"),
        (bech32("age-plugin-../sh-", b"content").upper(), "line 1: not an identity"),
    ],
)
def test_a_bad_identity_file_is_refused_without_repeating_it(text: str, says: str) -> None:
    with pytest.raises(KeyringError, match=says) as caught:
        parse_identities(text, "identities.txt")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("options", [("-t", "ed25519"), ("-t", "rsa", "-b", "2048"), ("-t", "rsa", "-m", "PEM")])
def test_ssh_keys_encrypt_and_decrypt_beside_age_keys(
    options: tuple[str, ...], tmp_path: Path, secret_and_public: tuple[str, str]
) -> None:
    private, public = ssh_key(tmp_path, *options, "-N", "")
    (recipient,) = parse_recipients(public, "recipients.txt")
    assert recipient.text == " ".join(public.split()[:2])
    identities = parse_identities(f"# old\n{secret_and_public[0]}\n{private}", "identities.txt")
    assert [identity.kind for identity in identities] == ["x25519", "ssh"]
    assert opened(encrypt(b"plain", [recipient]), identities[1:]) == b"plain"


@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_an_ssh_key_with_a_passphrase_is_refused_with_a_hint(form: str, tmp_path: Path) -> None:
    private, _public = ssh_key(tmp_path, "-t", "rsa", "-m", form, "-N", "a passphrase")
    with pytest.raises(KeyringError, match="with a passphrase") as caught:
        parse_identities(private, "identities.txt")
    assert "ssh-keygen -p" in str(caught.value.hint)


def test_hardware_recipients_are_encrypted_to() -> None:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    text = bech32("age1tag", point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    (recipient,) = parse_recipients(text, "recipients.txt")
    assert recipient.kind == "tag"
    assert b"-> p256tag " in encrypt(b"plain", [recipient])


def test_post_quantum_recipients_work_alone_but_not_beside_others(recipients: tuple[Recipient, ...]) -> None:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    public = bytes(1184) + point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    post_quantum = parse_recipients(bech32("age1tagpq", public), "recipients.txt")
    assert b"-> mlkem768p256tag " in encrypt(b"plain", post_quantum)
    with pytest.raises(KeyringError, match="cannot be used beside others"):
        encrypt(b"plain", recipients + post_quantum)


@pytest.mark.usefixtures("toy_plugin")
def test_plugins_encrypt_and_decrypt() -> None:
    recipients = parse_recipients(bech32("age1toy", b"key"), "recipients.txt")
    identities = parse_identities(bech32("age-plugin-toy-", b"key").upper(), "identities.txt")
    assert opened(encrypt(b"plain", recipients), identities) == b"plain"


@pytest.mark.usefixtures("toy_plugin")
def test_a_plugin_that_fails_is_named_and_no_corruption(monkeypatch: pytest.MonkeyPatch) -> None:
    recipients = parse_recipients(bech32("age1toy", b"key"), "recipients.txt")
    identities = parse_identities(bech32("age-plugin-toy-", b"key").upper(), "identities.txt")
    encrypted = encrypt(b"plain", recipients)
    monkeypatch.setenv("TOY_FAILS", "1")
    with pytest.raises(NoIdentityError, match="age-plugin-toy"):
        opened(encrypted, identities)
    with pytest.raises(KeyringError, match="age-plugin-toy"):
        encrypt(b"plain", recipients)


def test_an_absent_plugin_is_named_when_it_is_needed(recipients: tuple[Recipient, ...]) -> None:
    absent = parse_recipients(bech32("age1absent", b"key"), "recipients.txt")
    with pytest.raises(KeyringError, match="age-plugin-absent is not on the PATH"):
        encrypt(b"plain", absent)
    with pytest.raises(KeyringError, match="age-plugin-absent is not on the PATH"):
        opened(
            encrypt(b"plain", recipients),
            parse_identities(bech32("age-plugin-absent-", b"key").upper(), "identities.txt"),
        )


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


# passphrases


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


def test_data_for_recipients_is_no_passphrase_file(recipients: tuple[Recipient, ...]) -> None:
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
