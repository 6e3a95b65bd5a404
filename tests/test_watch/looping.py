"""The loop of a watcher, as small as it can be, as a program of its own that can be stopped and killed.

`python -m tests.test_watch.looping HOME IDENTITY SOURCE` watches until its standard input ends.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from s3bu.filters import Filters
from s3bu.journal import open_for_watching, rules_of
from s3bu.selection import Selection
from s3bu.watch.tree import Tree

LOOK_SECONDS = 0.3
FILTERS = Filters(
    exclude_extensions=(b"tmp",),
    skip_dirs=(b"cache",),
    skip_dir_items=(b".nobackup",),
    selection=Selection(ignore_files=(b".ignore",), has_cachedir_tag=True),
)


def main(home: Path, identity: str, source: Path) -> None:
    journal = open_for_watching(home, identity)
    session = journal.begin_session()
    waking, wake = os.pipe()
    tree = Tree(journal.cookies, lambda: write_byte(wake))
    number = journal.watch_source(session, "home", "docs", 86_400, rules_of(FILTERS))
    tree.start()
    tree.add(number, os.fsencode(source), FILTERS, {})
    journal.record(session, tree.take())
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    looked = time.monotonic()
    while True:
        ready, _, _ = select.select([waking, 0], [], [], LOOK_SECONDS)
        if 0 in ready:
            break
        if waking in ready:
            os.read(waking, 4096)
        journal.record(session, tree.take())
        journal.beat(session)
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            tree.look_again()
    tree.close()
    journal.end_session(session)


def write_byte(descriptor: int) -> None:
    """Wake who waits for a pipe."""
    os.write(descriptor, b"x")


class Watcher:
    """Such a program under way."""

    def __init__(self, home: Path, identity: str, source: Path) -> None:
        self._command = [sys.executable, "-m", "tests.test_watch.looping", str(home), identity, str(source)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        return process

    def stop(self) -> None:
        """Let it stand still."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it in mid-air."""
        self._process.kill()
        self._close()

    def end(self) -> None:
        """Let it end as it should."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        self._close()

    def start_again(self) -> None:
        """Start it anew, when it has ended."""
        self._process = self._start()

    def _close(self) -> None:
        self._process.wait(20)
        for stream in (self._process.stdin, self._process.stdout):
            close(stream)


def close(stream: IO[bytes] | None) -> None:
    """Close a pipe, if it is one."""
    if stream is not None:
        stream.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
