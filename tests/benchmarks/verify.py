"""Verify with a million contents: seconds, memory, and requests.

    python -m tests.benchmarks.verify
    python -m tests.benchmarks.verify --files 100000

Makes a repository in a local directory with one snapshot, whose contents lie in a storage that makes up its listing of
them as it is asked, so that the memory is that of verify alone. Each case runs in a process of its own.
"""

import argparse
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from s3bu.compression import gzip_member
from s3bu.errors import ObjectNotFound, StorageError
from s3bu.index import open_index
from s3bu.keyring import Keyring
from s3bu.lines import Stretch
from s3bu.manifest import FILE, Entry, Header, format_entry
from s3bu.progress import Silent
from s3bu.remembered import Remembered
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey, content_key, smallest_object
from s3bu.size import Share
from s3bu.storage import Download, ObjectStat
from s3bu.storage.directory import DirectoryStorage
from s3bu.sync import sync
from s3bu.verify import Manifests, Options, run
from s3bu.verify.report import faults

_NBYTES = 4096
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_PAGE = 1000
CASES = ("sound", "all missing", "all compressed by others", "the same again", "choosing what to read")


class MadeUp(DirectoryStorage):
    """A directory, but for its contents, of which there are `number`; counts the requests that S3 would be asked."""

    def __init__(self, path: str, number: int, nbytes: int) -> None:
        super().__init__(path)
        self.requests: Counter[str] = Counter()
        self._number = number
        self._nbytes = nbytes

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        self.requests[f"list {prefix}"] += 1
        if prefix != "data/":
            yield from super().list(prefix, after=after)
            return
        for number in range(self._number):
            self.requests["pages of data/"] += number % _PAGE == 0
            yield ObjectStat(content_key(hash_of(number)), self._nbytes, _CREATED, f"{number:032x}")

    def metadata(self, key: str) -> Mapping[str, str]:
        self.requests["heads"] += 1
        return {"s3bu-compress": "gzip"}

    def open_all(self, keys: Sequence[str], *, bound: int) -> Sequence[Download | StorageError]:
        self.requests["reads"] += len(keys)
        return [ObjectNotFound(f"there is no {key}") for key in keys]


def hash_of(number: int) -> str:
    """Return a hash that comes after those of lower numbers."""
    return f"{number << 236:064x}"


def entries(number: int) -> Iterator[Entry]:
    for one in range(number):
        path = b"directory %05d/some file %07d.txt" % (one // 100, one)
        yield Entry(path, FILE, _NBYTES, 10**18, 0o644, hash_of(one * 7 % number))


def opened(base: Path, number: int, nbytes: int) -> Repository:
    storage = MadeUp(str(base / "repository"), number, nbytes)
    keyring = Keyring(base / "home" / "secrets.yml", base / "home" / "identities.txt")
    return Repository(storage, keyring, Remembered(base / "home", storage.identity), max_work_factor=20)


def make(base: Path, number: int) -> None:
    """Make keys, a repository with one snapshot, and the index of it."""
    environment = os.environ | {"S3BU_HOME": str(base / "home")}
    command = [sys.executable, "-m", "s3bu", "init", "-q", str(base / "repository")]
    subprocess.run(command, env=environment, check=True)
    repository = opened(base, 0, 0)
    key = ManifestKey("bench", "data", _CREATED.date(), 0)
    lines = b"".join(map(format_entry, entries(number)))
    header = Header(str(key), key.job, key.label, "here", _CREATED, "")
    repository.put_manifest(header, [Stretch(lines, gzip_member(lines))])
    with closing(open_index(base / "home", repository.storage.identity, Silent())) as index:
        sync(repository, index, Silent())


def play(base: Path, case: str, number: int) -> None:
    """Verify, and print what it took as JSON."""
    is_short = case in ("all compressed by others", "the same again")
    repository = opened(base, 0 if case == "all missing" else number, 1000 if is_short else smallest_object(_NBYTES))
    reads = Share(1.0, 1) if case == "choosing what to read" else None
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with closing(open_index(base / "home", repository.storage.identity, Silent())) as index:
        sync(repository, index, Silent())
        report = run(repository, index, Manifests(), [], Options(reads=reads), Silent())
        named = sum(1 for _ in faults(index, wants_unverified=True))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert isinstance(repository.storage, MadeUp)
    found = {
        "seconds": time.perf_counter() - began,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mib": peak_kib() / 1024,
        "requests": repository.storage.requests,
        "problems": report.problems,
        "named": named,
        "tally": dataclasses.asdict(report.tally)["ncontents"],
    }
    print(json.dumps(found))


def peak_kib() -> int:
    """Return the peak of this process alone; what the system counts begins with the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main() -> None:
    """Make the data, measure each case in a process of its own, print, and remove the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        play(options.base, options.case, options.files)
        return
    with tempfile.TemporaryDirectory(prefix="s3bu-bench-") as name:
        base = Path(name)
        make(base, options.files)
        print(f"one snapshot of {options.files:,} files", flush=True)
        for case in CASES:
            command = [sys.executable, "-m", "tests.benchmarks.verify", "--base", name, "--case", case]
            ended = subprocess.run([*command, "--files", str(options.files)], stdout=subprocess.PIPE, check=True)
            found = json.loads(ended.stdout)
            cost = f"{found['seconds']:.1f} s, {found['processor']:.1f} s CPU, {found['peak_mib']:.0f} MiB at the peak"
            print(
                f"{case}: {cost}; {found['requests']}; {found['problems']}; {found['named']:,} paths named", flush=True
            )


if __name__ == "__main__":
    main()
