"""The tree of errors: everything that s3bu can tell a user went wrong.

Each error says what happened and to which path or key, may carry a hint of what to do, and knows the exit code that
a script gets to see (README.md, "Exit codes"). Exceptions of libraries are translated into these in the file that
owns the library.
"""

from collections.abc import Sequence
from typing import ClassVar


class S3buError(Exception):
    """Something went wrong that the user should be told of; the root of all the errors of s3bu.

    The message is one line in lower case without a full stop; `hint` says what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(S3buError):
    """The command line, or something that it names, makes no sense."""

    exit_code = 2


class JobError(UsageError):
    """A job that cannot be used; `problems` holds one line for each fault found, all of them at once."""

    def __init__(self, message: str, problems: Sequence[str] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class KeyringError(S3buError):
    """A file of secrets or identities is absent, open to others, or broken."""

    exit_code = 2


class RepositoryNotFoundError(S3buError):
    """There is no such bucket or directory, or it is not a repository."""

    exit_code = 10


class JobNotFoundError(S3buError):
    """The repository holds no job of that name."""

    exit_code = 10


class LockedError(S3buError):
    """Another process on this machine is backing up the same job."""

    exit_code = 11


class NoIdentityError(S3buError):
    """No identity at hand opens this content."""

    exit_code = 12


class PassphraseNotFoundError(S3buError):
    """No passphrase at hand opens this job or manifest."""

    exit_code = 12


class RecipientsChangedError(S3buError):
    """The repository's recipients are not those that this machine pinned."""

    exit_code = 12


class StorageError(S3buError):
    """The storage refused a request, or could not be reached."""


class ObjectNotFound(StorageError):
    """No object lies under that key."""


class ObjectExists(StorageError):
    """A create met an object that is there already."""


class ObjectArchived(StorageError):
    """The object lies in an archive class and must be brought back before it can be read."""


class AccessDenied(StorageError):
    """The credentials do not allow the request."""


class OverwriteDenied(AccessDenied):
    """The credentials do not allow to replace a bad object, which concerns that one alone."""


class CredentialsError(StorageError):
    """The credentials are absent, unknown, wrong or expired; no further request can succeed, so the run ends."""


class StorageStopped(StorageError):
    """The request was given up because the run is being stopped."""


class IntegrityError(S3buError):
    """Bytes from the repository are not what they should be: truncated, altered, moved or plain."""


class SourceChanged(S3buError):
    """A file kept changing while it was read."""
