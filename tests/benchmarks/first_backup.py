"""First backup and restore: ours beside `rclone copy` with crypt and beside restic, on one server in one run.

    python -m tests.benchmarks.first_backup small --rounds 3
    python -m tests.benchmarks.first_backup large

Data set `small` is 20,000 files of 4 KB at the median, `large` is 4 of 128 MiB.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks.running import Bench, Cost, bench, compare, make_large_files, make_small_files, timed

_MIB = 1024 * 1024


class _Peers:
    """Each method is one run from scratch."""

    def __init__(self, bench: Bench, source: Path) -> None:
        self._bench = bench
        self._source = source
        self._job = str(bench.write_job(source))
        self.last = {"s3bu": "", "restic": ""}

    def s3bu(self) -> Cost:
        bucket = self.last["s3bu"] = self._bench.fresh()
        self._bench.s3bu("init", bucket)
        return self._bench.s3bu("backup", bucket, self._job)

    def rclone(self) -> Cost:
        self._bench.configure_rclone(self._bench.fresh())
        return self._bench.rclone("copy", str(self._source), "crypt:")

    def restic(self) -> Cost:
        bucket = self.last["restic"] = self._bench.fresh()
        self._restic("init")
        return self._restic("backup", str(self._source), bucket=bucket)

    def s3bu_restore(self) -> Cost:
        return self._bench.s3bu("restore", self.last["s3bu"], "bench/data", self._fresh_target())

    def rclone_restore(self) -> Cost:
        return self._bench.rclone("copy", "crypt:", self._fresh_target())

    def restic_restore(self) -> Cost:
        return self._restic("restore", "latest", "--target", self._fresh_target())

    def _fresh_target(self) -> str:
        target = self._bench.base / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return str(target)

    def _restic(self, *arguments: str, bucket: str = "") -> Cost:
        repository = f"s3:{self._bench.url}/{bucket or self.last['restic']}"
        return timed(["restic", "-q", "-r", repository, *arguments], self._bench.environment)


def main() -> None:
    """Make the data, run all in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("small", "large"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--backup-only", action="store_true")
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = options.base or Path(tempfile.mkdtemp(prefix="s3bu-bench-"))
    with bench(base) as running:
        source = base / "source"
        if options.data == "small":
            nbytes = make_small_files(source, options.files)
        else:
            nbytes = make_large_files(source, 4, 128 * _MIB)
        print(f"{options.data}: {nbytes / _MIB:,.0f} MiB")
        peers = _Peers(running, source)
        print("backup")
        compare({"s3bu": peers.s3bu, "rclone crypt": peers.rclone, "restic": peers.restic}, rounds=options.rounds)
        if options.backup_only:
            return
        print("restore")
        restores = {"s3bu": peers.s3bu_restore, "rclone crypt": peers.rclone_restore, "restic": peers.restic_restore}
        compare(restores, rounds=options.rounds)


if __name__ == "__main__":
    main()
