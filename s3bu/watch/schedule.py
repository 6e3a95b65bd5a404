"""When to back up which source: decided from times alone, by a clock that somebody else reads.

All times are seconds of one clock that never goes back and goes on while the machine sleeps.

Promises, for each source: a change is never forgotten; a run begins no sooner than `interval` after the last one
began, or as much later as the manifests' budget wants; and no later than that after the first change, unless runs
fail. Those are tried again, sooner at first and then more seldom, without end.
"""

import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_Source = TypeVar("_Source", bound=Hashable)

NEVER = math.inf
_DAY = 86_400.0
_FIRST_RETRY = 10.0
_LAST_RETRY = 600.0
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to back up: seconds, and the bytes of manifests that all sources together may publish in a day."""

    interval: float = 300.0
    settle: float = 10.0
    budget: int = 2**30
    full_every: float = _DAY


@dataclass(slots=True)
class _Standing:
    """What is known of a source; `wanted` is when something else than a change wants a run."""

    wanted: float
    full_due: float
    first_change: float = NEVER
    last_change: float = NEVER
    began: float | None = None
    is_running: bool = False
    published: float | None = None
    manifest_nbytes: int = 0
    failures: int = 0
    retry: float = 0.0


class Schedule(Generic[_Source]):
    """When each source is to be backed up; sources are named by whatever the caller likes.

    `chance` returns a number from 0 to 1, by which repeated tries of several watchers get out of step.
    """

    def __init__(self, pace: Pace, *, chance: Callable[[], float] = random.random) -> None:
        self.pace = pace
        self._chance = chance
        self._sources: dict[_Source, _Standing] = {}

    def add(self, source: _Source, now: float) -> None:
        """Begin with a source, which is due at once."""
        self._sources[source] = _Standing(wanted=now, full_due=NEVER)

    def remove(self, source: _Source) -> None:
        """Forget a source."""
        self._sources.pop(source, None)

    def changed(self, source: _Source, now: float) -> None:
        """Note that something in a source changed."""
        one = self._sources[source]
        one.first_change = min(one.first_change, now)
        one.last_change = now

    def want(self, source: _Source, when: float) -> None:
        """Let a run be due at a time, though nothing changes: something was put off until then."""
        one = self._sources[source]
        one.wanted = min(one.wanted, when)

    def begin(self, source: _Source, now: float) -> None:
        """Note that a run begins, which takes all changes up to now."""
        one = self._sources[source]
        one.began, one.is_running = now, True
        one.first_change = one.last_change = one.wanted = NEVER

    def succeed(self, source: _Source, *, manifest_nbytes: int | None, was_full: bool) -> None:
        """Note that the run under way is done: how large a manifest it published, if any, and whether it was full."""
        one = self._sources[source]
        assert one.began is not None
        one.is_running, one.failures, one.retry = False, 0, 0.0
        if manifest_nbytes is not None:
            one.published, one.manifest_nbytes = one.began, manifest_nbytes
        if was_full or one.full_due == NEVER:
            one.full_due = one.began + self.pace.full_every

    def fail(self, source: _Source, now: float) -> None:
        """Note that the run under way failed: all that it was to take is still to be taken."""
        one = self._sources[source]
        one.is_running = False
        one.failures += 1
        delay = min(_FIRST_RETRY * 2 ** min(one.failures - 1, 16), _LAST_RETRY)
        one.retry = now + delay * (1 + _JITTER * self._chance())
        one.wanted = min(one.wanted, now)

    def stretched(self, source: _Source) -> float:
        """Return how far apart runs of a source that publish must be, so that all keep within the budget."""
        size = self._sources[source].manifest_nbytes
        return max(self.pace.interval, _DAY * size * len(self._sources) / self.pace.budget)

    def failures(self, source: _Source) -> int:
        """Return how many runs failed one after the other."""
        return self._sources[source].failures

    def due(self, source: _Source) -> float:
        """Return when a run of a source is to begin, `NEVER` as long as nothing wants one, or one is under way."""
        one = self._sources[source]
        if one.is_running:
            return NEVER
        quiet = one.last_change + self.pace.settle
        late = one.first_change + self.pace.interval
        return max(min(quiet, late, one.wanted, one.full_due), self._floor(source, one))

    def _floor(self, source: _Source, one: _Standing) -> float:
        """Return before when no run may begin."""
        if one.failures:
            return one.retry
        floor = -math.inf if one.began is None else one.began + self.pace.interval
        return floor if one.published is None else max(floor, one.published + self.stretched(source))

    def all_due(self, now: float) -> list[_Source]:
        """Return the sources of which a run is to begin, the one that waits longest first."""
        due = sorted((self.due(source), number, source) for number, source in enumerate(self._sources))
        return [source for when, _, source in due if when <= now]

    def next(self) -> float:
        """Return when the next run is due."""
        return min(map(self.due, self._sources), default=NEVER)
