"""What a watcher says: one line an event, with its time, for a person or a program."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime

from s3bu.console.lines import json_object
from s3bu.console.text import changes, counted, sent, shown_line
from s3bu.moment import format_duration, format_local

_INCOMPLETE = 3
_FACTS = (
    "snapshot_id",
    "files_new",
    "files_changed",
    "files_removed",
    "others_new",
    "others_changed",
    "others_removed",
    "failed",
    "deferred",
    "total_files_processed",
    "data_added_packed",
    "manifest_size",
    "unwatched_directories",
    "full_scan",
    "total_duration",
)
"""What is told of a backup's summary."""


class PersonLog:
    """Lines for a person on stderr; without a time where systemd's journal puts one before each."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._has_time = "JOURNAL_STREAM" not in os.environ
        self._is_quiet = is_quiet

    def say(self, event: str, message: str, *, source: str = "") -> None:
        """Say one line."""
        if self._is_quiet and event not in ("failed", "error", "warning", "limit", "journal", "running"):
            return
        when = f"{format_local(datetime.now().astimezone())} " if self._has_time else ""
        about = f"{source}: " if source else ""
        with contextlib.suppress(OSError):  # nobody listens any more, or the log's disk is full: no reason to end
            print(shown_line(f"{when}{about}{message}"), file=sys.stderr, flush=True)

    def ended(self, source: str, code: int, summary: Mapping[str, object]) -> None:
        """Say what came of a backup."""
        self.say("ended", _told(code, summary), source=source)


class JsonLog:
    """Lines for a program on stdout (docs/json.md)."""

    def say(self, event: str, message: str, *, source: str = "") -> None:
        """Say one line."""
        self._print(event, message, source, {})

    def ended(self, source: str, code: int, summary: Mapping[str, object]) -> None:
        """Say what came of a backup."""
        facts = {"exit_code": code} | {name: summary.get(name) for name in _FACTS}
        self._print("ended", _told(code, summary), source, facts)

    def _print(self, event: str, message: str, source: str, facts: Mapping[str, object]) -> None:
        job, _, label = source.partition("/")
        of = {name: text for name, text in (("job", job), ("label", label)) if text}
        about = {"message_type": "watch", "time": datetime.now().astimezone(), "event": event, "message": message}
        with contextlib.suppress(OSError):
            print(json_object({**about, **of, **facts}), flush=True)


def _told(code: int, summary: Mapping[str, object]) -> str:
    return "; ".join(_parts(code, summary))


def _parts(code: int, summary: Mapping[str, object]) -> Iterator[str]:
    """Yield what a person wants to know of a backup."""

    def number(name: str) -> int:
        value = summary.get(name)
        return value if isinstance(value, int) else 0

    if summary.get("snapshot_id") is None:
        yield "no change since the last snapshot"
    else:
        paths = changes(*(number(f"files_{one}") + number(f"others_{one}") for one in ("new", "changed", "removed")))
        size = sent(number("data_added_packed"), number("manifest_size"))
        yield f"snapshot of {counted(number('total_files_processed'), 'file')}: {paths}; {size}"
    if code == _INCOMPLETE:
        yield f"incomplete: {counted(number('failed'), 'path')} failed"
    if number("deferred"):
        yield f"{counted(number('deferred'), 'large file')} not taken again yet"
    seconds = summary.get("total_duration")
    if isinstance(seconds, int | float):
        yield format_duration(seconds)
    if isinstance(summary.get("full_scan"), str):
        yield f"full scan: {summary['full_scan']}"
