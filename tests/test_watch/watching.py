"""What the tests of the watcher as a program share."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.running import (
    SECONDS,
    Argument,
    Scene,
    Started,
    started,
    succeed,
    tree,
)

QUICK = ("--interval", "1s", "--settle", "1s")
NEW_SESSION = "the watcher started after the last full scan"


@contextmanager
def watching(
    scene: Scene, *arguments: Argument, job: Argument | None = None, prefix: Sequence[str] = ()
) -> Iterator[Started]:
    """Watch a job in a block, and hold the watcher to a good end."""
    with started("watch", scene.repository, job or scene.job, *QUICK, *arguments, prefix=prefix) as watcher:
        yield watcher
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def restored(scene: Scene, what: str = "home/src") -> Any:
    shutil.rmtree(scene.target, ignore_errors=True)
    succeed("restore", scene.repository, what, scene.target)
    return tree(scene.target)


def can_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def restored_if_any(scene: Scene) -> Any:
    return restored(scene) if (scene.repository / "manifests").exists() else None


def backed_up_again(scene: Scene) -> Any:
    """Back up as cron does, and return the summary."""
    return json.loads(succeed("backup", scene.repository, scene.job, "--json", "-q").out)


def children(pid: int) -> list[int]:
    """Return the children of a process that has one thread that makes any."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def await_run(pid: int) -> int:
    """Wait until a watcher has started a run, which is the program by then, and return its process."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for child in children(pid):
            with suppress(OSError):  # it ended in this moment
                if b"backup\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        time.sleep(0.01)
    raise AssertionError("no run is under way")
