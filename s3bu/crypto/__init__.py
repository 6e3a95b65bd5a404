"""Data encrypted to recipients and opened by identities: age by pyrage, with errors and bounds of our own.

Its neighbours: `recipients` and `identities` parse keys, `passphrase` keeps jobs and manifests, `header` reads what an
age file says of itself. All of it is safe from any thread. pyrage 1.4 lets no other thread run but while it calls back
to a reader or writer, which therefore move 64 KiB at a time here: otherwise threads would hand the interpreter's lock
to and fro for each 8 KiB.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from s3bu.crypto.header import Reader, Writer, read_header
from s3bu.crypto.identities import Identity
from s3bu.crypto.library import pyrage
from s3bu.crypto.recipients import Recipient
from s3bu.errors import IntegrityError, KeyringError, NoIdentityError, S3buError

MAX_RECIPIENTS = 64
"""So many recipients fit in a header that `header.read_header` takes, of whatever native kind they are."""

_PIECE_NBYTES = 64 * 1024


def encrypt(plain: bytes, recipients: Iterable[Recipient]) -> bytes:
    """Encrypt a small content, all at once, so that each of the recipients can open it.

    Raises `KeyringError` when there are none, too many, or some that cannot be used together or without their plugin.
    """
    keys = _encrypting_keys(recipients)
    try:
        # encrypt_io on buffers was no faster for 4 KiB to 8 MiB in 8 threads, and holds the lock as long
        encrypted: bytes = pyrage.encrypt(plain, keys)
    except (pyrage.EncryptError, OSError) as error:
        raise _encrypting_refusal(error) from error
    return encrypted


def encrypt_stream(reader: Reader, writer: Writer, recipients: Iterable[Recipient]) -> None:
    """Encrypt all that `reader` has left into `writer`; neither is closed.

    Errors are those of `encrypt`; whatever `reader` or `writer` raise comes out as it is, and what was written until
    then is no valid age file.
    """
    source, sink = _Source(reader, b""), _Sink(writer)
    error = _carry(pyrage.encrypt_io, source, sink, _encrypting_keys(recipients))
    if error is not None:
        raise _encrypting_refusal(error) from error
    sink.finish()


def decrypt_stream(reader: Reader, writer: Writer, identities: Sequence[Identity], *, name: str = "the object") -> None:
    """Decrypt an age file for recipients from `reader` into `writer`; neither is closed.

    Each chunk is authentic when it is written, but only a return without an error says that none is missing. `name`
    stands in the messages. Raises `NoIdentityError` when none of the identities opens it, `IntegrityError` when it is
    truncated, altered, for a passphrase or not age at all, and whatever `reader` or `writer` raise as it is.
    """
    header, rest = read_header(reader, name)
    if header.has_passphrase:
        raise IntegrityError(f"{name}: encrypted with a passphrase where recipients belong")
    source, sink = _Source(reader, header.text + rest), _Sink(writer)
    error = _carry(pyrage.decrypt_io, source, sink, _decrypting_keys(identities))
    if error is not None:
        raise _decrypting_refusal(error, name) from error
    sink.finish()


class _Source:
    """Lets pyrage read; remembers the reader's error, of which pyrage keeps a text at most."""

    def __init__(self, reader: Reader, start: bytes) -> None:
        self._reader = reader
        self._piece = memoryview(start)
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        if not self._piece:
            try:
                self._piece = memoryview(self._reader.read(_PIECE_NBYTES))
            except BaseException as error:
                self.error = error
                raise
        taken, self._piece = self._piece[:size], self._piece[size:]
        return bytes(taken)


