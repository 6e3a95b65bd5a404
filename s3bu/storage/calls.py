"""Requests of boto3 that can be given up: each caller waits in its own thread and is let go at once by a stop.

boto3 blocks, so its requests run on daemon threads of their own, which stopping leaves behind.
"""

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from s3bu.errors import StorageStopped

T = TypeVar("T")


class Work(Generic[T]):
    """A blocking call under way on a daemon thread; `outcome` holds what comes of it, even after a stop."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.outcome: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True, name="s3bu-request")
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end of the call, but no longer than that."""
        self._thread.join(seconds)

    def _run(self, call: Callable[[], T]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the outcome is asked for
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)


class Calls:
    """The requests of one storage; all methods may be called from any thread."""

    def __init__(self) -> None:
        # Re-entrant, since a signal's handler may call `stop` in the very thread that holds it.
        self._lock = threading.RLock()
        self._stopping: Future[None] = Future()

    def start(self, call: Callable[[], T]) -> Work[T]:
        """Begin a blocking call."""
        self._refuse_when_stopped()
        return Work(call)

    def wait(self, work: Work[T]) -> T:
        """Return what came of a blocking call, or raise its error, or `StorageStopped` when it was given up."""
        either: tuple[Future[Any], ...] = (work.outcome, self._stopping)
        concurrent.futures.wait(either, return_when=concurrent.futures.FIRST_COMPLETED)
        if not work.outcome.done():
            raise _stopped()
        return work.outcome.result()

    def call(self, call: Callable[[], T]) -> T:
        """Make a blocking call and wait for it."""
        return self.wait(self.start(call))

    def stop(self) -> None:
        """Give up all requests under way and refuse those to come; may be called by a signal's handler."""
        with self._lock:
            if not self._stopping.done():
                self._stopping.set_result(None)

    def _refuse_when_stopped(self) -> None:
        if self._stopping.done():
            raise _stopped()


def _stopped() -> StorageStopped:
    return StorageStopped("the request was given up because the run is being stopped")
