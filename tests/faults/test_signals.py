"""Ctrl-C and SIGTERM at any moment: the program ends soon, leaves nothing half done, and the next run goes on.

Programs of their own are sent a signal at a random moment of their whole life. What was drawn is told when it fails.
"""

import random
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.faults import stalled_before_head, stalled_inside_body, stalled_request
from tests.faults.proxy import Rule, always
from tests.faults.scenes import Place
from tests.faults.test_passing import check_success
from tests.rounds import rounds
from tests.running import Argument, Result, Started, started, write_file

SIGNALS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
SECONDS = 10
"""Within which a program has to end."""
LIFE_SECONDS = 4.0
"""About how long a program lives here that nobody stops."""
UNDER_WAY_SECONDS = 1.0
"""After a signal so long a request may still come in that was sent before."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of a program, and when it was sent the signal."""

    result: Result
    at: float


def stop(number: signal.Signals, wait: Callable[[Started], object], *arguments: Argument) -> Stopped:
    """Start a program, wait, send it the signal, and hold it to its end; one that was done before is done."""
    code, word = SIGNALS[number]
    with started(*arguments) as program:
        wait(program)
        at = time.monotonic()
        program.send(number)
        result = program.end()
    assert time.monotonic() - at < (SECONDS if result.code else UNDER_WAY_SECONDS), "the signal was lost"
    # The interpreter itself, which needs a moment before it knows of the program, leaves in its own ways.
    assert result.code in (0, code, -number) or result.err.startswith("Fatal Python error: init"), result
    assert "s3bu/" not in "".join(re.findall(r"File .*", result.err)), result.err
    if result.code == code:
        assert result.errors[:1] == [f"error: {word}"], result
    return Stopped(result, at)


def drawn(seed: str, life: float = LIFE_SECONDS) -> tuple[signal.Signals, Callable[[Started], object]]:
    """Draw a signal, and how long to wait before it is sent."""
    chance = random.Random(seed)
    number, seconds = chance.choice(list(SIGNALS)), chance.uniform(0, life)
    sys.stdout.write(f"{seed}: {number.name} after {seconds:.3f} s\n")
    return number, lambda program: time.sleep(seconds)


def await_requests(place: Place, pattern: str) -> Callable[[Started], object]:
    """Return what waits until a request came that fits the pattern, and a moment more."""

    def wait(program: Started) -> None:
        deadline = time.monotonic() + 60
        while not any(re.search(pattern, str(asked)) for _, asked in list(place.proxy.log)):
            assert time.monotonic() < deadline, f"no {pattern} came"
            time.sleep(0.01)
        time.sleep(0.3)

    return wait


# --- backup


def check_stopped_backup(place: Place, stopped: Stopped) -> None:
    """Hold a backup that was stopped to what it left, and the next one to what it adds."""
    late = [asked for came, asked in place.proxy.log if came > stopped.at + UNDER_WAY_SECONDS]
    assert [str(asked) for asked in late if asked.operation in ("PUT", "BEGIN", "COMPLETE")] == []
    place.proxy.begin()
    assert place.uploads() == []
    place.check()
    before = set(place.keys("data/"))
    check_success(place.backup())
    sent = {*place.proxy.keys("PUT"), *place.proxy.keys("COMPLETE")}
    assert sent & before == set(), "it was sent again"
    assert place.check() == place.files()


@pytest.mark.parametrize("seed", range(rounds(2)))
def test_a_first_backup_that_is_stopped_is_gone_on_with(seed: int, moto_place: Place) -> None:
    moto_place.proxy.delay = 0.03
    number, wait = drawn(f"first {seed}")
    check_stopped_backup(moto_place, stop(number, wait, "backup", moto_place.bucket, moto_place.job))


@pytest.mark.parametrize("seed", range(rounds(2)))
def test_a_later_backup_that_is_stopped_is_gone_on_with(seed: int, moto_place: Place) -> None:
    check_success(moto_place.backup())
    moto_place.change(seed + 1)
    for one in range(60):
        write_file(moto_place.source / "more" / f"{one}", f"more {one}")
    moto_place.proxy.begin()
    moto_place.proxy.delay = 0.03
    number, wait = drawn(f"later {seed}")
    check_stopped_backup(moto_place, stop(number, wait, "backup", moto_place.bucket, moto_place.job))


