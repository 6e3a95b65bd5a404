"""What a watcher waits for: signals, changes, what its children say, and points in time.

Signals and changes come in by one pipe, so that none is missed between a look and the wait. The clock goes on while
the machine sleeps.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

TERMINATING = {signal.SIGTERM.value: 0, signal.SIGINT.value: 130}
"""The signals that end a watcher, and its exit code then: a service that is told to end has done well."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_LONGEST_WAIT = 10.0
"""The wait itself does not count while the machine sleeps, so it is never long."""


class Stopped(BaseException):
    """A signal came that ends the watcher, in the midst of something long; no fault, so no `Exception`."""


def now() -> float:
    """Return the time in seconds since the machine started, with those in which it slept."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Events:
    """All that a watcher waits for; a block in which signals are taken. `came` are those not yet looked at."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.came: list[int] = []
        self._is_interruptible = False
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self._reading, selectors.EVENT_READ, self._drain)

    def __enter__(self) -> "Events":
        """Take signals; those that this process was started deaf to are left alone, but SIGHUP ends nothing here."""
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN or number in (signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, self._take)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave signals to whoever took them before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        self.selector.close()
        os.close(self._reading)
        os.close(self._writing)

    @property
    def is_ending(self) -> bool:
        """Whether a signal came that ends the watcher, and was not looked at yet."""
        return any(number in TERMINATING for number in self.came)

    def wake(self) -> None:
        """End the wait; may be called from any thread, and when all is over."""
        with suppress(OSError):  # a full pipe wakes too
            os.write(self._writing, b"\0")

    def wait(self, until: float) -> None:
        """Wait until something comes, or that time, and let everybody read who has something to read."""
        seconds = min(max(until - now(), 0.0), _LONGEST_WAIT)
        for key, _ in self.selector.select(seconds):
            key.data()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal that ends the watcher raise `Stopped` in this block, which may take long."""
        before, self._is_interruptible = self._is_interruptible, True
        try:
            if self.is_ending:
                raise Stopped
            yield
        finally:
            self._is_interruptible = before

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)
        if self._is_interruptible and number in TERMINATING:
            raise Stopped

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._reading, 4096):
                pass


class Timers:
    """Things to do every so often, each by its own count; a time that was missed is not made up for."""

    def __init__(self) -> None:
        self._timers: dict[Callable[[], object], tuple[float, float]] = {}

    def every(self, seconds: float, do: Callable[[], object], *, first: float | None = None) -> None:
        """Do something every so many seconds, for the first time when that many have gone by, or `first`."""
        self._timers[do] = (now() + (seconds if first is None else first), seconds)

    def next(self) -> float:
        """Return when the next thing is to be done."""
        return min(due for due, _ in self._timers.values())

    def run_due(self) -> None:
        """Do what is due."""
        for do, (due, seconds) in list(self._timers.items()):
            if due <= now():
                self._timers[do] = (now() + seconds, seconds)
                do()
