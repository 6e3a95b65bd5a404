"""What the benchmarks share: data, a server, and running ours and the peer in turn."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ACCESS_KEY, SECRET_KEY, rclone_server, s3_client

RCLONE = str(Path(sys.executable).with_name("rclone"))


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took: seconds by the clock, seconds of processor, and MiB of memory at the peak."""

    seconds: float
    processor: float
    peak_mib: float


def make_small_files(root: Path, number: int, *, seed: int = 1) -> int:
    """Make files of log-normal size, median 4 KB, a hundred in a directory; returns their bytes (data set A)."""
    rng = random.Random(seed)
    total = 0
    for index in range(number):
        directory = root / f"d{index // 100:04d}"
        directory.mkdir(parents=True, exist_ok=True)
        nbytes = min(int(rng.lognormvariate(8.3, 1.2)), 4_000_000)
        (directory / f"f{index:06d}").write_bytes(rng.randbytes(nbytes))
        total += nbytes
    return total


def make_large_files(root: Path, number: int, nbytes: int, *, seed: int = 2) -> int:
    """Make files of random bytes (data set B)."""
    rng = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        with (root / f"large{index}").open("wb") as file:
            for _ in range(nbytes // (1 << 20)):
                file.write(rng.randbytes(1 << 20))
    return number * nbytes


def timed(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end and return its cost; one that fails ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Bench:
    """A place with a server, keys and environment; `fresh` gives an empty bucket for each run."""

    def __init__(self, base: Path, url: str) -> None:
        self.base = base
        self.url = url
        self._buckets = 0
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "HOME": str(base / "home"),
            "S3BU_HOME": str(base / "home" / ".s3bu"),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "RCLONE_CONFIG": str(base / "rclone.conf"),
            "RESTIC_PASSWORD": "benchmark",
        }
        (base / "home").mkdir(exist_ok=True)

    def fresh(self) -> str:
        """Make an empty bucket and return its name."""
        self._buckets += 1
        bucket = f"bench-{self._buckets}"
        client = s3_client(self.url)
        client.create_bucket(Bucket=bucket)
        client.close()
        return bucket

    def s3bu(self, *arguments: str) -> Cost:
        """Run s3bu."""
        return timed([sys.executable, "-m", "s3bu", *arguments], self.environment)

    def rclone(self, *arguments: str) -> Cost:
        """Run rclone with 32 transfers, encrypting to the remote `crypt:`."""
        return timed([RCLONE, *arguments, "--transfers", "32", "--checkers", "32", "-q"], self.environment)

    def configure_rclone(self, bucket: str) -> None:
        """Make `crypt:` stand for an encrypted view of a bucket."""
        password = subprocess.run([RCLONE, "obscure", "benchmark"], check=True, capture_output=True, text=True).stdout
        (self.base / "rclone.conf").write_text(
            f"[s3]\ntype = s3\nprovider = Other\nendpoint = {self.url}\naccess_key_id = {ACCESS_KEY}\n"
            f"secret_access_key = {SECRET_KEY}\nforce_path_style = true\n\n"
            f"[crypt]\ntype = crypt\nremote = s3:{bucket}\npassword = {password}\n"
        )

    def write_job(self, source: Path) -> Path:
        """Write a job file for one source."""
        path = self.base / "bench.yml"
        path.write_text(f"sources:\n- path: {source}\n  label: data\n")
        return path


@contextmanager
def bench(base: Path) -> Iterator[Bench]:
    """Run `rclone serve s3` in a directory of its own, which is removed afterwards.

    Unless it is told not to, rclone compares a name that is not there with all names of its directory, normalised:
    thousands of directories below `data/` then cost it more than all else, as they cost no real S3.
    """
    base.mkdir(parents=True, exist_ok=True)
    (base / "buckets").mkdir()
    try:
        with rclone_server(base / "buckets", base / "server.log", "--no-unicode-normalization") as url:
            yield Bench(base, url)
    finally:
        shutil.rmtree(base)


def compare(runs: dict[str, Callable[[], Cost]], *, rounds: int) -> dict[str, Cost]:
    """Run each in turn, several times, and print the medians, and the ratio of the first to each other."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            cost = run()
            costs[name].append(cost)
            print(f"  round {number + 1} {name:24} {cost.seconds:7.2f} s  {cost.processor:7.2f} s CPU", flush=True)
    medians = {name: _median(found) for name, found in costs.items()}
    first = next(iter(medians))
    for name, cost in medians.items():
        ratio = medians[first].seconds / cost.seconds
        print(
            f"{name:24} {cost.seconds:7.2f} s  {cost.processor:7.2f} s CPU  {cost.peak_mib:6.0f} MiB"
            f"  {first} takes {ratio:.2f} of it"
        )
    return medians


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.processor for cost in costs),
        max(cost.peak_mib for cost in costs),
    )
