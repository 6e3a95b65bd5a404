"""Recipients: the public keys that data is encrypted to, as the lines of a file name them."""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from s3bu.crypto.library import pyrage
from s3bu.errors import KeyringError

MAX_TEXT_LENGTH = 64 * 1024
"""Longest text that is parsed, in characters: `repo/recipients.txt` may have been written by anyone."""

_AGE_LINE = re.compile(r"(age|age1[a-z0-9+._-]+)1[ac-hj-np-z02-9]+")
_SSH_LINE = re.compile(r"(ssh-ed25519|ssh-rsa)\s+([A-Za-z0-9+/]+={0,2})(\s.*)?")
_SECRET_STARTS = ("AGE-SECRET-KEY-", "AGE-PLUGIN-", "-----BEGIN ")
_NATIVE = {
    "age": ("x25519", pyrage.x25519.Recipient),
    "age1tag": ("tag", pyrage.tag.Recipient),
    "age1tagpq": ("tagpq", pyrage.tagpq.Recipient),
}


@dataclass(frozen=True, slots=True)
class Recipient:
    """One public key. Two are equal when their canonical `text` is.

    `kind` is `x25519`, `ssh-ed25519`, `ssh-rsa`, `tag`, `tagpq` or `plugin`; the original knows only `x25519`. `key` is
    what pyrage made of it, and `plugin` the name of the program `age-plugin-…` that must be there to encrypt.
    """

    text: str
    kind: str
    key: Any = field(repr=False, compare=False)
    plugin: str | None = None


def parse_recipients(text: str, origin: str) -> tuple[Recipient, ...]:
    """Return the recipients that the lines of a recipient file name, in their order; there may be none.

    Empty lines and lines that begin with `#` are skipped, the comment behind an ssh key is dropped. `origin` stands in
    the messages. Raises `KeyringError` that gives the number of the first bad line and never its text, which may be a
    secret that was put there by mistake.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise KeyringError(f"{origin}: longer than {MAX_TEXT_LENGTH} characters")
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return tuple(
        _recipient(line, f"{origin}, line {number}") for number, line in lines if line and not line.startswith("#")
    )


def fingerprint(recipients: Iterable[Recipient]) -> str:
    """Return a name of 20 letters and digits, in five groups, for a set of recipients, whatever their order.

    It is the first 100 bits of SHA-256 over the sorted canonical texts, each ended by a newline, in base32.
    """
    texts = sorted({recipient.text for recipient in recipients})
    digest = hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).digest()
    letters = base64.b32encode(digest).decode()[:20]
    return "-".join(letters[start : start + 4] for start in range(0, 20, 4))


def _recipient(line: str, place: str) -> Recipient:
    if line.upper().startswith(_SECRET_STARTS):
        raise KeyringError(
            f"{place}: an identity, which is secret, stands where a recipient belongs",
            hint="take it out, and replace that identity by a new one if anyone else may have seen it",
        )
    try:
        if ssh := _SSH_LINE.fullmatch(line):
            return _ssh_recipient(ssh[1], ssh[2])
        if age := _AGE_LINE.fullmatch(line):
            return _age_recipient(line, age[1], place)
    except pyrage.RecipientError as error:
        raise KeyringError(f"{place}: a recipient that is mistyped or cut off") from error
    raise KeyringError(
        f"{place}: not a recipient", hint="recipients begin with age1, ssh-ed25519 or ssh-rsa, one in a line"
    )


def _ssh_recipient(kind: str, key: str) -> Recipient:
    text = f"{kind} {key}"
    return Recipient(text, kind, pyrage.ssh.Recipient.from_str(text))


def _age_recipient(line: str, prefix: str, place: str) -> Recipient:
    if prefix == "age1pq":
        raise KeyringError(
            f"{place}: post-quantum recipients of this kind (age1pq1) cannot be encrypted to",
            hint="use an X25519 recipient (age1 without a second name)",
        )
    if prefix in _NATIVE:
        kind, make = _NATIVE[prefix]
        key = make.from_str(line)
        return Recipient(str(key), kind, key)
    key = pyrage.plugin.Recipient.from_str(line)
    return Recipient(str(key), "plugin", key, plugin=prefix.removeprefix("age1"))
