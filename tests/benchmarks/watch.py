"""What watching costs: a run with nothing to do, a change on its way into a snapshot, a watcher at rest, many watches.

    python -m tests.benchmarks.watch
    python -m tests.benchmarks.watch --rest-seconds 300

Makes a tree of small files (data set C), starts `s3bu watch`, and measures in turn `s3bu backup` by the journal and
with --full-scan; then how long after a change its snapshot is there, beyond the time to settle; then what the watcher
uses while nothing happens; last how long it takes to watch 60,000 directories, with `find` beside it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.again import Programs, make_tree, write
from tests.benchmarks.running import Cost, compare

_SETTLE_SECONDS = 1
_PATIENCE_SECONDS = 600
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def watcher(programs: Programs, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Hold a watcher of the job running; its log lies beside the tree."""
    command = [sys.executable, "-m", "s3bu", "watch", str(programs.base / "s3bu"), str(programs.base / "bench.yml")]
    with (programs.base / "watch.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], env=programs.environment, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=15):
            raise SystemExit(f"the watcher ended with {process.returncode}")


def await_manifests(programs: Programs, number: int) -> float:
    """Wait for so many snapshots, and return the time by the clock."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(manifests(programs)) < number:
        if time.monotonic() > deadline:
            raise SystemExit((programs.base / "watch.log").read_text())
        time.sleep(0.02)
    return time.monotonic()


def manifests(programs: Programs) -> list[Path]:
    """Return the snapshots that are there."""
    return list((programs.base / "s3bu" / "manifests" / "bench" / "data").glob("*.csv.gz"))


def await_line(programs: Programs, text: str) -> float:
    """Wait until the watcher says something, and return the time by the clock."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while text not in (programs.base / "watch.log").read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"it never said {text!r}")
        time.sleep(0.02)
    return time.monotonic()


def processor(pid: int) -> float:
    """Return the seconds of processor that a process has used, with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def measure_changes(programs: Programs, rounds: int) -> None:
    """Change a file, and see how long it takes until a snapshot has it."""
    delays = []
    for number in range(rounds):
        before = len(manifests(programs))
        changed = time.monotonic()
        write(programs.tree / "dir000" / "sub00000" / "file number 0000.txt", b"changed %d" % number)
        delays.append(await_manifests(programs, before + 1) - changed - _SETTLE_SECONDS)
        time.sleep(2 * _SETTLE_SECONDS)
    shown = ", ".join(f"{delay:.2f}" for delay in delays)
    print(f"a change is in a snapshot {shown} s after the tree had settled", flush=True)


def measure_rest(pid: int, seconds: int) -> None:
    """See what the watcher uses while nothing happens."""
    before = processor(pid)
    time.sleep(seconds)
    used = processor(pid) - before
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(f"at rest for {seconds} s: {100 * used / seconds:.3f} % of a core, {memory:.0f} MiB, at most {peak:.0f} MiB")


def measure_start(base: Path, ndirectories: int) -> None:
    """See how long it takes to watch a tree of directories alone."""
    programs = Programs(base, base / "directories")
    for number in range(ndirectories):
        (programs.tree / f"{number // 250:03d}" / f"{number:05d}").mkdir(parents=True)
    (base / "bench.yml").write_text(f"sources:\n  - path: {programs.tree}\n    label: many\n")
    began = time.monotonic()
    with watcher(programs, "--record-only") as process:
        seconds = await_line(programs, "watching") - began
        print(f"{ndirectories:,} directories are watched {seconds:.2f} s after the start of the program", flush=True)
        measure_rest(process.pid, 5)
    print(f"find: {programs.find().seconds:.2f} s")


def main() -> None:
    """Make the tree, measure, print, and remove all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--directories", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest-seconds", type=int, default=60)
    parser.add_argument("--watched-directories", type=int, default=60_000)
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="s3bu-bench-", dir=options.base))
    programs = Programs(base, base / "tree")

    def full() -> Cost:
        return programs.s3bu("backup", str(base / "s3bu"), str(base / "bench.yml"), "--full-scan")

    try:
        make_tree(programs.tree, options.files, options.directories)
        programs.begin(has_restic=False)
        budget = ("--manifest-budget", "1TB")
        with watcher(programs, "--settle", f"{_SETTLE_SECONDS}s", "--interval", "1s", *budget) as process:
            await_line(programs, "snapshot of")
            print(f"nothing to do, {options.files:,} files", flush=True)
            compare({"by the journal": programs.s3bu_backup, "full scan": full}, rounds=options.rounds)
            measure_changes(programs, options.rounds)
            measure_rest(process.pid, options.rest_seconds)
        measure_start(base, options.watched_directories)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
