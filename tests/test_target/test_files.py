"""A file is there whole or as it was."""

import errno
import os
import stat
from pathlib import Path

import pytest

from s3bu.errors import UsageError
from s3bu.restore.target import TakenError, TargetFull, check_path
from tests.fakes import OLD, SECOND, write
from tests.test_target.targets import CONTENT, ENTRY, everything, is_right, open_target, put


@pytest.mark.parametrize("path", [b"a", b"a/b", b"...", b"..a", b"a..", b"-rf", b"\xff", b"a\nb", b" ", b"a" * 5000])
def test_a_plain_relative_path_is_fine(path: bytes) -> None:
    assert check_path(path) is None


@pytest.mark.parametrize(
    "path",
    [b"", b"/", b"/a", b"//a", b".", b"..", b"../a", b"a/..", b"a/../b", b"a/./b", b"a//b", b"a/", b"a\0b", b"\0"],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: bytes) -> None:
    assert check_path(path)


def test_a_target_that_is_not_there_is_made_for_its_user_alone(root: Path) -> None:
    with open_target(root / "deep", force=False):
        pass
    assert stat.S_IMODE((root / "deep").stat().st_mode) == 0o700


def test_an_empty_target_is_taken(root: Path) -> None:
    root.mkdir()
    with open_target(root, force=False):
        pass


def test_a_target_that_is_not_empty_is_refused_unless_asked_for(root: Path) -> None:
    write(root / "mine")
    with pytest.raises(UsageError, match="not empty") as caught:
        open_target(root, force=False)
    assert caught.value.hint
    for force, overwrite in ((True, False), (False, True)):
        with open_target(root, force=force, overwrite=overwrite):
            pass


