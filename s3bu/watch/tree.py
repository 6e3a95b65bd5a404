"""All that is watched through one queue: it is told which sources, and tells what it has seen of them.

Two threads are at work besides the caller's: one reads the kernel's queue (`inotify`), the other works off what it
read (`sources`). All that is known of the sources is under one lock; what was seen has one of its own (`seen`), so that
it can be taken in the middle of a long walk, and the kernel's queue is emptied all the while.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.journal.batch import Batch
from s3bu.scan.found import Excluded
from s3bu.watch.inotify import Event, Inotify
from s3bu.watch.seen import Seen
from s3bu.watch.source import Counts
from s3bu.watch.sources import Sources
from s3bu.watch.watches import Watches

_CLOSE_SECONDS = 0.4
_BUSY_SECONDS = 1.0
_IDLE_SECONDS = 0.01
_FAULT_SECONDS = 0.2
_MOST_REST_SECONDS = 5.0
_STUCK_SECONDS = 600.0


class Tree:
    """The watched directories of several sources, each by its number in the journal.

    `cookies` is the directory of the journal's cookies. `wake` is called, from any thread, when there is a first thing
    to `take`; it must be quick. `S3buError` where the kernel gives no queue.
    """

    def __init__(self, cookies: Path, wake: Callable[[], None]) -> None:
        self._seen = Seen(wake)
        self._inotify = Inotify()
        self._watches = Watches(self._inotify)
        self._lock = threading.Lock()
        self._is_closing = False
        self._walk_after = 0.0
        self._looked = time.monotonic()
        self._worker = threading.Thread(target=self._work, name="watch", daemon=True)
        try:
            self._sources = Sources(self._watches, self._seen, cookies)
        except S3buError:
            self._inotify.close(_CLOSE_SECONDS)
            raise

    def start(self) -> None:
        """Begin to take events; sources may be added before and after."""
        self._inotify.start()
        self._worker.start()

    def add(self, source: int, path: bytes, filters: Filters, excluded: Excluded) -> None:
        """Watch a source, which need not be there; walks through all of its directories first."""
        with self._lock:
            self._sources.add(source, path, filters, excluded)
            self._sources.settle()
        self._looked = time.monotonic()

    def remove(self, source: int) -> None:
        """Watch a source no more."""
        with self._lock:
            self._sources.remove(source)
        self._inotify.poke()

    def doubt(self, source: int, why: str) -> None:
        """Have a source walked anew, and looked at whole by the next run."""
        with self._lock:
            self._sources.doubt(source, why)
        self._inotify.poke()

    def look_again(self) -> None:
        """Look for what no event tells of, and have it walked; to be called every 10 seconds.

        `S3buError` when the watching itself came to an end, which nothing but a new `Tree` repairs.
        """
        if not (self._inotify.is_reading and self._worker.is_alive()):
            raise S3buError("the watcher no longer reads what changes", hint="start it again")
        if not self._lock.acquire(timeout=_BUSY_SECONDS):
            return  # a walk is under way; there will be a next time
        try:
            self._sources.look_again()
        finally:
            self._lock.release()
        self._looked = time.monotonic()
        self._inotify.poke()

    @property
    def is_stuck(self) -> bool:
        """Whether a walk has been under way for so long that it may never end, and all the while nothing is seen."""
        return time.monotonic() - self._looked > _STUCK_SECONDS

    def take(self) -> Batch:
        """Return what has been seen since it was last taken."""
        return self._seen.take()

    def counts(self, source: int) -> Counts:
        """Return how much of a source is watched; in the middle of a walk, so far."""
        return self._sources.counts(source)

    @property
    def is_settled(self) -> bool:
        """Whether all that was read is worked off, and walked."""
        with self._lock:
            return self._inotify.is_empty and self._sources.is_settled

    def close(self) -> None:
        """End all watches, within a second."""
        self._is_closing = True
        self._sources.stop()
        self._inotify.poke()
        if self._worker.ident is not None:
            self._worker.join(_CLOSE_SECONDS)
        self._inotify.close(_CLOSE_SECONDS)

    def _work(self) -> None:
        """Work off events until the end; a fault is a gap, and no end."""
        fault = ""
        while not self._is_closing:
            try:
                self._work_off(fault)
                fault = ""
            except Exception as error:  # noqa: BLE001 - it must not end in silence, whatever it is
                fault = _said(error)
                time.sleep(_FAULT_SECONDS)

    def _work_off(self, fault: str) -> None:
        events = self._inotify.take(0 if fault else self._seconds_to_wait())
        is_calm = True
        with self._lock:
            if fault:
                self._sources.doubt_all(fault)
            for event in events:
                is_calm = False
                self._take_in(event)
            self._walk()
            if is_calm or self._watches.has_many_idle:
                self._watches.thin()

    def _seconds_to_wait(self) -> float | None:
        """Return how long to wait for events: as long as none come, where there is nothing else to do."""
        if not self._sources.is_settled:
            return max(0, self._walk_after - time.monotonic())
        return _IDLE_SECONDS if self._watches.has_idle else None

    def _walk(self) -> None:
        """Do the walks that came up, but not all the time: in a storm many become one, and take half of the time."""
        began = time.monotonic()
        if began >= self._walk_after and not self._sources.is_settled:
            self._sources.settle()
            ended = time.monotonic()
            self._walk_after = ended + min(ended - began, _MOST_REST_SECONDS)

    def _take_in(self, event: Event) -> None:
        """Note what an event says; after a fault those that follow count all the same, cookies too."""
        try:
            self._sources.take_in(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, what the event says is lost
            self._sources.doubt_all(_said(error))


def _said(error: Exception) -> str:
    return f"the watcher met a fault ({str(error) or type(error).__name__})"
