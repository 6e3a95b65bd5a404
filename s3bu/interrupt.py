"""Ctrl-C and SIGTERM: the first one stops a command, which cleans up; a second one ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05


class Terminated(BaseException):
    """SIGTERM came; not an `Exception`, so that nothing on the way takes it for a fault."""


def leave_at_once() -> None:
    """End the process with the next signal: there is nothing that would have to be cleaned up."""
    for number in _SIGNALS:
        # A program in the background of a shell is deaf to the Ctrl-C that is meant for another one.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a signal end the block by `KeyboardInterrupt` or `Terminated`, and a second one the process."""
    before, hook = {number: signal.getsignal(number) for number in _SIGNALS}, sys.unraisablehook
    try:
        sys.unraisablehook = _send_again
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Hold signals back to the end of the block: some library takes what they raise for a fault of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal raises anything here
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _stop(number: int, _frame: FrameType | None) -> None:
    leave_at_once()
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal once more that came where Python drops exceptions: in a finalizer, or a weak link."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(unraisable)
        return
    number = signal.SIGINT if isinstance(unraisable.exc_value, KeyboardInterrupt) else signal.SIGTERM
    signal.signal(number, _stop)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (main, number))
    timer.daemon = True
    timer.start()


def _leave(number: int, _frame: FrameType | None) -> None:
    word = "interrupted" if number == signal.SIGINT else "terminated"
    os.write(2, f"s3bu: error: {word}\n".encode())
    os._exit(128 + number)
