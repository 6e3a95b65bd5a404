"""The keyring of a user: `secrets.yml` (passphrases) and `identities.txt`, read with care and written once.

Both hold what opens every backup, so they are read only where nobody else can read them, and no message, cause of an
error or `repr` ever shows a word of them.
"""

import errno
import os
import pwd
import re
import secrets as randomness
import shlex
import stat
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3bu.errors import KeyringError

if TYPE_CHECKING:
    from s3bu.crypto.identities import Identity

MAX_FILE_NBYTES = 1024 * 1024

_ID = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
_ID_LETTERS = string.ascii_letters + string.digits
_TYPED_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_STRING_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Secret:
    """A passphrase, and the id by which the metadata of an object refers to it."""

    id: str
    passphrase: str = field(repr=False)


class Keyring:
    """The secrets and identities under two paths, each read when first asked for, and then kept."""

    def __init__(self, secrets_path: Path, identities_path: Path) -> None:
        self.secrets_path = secrets_path
        self.identities_path = identities_path

    @cached_property
    def secrets(self) -> tuple[Secret, ...]:
        """All secrets, oldest first; at least one. Errors are those of `load_secrets`."""
        return load_secrets(self.secrets_path)

    @property
    def newest_secret(self) -> Secret:
        """The secret that encrypts: the last of the file."""
        return self.secrets[-1]

    @cached_property
    def identities(self) -> "tuple[Identity, ...]":
        """All identities, at least one. Errors are those of `load_identities`."""
        return load_identities(self.identities_path)

    def passphrases(self, preferred_id: str | None) -> list[str]:
        """Return every passphrase in the order to try them: that of the id if there is one, then newest first."""
        newest_first = reversed(self.secrets)
        return [secret.passphrase for secret in sorted(newest_first, key=lambda secret: secret.id != preferred_id)]


def default_home(environ: Mapping[str, str]) -> Path:
    """Return the directory of keys and state: `$S3BU_HOME`, else `.s3bu` in the user's home."""
    path = os.path.expanduser(environ.get("S3BU_HOME") or os.path.join(environ.get("HOME") or "~", ".s3bu"))
    if path.startswith("~"):
        raise KeyringError("the user's home directory is unknown", hint="set S3BU_HOME")
    return Path(path)


def usable_home(environ: Mapping[str, str], *written: str) -> Path:
    """Return the same, if it can be entered once it is there; `KeyringError` says who cannot, and why.

    Whoever becomes another user with `su` or `sudo` mostly keeps HOME, and so names a directory that is not theirs.
    `written` names the directories in it that are written into: those that are missing must be possible to make.
    """
    home = default_home(environ)
    try:
        os.stat(os.path.join(home, "."))  # the dot: only who may enter it is told what it is
    except FileNotFoundError:
        pass  # it is made where something is to be written, and whether it can be is asked below
    except OSError as error:
        raise _refusal(home, _NOT_USED, error.errno) from error
    for name in written:
        _check_can_make(home, home / name)
    return home


def _check_can_make(home: Path, directory: Path) -> None:
    """Refuse a home in which a directory is missing, and cannot be made."""
    above = directory
    while not above.exists():
        above = above.parent
    if above == directory or os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        return
    is_read_only = os.statvfs(above).f_flag & os.ST_RDONLY
    raise _refusal(home, _NOT_USED if above == home else _NOT_MADE, errno.EROFS if is_read_only else errno.EACCES)


_NOT_USED = "cannot be used by user"
_NOT_MADE = "cannot be made by user"


def _refusal(home: Path, what: str, number: int | None) -> KeyringError:
    why = os.strerror(number or 0).lower()
    return KeyringError(
        f"{home}: {what} {_user()} ({why})",
        hint=f"set HOME or S3BU_HOME to a directory of user {_user()}, or let that user use this one",
    )


def _user() -> str:
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def load_secrets(path: Path) -> tuple[Secret, ...]:
    """Read `secrets.yml`: a list of `id` and `passphrase`, the newest last; never empty.

    Every value is a string, as the original reads it. Raises `KeyringError`, with the line where there is one, for a
    file that is absent, open to others or over 1 MiB, and for anything but such a list: other keys, repeated ids, empty
    values, anchors and tags.
    """
    text = _decode(_read_private(path), path)
    found: dict[str, Secret] = {}
    for line, secret in _parse_secrets(text, path):
        if secret.id in found:
            raise KeyringError(f"{path}, line {line}: an id that stands above already")
        found[secret.id] = secret
    if not found:
        raise KeyringError(f"{path}: holds no secret")
    return tuple(found.values())


def load_identities(path: Path) -> "tuple[Identity, ...]":
    """Read an identity file; errors are those of `load_secrets` for the file, and of `parse_identities`."""
    # imported here, since the command line imports this module when it starts
    from s3bu.crypto.identities import parse_identities  # noqa: PLC0415

    # what cannot be decoded is no identity, and may be harmless in a comment
    return parse_identities(_read_private(path).decode("utf-8-sig", "replace"), str(path))


def new_secret() -> Secret:
    """Make a secret: an id of 16 letters and digits, and a passphrase of 30 (148 bits) that are hard to confuse."""
    identifier = "".join(randomness.choice(_ID_LETTERS) for _ in range(16))
    groups = ["".join(randomness.choice(_TYPED_LETTERS) for _ in range(5)) for _ in range(6)]
    return Secret(identifier, "-".join(groups))


