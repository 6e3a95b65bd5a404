"""Work on a pool of threads, with bounds: how many items are under way, and how many bytes they hold."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Budget:
    """So many bytes may be in flight at once; who asks first is served first, so that a large claim is not starved."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free = nbytes
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def claim(self, nbytes: int) -> Iterator[None]:
        """Hold `nbytes` of the budget for the length of the block; a claim beyond the whole waits for all of it."""
        granted = min(nbytes, self.nbytes)
        self._take(granted)
        try:
            yield
        finally:
            with self._changed:
                self._free += granted
                self._changed.notify_all()

    def _take(self, nbytes: int) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and self._free >= nbytes)
            self._queue.popleft()
            self._free -= nbytes
            self._changed.notify_all()


def each(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, give_up: Callable[[], None]
) -> Iterator[Result]:
    """Yield the results of `function` over `items` as they come, in no order, from a pool of so many threads.

    Items are taken from the iterable on the caller's thread, and only a few more than there are workers are taken
    ahead. When `function` raises, the iterable does, or the caller stops (a signal, a closed generator), `give_up` is
    called, which makes the calls under way end soon; the pool is left only when they did.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="s3bu")
    pending: set[Future[Result]] = set()
    try:
        for item in items:
            pending.add(pool.submit(function, item))
            if len(pending) >= 4 * workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BaseException:
        give_up()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
