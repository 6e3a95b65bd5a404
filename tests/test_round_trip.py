"""Trees go into a repository and come back as they were; and each kind of change makes a snapshot, or makes none.

With S3BU_LONG=1 in the environment all of /usr/share, 20,000 small files and larger sparse files take the same way.
"""

import os
import random
import shutil
import stat
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import (
    IS_LONG,
    IS_ROOT,
    Node,
    Scene,
    listing,
    peak_memory_mib,
    run,
    succeed,
    tree,
    write_file,
    write_job,
)
from tests.servers import ACCESS_KEY, SECRET_KEY

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
# Scrypt takes 256 MiB for a manifest, whatever is backed up; boto3, obstore and Python about 75.
MEMORY_MIB = 400


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
    """Yield the name of a new repository, as the environment at the time has it, with keys of its own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("S3BU_HOME", str(directory / "keys"))
        if place == "directory":
            name = str(directory / "repository")
        else:
            url = request.getfixturevalue("rclone_url")
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            name = f"s3://round-trip/{directory.name}"
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
        file.truncate(3 * 1024 * MIB if IS_LONG else 512 * MIB)
    job = write_job(tmp_path / "home.yml", {"src": "source"})
    with opened_place(request, tmp_path, place) as repository:
        assert peak_memory_mib("backup", repository, job) < MEMORY_MIB
        assert peak_memory_mib("restore", repository, "home/src", tmp_path / "target") < MEMORY_MIB
    assert tree(tmp_path / "target") == tree(tmp_path / "source")


# --- what makes a snapshot


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A source that was backed up once."""
    scene = Scene(tmp_path_factory.mktemp("first") / "scene")
    with pytest.MonkeyPatch.context() as monkeypatch:
        scene.enter(monkeypatch)
        scene.make()
        write_file(scene.source / "a", "content of a")
        write_file(scene.source / "b", "content of b")
        write_file(scene.source / "directory" / "c", "content of c")
        (scene.source / "link").symlink_to("a")
        succeed("backup", scene.repository, scene.job)
    return scene


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def touch(scene: Scene) -> None:
    os.utime(scene.source / "a", (1_600_000_001, 1_600_000_001))


def replace_by_directory(scene: Scene) -> None:
    (scene.source / "b").unlink()
    write_file(scene.source / "b" / "inside", "was a file")


def replace_by_file(scene: Scene) -> None:
    shutil.rmtree(scene.source / "directory")
    write_file(scene.source / "directory", "was a directory")


def replace_by_link(scene: Scene) -> None:
    (scene.source / "a").unlink()
    (scene.source / "a").symlink_to("b")


def point_link_elsewhere(scene: Scene) -> None:
    (scene.source / "link").unlink()
    (scene.source / "link").symlink_to("b")


def rewrite_at_same_size(scene: Scene) -> None:
    write_file(scene.source / "a", "content of X", mtime=1_600_000_002)


CHANGES: dict[str, Callable[[Scene], object]] = {
    "a new file": lambda scene: write_file(scene.source / "new", "new"),
    "a new empty directory": lambda scene: (scene.source / "empty").mkdir(),
    "a file of another size": lambda scene: write_file(scene.source / "a", "longer content of a", mtime=1_600_000_002),
    "a file of the same size": rewrite_at_same_size,
    "a removed file": lambda scene: (scene.source / "a").unlink(),
    "a removed directory": lambda scene: shutil.rmtree(scene.source / "directory"),
    "another mode of a file": lambda scene: (scene.source / "a").chmod(0o600),
    "another mode of a directory": lambda scene: (scene.source / "directory").chmod(0o700),
    "another time of a file": touch,
    "a renamed file": lambda scene: (scene.source / "a").rename(scene.source / "z"),
    "a file made a directory": replace_by_directory,
    "a directory made a file": replace_by_file,
    "a file made a link": replace_by_link,
    "another target of a link": point_link_elsewhere,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_in_a_new_snapshot(scene: Scene, change: str) -> None:
    CHANGES[change](scene)
    succeed("backup", scene.repository, scene.job)
    assert len(scene.manifests()) == 2
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_no_change_makes_no_snapshot(scene: Scene) -> None:
    before = listing(scene.repository / "data")
    assert "no change since the last snapshot (3 files, 36 B)" in succeed("backup", scene.repository, scene.job).out
    assert len(scene.manifests()) == 1
    assert listing(scene.repository / "data") == before


def test_the_time_of_a_directory_alone_makes_no_snapshot(scene: Scene) -> None:
    os.utime(scene.source / "directory")
    assert "no change" in succeed("backup", scene.repository, scene.job).out
    assert len(scene.manifests()) == 1


@pytest.mark.parametrize("change", ["another mode of a file", "another time of a file", "a renamed file"])
def test_a_content_that_is_stored_is_not_sent_again(scene: Scene, change: str) -> None:
    before = listing(scene.repository / "data")
    CHANGES[change](scene)
    assert " 0 B sent" in succeed("backup", scene.repository, scene.job).out
    assert listing(scene.repository / "data") == before


def test_equal_contents_are_stored_once(scene: Scene) -> None:
    write_file(scene.source / "copy of a", "content of a")
    assert " 0 B sent" in succeed("backup", scene.repository, scene.job).out
    assert len(scene.contents()) == 3


def test_a_content_that_vanished_from_the_repository_is_stored_again(scene: Scene) -> None:
    scene.object_of("content of a").unlink()
    write_file(scene.source / "new", "new")
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target)
    assert (scene.target / "a").read_text() == "content of a"


