"""Recipients and identities: what is taken for one, and that each kind encrypts and decrypts."""

import base64
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3bu.crypto import decrypt_stream, encrypt
from s3bu.crypto.identities import Identity, new_identity, parse_identities
from s3bu.crypto.recipients import Recipient, fingerprint, parse_recipients
from s3bu.errors import KeyringError, NoIdentityError

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
        ("\nage1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "line 2: a recipient stands where"),
        ("hunter2", "line 1: not an identity"),
        ("age-encryption.org/v1\n-> scrypt", "encrypted with a passphrase"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", "encrypted with a passphrase"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "line 1: an identity that is mistyped"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n" + "AAAA\n" * 100_000, "line 1: longer than any identity"),
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
