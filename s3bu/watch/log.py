"""What a watcher says: one line an event, and what lasts not again and again."""

from collections.abc import Mapping
from typing import Protocol


class Log(Protocol):
    """Where a watcher says what happens; an `event` is one word, `source` is `JOB/LABEL`, a job, or nothing."""

    def say(self, event: str, message: str, *, source: str = "") -> None:
        """Say one line."""

    def ended(self, source: str, code: int, summary: Mapping[str, object]) -> None:
        """Say what came of a backup, by its exit code and its summary (docs/json.md)."""


class Once:
    """Says what lasts when it begins, and again when it is another thing, or so many seconds have gone by."""

    def __init__(self, log: Log, again_seconds: float) -> None:
        self._log = log
        self._again_seconds = again_seconds
        self._said: dict[tuple[str, str], dict[str, float]] = {}

    def say(self, event: str, message: str, now: float, *, source: str = "", more: str = "") -> None:
        """Say it unless that was said of the source not long ago; `more` may be another text each time."""
        said = self._said.setdefault((event, source), {})
        if message not in said or now - said[message] >= self._again_seconds:
            if len(said) >= _KEPT:
                said.clear()
            said[message] = now
            self._log.say(event, message + more, source=source)

    def over(self, event: str, *, source: str = "") -> bool:
        """Note that it does not last any more; return whether it did."""
        return self._said.pop((event, source), None) is not None


_KEPT = 20
"""So many messages of one kind are known to have been said."""
