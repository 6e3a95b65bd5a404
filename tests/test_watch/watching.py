"""What the tests of the watcher share: its children, as the system shows them."""

import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the children of a process that has one thread that makes any."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def await_run(pid: int) -> int:
    """Wait until a watcher has started a run, which is the program by then, and return its process."""
    while True:
        for child in children(pid):
            if b"backup\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.01)
