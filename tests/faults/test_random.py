"""Faults at random in everything that a run asks for: the outcome is right, or it is told, and the next run mends it.

What strikes a request is drawn from the seed, the request, and how often it came, so that a seed strikes again.
"""

import random
import shutil
import sys
import time
from collections.abc import Callable

import pytest

from tests.faults.faults import LASTING, QUICK, SLOW, flipped
from tests.faults.proxy import Asked, Fault, Rule
from tests.faults.scenes import Place
from tests.faults.test_passing import check_success
from tests.rounds import rounds
from tests.running import Result

SECONDS = 90
SHARES: tuple[tuple[tuple[Fault, ...], float], ...] = ((QUICK, 0.15), (LASTING, 0.01), (SLOW, 0.005))
"""How large a share of the requests meets one of these faults."""


def at_random(seed: str, scale: float) -> Rule:
    """Return a rule that strikes by chance, `scale` times as often as usual."""

    def rule(asked: Asked, number: int) -> Fault | None:
        chance = random.Random(f"{seed} {asked} {number}")
        drawn = chance.random() / scale
        for faults, share in SHARES:
            if drawn < share:
                fault = chance.choice(faults)
                # Nothing but encryption between two machines tells that a listing was altered on the way.
                return None if fault is flipped and asked.operation != "GET" else fault
            drawn -= share
        return None

    return rule


def check_told(result: Result) -> None:
    """Hold a run to an exit code that means something, and to tell why it is not 0."""
    assert result.code in (0, 1, 2, 3, 10, 12), result
    assert bool(result.errors) == (result.code != 0) or "could not be opened" in result.out, result


def check_backup(place: Place, result: Result) -> None:
    """Hold a backup to what it says: all but what it names as failed is in the snapshot."""
    check_told(result)
    newest = place.check()
    if result.code in (0, 3):
        assert newest is not None
        failed = {path.encode() for path in result.failed}
        told = {path: content for path, content in place.files().items() if path not in failed}
        assert told.items() <= newest.items()
    if result.code == 0:
        assert newest == place.files()


def check_restore(place: Place, result: Result) -> None:
    """Hold a restore to write nothing that is wrong, and to say when it is not all."""
    check_told(result)
    newest = place.check() or {}
    found = place.files(place.target) if place.target.exists() else {}
    assert found.items() <= newest.items()
    assert result.code != 0 or found == newest


def check_sync(place: Place, result: Result) -> None:
    check_told(result)


def check_in_time(place: Place, begun: float, what: str) -> None:
    """Tell how much befell a run, which shows where one fails, and hold it to its time."""
    sys.stdout.write(f"{what}: {len(place.proxy.struck)} requests struck\n")
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("seed", range(rounds(4)))
def test_whatever_befalls_requests_the_outcome_is_right_or_told(seed: int, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue("moto_place" if seed % 4 == 3 else "place")
    scale = random.Random(seed).choice((0.3, 1, 2))
    steps: tuple[tuple[str, Callable[[], Result], Callable[[Place, Result], None]], ...] = (
        ("backup", place.backup, check_backup),
        ("restore", lambda: place.restore("-f", "-o"), check_restore),
        ("sync", place.sync, check_sync),
    )
    for number in range(2):
        place.change(number + 1)
        for name, call, check in steps:
            begun, what = time.monotonic(), f"seed {seed}, {name} {number}"
            place.proxy.begin(at_random(what, scale))
            result = call()
            check_in_time(place, begun, what)
            check(place, result)
        shutil.rmtree(place.target, ignore_errors=True)
    place.proxy.begin()
    check_success(place.backup())
    assert place.check() == place.files()
    check_success(place.sync())
    check_success(place.restore())
    assert place.files(place.target) == place.files()
