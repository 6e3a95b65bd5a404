"""A referenced object is never gone, whatever happens in which order: T15 of the test plan."""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import IN_MEMORY
from tests.processes import seeded
from tests.rounds import rounds
from tests.test_prune.histories import History, Tally
from tests.test_prune.interrupted import Interrupted
from tests.test_prune.preparing import clear, prepare

HISTORIES = rounds(12)
STEPS = 12
SEED = random.randrange(2**32)


def test_in_no_history_an_object_goes_that_a_snapshot_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        root = Path(directory)
        prepare(root, monkeypatch)
        for number in range(HISTORIES):
            with monkeypatch.context() as patch, seeded(SEED + number):
                History(root, SEED + number, tally, patch).run(STEPS)
            clear(root)
    # Among so many something of each kind happened, or the histories would show nothing.
    assert tally.deleted > HISTORIES / 10, tally
    assert tally.nested > HISTORIES, tally
    assert tally.backups > HISTORIES, tally


ORPHAN = {"a": b"an orphan"}
OTHER = {"b": b"something else"}


def interrupted(root: Path, patch: pytest.MonkeyPatch) -> Interrupted:
    """Return a history in which a content is stored that no snapshot names any more, with clocks that agree."""
    history = Interrupted(root, Tally(), patch)
    for machine in history._machines:
        machine.skew = 0
    history.write("work", "docs", OTHER)
    history.back_up("work", "docs")
    history.write("home", "docs", ORPHAN)
    history.back_up("home", "docs")
    history.write("home", "docs", OTHER)
    history.back_up("home", "docs")
    while len(history.storage.named()) > 1:
        history._forget()
    return history


def each_request(
    monkeypatch: pytest.MonkeyPatch,
    prepare_it: Callable[[History], object],
    run_it: Callable[[Interrupted, int], object],
) -> int:
    """Run something so that it is interrupted at each of its requests in turn; return how many there were."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        root = Path(directory)
        prepare(root, monkeypatch)
        for number in range(1000):
            with monkeypatch.context() as patch:
                history = interrupted(root, patch)
                prepare_it(history)
                run_it(history, number)
                history.check()
                is_over = not history.was_interrupted
            clear(root)
            if is_over:
                return number
    raise AssertionError("it has no end")


def test_at_whichever_request_a_backup_is_stopped_across_a_mark_and_a_sweep_it_names_nothing_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_it(history: Interrupted, number: int) -> None:
        history.write("home", "mail", ORPHAN)
        history.interrupt(number, history.prune_twice)
        history.back_up("home", "mail")

    assert each_request(monkeypatch, lambda history: None, run_it) > 10


def test_at_whichever_request_a_sweep_is_stopped_a_backup_that_comes_then_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare_it(history: History) -> None:
        history._prune()
        history.clock.seconds += 73 * 3600

    def run_it(history: Interrupted, number: int) -> None:
        history.write("home", "mail", ORPHAN)
        history.interrupt(number, lambda: history.back_up("home", "mail"))
        history._prune()

    assert each_request(monkeypatch, prepare_it, run_it) > 20
