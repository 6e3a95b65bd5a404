"""Directories get their modes in the end, and links are never followed."""

import os
import stat
from pathlib import Path

import pytest

from s3bu.manifest import DIRECTORY, SYMLINK, Entry
from s3bu.restore.target import TakenError
from tests.fakes import OLD, SECOND, write
from tests.test_target.targets import everything, open_target

DIRECTORY_ENTRY = Entry(b"d", DIRECTORY, 0, OLD * SECOND + 5, 0o7751)


@pytest.mark.parametrize(("mask", "mode"), [(0o777, 0o751), (0o7777, 0o7751)])
def test_a_directory_gets_its_mode_and_time_in_the_end(root: Path, mask: int, mode: int) -> None:
    with open_target(root, mask=mask) as target:
        target.prepare_directory(DIRECTORY_ENTRY)
        assert stat.S_IMODE((root / "d").stat().st_mode) == 0o700
        target.finish_directory(DIRECTORY_ENTRY)
    status = (root / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, OLD * SECOND + 5)


def test_a_directory_that_is_shut_is_opened_to_be_written_to(root: Path) -> None:
    (root / "d").mkdir(parents=True)
    (root / "d").chmod(0o055)
    with open_target(root) as target:
        target.prepare_directory(DIRECTORY_ENTRY)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_is_left_as_it_is(root: Path, kind: str) -> None:
    root.mkdir()
    if kind == "link":
        (root / "d").symlink_to(root.parent / "outside")
    else:
        write(root / "d", b"mine")
    before = (root.parent / "outside").stat()
    with open_target(root, overwrite=True) as target:
        for action in (target.prepare_directory, target.finish_directory):
            with pytest.raises(NotADirectoryError):
                action(DIRECTORY_ENTRY)
    assert (root.parent / "outside").stat() == before
    assert everything(root) == ["d"]


LINK = Entry(b"a/link", SYMLINK, 0, OLD * SECOND + 5, 0, target=b"/outside\xff")


def write_link(root: Path, *, overwrite: bool = False, entry: Entry = LINK) -> None:
    with open_target(root, overwrite=overwrite) as target:
        target.write_link(entry)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", [b"/outside\xff", b"nowhere", b"..", b"\n"])
def test_a_link_comes_with_its_target_and_time(root: Path, overwrite: bool, target: bytes) -> None:
    write_link(root, overwrite=overwrite, entry=LINK._replace(target=target))
    path = os.fsencode(root / "a" / "link")
    assert (os.readlink(path), os.lstat(path).st_mtime_ns) == (target, OLD * SECOND + 5)
    assert everything(root) == ["a", "a/link"]


def test_a_link_that_is_there_and_right_is_right(root: Path) -> None:
    write_link(root)
    write_link(root)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_another_thing_in_a_links_place_is_taken_unless_it_may_be_overwritten(root: Path, kind: str) -> None:
    (root / "a").mkdir(parents=True)
    if kind == "link":
        (root / "a" / "link").symlink_to("elsewhere")
    else:
        write(root / "a" / "link", b"mine")
    with pytest.raises(TakenError):
        write_link(root)
    write_link(root, overwrite=True)
    assert os.readlink(os.fsencode(root / "a" / "link")) == LINK.target
    assert everything(root) == ["a", "a/link"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_is_never_replaced_by_a_link(root: Path, overwrite: bool) -> None:
    write(root / "a" / "link" / "inner", b"mine")
    with pytest.raises((OSError, TakenError)):
        write_link(root, overwrite=overwrite)
    assert everything(root) == ["a", "a/link", "a/link/inner"]


def test_a_link_is_never_made_beyond_a_link(root: Path) -> None:
    root.mkdir()
    (root / "a").symlink_to(root.parent / "outside")
    with pytest.raises(NotADirectoryError):
        write_link(root, overwrite=True)
    assert os.listdir(root.parent / "outside") == ["file"]