@pytest.mark.parametrize("name", ["outside/file", "outside/file/below"])
def test_a_target_that_cannot_be_a_directory_is_refused(root: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be restored into"):
        open_target(root.parent / name)


def test_a_file_comes_with_its_content_mode_and_time(root: Path) -> None:
    put(root)
    status = (root / "a" / "file").stat()
    assert (root / "a" / "file").read_bytes() == CONTENT
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, OLD * SECOND)
    assert everything(root) == ["a", "a/file"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_never_gets_special_bits(root: Path, overwrite: bool) -> None:
    with open_target(root, overwrite=overwrite, mask=0o7777) as target, target.writing(ENTRY._replace(mode=0o6755)):
        pass
    assert stat.S_IMODE((root / "a" / "file").stat().st_mode) == 0o755


def test_while_it_is_written_nobody_else_can_read_it_and_it_has_another_name(root: Path) -> None:
    with open_target(root) as target, target.writing(ENTRY._replace(mode=0o777)) as file:
        file.write(CONTENT)
        (partial,) = (root / "a").iterdir()
        assert (partial.name == "file", stat.S_IMODE(partial.stat().st_mode)) == (False, 0o600)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_what_was_there(root: Path, overwrite: bool, error: type[BaseException]) -> None:
    write(root / "a" / "file", b"mine")

    def write_half() -> None:
        with open_target(root, overwrite=overwrite) as target, target.writing(ENTRY) as file:
            file.write(CONTENT)
            raise error

    with pytest.raises(error):
        write_half()
    assert everything(root) == ["a", "a/file"]
    assert (root / "a" / "file").read_bytes() == b"mine"


def test_without_overwriting_what_came_meanwhile_stays(root: Path) -> None:
    with open_target(root) as target, pytest.raises(TakenError), target.writing(ENTRY):
        write(root / "a" / "file", b"mine")
    assert (root / "a" / "file").read_bytes() == b"mine"
    assert everything(root) == ["a", "a/file"]


def test_overwriting_replaces_a_file_and_touches_none_of_its_other_names(root: Path) -> None:
    write(root / "a" / "file", b"mine")
    os.link(root / "a" / "file", root / "other name")
    put(root, overwrite=True)
    assert (root / "a" / "file").read_bytes() == CONTENT
    assert (root / "other name").read_bytes() == b"mine"


def test_overwriting_replaces_a_link_and_not_what_it_leads_to(root: Path) -> None:
    (root / "a").mkdir(parents=True)
    (root / "a" / "file").symlink_to(root.parent / "outside" / "file")
    put(root, overwrite=True)
    assert not (root / "a" / "file").is_symlink()
    assert (root.parent / "outside" / "file").read_bytes() == b"outside"


def test_a_directory_is_never_replaced_by_a_file(root: Path) -> None:
    write(root / "a" / "file" / "inner", b"mine")
    with pytest.raises(OSError, match=r"(?i)directory"):
        put(root, overwrite=True)
    assert everything(root) == ["a", "a/file", "a/file/inner"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_planted_link_above_leads_nowhere(root: Path, overwrite: bool) -> None:
    root.mkdir()
    (root / "a").symlink_to(root.parent / "outside")
    with pytest.raises(NotADirectoryError):
        put(root, overwrite=overwrite)
    assert (root.parent / "outside" / "file").read_bytes() == b"outside"
    assert os.listdir(root.parent / "outside") == ["file"]


def test_a_directory_swapped_for_a_link_while_a_file_is_written_leads_nowhere(root: Path) -> None:
    with open_target(root) as target, target.writing(ENTRY) as file:
        file.write(CONTENT)
        (root / "a").rename(root / "moved")
        (root / "a").symlink_to(root.parent / "outside")
    assert os.listdir(root.parent / "outside") == ["file"]
    assert (root / "moved" / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("path", [b"../file", b"a/../../outside/file", b"/etc/s3bu-test"])
def test_a_path_that_got_past_the_plan_is_still_refused(root: Path, path: bytes) -> None:
    with pytest.raises(OSError, match="not a plain relative path"):
        put(root, ENTRY._replace(path=path), overwrite=True)
    assert (root.parent / "outside" / "file").read_bytes() == b"outside"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_target_that_can_take_no_more_ends_the_run(root: Path, number: int) -> None:
    with open_target(root) as target, pytest.raises(TargetFull) as caught, target.writing(ENTRY):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint
    assert everything(root) == ["a"]


@pytest.mark.parametrize("mtime_ns", [10**30, -(10**30)])
def test_a_time_out_of_range_is_an_error_and_no_file(root: Path, mtime_ns: int) -> None:
    with pytest.raises((OverflowError, OSError)):
        put(root, ENTRY._replace(mtime_ns=mtime_ns))
    assert everything(root) == ["a"]


def test_a_file_that_is_there_and_right_gets_its_mode_and_time(root: Path) -> None:
    path = write(root / "a" / "file", CONTENT, mtime=5, mode=0o777)
    assert is_right(root)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns) == (0o640, OLD * SECOND)


def test_a_file_that_is_not_there_is_not_right(root: Path) -> None:
    assert not is_right(root)
    assert everything(root) == []


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!", b"another one"])
def test_a_file_with_another_content_is_taken_unless_it_may_be_overwritten(root: Path, content: bytes) -> None:
    path = write(root / "a" / "file", content, mtime=5)
    with pytest.raises(TakenError, match="other content"):
        is_right(root)
    assert not is_right(root, overwrite=True)
    assert (path.read_bytes(), path.stat().st_mtime) == (content, 5)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_no_file_is_taken_unless_it_may_be_overwritten(root: Path, kind: str) -> None:
    (root / "a").mkdir(parents=True)
    if kind == "link":
        write(root.parent / "outside" / "right", CONTENT)
        (root / "a" / "file").symlink_to(root.parent / "outside" / "right")
    else:
        os.mkfifo(root / "a" / "file")
    with pytest.raises(TakenError, match="no file"):
        is_right(root)
    assert not is_right(root, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_in_the_place_of_a_file_is_taken(root: Path, overwrite: bool) -> None:
    (root / "a" / "file").mkdir(parents=True)
    with pytest.raises(TakenError, match="a directory"):
        is_right(root, overwrite=overwrite)
