"""Whatever happens to a watched tree, a run by the journal says what a full scan says, or is one and says why.

Each round does some of it, now and then while a run is under way, and holds a run by the journal to one that looks
everywhere. Rounds can be played by a program of its own too, that has mounts, rights and limits of its own:

    python -m tests.test_watch.test_chaos SEED ROUNDS DIRECTORY [mounts | rights | limit]

`600s` in the place of the number of rounds plays for so many seconds.
"""

import contextlib
import math
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3bu.backup import Options, doubts
from tests.fakes import World, quicken_scrypt
from tests.rounds import rounds
from tests.running import IS_CI, IS_ROOT, without_override
from tests.test_watch.alone import OWN_LIMITS, OWN_MOUNTS
from tests.test_watch.chaos import Chaos
from tests.test_watch.conftest import hasten_ticks, let_tick
from tests.test_watch.looping import FILTERS, Watcher
from tests.test_watch.oracle import JOURNAL, compare, run_by_journal

_ROUNDS = 200
_OPTIONS = Options("here", accepts_deletions=True)
_OVERFLOWING = 9_000
"""So many files made and removed are more events than the kernel keeps."""


@dataclass(slots=True)
class Tally:
    """How many rounds there were, how many of them went by the journal, and why the others did not."""

    nrounds: int = 0
    ntrusted: int = 0
    nunwatched: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        line = f"{self.nrounds} rounds, {self.ntrusted} by the journal with {self.nunwatched} unwatched directories"
        return "\n".join([line, *(f"  {number:4} {why}" for why, number in self.reasons.most_common())])


class Rounds:
    """Rounds with one tree and one watcher."""

    def __init__(self, directory: Path, seed: int, more: Collection[str] = ()) -> None:
        self._chance = random.Random(seed)
        self._seed = seed
        self.world = World.make(directory)
        self._job = self.world.job(FILTERS)
        self._chaos = Chaos(self.world.source, directory / "outside", self._chance, more)
        self._chaos.act(20)
        self._watcher = Watcher(directory / JOURNAL, self.world.storage.identity, self.world.source)
        self.tally = Tally()

    def play(self, nrounds: int, seconds: float = math.inf) -> Tally:
        """Play rounds, for so long at most; what is not as it should be raises, with what was done last."""
        deadline = time.monotonic() + seconds
        try:
            while self.tally.nrounds < nrounds and time.monotonic() < deadline:
                self._chaos.done.clear()
                self._round()
        except BaseException as error:
            error.add_note(f"seed {self._seed}, round {self.tally.nrounds}: {', '.join(self._chaos.done[-40:])}")
            raise
        finally:
            self._watcher.kill()
        return self.tally

    def _round(self) -> None:
        kind = self._chance.random()
        if kind < 0.5:
            self._chaos.act(self._chance.randint(0, 6))
        elif kind < 0.9:
            self._act_during_a_run()
        elif kind < 0.92:
            with contextlib.suppress(OSError):
                self._chaos.swap_source()
        elif kind < 0.94:
            self._kill()
        elif kind < 0.96:
            self._stop()
        elif kind < 0.98:
            self._overflow()
        let_tick()
        self._compare()

    def _act_during_a_run(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            act = self._chaos.act if self._chance.random() < 0.7 else self._chaos.act_silently
            acted = pool.submit(act, self._chance.randint(3, 15))
            run_by_journal(self.world, self._job, options=_OPTIONS)
            acted.result()

    def _kill(self) -> None:
        """Kill the watcher, let things happen that nobody sees, and start another one, or none for a round."""
        self._watcher.kill()
        self._chaos.act(3)
        self._chaos.act_silently(3)
        if self._chance.random() < 0.5:
            let_tick()
            self._compare()
            self._chaos.act_silently(3)
        self._watcher.start_again()

    def _stop(self) -> None:
        """Let the watcher stand still while things happen, and a run wait for it in vain."""
        self._watcher.stop()
        self._chaos.act(5)
        let_tick()
        self._compare()
        self._chaos.act_silently(4)
        self._watcher.go_on()

    def _overflow(self) -> None:
        """Let the watcher stand still until the kernel's queue is full."""
        self._watcher.stop()
        with contextlib.suppress(OSError):
            self._chaos.storm(_OVERFLOWING)
        self._chaos.act(3)
        self._chaos.act_silently(6)
        self._watcher.go_on()
        if self._chance.random() < 0.7:
            time.sleep(1.5)  # else a cookie finds no place in the queue either

    def _compare(self) -> None:
        outcome = compare(self.world, self._job, _OPTIONS).outcome
        self.tally.nrounds += 1
        if outcome.error is not None:
            self.tally.reasons[f"not backed up: {type(outcome.error).__name__}"] += 1
        elif outcome.why_full is None:
            self.tally.ntrusted += 1
            self.tally.nunwatched += outcome.nunwatched
        else:
            self.tally.reasons[outcome.why_full] += 1


def _play(directory: Path, seed: int, nrounds: int, more: Collection[str] = (), seconds: float = math.inf) -> Tally:
    with pytest.MonkeyPatch.context() as monkeypatch:
        quicken_scrypt(monkeypatch)
        hasten_ticks(monkeypatch)
        monkeypatch.setattr(doubts, "_COOKIE_SECONDS", 2)
        return Rounds(directory, seed, more).play(nrounds, seconds)


def test_chaos(tmp_path: Path) -> None:
    tally = _play(tmp_path, random.randrange(2**32), rounds(_ROUNDS))
    sys.stdout.write(f"{tally}\n")
    assert tally.ntrusted * 2 >= tally.nrounds, tally


def _alone(directory: Path, nrounds: int, *prefix: str, more: tuple[str, ...] = ()) -> None:
    seed = random.randrange(2**32)
    words = [sys.executable, "-m", "tests.test_watch.test_chaos", str(seed), str(nrounds), str(directory), *more]
    ended = subprocess.run([*prefix, *words], capture_output=True, text=True, check=False)
    sys.stdout.write(ended.stdout)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not IS_ROOT and not IS_CI, reason="mounting needs root")
def test_chaos_with_mounts(tmp_path: Path) -> None:
    _alone(tmp_path, rounds(40), *OWN_MOUNTS, more=("mounts",))


def test_chaos_with_too_few_watches(tmp_path: Path) -> None:
    _alone(tmp_path, rounds(40), *OWN_LIMITS, more=("limit",))


def test_chaos_with_what_may_not_be_read(tmp_path: Path) -> None:
    _alone(tmp_path, rounds(40), *without_override(), more=("rights",))


if __name__ == "__main__":
    if "limit" in sys.argv[4:]:
        Path("/proc/sys/user/max_inotify_watches").write_text("9")
    place = Path(sys.argv[3])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    is_timed = sys.argv[2].endswith("s")
    length = int(sys.argv[2].rstrip("s"))
    bounds = (10**9, float(length)) if is_timed else (length, math.inf)
    tally = _play(place, int(sys.argv[1]), bounds[0], sys.argv[4:], bounds[1])
    sys.stdout.write(f"{tally}\n")
