"""The kernel's queue of changes: one inotify instance, emptied at once into a line that is worked off in peace.

The kernel drops events when its queue is full, so nothing slow may stand between two reads: the thread that reads
puts down the bytes that it read and does no more, and whoever works them off may take its time over a walk. A line that
gets too long is an overflow as good as the kernel's own.

It is built on the reading thread of watchdog, which is no documented interface: the version is pinned, and
`tests/test_watch/test_watchdog.py` holds what is relied on here.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from watchdog.observers.inotify_c import InotifyConstants as In
from watchdog.observers.inotify_c import (
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)

from s3bu.watch.limits import refused

# Never opened, read, or closed without a write: what backups do themselves must make no event.
CHANGED = In.IN_MODIFY | In.IN_ATTRIB | In.IN_CLOSE_WRITE
APPEARED = In.IN_CREATE | In.IN_MOVED_TO
VANISHED = In.IN_DELETE | In.IN_MOVED_FROM
UPROOTED = In.IN_DELETE_SELF | In.IN_MOVE_SELF
MOVED_ITSELF = In.IN_MOVE_SELF
CREATED = In.IN_CREATE
OF_DIRECTORY = In.IN_ISDIR
UNMOUNTED = In.IN_UNMOUNT
IGNORED = In.IN_IGNORED
OVERFLOW = In.IN_Q_OVERFLOW
KNOWN = CHANGED | APPEARED | VANISHED | UPROOTED | OF_DIRECTORY | UNMOUNTED | IGNORED | OVERFLOW
_MASK = Mask(CHANGED | APPEARED | VANISHED | UPROOTED | In.IN_ONLYDIR)

_READ_NBYTES = 64 * 1024
_MOST_NBYTES = 8 * 1024**2
_CALM_NBYTES = 16 * 1024
_CALM_SECONDS = 0.01
_FAULT_PAUSE_SECONDS = 0.2


class Event(NamedTuple):
    """What the kernel says of a watch: `name` is in that directory, and empty for what happened to itself.

    `fault` is what went wrong where it is no event but a gap.
    """

    watch: int
    mask: int
    name: bytes
    fault: str = ""


_GAP = Event(-1, OVERFLOW, b"")


class Inotify:
    """One inotify instance and the line of what it told. All may be called from any thread."""

    def __init__(self) -> None:
        try:
            self._reader = _Reader(self.put)
        except OSError as error:
            raise refused(error) from error
        self._lock = threading.Lock()
        self._line: list[bytes | Event] = []
        self._nbytes = 0
        self._has_some = threading.Event()

    def start(self) -> None:
        """Begin to read."""
        self._reader.start()

    @property
    def is_reading(self) -> bool:
        """Whether the thread that reads lives."""
        return self._reader.is_alive()

    def watch(self, descriptor: int) -> int:
        """Watch an open directory, and return the number of the watch, the same as before if it is watched already."""
        return self._reader.watch(b"/proc/self/fd/%d" % descriptor)

    def unwatch(self, watch: int) -> None:
        """End a watch; one that ended by itself is no error."""
        self._reader.unwatch(watch)

    def poke(self) -> None:
        """Let `take` return, if only with nothing."""
        self._has_some.set()

    def put(self, piece: bytes | Event) -> None:
        """Put down what was read, or what stands for something that could not be."""
        with self._lock:
            if self._nbytes > _MOST_NBYTES:
                if self._line[-1] is _GAP:
                    return  # it is worked off later than this happened, so it stands for this too
                piece = _GAP
            self._line.append(piece)
            self._nbytes += len(piece)
        self._has_some.set()

    def take(self, seconds: float | None = None) -> Iterator[Event]:
        """Return what stands in the line, in order; wait for something to be there, or for a poke."""
        self._has_some.wait(seconds)
        self._has_some.clear()
        with self._lock:
            line, self._line, self._nbytes = self._line, [], 0
        return chain.from_iterable((piece,) if isinstance(piece, Event) else _events(piece) for piece in line)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands in the line."""
        return not self._line

    def close(self, seconds: float) -> None:
        """End all watches; waits so long for the thread that reads."""
        if self._reader.ident is None:
            self._reader.start()  # it is the thread that closes what is open
        self._reader.stop()
        self._reader.join(seconds)
        self.poke()


def _events(read: bytes) -> Iterator[Event]:
    return (Event(watch, mask, name) for watch, mask, _, name in InotifyFD._parse_event_buffer(read))  # noqa: SLF001


class _Reader(InotifyFD):
    """The thread that reads; it goes on after a fault, and says so."""

    def __init__(self, put: Callable[[bytes | Event], None]) -> None:
        super().__init__()
        self._put = put
        self._is_open = True
        self._closing = threading.Lock()

    def run(self) -> None:
        """Read until it is stopped."""
        while self.should_keep_running():
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - whatever it is, events may be lost, and others will come
                self._put(Event(-1, OVERFLOW, b"", str(error) or type(error).__name__))
                self.stopped_event.wait(_FAULT_PAUSE_SECONDS)

    def _read(self) -> None:
        """Read what is there; after a little, wait a moment, in which the kernel makes one event of many like it."""
        read = self._read_event_buffer(_READ_NBYTES)
        if read:
            self._put(read)
        if len(read) < _CALM_NBYTES:
            self.stopped_event.wait(_CALM_SECONDS)

    def watch(self, path: bytes) -> int:
        with self._closing:
            watch = inotify_add_watch(self._inotify_fd, path, _MASK) if self._is_open else -1
            number = ctypes.get_errno() if self._is_open else errno.EBADF
        if watch == -1:
            raise OSError(number, os.strerror(number))
        return watch

    def unwatch(self, watch: int) -> None:
        with self._closing:
            if self._is_open:
                inotify_rm_watch(self._inotify_fd, WatchDescriptor(watch))

    def on_thread_stop(self) -> None:
        with self._closing:
            self._is_open = False
        super().on_thread_stop()
