"""Patterns exclude what `git check-ignore` says is ignored, on trees and ignore files that are drawn at random."""

import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from s3bu.filters import Filters
from s3bu.scan import Scan
from s3bu.selection import Selection
from tests.rounds import rounds

SEEDS = range(rounds(3))
TREES = 40
NAMES = [
    b"a",
    b"b",
    b"ab",
    b"ba",
    b"a.b",
    b"b.a",
    b"foo",
    b"a b",
    b"a-b",
    b"#a",
    b"!a",
    b"[a]",
    b"a]",
    b"A",
    b"1",
    b"*",
]
ODD_NAMES = [b" a", b"a ", b"a\n", b"\\a", b"\xff", "é".encode(), b"\xa0", b"a\x85", b"-", b"^", b"a\t", b"..a", b"?"]
PIECES = [
    b"a",
    b"b",
    b"*",
    b"?",
    b"foo",
    b".",
    b"a*",
    b"*b",
    b"**",
    b"***",
    b"a**b",
    b"*a*b*a*",
    b"b*?*",
    b"\\a",
    b"\\*",
    b"\\",
    b" ",
    b"#",
]
SETS = [
    b"[ab]",
    b"[!a]",
    b"[^b]",
    b"[a-c]",
    b"[]a]",
    b"[!]a]",
    b"[a-]",
    b"[-a]",
    b"[[:alpha:]]",
    b"[![:upper:]1]",
    b"[[",
]
ODD_SETS = [
    b"[",
    b"[a",
    b"[]",
    b"[!]",
    b"[b-a]",
    b"[[:nope:]]",
    b"[[:alpha]",
    b"[\\]]",
    b"[a\\-c]",
    b"[!-a]",
    b"[\\",
    b"[ab/]",
]
EXTRAS = [
    b"!",
    b"!a",
    b"\\!a",
    b"\\#a",
    b"# a",
    b"",
    b"/",
    b"//",
    b"a//b",
    b"a\\/b",
    b"/**",
    b"**/",
    b"**/**",
    b"*/",
    b"/*",
]


def a_line(rng: random.Random) -> bytes:
    if rng.random() < 0.06:
        return rng.choice(EXTRAS)
    return (
        (b"!" if rng.random() < 0.25 else b"")
        + (b"/" if rng.random() < 0.2 else b"")
        + b"/".join(a_name(rng) for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))
        + (b"/" if rng.random() < 0.2 else b"")
        + rng.choice([b""] * 12 + [b" ", b"\\ ", b"  ", b"\t", b"\r"])
    )


def a_name(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return rng.choice([b"a", b"b", b"*", b"**", b"*.b", b"foo", b"a*", b"?", b"ab", b"[ab]"])
    kinds = rng.choices([PIECES, NAMES, SETS, ODD_SETS, ODD_NAMES], weights=[8, 3, 3, 1, 1], k=rng.choice([1, 2, 2, 3]))
    return b"".join(rng.choice(kind) for kind in kinds).replace(b"\n", b"").removesuffix(b"\\")


def lines(rng: random.Random) -> list[bytes]:
    return [a_line(rng) for _ in range(rng.randint(0, 5))]


def plant(rng: random.Random, directory: bytes, depth: int) -> None:
    os.mkdir(directory)
    if rng.random() < (0.9 if depth == 3 else 0.25):
        with open(directory + b"/.gitignore", "wb") as file:
            file.write(rng.choice([b"\n", b"\n", b"\r\n"]).join(lines(rng)))
    for name in rng.sample(NAMES + rng.sample(ODD_NAMES, 2), rng.randint(1, 6)):
        if depth and rng.random() < 0.5:
            plant(rng, directory + b"/" + name, depth - 1)
        else:
            open(directory + b"/" + name, "wb").close()


def all_paths(root: bytes) -> list[bytes]:
    found = []
    for above, directories, files in os.walk(root):
        found += [os.path.relpath(os.path.join(above, name), root) for name in directories + files]
    return found


def ignored(repository: Path, root: bytes, paths: Iterable[bytes]) -> set[bytes]:
    command = [
        "git",
        f"--git-dir={repository}",
        f"--work-tree={os.fsdecode(root)}",
        "check-ignore",
        "--no-index",
        "-z",
        "--stdin",
    ]
    ended = subprocess.run(command, input=b"\0".join(paths), capture_output=True, cwd=root, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return set(ended.stdout.split(b"\0")) - {b""}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_git_ignores_is_left_out_and_nothing_else(seed: int, tmp_path: Path) -> None:
    rng, repository = random.Random(seed), tmp_path / "repository"
    subprocess.run(["git", "init", "-q", "--bare", repository], check=True)
    ncases = nignored = 0
    for number in range(TREES):
        root = os.fsencode(tmp_path / f"tree {number}")
        exclude = [line.rstrip(b"\r") for line in lines(rng)]  # in a file it would belong to the line's end
        plant(rng, root, 3)
        (repository / "info" / "exclude").write_bytes(b"\n".join(exclude))
        selection = Selection(exclude=tuple(exclude), ignore_files=(b".gitignore",))
        kept = {item.path for item in Scan(root, Filters(selection=selection))}
        paths = all_paths(root)
        expected = set(paths) - ignored(repository, root, paths)
        assert kept == expected, (root, exclude)
        ncases += len(paths)
        nignored += len(paths) - len(kept)
    assert ncases * len(SEEDS) > 2_000
    assert nignored > ncases / 10
