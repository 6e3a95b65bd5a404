"""Passphrase files of age, both ways and as streams: what jobs and manifests are kept in.

Written after the age specification (C2SP, age-encryption.org/v1) on `cryptography`, since pyrage fits scrypt's work
factor to the machine, wants whole buffers, and lets no thread run for seconds. One file key is wrapped by scrypt of the
passphrase; the payload is cut into chunks of 64 KiB, each sealed by ChaCha20-Poly1305 under a nonce of its number and
of whether it is the last.
"""

import hmac
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s3bu.crypto.header import INTRO, Header, Reader, Writer, decode_base64, encode_base64, read_header
from s3bu.errors import IntegrityError, PassphraseNotFoundError, S3buError

WORK_FACTOR = 18
"""The logarithm of scrypt's cost that is written, whatever the machine: 256 MiB and well under a second."""

MAX_WORK_FACTOR = 20
"""The highest that is read unless the caller allows more: 1 GiB and some seconds for each passphrase tried."""

CHUNK_NBYTES = 64 * 1024
_TAG_NBYTES = 16
_FILE_KEY_NBYTES = 16
_SALT_NBYTES = 16
_NONCE_NBYTES = 16
_KEY_NBYTES = 32
_SCRYPT_LABEL = b"age-encryption.org/v1/scrypt"
# hashlib's scrypt took longer, and cannot go past factor 20.
_STRETCH = """
import sys
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
factor, end = map(int, sys.argv[1:])
secret = sys.stdin.buffer.read()
scrypt = Scrypt(salt=secret[:end], length=32, n=1 << factor, r=8, p=1)
sys.stdout.buffer.write(scrypt.derive(secret[end:]))
"""
_FACTOR = re.compile(r"[1-9][0-9]{0,2}")