def test_an_older_snapshot_still_comes_back_after_a_file_was_a_directory_for_a_while(scene: Scene) -> None:
    before = tree(scene.source)
    aside = shutil.copytree(scene.source, scene.root / "aside", symlinks=True)
    replace_by_directory(scene)
    succeed("backup", scene.repository, scene.job)
    shutil.rmtree(scene.source)
    shutil.copytree(aside, scene.source, symlinks=True)
    succeed("backup", scene.repository, scene.job)
    for number, key in enumerate(scene.manifests()):
        succeed("restore", scene.repository, key, scene.target / str(number))
    restored = [tree(scene.target / str(number)) for number in range(3)]
    assert (restored[0], restored[2]) == (before, before)
    assert stat.S_ISDIR(restored[1][b"b"].kind)


def test_an_older_snapshot_is_found_by_its_time(scene: Scene) -> None:
    (scene.source / "a").unlink()
    succeed("backup", scene.repository, scene.job)
    (first, second) = scene.manifests()
    assert first in run("restore", scene.repository, first, scene.target, "-c").err
    assert second in run("restore", scene.repository, "home/src@2999-01-01", scene.target, "-c").err


def test_a_rehash_finds_what_kept_size_and_time(scene: Scene) -> None:
    write_file(scene.source / "a", "CONTENT OF A")
    assert "no change" in succeed("backup", scene.repository, scene.job).out
    assert " 1 changed" in succeed("backup", scene.repository, scene.job, "--rehash").out


def test_a_file_written_while_it_was_backed_up_is_read_again(scene: Scene) -> None:
    write_file(scene.source / "a", "first", mtime=2_000_000_000)
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "a", "other", mtime=2_000_000_000)
    assert " 1 changed" in succeed("backup", scene.repository, scene.job).out


def test_setuid_is_never_given_to_a_file(scene: Scene) -> None:
    (scene.source / "a").chmod(0o6755)
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target, "--special-bits")
    assert stat.S_IMODE((scene.target / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize(("option", "mode"), [([], 0o777), (["--special-bits"], 0o3777)])
def test_special_bits_of_directories_come_back_on_demand(scene: Scene, option: list[str], mode: int) -> None:
    (scene.source / "directory").chmod(0o3777)
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target, *option)
    assert stat.S_IMODE((scene.target / "directory").stat().st_mode) == mode


def test_a_pattern_restores_a_part(scene: Scene) -> None:
    succeed("restore", scene.repository, "home/src", scene.target, "^directory/")
    assert tree(scene.target).keys() == {b"directory", b"directory/c"}


def test_special_files_are_counted_and_said(scene: Scene) -> None:
    os.mkfifo(scene.source / "fifo")
    write_file(scene.source / "new", "new")
    assert "not backed up: 1 FIFO" in succeed("backup", scene.repository, scene.job).out
    succeed("restore", scene.repository, "home/src", scene.target)
    assert b"fifo" not in tree(scene.target)
