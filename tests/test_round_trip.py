"""Trees go into a repository and come back as they were; and each kind of change makes a snapshot, or makes none.

With S3BU_LONG=1 in the environment all of /usr/share, 20,000 small files and larger sparse files take the same way.
"""

import os
import random
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import (
    IS_LONG,
    IS_ROOT,
    Node,
    own_environment,
    peak_memory_mib,
    succeed,
    tree,
    write_file,
    write_job,
)

PLACES = ("directory", "rclone")
MIB = 1024 * 1024
SIZES = (0, 1, 65_536, 65_537, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 17 * MIB)
TIMES = (-(2**31), -5, -1, 0, 1, 2**31 - 1, 2**31, 8_000_000_000)
MODES = [mode for mode in range(0o1000) if IS_ROOT or mode & 0o400]
DIRECTORY_MODES = [mode for mode in range(0o1000) if IS_ROOT or mode & 0o700 == 0o700]
NAMES = (
    *(b"byte-" + bytes([number]) for number in range(1, 256) if number != ord("/")),
    *(bytes([number]) for number in range(1, 256) if chr(number) not in "./"),
    b"\xff\xfe\x80 is no UTF-8",
    b"\xed\xa0\x80 is a surrogate",
    b"x" * 255,
    b"\xff" * 255,
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    b"Case",
    b"case",
    b"new\nline",
    b"\x1b[31mred\x1b[0m",
    b"-rf",
    b"--",
    b"*",
    b"...",
    b"..hidden",
    b" lead and trail ",
    b"a,comma,b",
    b"100%",
    b"%2F",
    b"back\\slash",
    b"quote\"'`",
    b"$HOME",
    b"#s3bu 1",
    b"@dir path=x",
    b".s3bu-tmp",
    b".s3bu-0123456789abcdef.part",
    "\u202egnp.exe".encode(),
)
LINKS = {
    "to-file": b"../sizes/1",
    "to-directory": b"../names",
    "dangling": b"nowhere/at all",
    "absolute": b"/etc/passwd",
    "loop-one": b"loop-two",
    "loop-two": b"loop-one",
    "itself": b"itself",
    "here": b".",
    "odd": b"\xff\n\x1b %2F,",
    "long": b"x/" * 2000,
}
DEPTH = 20
# 300 MB: scrypt takes most of it for a manifest, in a process of its own, whatever is backed up.
MEMORY_MIB = 286


def lay_out(root: Path) -> None:
    """Make a tree in which every part holds one kind of oddity."""
    for part in ("names", "sizes", "times", "modes", "links", "directories", "hard", "twins"):
        (root / part).mkdir(parents=True)
    for odd in NAMES:
        write_file(root / "names" / os.fsdecode(odd), odd)
    generator = random.Random(1)
    for size in SIZES:
        write_file(root / "sizes" / str(size), generator.randbytes(size))
    for time in TIMES:
        write_file(root / "times" / str(time), "", mtime=time)
    for mode in MODES:
        write_file(root / "modes" / f"{mode:o}", "the same in all", mode=mode)
    for name, target in LINKS.items():
        (root / "links" / name).symlink_to(os.fsdecode(target))
        os.utime(root / "links" / name, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    for mode in DIRECTORY_MODES:
        (root / "directories" / f"{mode:o}" / "empty").mkdir(parents=True)
        (root / "directories" / f"{mode:o}").chmod(mode)
    os.link(write_file(root / "hard" / "one", "two names"), root / "hard" / "other")
    for number in range(300):
        write_file(root / "twins" / str(number), f"content {number % 3}")
    dig(root / "deep")
    for directory in (root / "times", root / "names"):
        os.utime(directory, (1_400_000_000, 1_400_000_000))


def dig(top: Path) -> None:
    """Make directories below each other until their path is longer than the system takes, with a file at the end."""
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for level in range(DEPTH):
        name = f"{level:02}".encode() + b"d" * 253
        os.mkdir(name, dir_fd=descriptor)
        deeper = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    with open(os.open(b"bottom", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=descriptor), "wb") as file:
        file.write(b"reached")
    os.close(descriptor)


@contextmanager
def opened_place(request: pytest.FixtureRequest, directory: Path, place: str) -> Iterator[str]:
    """Yield the name of a new repository, on a machine that has keys of its own."""
    is_bucket = place == "rclone"
    url = request.getfixturevalue("rclone_url") if is_bucket else None
    name = f"s3://round-trip/{directory.name}" if is_bucket else str(directory / "repository")
    with own_environment(directory / "keys", url):
        succeed("init", name)
        yield name


def take_there_and_back(repository: str, source: Path, directory: Path, *options: str) -> Path:
    job = write_job(directory / "home.yml", {"src": source})
    succeed("backup", repository, job, *options)
    succeed("restore", repository, "home/src", directory / "target")
    return directory / "target"


@dataclass(frozen=True, slots=True)
class Trip:
    """A tree before it was backed up, and after it was restored."""

    before: dict[bytes, Node]
    after: dict[bytes, Node]
    target: Path


@pytest.fixture(scope="module", params=PLACES)
def trip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trip]:
    directory = tmp_path_factory.mktemp("trip")
    lay_out(directory / "source")
    before = tree(directory / "source")
    with opened_place(request, directory, request.param) as repository:
        target = take_there_and_back(repository, directory / "source", directory)
        yield Trip(before, tree(target), target)


