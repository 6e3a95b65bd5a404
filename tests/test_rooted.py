"""Files below a root: whatever lies there, the way never leads outside and never waits."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3bu.rooted import Files, Root
from tests.fakes import strike_before_open, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "outside" / "secret", b"secret")
    write(tmp_path / "root" / "a" / "file", b"content")
    return tmp_path / "root"


def read(root: Path, path: bytes) -> bytes:
    with Root(os.fsencode(root)) as opened:
        descriptor = opened.open_file(path)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)


def test_a_file_is_reached_by_its_path(root: Path) -> None:
    assert read(root, b"a/file") == b"content"


def test_a_file_in_the_root_itself_is_reached(root: Path) -> None:
    write(root / "top", b"top")
    assert read(root, b"top") == b"top"


def test_a_link_to_a_file_is_not_followed(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "outside" / "secret")
    with pytest.raises(OSError, match="not a regular file"):
        read(root, b"link")


def test_a_link_to_a_directory_is_not_followed(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "outside")
    with pytest.raises(NotADirectoryError):
        read(root, b"link/secret")


def test_a_fifo_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read(root, b"fifo")


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_file_swapped_just_before_it_is_opened_is_refused_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = root / "a" / "file"

    def swap() -> None:
        path.unlink()
        if kind == "link":
            path.symlink_to(root.parent / "outside" / "secret")
        else:
            os.mkfifo(path)

    strike_before_open(monkeypatch, b"file", swap)
    with pytest.raises(OSError, match=r"symbolic links|not a regular file"):
        read(root, b"a/file")


def test_a_directory_is_no_file(root: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read(root, b"a")


@pytest.mark.parametrize("path", [b"absent", b"absent/file", b"a/absent"])
def test_what_is_absent_is_absent(root: Path, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        read(root, path)


@pytest.mark.parametrize(
    "path", [b"../outside/secret", b"a/../../outside/secret", b"/etc/passwd", b"./a/file", b"a//file"]
)
def test_a_path_that_is_not_plain_reaches_nothing(root: Path, path: bytes) -> None:
    with pytest.raises(OSError, match=r".*"):
        read(root, path)


@pytest.mark.parametrize("path", [b"..", b"../new", b"a/../../new", b"a//new", b"."])
def test_nothing_is_made_along_a_path_that_is_not_plain(root: Path, path: bytes) -> None:
    with Root(os.fsencode(root)) as opened, pytest.raises(OSError, match=r".*"), opened.directory(path, create=True):
        pass
    assert not (root.parent / "new").exists()


def test_the_root_stays_the_directory_that_was_opened(root: Path) -> None:
    with Root(os.fsencode(root)) as opened:
        root.rename(root.parent / "moved")
        root.symlink_to(root.parent / "outside")
        with pytest.raises(FileNotFoundError):
            opened.open_file(b"secret")


def test_directories_are_made_private_and_remembered(root: Path) -> None:
    with Root(os.fsencode(root)) as opened:
        with opened.directory(b"a/b/c", create=True):
            pass
        assert opened.created == {b"a/b", b"a/b/c"}
    assert (root / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_what_is_missing_is_not_made_unless_asked(root: Path) -> None:
    with Root(os.fsencode(root)) as opened, pytest.raises(FileNotFoundError), opened.directory(b"new"):
        pass
    assert not (root / "new").exists()


def test_nothing_is_made_beyond_a_link(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "outside")
    with Root(os.fsencode(root)) as opened, pytest.raises(NotADirectoryError), opened.directory(b"link/x", create=True):
        pass
    assert os.listdir(root.parent / "outside") == ["secret"]


def test_threads_that_make_the_same_directories_all_get_them(root: Path) -> None:
    barrier = threading.Barrier(8)
    with Root(os.fsencode(root)) as opened, ThreadPoolExecutor(8) as pool:

        def enter(_: int) -> int:
            barrier.wait()
            with opened.directory(b"deep/er/still", create=True) as descriptor:
                return os.fstat(descriptor).st_ino

        assert len(set(pool.map(enter, range(8)))) == 1


def test_a_path_longer_than_the_system_takes_is_reached(root: Path) -> None:
    path = b"/".join([b"d" * 200] * 30)
    with Root(os.fsencode(root)) as opened:
        with opened.directory(path, create=True) as descriptor:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(opened.open_file(path + b"/file"))


def names(opened: Files, *paths: bytes) -> list[bytes]:
    """Return what the files at these paths hold, opened one after the other."""
    found = []
    for path in paths:
        descriptor, status = opened.open(path)
        found.append(os.read(descriptor, status.st_size))
        os.close(descriptor)
    return found


def test_neighbours_and_files_elsewhere_are_opened_in_turn(root: Path) -> None:
    write(root / "a" / "other", b"other")
    write(root / "top", b"top")
    with Root(os.fsencode(root)) as opened, Files(opened) as files:
        assert names(files, b"a/file", b"a/other", b"top", b"a/file") == [b"content", b"other", b"top", b"content"]


def test_a_file_of_a_directory_that_was_made_anew_is_found(root: Path) -> None:
    with Root(os.fsencode(root)) as opened, Files(opened) as files:
        assert names(files, b"a/file") == [b"content"]
        (root / "a").rename(root / "b")
        write(root / "a" / "new", b"new")
        assert names(files, b"a/new") == [b"new"]


def test_a_directory_swapped_for_a_link_leads_nowhere_else(root: Path) -> None:
    with Root(os.fsencode(root)) as opened, Files(opened) as files:
        assert names(files, b"a/file") == [b"content"]
        (root / "a").rename(root / "b")
        (root / "a").symlink_to(root.parent / "outside")
        for _ in range(2):
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                files.open(b"a/secret")


def test_no_descriptor_stays_open(root: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    with Root(os.fsencode(root)) as opened:
        for path in (b"a/absent", b"absent/x", b"a"):
            with pytest.raises(OSError, match=r".*"):
                opened.open_file(path)
        with Files(opened) as files:
            names(files, b"a/file", b"a/file")
            with pytest.raises(FileNotFoundError):
                files.open(b"absent/x")
    assert len(os.listdir("/dev/fd")) == before
