"""The directory that is walked: how it is opened, and what is wrong when it cannot be."""

import os

from s3bu.errors import S3buError
from s3bu.scan.found import reason

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SourceMissingError(S3buError):
    """The source's directory is not there, or cannot be opened: nothing is known of what it holds."""


def open_source(path: bytes) -> int:
    """Return a descriptor of a source's directory."""
    try:
        return os.open(path, DIRECTORY_FLAGS)
    except OSError as error:
        message = f"{os.fsdecode(path)}: the source cannot be opened ({reason(error)})"
        raise SourceMissingError(message, hint=_hint_of(error)) from error


def _hint_of(error: OSError) -> str | None:
    """Return what to do about a source that cannot be opened."""
    match error:
        case FileNotFoundError():
            return "is its disk mounted, and is its path in the job right?"
        case NotADirectoryError():
            return "is its path in the job right?"
        case PermissionError():
            return "run as a user who may read it"
    return None
