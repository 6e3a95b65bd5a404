"""The runs under way, and what is to be done when each has ended."""

import selectors
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from s3bu.watch.events import now
from s3bu.watch.runs import Child, Ended

_SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class _Waiting:
    child: Child
    job: str | None
    then: Callable[[Ended], object]
    began: float


class Children:
    """The runs under way. A run that has the lock of a job is told so by the job's name."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._waiting: list[_Waiting] = []
        self._is_stopped = False

    @property
    def are_there(self) -> bool:
        """Whether any run is under way."""
        return bool(self._waiting)

    def is_busy(self, job: str) -> bool:
        """Say whether a run of a job is under way."""
        return any(one.job == job for one in self._waiting)

    def lasting(self, seconds: float) -> Iterator[tuple[int, str | None]]:
        """Yield process and job of each run that has been under way for so long."""
        return ((one.child.pid, one.job) for one in self._waiting if now() - one.began >= seconds)

    def start(
        self,
        words: Sequence[str],
        then: Callable[[Ended], object],
        *,
        job: str | None = None,
        keeps: str = "summary",
    ) -> None:
        """Start a run, unless all are to end; `then` gets what came of it. One that cannot be started has failed."""
        if self._is_stopped:
            return
        try:
            child = Child(words, self._selector, keeps=keeps)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            then(Ended(1, why=f"the run could not be started ({why})"))
            return
        self._waiting.append(_Waiting(child, job, then, now()))

    def reap(self) -> None:
        """See which runs have ended, and do what is to be done then; not of those that were told to end."""
        for one in list(self._waiting):
            ended = one.child.ended()
            if ended is not None:
                self._waiting.remove(one)
                if not (self._is_stopped and ended.code > _SIGNALLED):
                    one.then(ended)

    def stop(self) -> None:
        """Tell all runs to end, and let none begin any more."""
        self._is_stopped = True
        for one in self._waiting:
            one.child.stop()

    def kill(self) -> None:
        """End all runs at once."""
        for one in self._waiting:
            one.child.kill()