class PassphraseWriter:
    """Encrypts what is written to it into another writer, which it never closes.

    The header goes out at once, after scrypt has run. `close` seals the last chunk; leaving a `with` block does so only
    when no error went through it, so that what an error cut short can never be taken for whole.
    """

    def __init__(self, writer: Writer, passphrase: str, *, work_factor: int = WORK_FACTOR) -> None:
        file_key, nonce = os.urandom(_FILE_KEY_NBYTES), os.urandom(_NONCE_NBYTES)
        self._writer = writer
        self._cipher = ChaCha20Poly1305(_derive(file_key, salt=nonce, label=b"payload"))
        self._number = 0
        self._pending = bytearray()
        self._is_closed = False
        self._send(_new_header(file_key, passphrase, work_factor) + nonce)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_rest: object) -> None:
        if error_type is None:
            self.close()
        self._is_closed = True

    def write(self, plain: bytes, /) -> int:
        """Take the bytes, all of them; whole chunks are sealed and passed on."""
        if self._is_closed:
            raise ValueError("write to a closed passphrase file")
        self._pending += plain
        # what fills a chunk waits until more comes: only the last chunk may be sealed as the last
        while len(self._pending) > CHUNK_NBYTES:
            self._seal(bytes(self._pending[:CHUNK_NBYTES]), is_last=False)
            del self._pending[:CHUNK_NBYTES]
        return len(plain)

    def flush(self) -> None:
        """Do nothing: a chunk can only be sealed when it is full or the last."""

    def close(self) -> None:
        """Seal the last chunk, once; the other writer stays open."""
        if not self._is_closed:
            self._is_closed = True
            self._seal(bytes(self._pending), is_last=True)

    def _seal(self, plain: bytes, *, is_last: bool) -> None:
        sealed = self._cipher.encrypt(_chunk_nonce(self._number, is_last=is_last), plain, None)
        self._number += 1
        self._send(sealed)

    def _send(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            count = self._writer.write(bytes(rest))
            if count == 0:
                raise OSError("the writer takes no more bytes")
            rest = rest[len(rest) if count is None else count :]


def open_passphrase(
    reader: Reader, passphrases: Iterable[str], max_factor: int = MAX_WORK_FACTOR, *, name: str = "the object"
) -> io.BufferedReader:
    """Open a passphrase file for reading, with the first of the passphrases that fits, tried in the order given.

    The header is read and checked here, at the cost of scrypt for each passphrase tried. Each chunk is authentic when
    `read` returns it; that none is missing only the end of the stream (`b""`) says. `reader` stays open. `name` stands
    in the messages. Raises `PassphraseNotFoundError` when none fits, and `IntegrityError`, here or in `read`, for what
    is truncated, altered, not such a file, or asks for a work factor above `max_factor`.
    """
    header, rest = read_header(reader, name)
    file_key = _unwrap(header, passphrases, max_factor, name)
    _check_mac(header, file_key, name)
    return open_payload(reader, rest, file_key, name)


def open_payload(reader: Reader, start: bytes, file_key: bytes, name: str) -> io.BufferedReader:
    """Open the payload of an age file whose file key is known; `start` holds the bytes already read of it."""
    return io.BufferedReader(_Payload(reader, start, file_key, name), CHUNK_NBYTES)


def encrypt_with_passphrase(plain: bytes, passphrase: str, *, work_factor: int = WORK_FACTOR) -> bytes:
    """Encrypt a small text such as a job at once."""
    encrypted = io.BytesIO()
    with PassphraseWriter(encrypted, passphrase, work_factor=work_factor) as writer:
        writer.write(plain)
    return encrypted.getvalue()


def decrypt_with_passphrase(
    encrypted: bytes, passphrases: Iterable[str], max_factor: int = MAX_WORK_FACTOR, *, name: str = "the object"
) -> bytes:
    """Decrypt a small passphrase file at once, whole or not at all; errors are those of `open_passphrase`."""
    return open_passphrase(io.BytesIO(encrypted), passphrases, max_factor, name=name).read()


class _Payload(io.RawIOBase):
    """The plain bytes of a payload, one chunk at a time; once it has failed it goes on failing."""

    def __init__(self, reader: Reader, start: bytes, file_key: bytes, name: str) -> None:
        self._reader = reader
        self._sealed = bytearray(start)
        self._name = name
        self._fill(_NONCE_NBYTES)
        if len(self._sealed) < _NONCE_NBYTES:
            raise self._refusal()
        nonce = bytes(self._sealed[:_NONCE_NBYTES])
        del self._sealed[:_NONCE_NBYTES]
        self._cipher = ChaCha20Poly1305(_derive(file_key, salt=nonce, label=b"payload"))
        self._number = 0
        self._plain = memoryview(b"")
        self._has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._plain and not self._has_ended:
            self._plain = memoryview(self._next_chunk())
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._plain))
        view[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _next_chunk(self) -> bytes:
        length = CHUNK_NBYTES + _TAG_NBYTES
        # one byte more than a chunk shows whether it is the last
        self._fill(length + 1)
        is_last = len(self._sealed) <= length
        try:
            nonce = _chunk_nonce(self._number, is_last=is_last)
            plain = self._cipher.decrypt(nonce, bytes(self._sealed[:length]), None)
        except InvalidTag as error:
            raise self._refusal() from error
        if not plain and self._number:
            raise self._refusal()
        del self._sealed[:length]
        self._number += 1
        self._has_ended = is_last
        return plain

    def _fill(self, nbytes: int) -> None:
        while len(self._sealed) < nbytes:
            piece = self._reader.read(nbytes - len(self._sealed))
            if not piece:
                return
            self._sealed += piece

    def _refusal(self) -> IntegrityError:
        return IntegrityError(f"{self._name}: truncated or altered")


def _new_header(file_key: bytes, passphrase: str, work_factor: int) -> bytes:
    salt = os.urandom(_SALT_NBYTES)
    body = ChaCha20Poly1305(_stretch(passphrase, salt, work_factor)).encrypt(bytes(12), file_key, None)
    stanza = b"-> scrypt %s %d\n%s\n" % (encode_base64(salt), work_factor, encode_base64(body))
    authenticated = INTRO + stanza + b"---"
    return authenticated + b" " + encode_base64(_mac(file_key, authenticated)) + b"\n"


def _unwrap(header: Header, passphrases: Iterable[str], max_factor: int, name: str) -> bytes:
    try:
        salt, work_factor = _scrypt_arguments(header)
    except ValueError as error:
        raise IntegrityError(f"{name}: {error}") from error
    if work_factor > max_factor:
        raise IntegrityError(
            f"{name}: refuses work factor {work_factor}, the highest allowed is {max_factor}",
            hint="if the file is yours, --max-work-factor allows up to 22",
        )
    for passphrase in passphrases:
        try:
            cipher = ChaCha20Poly1305(_stretch(passphrase, salt, work_factor))
            return cipher.decrypt(bytes(12), header.stanzas[0].body, None)
        except InvalidTag:
            continue
    raise PassphraseNotFoundError(
        f"{name}: no passphrase at hand opens it", hint="add the secret it was written with to secrets.yml"
    )


def _scrypt_arguments(header: Header) -> tuple[bytes, int]:
    if not header.has_passphrase:
        raise ValueError("not encrypted with a passphrase")
    if len(header.stanzas) > 1:
        raise ValueError("a passphrase is not alone in its age header")
    (stanza,) = header.stanzas
    # a longer body could be made to open under several passphrases
    if len(stanza.arguments) != 2 or len(stanza.body) != _FILE_KEY_NBYTES + _TAG_NBYTES:
        raise ValueError("its age header is broken: a scrypt stanza of the wrong form")
    salt = decode_base64(stanza.arguments[0].encode())
    if len(salt) != _SALT_NBYTES or not _FACTOR.fullmatch(stanza.arguments[1]):
        raise ValueError("its age header is broken: a scrypt stanza of the wrong form")
    return salt, int(stanza.arguments[1])


def _check_mac(header: Header, file_key: bytes, name: str) -> None:
    if not hmac.compare_digest(_mac(file_key, header.authenticated), header.mac):
        raise IntegrityError(f"{name}: its age header was altered")


def _stretch(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    """Run scrypt in a process of its own.

    It takes 256 MiB at factor 18: there it adds to nobody's memory, gives all of it back, can be out of memory without
    the run being killed for it, and ends at once with Ctrl-C, which a call into a library does not.
    """
    secret = _SCRYPT_LABEL + salt + passphrase.encode()
    command = [sys.executable, "-P", "-c", _STRETCH, str(work_factor), str(len(_SCRYPT_LABEL) + len(salt))]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, and the secret goes through a pipe
            command,
            input=secret,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise S3buError(f"cannot start a process for scrypt: {(error.strerror or str(error)).lower()}") from error
    if done.returncode or len(done.stdout) != _KEY_NBYTES:
        nbytes = 1024 << work_factor
        raise S3buError(
            f"work factor {work_factor} takes {nbytes >> 20} MiB of memory, which could not be had",
            hint="close something else, or look for a limit on the memory of processes",
        )
    return done.stdout


def _mac(file_key: bytes, authenticated: bytes) -> bytes:
    return hmac.digest(_derive(file_key, salt=None, label=b"header"), authenticated, "sha256")


def _derive(file_key: bytes, *, salt: bytes | None, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=label).derive(file_key)


def _chunk_nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])