class _Sink:
    """Lets pyrage write; remembers the writer's error, since pyrage drops that of its last write without a word."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []
        self._nbytes = 0
        self.error: BaseException | None = None

    def write(self, chunk: bytes) -> int:
        if self.error is not None:
            # pyrage empties its buffer even after an error
            raise self.error
        self._pieces.append(chunk)
        self._nbytes += len(chunk)
        if self._nbytes >= _PIECE_NBYTES:
            try:
                self.finish()
            except BaseException as error:
                self.error = error
                raise
        return len(chunk)

    def flush(self) -> None:
        """Do nothing: pieces go out when they are large enough."""

    def finish(self) -> None:
        """Write out what is held back."""
        chunk = memoryview(b"".join(self._pieces))
        self._pieces, self._nbytes = [], 0
        while chunk:
            count = self._writer.write(bytes(chunk))
            if count == 0:
                raise OSError("the writer takes no more bytes")
            chunk = chunk[len(chunk) if count is None else count :]


class _Unattended:
    """Answers a plugin that asks: nobody is there, since contents are opened by many threads in the background."""

    def display_message(self, _message: str) -> None:
        return None

    def confirm(self, _message: str, _yes: str, _no: str | None) -> None:
        return None

    def request_public_string(self, _description: str) -> None:
        return None

    def request_passphrase(self, _description: str) -> None:
        return None


def _carry(operation: Callable[..., None], source: _Source, sink: _Sink, keys: list[Any]) -> Exception | None:
    """Run an operation of pyrage and return its error; one of the reader or the writer is raised as it was."""
    failure = None
    try:
        operation(source, sink, keys)
    except BaseException as error:
        if source.error is None and sink.error is None:
            if not isinstance(error, (pyrage.EncryptError, pyrage.DecryptError, OSError)):
                raise
            failure = error
    for side in (source, sink):
        if side.error is not None:
            raise side.error
    return failure


def _encrypting_keys(recipients: Iterable[Recipient]) -> list[Any]:
    distinct = list(dict.fromkeys(recipients))
    if not distinct:
        raise KeyringError("there are no recipients to encrypt to")
    if len(distinct) > MAX_RECIPIENTS:
        raise KeyringError(f"there are {len(distinct)} recipients, and the most that can be used is {MAX_RECIPIENTS}")
    keys = [recipient.key for recipient in distinct if recipient.plugin is None]
    for plugin in dict.fromkeys(recipient.plugin for recipient in distinct if recipient.plugin is not None):
        of_plugin = [recipient.key for recipient in distinct if recipient.plugin == plugin]
        try:
            keys.append(pyrage.plugin.RecipientPluginV1(plugin, of_plugin, [], _Unattended()))
        except pyrage.EncryptError as error:
            raise _plugin_refusal(plugin) from error
    return keys


def _decrypting_keys(identities: Sequence[Identity]) -> list[Any]:
    keys = [identity.key for identity in identities if identity.plugin is None]
    for plugin in dict.fromkeys(identity.plugin for identity in identities if identity.plugin is not None):
        of_plugin = [identity.key for identity in identities if identity.plugin == plugin]
        try:
            keys.append(pyrage.plugin.IdentityPluginV1(plugin, of_plugin, _Unattended()))
        except pyrage.DecryptError as error:
            raise _plugin_refusal(plugin) from error
    return keys


def _plugin_refusal(plugin: str) -> KeyringError:
    return KeyringError(f"the program age-plugin-{plugin} is not on the PATH", hint="install it, or drop its keys")


def _encrypting_refusal(error: Exception) -> S3buError:
    if "labels" in str(error):
        return KeyringError(
            "post-quantum recipients (age1tagpq1) cannot be used beside others, which would undo what they are for",
            hint="use one sort or the other",
        )
    return KeyringError(f"cannot encrypt to the recipients: {_first_line(error)}")


def _decrypting_refusal(error: Exception, name: str) -> S3buError:
    # pyrage tells these apart by their text alone; tests hold it to that
    if "No matching keys" in str(error):
        return NoIdentityError(
            f"{name}: no identity at hand opens it", hint="add the identity of one of its recipients to identities.txt"
        )
    if "age-plugin-" in str(error):
        return NoIdentityError(f"{name}: {_first_line(error)}")
    return IntegrityError(f"{name}: truncated or altered")


def _first_line(error: Exception) -> str:
    # pyrage puts marks of text direction around names
    text = str(error).translate({0x2068: None, 0x2069: None})
    return (text.splitlines() or ["unknown reason"])[0].rstrip(".")
