"""The program as many processes, each there in no time: forked by a server that has all imported, and killed like any.

A start of the interpreter takes half a second, and a manifest as long for its scrypt; here both take none, so that
hundreds of kills take minutes. Nothing is shared between these processes but files. The server is a program of its own,
since a process with threads, as that of the tests is, should not be forked.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import s3bu
from s3bu.cli import main
from tests.fakes import quicken_scrypt
from tests.running import Argument, Result
from tests.test_each_failure.scenarios import quicken

_PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Forked:
    """A run of the program under way, whose output goes to files."""

    server: "Server"
    pid: int
    out: Path
    err: Path

    def kill_after(self, seconds: float) -> Result:
        """Kill it when it has run for so long, unless it has ended by then."""
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)  # it is there until `end` has waited for it, even if it has ended
        return self.end()

    def end(self) -> Result:
        """Wait for its end; the code of one that was killed is the negative number of the signal."""
        code = self.server.ask({"wait": self.pid})
        return Result(code, self.out.read_text(), self.err.read_text())


@dataclass(frozen=True, slots=True)
class Server:
    """Starts runs, and says how they ended; `outputs` is where they print to."""

    process: subprocess.Popen[bytes]
    outputs: Path
    _started: list[int] = field(default_factory=list)

    def start(self, home: Path, *arguments: Argument) -> Forked:
        """Start the program with that `S3BU_HOME`."""
        self.outputs.mkdir(exist_ok=True)
        name = self.outputs / str(len(self._started))
        out, err = name.with_suffix(".out"), name.with_suffix(".err")
        for path in (out, err):
            path.touch()  # a run may be killed before it could
        environment = os.environ | {"S3BU_HOME": str(home)}
        texts = [os.fsdecode(argument) for argument in arguments]
        pid = self.ask({"arguments": texts, "environment": environment, "out": str(out), "err": str(err)})
        self._started.append(pid)
        return Forked(self, pid, out, err)

    def ask(self, request: dict[str, Any]) -> int:
        """Send a request, and return the number that is the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], _PATIENCE)[0]:
            raise AssertionError(f"it hangs: {request}")
        return int(self.process.stdout.readline())


@contextmanager
def serving(outputs: Path) -> Iterator[Server]:
    """Run a server for a block; what it started and was not waited for ends with it."""
    command = [sys.executable, "-m", "tests.processes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            server = Server(process, outputs)
            server.ask({"wait": 0})  # until it has imported all
            yield server
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _import_all() -> None:
    """Import what the program imports when it is first needed, so that no run has to."""
    importlib.import_module("sqlite_utils")
    for module in pkgutil.walk_packages(s3bu.__path__, "s3bu."):
        if module.name != "s3bu.__main__":
            importlib.import_module(module.name)


def _serve() -> None:
    _import_all()
    with pytest.MonkeyPatch.context() as monkeypatch:
        quicken_scrypt(monkeypatch)
        quicken(monkeypatch)
        for line in sys.stdin:
            request = json.loads(line)
            if request.get("wait") == 0:
                answer = 0
            elif "wait" in request:
                answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            else:
                answer = os.fork() or _run(request)
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()


def _run(request: dict[str, Any]) -> int:
    """Be a run of the program, and end with its code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    code = 70
    try:
        sys.stdout, sys.stderr = open(request["out"], "w"), open(request["err"], "w")  # noqa: SIM115 - to its end
        code = main(request["arguments"])
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - nothing of it may go on as a second server
        sys.stderr.write(f"traceback: {error!r}")
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Say the seed of a round that fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


if __name__ == "__main__":
    _serve()
