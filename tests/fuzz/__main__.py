"""`python -m tests.fuzz TARGET --seconds 600 [--seed N] [--corpus DIRECTORY]`, or `--case FILE` to see one again."""

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.engine import Target, attempt, bounded, fuzz, keep, report
from tests.fuzz.targets import TARGETS, target_of


def main() -> int:
    """Run a target; 1 says that a case broke it."""
    options = _options()
    with target_of(options.target) as target:
        if options.case is not None:
            return _again(target, options.case)
        corpus = [path.read_bytes() for path in sorted(options.corpus.iterdir())] if options.corpus else []
        seeds = options.seed or [secrets.token_hex(4)]
        return max(_run(target, seed, options.seconds / len(seeds), corpus) for seed in seeds)


def _run(target: Target, seed: str, seconds: float, corpus: Sequence[bytes]) -> int:
    count, broken = fuzz(target, seed, seconds, corpus)
    sys.stdout.write(f"{target.name}: {count:,} cases with seed {seed}\n")
    if broken is None:
        return 0
    report(target, broken, seed, keep(target, broken))
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", action="append", help="equal seeds give equal cases; several share the time")
    parser.add_argument("--corpus", type=Path, help="a directory of further examples")
    parser.add_argument("--case", type=Path, help="run this one case alone")
    return parser.parse_args()


def _again(target: Target, path: Path) -> int:
    with bounded():
        broken = attempt(target, path.read_bytes())
    if broken is not None:
        report(target, broken, "none", path)
    return int(broken is not None)


if __name__ == "__main__":
    sys.exit(main())