def write_secrets(path: Path, secrets: Sequence[Secret]) -> None:
    """Create `secrets.yml`, readable by the user alone, durably; `KeyringError` when anything is there already."""
    import yaml  # noqa: PLC0415 - see `_events`

    entries = [{"id": secret.id, "passphrase": secret.passphrase} for secret in secrets]
    _create_private(path, yaml.safe_dump(entries, sort_keys=False, width=10_000))


def write_identities(path: Path, identities: Sequence[tuple[str, str]]) -> None:
    """Create an identity file of secret texts and their recipients, as `write_secrets` does."""
    _create_private(path, "".join(f"# public key: {recipient}\n{secret}\n" for secret, recipient in identities))


def _read_private(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open_unblocked) as file:
            _check_private(os.fstat(file.fileno()), path)
            content = file.read(MAX_FILE_NBYTES + 1)
    except FileNotFoundError as error:
        raise KeyringError(
            f"{path}: no such file",
            hint="copy it from where it is kept safe; only for a new repository `s3bu init` makes it",
        ) from error
    except OSError as error:
        raise _os_refusal(path, error) from error
    if len(content) > MAX_FILE_NBYTES:
        raise KeyringError(f"{path}: larger than {MAX_FILE_NBYTES} bytes")
    return content


def _open_unblocked(path: str, flags: int) -> int:
    # a FIFO without a writer must not hold up the program
    return os.open(path, flags | os.O_NONBLOCK)


def _check_private(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyringError(f"{path}: not a regular file")
    if status.st_uid != os.geteuid():
        raise KeyringError(
            f"{path}: belongs to another user", hint=f"chown it, then chmod 600 {shlex.quote(str(path))}"
        )
    if status.st_mode & 0o077:
        raise KeyringError(f"{path}: other users may use it", hint=f"chmod 600 {shlex.quote(str(path))}")


def _create_private(path: Path, text: str) -> None:
    try:
        _make_private_directories(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise KeyringError(f"{path}: is there already, and is never overwritten") from error
    except OSError as error:
        raise _os_refusal(path, error) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        _sync_directory(path.parent)
    except BaseException as error:
        # half a file would be taken for the keys
        os.unlink(path)
        if isinstance(error, OSError):
            raise _os_refusal(path, error) from error
        raise


def _make_private_directories(directory: Path) -> None:
    if not directory.is_dir():
        _make_private_directories(directory.parent)
        # another run may have made it meanwhile
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_refusal(path: Path, error: OSError) -> KeyringError:
    return KeyringError(f"{path}: {(error.strerror or 'cannot be used').lower()}")


def _decode(content: bytes, path: Path) -> str:
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    # raised here, out of reach of the UnicodeDecodeError, which carries the whole file
    raise KeyringError(f"{path}: not UTF-8 text")


def _parse_secrets(text: str, path: Path) -> Iterator[tuple[int, Secret]]:
    """Read the one shape that the file may have, straight from the parser's events: nothing can nest or expand."""
    import yaml  # noqa: PLC0415 - see `_events`

    events = _events(text, path)
    for event in events:
        _expect(event, yaml.SequenceStartEvent, path)
        break
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            break
        _expect(event, yaml.MappingStartEvent, path)
        yield event.start_mark.line + 1, _secret(dict(_fields(events, path)), event, path)
    for event in events:
        raise KeyringError(f"{_place(event, path)}: something follows the list")


def _fields(events: Iterator[Any], path: Path) -> Iterator[tuple[str, str]]:
    import yaml  # noqa: PLC0415 - see `_events`

    seen = set()
    for name in events:
        if isinstance(name, yaml.MappingEndEvent):
            return
        _expect(name, yaml.ScalarEvent, path)
        value = next(events)
        if name.value not in ("id", "passphrase") or name.value in seen:
            raise KeyringError(f"{_place(name, path)}: a key that is neither id nor passphrase, or stands twice")
        _expect(value, yaml.ScalarEvent, path)
        seen.add(name.value)
        yield name.value, "" if _is_null(value) else value.value


def _secret(fields: dict[str, str], event: Any, path: Path) -> Secret:
    for name in ("id", "passphrase"):
        if not fields.get(name):
            raise KeyringError(f"{_place(event, path)}: a secret whose {name} is missing or empty")
    if not _ID.fullmatch(fields["id"]):
        raise KeyringError(
            f"{_place(event, path)}: an id of more than 128 characters, or of others than ASCII's visible"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in fields["passphrase"]):
        raise KeyringError(f"{_place(event, path)}: a passphrase that cannot be written in UTF-8")
    return Secret(fields["id"], fields["passphrase"])


def _events(text: str, path: Path) -> Iterator[Any]:
    """Yield the parser's events between the start and the end of the one document.

    PyYAML is imported here and not above, since the command line imports this module when it starts.
    """
    import yaml  # noqa: PLC0415

    line = None
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                yield event
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML leaves numbers that are too large, in escapes and directives, to `int` and `chr`
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
    if line is not None:
        # raised here, out of reach of the YAMLError, which quotes the file
        raise KeyringError(f"{path}, line {line}: not valid YAML" if line else f"{path}: not valid YAML")


def _expect(event: Any, kind: type[Any], path: Path) -> None:
    if not isinstance(event, kind) or getattr(event, "anchor", None) or event.tag not in (None, "!", _STRING_TAG):
        raise KeyringError(
            f"{_place(event, path)}: not what belongs here", hint="the file is a list of `id` and `passphrase`, no more"
        )


def _is_null(event: Any) -> bool:
    # what the original takes for an empty string
    return event.implicit[0] and event.value in ("~", "null", "Null", "NULL")


def _place(event: Any, path: Path) -> str:
    return f"{path}, line {event.start_mark.line + 1}"
