"""A plan of a tree without changes, beside a backup of it that finds none, in turn, in one run.

    python -m tests.benchmarks.plan
    python -m tests.benchmarks.plan --files 1000000 --directories 10000

Makes a tree of small files, backs it up once into a local repository, then measures both; last each once with patterns
in the job. The memory is that of the program itself.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks.again import Programs, make_tree
from tests.benchmarks.running import Cost, compare

_PATTERNS = (
    "s3bu: {presets: [os-junk, caches, build-output], exclude: ['*.tmp', /none/], ignore_files: [.s3buignore]}\n"
)


def main() -> None:
    """Make the tree, measure, print, and remove all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--directories", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="s3bu-bench-", dir=options.base))
    programs = Programs(base, base / "tree")
    job = base / "bench.yml"

    def plan() -> Cost:
        return programs.s3bu("plan", str(base / "s3bu"), str(job))

    try:
        make_tree(programs.tree, options.files, options.directories)
        programs.begin(has_restic=False)
        print(f"first plan, and first backup, of {options.files:,} files", flush=True)
        compare({"plan": plan}, rounds=1)
        compare({"backup": programs.s3bu_backup}, rounds=1)
        print("without changes", flush=True)
        compare({"plan": plan, "backup": programs.s3bu_backup}, rounds=options.rounds)
        print("without changes, with patterns in the job", flush=True)
        job.write_text(job.read_text() + _PATTERNS)
        compare({"plan": plan, "backup": programs.s3bu_backup}, rounds=1)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
