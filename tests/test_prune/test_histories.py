"""A referenced object is never gone, whatever happens in which order: T15 of the test plan."""

import random
import tempfile
from pathlib import Path

import pytest

from tests.fakes import IN_MEMORY
from tests.processes import seeded
from tests.rounds import rounds
from tests.test_prune.histories import History, Tally, clear, prepare

HISTORIES = rounds(20)
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
