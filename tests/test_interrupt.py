"""Signals reach the block that they are to end, also where Python drops what is raised."""

import os
import signal
import subprocess
import sys
import time

import pytest

from s3bu.interrupt import Terminated, deferred, stoppable
from tests.fakes import wait_for


class Finalized:
    """Sends itself a signal when it is taken apart, where an exception is dropped."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
        time.sleep(0)  # the signal's handler runs here


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_is_dropped_in_a_finalizer_comes_again(
    number: signal.Signals, expected: type[BaseException]
) -> None:
    def run() -> None:
        with stoppable():
            Finalized(number)
            wait_for(lambda: False)

    with pytest.raises(expected):
        run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_handled_signals_before_does_so_again(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before


def test_who_is_deaf_to_a_signal_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_held_back_comes_at_the_end_of_the_block() -> None:
    reached = []

    def run() -> None:
        with stoppable(), deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert reached == ["the end"]


IMPORT = """
import os, signal, sys, time
from s3bu.interrupt import stoppable

def trace(frame, event, argument):
    if "pyrage.tag" in frame.f_code.co_consts:  # a line of Python that its Rust code runs
        sys.settrace(None)
        print("sent", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)

with stoppable():
    sys.settrace(trace)
    import s3bu.crypto
    time.sleep(10)
"""


def test_a_signal_while_a_library_of_rust_is_imported_makes_no_panic() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=False, timeout=60)
    lines = ended.stderr.decode().splitlines()
    assert lines[0] == "sent"
    assert lines[-1] == "KeyboardInterrupt"
    assert not [line for line in lines if "panicked" in line]