def test_nothing_is_missing_and_nothing_is_added(trip: Trip) -> None:
    assert trip.after.keys() == trip.before.keys()


@pytest.mark.parametrize("part", ["names", "sizes", "times", "modes", "links", "directories", "hard", "twins", "deep"])
def test_a_tree_comes_back_with_contents_modes_times_and_targets(trip: Trip, part: str) -> None:
    top = part.encode()
    before, after = (
        {path: node for path, node in found.items() if path == top or path.startswith(top + b"/")}
        for found in (trip.before, trip.after)
    )
    assert len(before) > 2
    assert after == before


def test_hard_links_come_back_as_two_files(trip: Trip) -> None:
    assert (trip.target / "hard" / "one").stat().st_nlink == 1


def test_a_path_longer_than_the_system_takes_comes_back(trip: Trip) -> None:
    (bottom,) = (path for path in trip.after if path.endswith(b"/bottom"))
    assert len(bottom) > os.pathconf("/", "PC_PATH_MAX")
    assert trip.after[bottom].content == trip.before[bottom].content


@pytest.mark.parametrize("place", PLACES)
def test_an_empty_source_comes_back_empty(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with opened_place(request, tmp_path, place) as repository:
        assert tree(take_there_and_back(repository, tmp_path / "source", tmp_path)) == {}


@pytest.mark.parametrize("place", PLACES)
def test_compressed_contents_come_back(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    generator = random.Random(2)
    for name, content in {"text": b"all work and no play\n", "random": generator.randbytes(21)}.items():
        write_file(tmp_path / "source" / f"small-{name}", content * 900)
        write_file(tmp_path / "source" / f"large-{name}", content * 500_000)
    write_file(tmp_path / "source" / "noise", generator.randbytes(9 * MIB))
    write_file(tmp_path / "source" / "like-gzip", b"\x1f\x8b\x08 but none")
    with opened_place(request, tmp_path, place) as repository:
        assert tree(take_there_and_back(repository, tmp_path / "source", tmp_path, "-c")) == tree(tmp_path / "source")


@pytest.mark.parametrize("place", PLACES)
def test_a_real_tree_comes_back(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    for package in ("asyncio", "email", "encodings", "json", "lib2to3", "xml"):
        if (library / package).is_dir():
            # A copy, since the interpreter may write into the original meanwhile.
            shutil.copytree(library / package, tmp_path / "source" / package, symlinks=True)
    with opened_place(request, tmp_path, place) as repository:
        before = tree(tmp_path / "source")
        assert len(before) > 400
        assert tree(take_there_and_back(repository, tmp_path / "source", tmp_path)) == before


@pytest.mark.skipif(not IS_LONG, reason="takes minutes, see S3BU_LONG")
@pytest.mark.parametrize("place", PLACES)
def test_all_of_usr_share_comes_back(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = Path("/usr/share")
    with opened_place(request, tmp_path, place) as repository:
        assert tree(take_there_and_back(repository, source, tmp_path)) == tree(source)


@pytest.mark.parametrize("place", PLACES)
def test_many_small_files_come_back(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    generator = random.Random(3)
    for number in range(20_000 if IS_LONG else 3_000):
        name = f"{number % 7}/{number % 131}/{number}"
        write_file(tmp_path / "source" / name, generator.randbytes(generator.randrange(2_000)), mtime=number * 100_000)
    with opened_place(request, tmp_path, place) as repository:
        assert tree(take_there_and_back(repository, tmp_path / "source", tmp_path)) == tree(tmp_path / "source")


@pytest.mark.parametrize("place", PLACES)
def test_a_huge_sparse_file_takes_little_memory(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "sparse").open("wb") as file:
        file.truncate(3 * 1024 * MIB if IS_LONG else 416 * MIB)
    job = write_job(tmp_path / "home.yml", {"src": "source"})
    with opened_place(request, tmp_path, place) as repository:
        assert peak_memory_mib("backup", repository, job) < MEMORY_MIB
        assert peak_memory_mib("restore", repository, "home/src", tmp_path / "target") < MEMORY_MIB
    assert tree(tmp_path / "target") == tree(tmp_path / "source")
