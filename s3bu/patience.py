"""When a run stops trying: what fails one file is a failure, what will fail every file ends the run."""

import threading

from s3bu.errors import (
    AccessDenied,
    CredentialsError,
    ObjectArchived,
    ObjectNotFound,
    OverwriteDenied,
    StorageError,
    StorageStopped,
)

_FAILURES_IN_A_ROW = 5


class Patience:
    """Judges the storage's errors of one run; safe from any thread.

    A storage that refuses again and again with no success in between is taken to be gone: retrying each of a hundred
    thousand files for a minute helps nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0

    def reward(self) -> None:
        """Note a success."""
        with self._lock:
            self._failures = 0

    def judge(self, error: StorageError) -> None:
        """Raise `error` if the run should end by it; return if it concerns its file alone."""
        if isinstance(error, ObjectNotFound | ObjectArchived | OverwriteDenied):
            return
        if isinstance(error, AccessDenied | CredentialsError | StorageStopped):
            raise error
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                raise error
