"""A run without changes, ours beside restic and beside a bare walk of the same tree, in one run.

    python -m tests.benchmarks.again
    python -m tests.benchmarks.again --files 1000000 --directories 10000 --no-restic

Makes a tree of small files (data set C; the second form is data set D), backs it up once with each program into a
local repository of its own, then measures in turn a run that finds nothing new, and last one after a thousandth of the
files changed. The memory is that of the program itself; scrypt, which a run with a snapshot needs, takes its 256 MiB
in a process of its own for under a second, and is the largest process of such a run.
"""

import argparse
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.running import Cost, compare, timed

_PAST = 1_600_000_000
_OWN_PEAK = (
    "import os, re, sys; from s3bu.cli import main; code = main(sys.argv[1:]); sys.stdout.flush(); "
    "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]; "
    "open(os.environ['PEAK_FILE'], 'w').write(peak); os._exit(code)"
)


def make_tree(root: Path, nfiles: int, ndirectories: int) -> None:
    """Make files of a few bytes, spread over directories two levels deep, with times in the past."""
    for directory in range(ndirectories):
        path = root / f"dir{directory % 50:03d}" / f"sub{directory:05d}"
        path.mkdir(parents=True)
        for number in range(nfiles // ndirectories):
            write(path / f"file number {number:04d}.txt", b"%d %d" % (directory, number % 7))


def write(path: Path, content: bytes, mtime: int = _PAST) -> None:
    """Write a file with a time."""
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))


def change(root: Path, nfiles: int, ndirectories: int) -> None:
    """Change a thousandth of the files."""
    rng = random.Random(1)
    each = nfiles // ndirectories
    for number in rng.sample(range(each * ndirectories), max(nfiles // 1000, 1)):
        directory = number // each
        path = root / f"dir{directory % 50:03d}" / f"sub{directory:05d}" / f"file number {number % each:04d}.txt"
        write(path, b"changed %d" % number, _PAST + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Programs:
    """The programs that are compared, with their repositories in `base` and the tree that they back up."""

    base: Path
    tree: Path

    @property
    def environment(self) -> dict[str, str]:
        """Where they find their keys."""
        return os.environ | {
            "S3BU_HOME": str(self.base / "home"),
            "RESTIC_PASSWORD": "secret",
            "PEAK_FILE": str(self.base / "peak"),
        }

    def s3bu(self, *arguments: str) -> Cost:
        """Run ours, with the memory of the program itself."""
        cost = timed([sys.executable, "-c", _OWN_PEAK, *arguments], self.environment)
        return dataclasses.replace(cost, peak_mib=int((self.base / "peak").read_text()) / 1024)

    def s3bu_backup(self) -> Cost:
        """Back up with ours."""
        return self.s3bu("backup", str(self.base / "s3bu"), str(self.base / "bench.yml"))

    def restic_backup(self) -> Cost:
        """Back up with restic."""
        command = ["restic", "-q", "-r", str(self.base / "restic"), "backup", str(self.tree)]
        return timed(command, self.environment)

    def find(self) -> Cost:
        """Walk the tree and look at each file, as cheaply as can be."""
        return timed(["find", str(self.tree), "-printf", "%p %s %T@ %C@ %i\\n"], self.environment)

    def begin(self, *, has_restic: bool) -> None:
        """Make the repositories."""
        (self.base / "bench.yml").write_text(f"sources:\n  - path: {self.tree}\n    label: data\n")
        self.s3bu("init", str(self.base / "s3bu"))
        if has_restic:
            subprocess.run(["restic", "-q", "-r", str(self.base / "restic"), "init"], env=self.environment, check=True)


def main() -> None:
    """Make the tree, measure, print, and remove all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--directories", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-restic", action="store_true")
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="s3bu-bench-", dir=options.base))
    programs = Programs(base, base / "tree")
    try:
        make_tree(programs.tree, options.files, options.directories)
        programs.begin(has_restic=not options.no_restic)
        ours: dict[str, Callable[[], Cost]] = {"s3bu": programs.s3bu_backup}
        peers = ours if options.no_restic else ours | {"restic": programs.restic_backup}
        print(f"first backup of {options.files:,} files in {options.directories:,} directories", flush=True)
        compare(peers, rounds=1)
        print("again, without changes", flush=True)
        compare(peers | {"find": programs.find}, rounds=options.rounds)
        change(programs.tree, options.files, options.directories)
        print("again, a thousandth of the files changed", flush=True)
        compare(peers, rounds=1)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
