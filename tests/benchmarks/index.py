"""The index made from nothing: many snapshots of many files, of which a few change from one to the next.

    python -m tests.benchmarks.index
    python -m tests.benchmarks.index --manifests 10 --files 50000

Makes a repository in a local directory, runs `s3bu index rebuild` as a program, and prints what it took; then what
one further snapshot takes. Most of it is scrypt, which runs in processes of its own, two at a time.
"""

import argparse
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from s3bu import spans
from s3bu.compression import gzip_member
from s3bu.index import open_index
from s3bu.keyring import Keyring
from s3bu.lines import Stretch
from s3bu.manifest import FILE, Entry, Header, format_entry, sort_key
from s3bu.progress import Silent
from s3bu.remembered import Remembered
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey
from s3bu.spans import Packed
from s3bu.storage.place import S3Options, open_storage, parse_place
from tests.benchmarks.running import Cost, timed

_MIB = 1024 * 1024
_SECOND = 1_000_000_000
_START = datetime(2024, 1, 1, 3, tzinfo=UTC)
_SECOND_OF_DAY = 3 * 3600
_PEAK = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=2); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


class Tree:
    """The lines of a made-up source, a hundred files in a directory; some of the files change with each snapshot."""

    def __init__(self, nfiles: int, churn: float, *, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._nchanging = max(1, round(nfiles * churn))
        self.lines = [self._line(number) for number in range(nfiles)]

    @property
    def paths(self) -> list[str]:
        """The paths of the files."""
        return [_path(number) for number in range(len(self.lines))]

    def change(self) -> None:
        """Let the files change whose turn it is."""
        for number in self._random.sample(range(len(self.lines)), min(self._nchanging, len(self.lines))):
            self.lines[number] = self._line(number)

    def _line(self, number: int) -> bytes:
        path = _path(number).encode()
        mtime = self._random.randrange(1_000_000_000, 1_700_000_000)
        nbytes = int(self._random.lognormvariate(8.3, 1.2))
        return format_entry(Entry(path, FILE, nbytes, mtime * _SECOND, 0o644, self._random.randbytes(32).hex()))


def _path(number: int) -> str:
    return f"directory {number // 100:05d}/some file {number:07d}.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """A directory with keys and a repository, and a way to run the program on it."""

    base: Path

    @property
    def repository(self) -> Path:
        return self.base / "repository"

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"S3BU_HOME": str(self.home)}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "s3bu", *arguments, str(self.repository)]

    def run(self, *arguments: str) -> Cost:
        """Run the program to its end; its memory is that of its largest process, which scrypt's may be."""
        return timed(self.command(*arguments), self.environment)

    @contextmanager
    def opened(self) -> Iterator[Repository]:
        """Hold the repository open."""
        storage = open_storage(parse_place(str(self.repository)), S3Options())
        keyring = Keyring(self.home / "secrets.yml", self.home / "identities.txt")
        try:
            yield Repository(storage, keyring, Remembered(self.home, storage.identity), max_work_factor=20)
        finally:
            storage.close()

    def index_nbytes(self) -> int:
        return sum(path.stat().st_size for path in (self.home / "index").iterdir())


def put(repository: Repository, number: int, lines: list[bytes]) -> None:
    """Store the snapshot of a day."""
    created = _START + timedelta(days=number)
    key = ManifestKey("bench", "data", created.date(), _SECOND_OF_DAY)
    whole = b"".join(lines)
    header = Header(str(key), key.job, key.label, "here", created, "")
    repository.put_manifest(header, [Stretch(whole, gzip_member(whole))])


def peak_alone(bench: Bench, *arguments: str) -> float:
    """Return the peak memory in MiB of the program itself, as it says when it ends."""
    script = (
        "import re, sys; from s3bu.cli import main; code = main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, *arguments, str(bench.repository)]
    ended = subprocess.run(command, env=bench.environment, stdout=subprocess.PIPE, check=True)
    return int(ended.stdout.split()[-1]) / 1024


def keep_lines(bench: Bench) -> None:
    """Give the index what a backup would, which keeps the lines of the manifest that it publishes."""
    with bench.opened() as repository, closing(open_index(bench.home, repository.storage.identity, Silent())) as index:
        source = index.source("bench", "data")
        entries = index.currents(source)
        packed: dict[bytes, Packed] = {}
        while stretch := list(islice(entries, spans.COUNT)):
            lines = gzip_member(b"".join(map(format_entry, stretch)))
            packed[sort_key(stretch[-1].path)] = Packed(len(stretch), lines)
        spans.renew(index, source, packed)
        assert all(spans.kept_lines(index, source, span) for span in spans.spans(index, source))


def report(name: str, cost: Cost, nsnapshots: int) -> None:
    """Print what a command took."""
    each = cost.seconds / nsnapshots
    print(f"{name}: {cost.seconds:.2f} s ({each:.2f} s a snapshot), {cost.processor:.2f} s CPU", flush=True)


def print_index(bench: Bench, name: str, nfiles: int) -> None:
    """Print how large the index is."""
    nbytes = bench.index_nbytes()
    print(f"{name}: {nbytes / _MIB:.1f} MiB, {nbytes / nfiles:.0f} bytes a file", flush=True)


def measure(bench: Bench, tree: Tree, nmanifests: int) -> None:
    """Make the snapshots, and measure what it takes to take them in."""
    with bench.opened() as repository:
        for number in range(nmanifests):
            put(repository, number, tree.lines)
            tree.change()
        cost = bench.run("index", "rebuild")
        report("index rebuild", cost, nmanifests)
        print_index(bench, "index", len(tree.lines))
        keep_lines(bench)
        print_index(bench, "index with the lines that a backup keeps", len(tree.lines))
        put(repository, nmanifests, tree.lines)
        report("index sync of one further snapshot", bench.run("index", "sync"), 1)
        report("index sync of nothing new", bench.run("index", "sync"), 1)
    alone = peak_alone(bench, "index", "rebuild")
    print(f"peak memory of a rebuild: {alone:.0f} MiB itself, {cost.peak_mib:.0f} MiB its largest process")


def main() -> None:
    """Make the data, measure, print, and remove the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifests", type=int, default=100)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--churn", type=float, default=0.001, help="the part of the files that changes each time")
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = options.base or Path(tempfile.mkdtemp(prefix="s3bu-bench-"))
    bench = Bench(base)
    try:
        bench.run("init")
        print(f"{options.manifests} snapshots of {options.files:,} files, churn {options.churn:.2%}", flush=True)
        measure(bench, Tree(options.files, options.churn), options.manifests)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