STALLS: list[tuple[str, Rule]] = [
    ("^PUT data", always(stalled_request, "^(PUT data|BEGIN|PART|COMPLETE|ABORT)")),
    ("^COMPLETE", always(stalled_before_head, "^COMPLETE")),
    ("^PUT manifests/home/src", always(stalled_request, "^PUT manifests/home/src")),
]


@pytest.mark.parametrize(("awaited", "rule"), STALLS, ids=[awaited for awaited, _ in STALLS])
def test_a_backup_ends_while_the_server_is_silent(awaited: str, rule: Rule, moto_place: Place) -> None:
    number = random.Random(awaited).choice(list(SIGNALS))
    moto_place.proxy.begin(rule)
    wait = await_requests(moto_place, awaited)
    stopped = stop(number, wait, "backup", moto_place.bucket, moto_place.job)
    assert stopped.result.code == SIGNALS[number][0]
    assert moto_place.manifests() == []
    check_stopped_backup(moto_place, stopped)


def test_a_second_ctrl_c_ends_it_at_once(moto_place: Place) -> None:
    moto_place.proxy.begin(always(stalled_before_head, "^(PUT data|PART|ABORT)"))
    with started("backup", moto_place.bucket, moto_place.job) as program:
        await_requests(moto_place, "^PART")(program)
        program.send(signal.SIGINT)
        await_requests(moto_place, "^ABORT")(program)
        at = time.monotonic()
        program.send(signal.SIGINT)
        result = program.end()
    assert time.monotonic() - at < 2
    assert (result.code, result.errors) == (130, ["error: interrupted"])


# --- restore and sync


def check_stopped_restore(place: Place) -> None:
    """Hold what a restore left to be whole, and the next one to fetch only what is missing."""
    done = place.files(place.target) if place.target.exists() else {}
    assert done.items() <= place.files().items()
    place.proxy.begin()
    check_success(place.restore("-f"))
    fetched = {key.rpartition("/")[2] for key in place.proxy.keys("GET")}
    assert fetched & set(done.values()) == set(), "it was fetched again"
    assert place.files(place.target) == place.files()


@pytest.mark.parametrize("seed", range(rounds(2)))
def test_a_restore_that_is_stopped_leaves_only_whole_files(seed: int, stored: Place) -> None:
    stored.proxy.delay = 0.1
    number, wait = drawn(f"restore {seed}", LIFE_SECONDS / 2)
    stop(number, wait, "restore", stored.bucket, "home/src", stored.target)
    check_stopped_restore(stored)


@pytest.mark.parametrize("awaited", ["^GET manifests", "^GET data"])
def test_a_restore_ends_while_the_server_is_silent(awaited: str, stored: Place) -> None:
    number = random.Random(awaited).choice(list(SIGNALS))
    stored.proxy.begin(always(stalled_inside_body, awaited))
    stopped = stop(number, await_requests(stored, awaited), "restore", stored.bucket, "home/src", stored.target)
    assert stopped.result.code == SIGNALS[number][0]
    check_stopped_restore(stored)


def check_stopped_sync(place: Place) -> None:
    """Hold the next sync to bring all in, as if none had been stopped."""
    place.proxy.begin()
    result = place.sync()
    check_success(result)
    assert "2 in the index" in result.out


@pytest.mark.parametrize("seed", range(rounds(1)))
def test_a_sync_that_is_stopped_is_gone_on_with(seed: int, stored: Place) -> None:
    stored.forget_state()
    stored.proxy.delay = 0.1
    number, wait = drawn(f"sync {seed}", LIFE_SECONDS / 2)
    stop(number, wait, "index", "sync", stored.bucket)
    check_stopped_sync(stored)


def test_a_sync_ends_while_the_server_is_silent(stored: Place) -> None:
    stored.forget_state()
    stored.proxy.begin(always(stalled_inside_body, "^GET manifests"))
    stopped = stop(signal.SIGINT, await_requests(stored, "^GET manifests"), "index", "sync", stored.bucket)
    assert stopped.result.code == SIGNALS[signal.SIGINT][0]
    check_stopped_sync(stored)
