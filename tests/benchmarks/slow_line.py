"""Lines that are slow or long: what must not fail, and how many files a second get through.

python -m tests.benchmarks.slow_line slow      # a 100 MiB file, and 40 of 4 MiB, over an uplink of 1 MB/s
python -m tests.benchmarks.slow_line far       # 20,000 small files at 30 ms and 400 Mbit/s
"""

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks.line import line
from tests.benchmarks.running import Bench, bench, make_large_files, make_small_files

_MIB = 1024 * 1024


def _slow(running: Bench, source: Path) -> None:
    make_large_files(source / "one", 1, 100 * _MIB)
    make_large_files(source / "many", 40, 4 * _MIB)
    bucket = running.fresh()
    running.s3bu("init", bucket)
    with line(running.url, nbytes_per_second=1_000_000, delay=0.01) as url:
        running.environment["AWS_ENDPOINT_URL"] = url
        cost = running.s3bu("backup", bucket, str(running.write_job(source)))
    print(f"260 MiB over 1 MB/s: {cost.seconds:.0f} s (the line alone takes 273 s), {cost.peak_mib:.0f} MiB")


def _far(running: Bench, source: Path, files: int) -> None:
    make_small_files(source, files)
    bucket = running.fresh()
    running.s3bu("init", bucket)
    with line(running.url, nbytes_per_second=50_000_000, delay=0.015) as url:
        running.environment["AWS_ENDPOINT_URL"] = url
        cost = running.s3bu("backup", bucket, str(running.write_job(source)))
    print(f"{files:,} files at 30 ms: {cost.seconds:.1f} s, {files / cost.seconds:,.0f} files a second")


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("slow", "far"))
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = options.base or Path(tempfile.mkdtemp(prefix="s3bu-bench-"))
    with bench(base) as running:
        if options.which == "slow":
            _slow(running, base / "source")
        else:
            _far(running, base / "source", options.files)


if __name__ == "__main__":
    main()
