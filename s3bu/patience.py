"""When a run stops trying: what fails one file is a failure, what will fail every file ends the run."""

import threading
import time

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


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Stopwatch:
    """How long ago something was, also across a sleep of the machine, and when its clock is set back."""

    def __init__(self) -> None:
        self._boot, self._wall = time.clock_gettime(_BOOT_CLOCK), time.time()

    @property
    def seconds(self) -> float:
        """The seconds since it was made: the most that any clock says."""
        return max(time.clock_gettime(_BOOT_CLOCK) - self._boot, time.time() - self._wall)
