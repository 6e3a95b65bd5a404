"""Work on a pool of threads, with bounds: how many items are under way, and how many bytes they hold."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


_BATCH = 16
_BATCH_NBYTES = 1024 * 1024


def batches(items: Iterable[Item], nbytes_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield neighbours together as long as they are small: handing over costs as much as one of them."""
    batch: list[Item] = []
    nbytes = 0
    for item in items:
        if batch and (len(batch) == _BATCH or nbytes + nbytes_of(item) > _BATCH_NBYTES):
            yield batch
            batch, nbytes = [], 0
        batch.append(item)
        nbytes += nbytes_of(item)
    if batch:
        yield batch


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
    # The futures come here as they end: to wait for a set of them costs as much as the set is large, each time.
    ended: SimpleQueue[Future[Result]] = SimpleQueue()
    running = 0
    try:
        for item in items:
            pool.submit(function, item).add_done_callback(ended.put)
            running += 1
            if running >= 4 * workers:
                yield ended.get().result()
                running -= 1
        for _ in range(running):
            yield ended.get().result()
    except BaseException:
        give_up()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
