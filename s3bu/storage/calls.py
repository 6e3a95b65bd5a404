"""Requests that can be given up: each caller waits in its own thread and is let go at once when the run is stopped.

Two kinds of libraries are served. obstore is asynchronous and lives on one loop thread, where stopping cancels its
tasks. boto3 blocks, so its requests run on daemon threads of their own, which stopping leaves behind.
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from s3bu.errors import StorageStopped

T = TypeVar("T")

_DRAIN_SECONDS = 2.0
_SETTLE_SECONDS = 0.05


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop thread and return its result; `StorageStopped` when it was given up."""
        with self._lock:
            self._refuse_when_stopped()
            future = asyncio.run_coroutine_threadsafe(self._guarded(request), self._started())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise _stopped() from None
        except BaseException:
            # Ctrl-C in the waiting thread: nobody is left to want the answer.
            future.cancel()
            raise
        finally:
            # Or else an error would hold on to itself by its traceback, and to the body that was to be put.
            del future

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
        """Give up all requests under way and refuse those to come."""
        with self._lock:
            if self._stopping.done():
                return
            self._stopping.set_result(None)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(_cancel_all)

    def close(self) -> None:
        """Stop, and end the loop thread."""
        self.stop()
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_drained(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        # Shortly after an answer obstore's own threads still let go of Python objects, and a Python that is just
        # ending kills the process over it (PyO3/pyo3-async-runtimes#40; seen in a quarter of runs without this).
        time.sleep(_SETTLE_SECONDS)

    async def _guarded(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        # A request that was handed over while `stop` cancelled the others must not slip through.
        self._refuse_when_stopped()
        return await request()

    def _refuse_when_stopped(self) -> None:
        if self._stopping.done():
            raise _stopped()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), daemon=True, name="s3bu-loop")
            self._thread.start()
        return self._loop


def _stopped() -> StorageStopped:
    return StorageStopped("the request was given up because the run is being stopped")


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


async def _drained() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
