"""Runs of the program as child processes: a backup, `forget`, or a look at the jobs.

A crash, a leak or a peak of memory in a run never ends the watcher, and a run is exactly what cron would start. Each
has a session of its own, so that Ctrl-C in a terminal reaches the watcher alone, which then tells its children. What a
run says in JSON lines (docs/json.md) is read as it comes, and kept within bounds.
"""

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TypeAlias

KEPT = 10
"""So many errors and warnings of a run are kept; further ones are counted."""
_PIECE = 64 * 1024
_LINE_BOUND = 8 * 1024 * 1024
"""A job of a mebibyte is no longer as JSON."""
_FACTS_BOUND = 1000
_OF_A_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM")
"""What systemd tells a service is for that process alone."""

Message: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Commands:
    """How the program is called: what comes before each command, and the options that each gets."""

    program: tuple[str, ...]
    repository: str
    common: tuple[str, ...] = ()
    of_backup: tuple[str, ...] = ()

    def backup(self, job: str, label: str) -> list[str]:
        """Return the command that backs up one source."""
        return self._words("backup", self.repository, job, label, *self.of_backup)

    def forget(self, job: str) -> list[str]:
        """Return the command that lets old snapshots of a job go."""
        return self._words("forget", self.repository, job)

    def list_jobs(self) -> list[str]:
        """Return the command that tells the versions of all jobs."""
        return self._words("job", "list", self.repository)

    def show_job(self, job: str) -> list[str]:
        """Return the command that tells the newest version of a job."""
        return self._words("job", "show", self.repository, job)

    def _words(self, *words: str) -> list[str]:
        return [*self.program, *words, "--json", "--no-progress", *self.common]


@dataclass(slots=True)
class Ended:
    """What came of a run: its exit code, the messages that were asked for, errors and warnings as text.

    `errors` and `warnings` are the first ones, `nerrors` counts all. `why` is what ended it, if something did.
    """

    code: int = 0
    facts: list[Message] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    nerrors: int = 0
    why: str | None = None

    @property
    def summary(self) -> Message:
        """The last of the facts, or none."""
        return self.facts[-1] if self.facts else {}


class Child:
    """A run under way. `keeps` names the type of message whose facts are wanted.

    Its pipes are registered with the selector: whoever selects calls the `data` of the key, and `ended` once a child
    has died.
    """

    def __init__(self, words: Sequence[str], selector: selectors.BaseSelector, *, keeps: str = "summary") -> None:
        self._selector = selector
        self._keeps = keeps
        self._ended = Ended()
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment(os.environ),
        )
        self._lines: dict[int, bytearray | None] = {}
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)
            self._lines[stream.fileno()] = bytearray()
            selector.register(stream, selectors.EVENT_READ, self._reader(stream))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def _streams(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    def ended(self) -> Ended | None:
        """Return what came of it, `None` as long as it runs."""
        code = self._process.poll()
        if code is None:
            return None
        for stream in self._streams:
            while not stream.closed and self._read(stream):
                pass
            self._close(stream)
        # What a signal ended has the number that a shell would tell.
        self._ended.code = code if code >= 0 else 128 - code
        if self._ended.code not in (0, 3) and self._ended.why is None:
            self._ended.why = self._ended.errors[-1] if self._ended.errors else f"ended with {self._ended.code}"
        return self._ended

    def stop(self) -> None:
        """Tell it to end, as a user would."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reader(self, stream: IO[bytes]) -> Callable[[], object]:
        return lambda: self._read(stream)

    def _read(self, stream: IO[bytes]) -> bool:
        """Take what is there, and return whether more may come."""
        try:
            piece = os.read(stream.fileno(), _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._close(stream)
            return False
        self._take(stream.fileno(), piece)
        return True

    def _take(self, number: int, piece: bytes) -> None:
        *whole, rest = piece.split(b"\n")
        for text in whole:
            line = self._lines[number]
            self._lines[number] = bytearray()
            if line is not None:
                self._say(bytes(line) + text)
        line = self._lines[number]
        if line is not None:
            line += rest
            # What is longer than anything that it says is passed over, to its end.
            self._lines[number] = line if len(line) <= _LINE_BOUND else None

    def _close(self, stream: IO[bytes]) -> None:
        if not stream.closed:
            rest = self._lines.pop(stream.fileno())
            if rest:
                self._say(bytes(rest))
            self._selector.unregister(stream)
            stream.close()

    def _say(self, line: bytes) -> None:
        """Take a line that it said; what is no JSON is said by Python, or by something below it."""
        message = _parsed(line)
        kind = message.get("message_type")
        if kind == self._keeps:
            if len(self._ended.facts) < _FACTS_BOUND:
                self._ended.facts.append(message)
        elif kind == "warning":
            if len(self._ended.warnings) < KEPT:
                self._ended.warnings.append(str(message.get("message")))
        elif kind == "exit_error":
            self._ended.why = _with_hint(message)
        elif kind in ("error", None):
            self._ended.nerrors += 1
            if len(self._ended.errors) < KEPT:
                self._ended.errors.append(_error_text(message))


def _parsed(line: bytes) -> Message:
    """Return a message; of a line that is none, one without a type."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and "message_type" in message:
        return message
    return {"message": line.decode("utf-8", "backslashreplace")[:500]}


def _error_text(message: Message) -> str:
    error = message.get("error")
    if not isinstance(error, dict):
        return str(message.get("message"))
    return f"{message['item']}: {error.get('message')}" if "item" in message else _with_hint(error)


def _with_hint(message: Mapping[str, object]) -> str:
    hint = message.get("hint")
    return f"{message.get('message')}; {hint}" if hint else str(message.get("message"))


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _OF_A_SERVICE}
