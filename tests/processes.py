"""The program as processes that are there at once: forked from this one, which has all imported, and killed like any.

What this process patched (a quick scrypt, small parts) is patched there too. Nothing is shared but files.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3bu.cli import main
from tests.running import Argument, Result

_PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Forked:
    """A run of the program under way, whose output goes to files."""

    pid: int
    out: Path
    err: Path

    def kill_after(self, seconds: float) -> Result:
        """Kill it when it has run for so long, unless it has ended by then."""
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> Result:
        """Wait for its end; the code of one that was killed is the negative number of the signal."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return Result(os.waitstatus_to_exitcode(status), self.out.read_text(), self.err.read_text())
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"it hangs: {self.err.read_text()}")
            time.sleep(0.002)


def forked(outputs: Path, home: Path, *arguments: Argument) -> Forked:
    """Start the program with that `S3BU_HOME`; what it prints goes to files in `outputs`."""
    outputs.mkdir(exist_ok=True)
    name = f"{time.monotonic_ns()}"
    out, err = outputs / f"{name}.out", outputs / f"{name}.err"
    out.touch()
    err.touch()
    pid = os.fork()
    if pid:
        return Forked(pid, out, err)
    code = 70
    try:
        os.environ["S3BU_HOME"] = str(home)
        sys.stdout, sys.stderr = out.open("w"), err.open("w")
        code = main([os.fsdecode(argument) for argument in arguments])
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - nothing of it may go on in two processes
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
