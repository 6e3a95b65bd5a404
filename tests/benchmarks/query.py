"""Questions over many snapshots of many files: find, history and a listing, beside `restic find` on a few of them.

    python -m tests.benchmarks.query
    python -m tests.benchmarks.query --manifests 10 --files 30000 --no-restic

Makes a repository in a local directory as `index` does, takes it in, and runs `s3bu find`, `history` and `query` as
programs, each several times; and the same statements alone. restic gets five snapshots of
a tree with the same names, and looks for one of them in all five.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from s3bu import search
from s3bu.index import open_index
from s3bu.progress import Silent
from s3bu.query import Query, ask
from tests.benchmarks.index import Bench, Tree, put
from tests.benchmarks.running import timed

_SNAPSHOTS_OF_RESTIC = 5


def median(action: Callable[[], object], rounds: int) -> float:
    """Return the median of the seconds that an action takes."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def make(bench: Bench, tree: Tree, nmanifests: int) -> None:
    """Store the snapshots, and take them in."""
    bench.run("init")
    with bench.opened() as repository:
        for number in range(nmanifests):
            put(repository, number, tree.lines)
            tree.change()
    bench.run("index", "sync")


def measure(bench: Bench, path: str, rounds: int) -> None:
    """Time each question, in SQL alone and as a command."""
    name = path.rsplit("/", 1)[-1]
    with bench.opened() as repository, closing(open_index(bench.home, repository.storage.identity, Silent())) as index:
        assert index.path is not None
        newest = index.snapshots()[-1].key
        place = index.path
        start = median(lambda: ask(place, Query("SELECT 1")), rounds)
        print(f"a process and its views alone: {start:.3f} s", flush=True)
        listing = Query("SELECT path, size FROM entries WHERE snapshot = :snapshot", {"snapshot": newest}, 60)
        questions = {
            "find by name over all snapshots": search.find(search.Wanted(name)),
            "find by glob over all snapshots": search.find(search.Wanted(f"*{name[2:]}")),
            "history of a path": search.history(path),
            "listing of a snapshot": listing,
        }
        for title, query in questions.items():
            seconds = median(partial(ask, place, query), rounds) - start
            print(f"{title}: {seconds:.3f} s in SQL", flush=True)
    for title, words in {"s3bu find": ("find", name), "s3bu history": ("history", path)}.items():
        command = [*bench.command(words[0]), words[1]]
        print(f"{title}: {median(partial(timed, command, bench.environment), rounds):.3f} s", flush=True)


def measure_restic(bench: Bench, tree: Tree, rounds: int) -> None:
    """Time restic on a few snapshots of files with the same names, which are empty."""
    source = bench.base / "source"
    for path in tree.paths:
        file = source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    environment = bench.environment | {"RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(bench.base / "cache")}
    restic = ["restic", "-q", "-r", str(bench.base / "restic")]
    subprocess.run([*restic, "init"], env=environment, check=True)
    for _ in range(_SNAPSHOTS_OF_RESTIC):
        subprocess.run([*restic, "backup", "--force", str(source)], env=environment, check=True)
    name = tree.paths[-1].rsplit("/", 1)[-1]
    seconds = median(lambda: timed([*restic, "find", name], environment), rounds)
    print(f"restic find over {_SNAPSHOTS_OF_RESTIC} snapshots: {seconds:.3f} s", flush=True)


def main() -> None:
    """Make the data, measure, print, and remove the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifests", type=int, default=100)
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--churn", type=float, default=0.001)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-restic", action="store_true")
    parser.add_argument("--base", type=Path, default=None)
    options = parser.parse_args()
    base = options.base or Path(tempfile.mkdtemp(prefix="s3bu-bench-"))
    bench, tree = Bench(base), Tree(options.files, options.churn)
    try:
        print(f"{options.manifests} snapshots of {options.files:,} files, churn {options.churn:.2%}", flush=True)
        make(bench, tree, options.manifests)
        measure(bench, tree.paths[-1], options.rounds)
        if not options.no_restic:
            measure_restic(bench, tree, options.rounds)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
