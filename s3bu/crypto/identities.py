"""Identities: the secret keys that open data, as an identity file holds them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from s3bu.crypto.library import pyrage
from s3bu.errors import KeyringError

_PLUGIN_LINE = re.compile(r"AGE-PLUGIN-([A-Z0-9+._-]+)-1[AC-HJ-NP-Z02-9]*")
_KEY_BOUND = 32 * 1024
"""No ssh key is longer, of RSA with 16,384 bits neither; pyrage takes time by the square of what looks like one."""
_ENCRYPTED_STARTS = ("age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE-----")


@dataclass(frozen=True, slots=True)
class Identity:
    """One secret key; neither its text nor its `repr` tells the secret.

    `kind` is `x25519`, `ssh` or `plugin`. `recipient` is its public side, known for `x25519` alone. `key` is what
    pyrage made of it, and `plugin` the name of the program `age-plugin-…` that must be there to decrypt.
    """

    kind: str
    recipient: str | None
    key: Any = field(repr=False, compare=False)
    plugin: str | None = None


def parse_identities(text: str, origin: str) -> tuple[Identity, ...]:
    """Return the identities of a file: lines of age, `#` comments, and ssh private keys as PEM blocks.

    `origin` stands in the messages. Raises `KeyringError` for a file without any, for one that is itself encrypted, and
    for a bad line or block, with its number and never its text.
    """
    if text.lstrip().startswith(_ENCRYPTED_STARTS):
        raise KeyringError(
            f"{origin}: encrypted with a passphrase, which is not supported here", hint="decrypt it with `age -d` first"
        )
    identities = tuple(_identity(block, f"{origin}, line {number}") for number, block in _blocks(text))
    if not identities:
        raise KeyringError(f"{origin}: holds no identity")
    return identities


def new_identity() -> tuple[str, str]:
    """Make a new X25519 identity: its secret text and its recipient."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each line that counts; a PEM block comes as one, also when its end is missing."""
    block: list[str] = []
    started = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if block or line.startswith("-----BEGIN "):
            started = started if block else number
            block.append(line)
            if line.startswith("-----END "):
                yield started, "\n".join(block) + "\n"
                block = []
        elif line and not line.startswith("#"):
            yield number, line
    if block:
        yield started, "\n".join(block) + "\n"


def _identity(block: str, place: str) -> Identity:
    if len(block) > _KEY_BOUND:
        raise KeyringError(f"{place}: longer than any identity")
    try:
        if block.startswith("-----BEGIN "):
            return Identity("ssh", None, pyrage.ssh.Identity.from_buffer(block.encode()))
        if plugin := _PLUGIN_LINE.fullmatch(block):
            key = pyrage.plugin.Identity.from_str(block)
            return Identity("plugin", None, key, plugin=plugin[1].lower())
        if block.startswith("AGE-SECRET-KEY-1"):
            key = pyrage.x25519.Identity.from_str(block)
            return Identity("x25519", str(key.to_public()), key)
    except pyrage.IdentityError as error:
        raise _refusal(place, str(error)) from error
    raise _refusal_of_line(block, place)


def _refusal(place: str, reason: str) -> KeyringError:
    # pyrage tells an ssh key with a passphrase from a broken one by its text alone
    if "must be decrypted" in reason or "Encrypted" in reason:
        return KeyringError(
            f"{place}: an ssh key with a passphrase, which is not supported",
            hint="make a copy without one by `ssh-keygen -p`, or use an age identity",
        )
    return KeyringError(f"{place}: an identity that is mistyped, cut off or of an unsupported kind")


def _refusal_of_line(line: str, place: str) -> KeyringError:
    if line.startswith("AGE-SECRET-KEY-PQ-1"):
        return KeyringError(f"{place}: post-quantum identities (AGE-SECRET-KEY-PQ-1) are not supported")
    if line.startswith(("age1", "ssh-")):
        return KeyringError(f"{place}: a recipient stands where an identity belongs")
    return KeyringError(f"{place}: not an identity", hint="identities of age begin with AGE-SECRET-KEY-1")
