"""The tree that a restore writes: a file is there whole or as it was, and nothing is ever written outside."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3bu.errors import UsageError
from s3bu.manifest import DIRECTORY, SYMLINK, Entry
from s3bu.restore.target import TakenError, Target, TargetFull, check_path
from tests.fakes import OLD, SECOND, file_entry, write

CONTENT = b"the content"
ENTRY = file_entry(b"a/file", CONTENT, mode=0o640)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "outside" / "file", b"outside")
    return tmp_path / "target"


def open_target(root: Path, *, force: bool = True, overwrite: bool = False, mask: int = 0o777) -> Target:
    return Target(os.fsencode(root), is_filled_fine=force, overwrites=overwrite, mode_mask=mask)


def put(root: Path, entry: Entry = ENTRY, content: bytes = CONTENT, *, overwrite: bool = False) -> None:
    with open_target(root, overwrite=overwrite) as target, target.writing(entry) as file:
        file.write(content)


def is_right(root: Path, entry: Entry = ENTRY, *, overwrite: bool = False) -> bool:
    with open_target(root, overwrite=overwrite) as target:
        return target.is_right(entry)


def partial_of(root: Path) -> Path:
    """Return the path of the temporary file of `ENTRY`, by making one."""
    with open_target(root) as target, pytest.raises(KeyboardInterrupt), target.writing(ENTRY):
        (found,) = (root / "a").iterdir()
        raise KeyboardInterrupt
    assert list((root / "a").iterdir()) == []
    return found


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- paths


@pytest.mark.parametrize("path", [b"a", b"a/b", b"...", b"..a", b"a..", b"-rf", b"\xff", b"a\nb", b" ", b"a" * 5000])
def test_a_plain_relative_path_is_fine(path: bytes) -> None:
    assert check_path(path) is None


@pytest.mark.parametrize(
    "path",
    [b"", b"/", b"/a", b"//a", b".", b"..", b"../a", b"a/..", b"a/../b", b"a/./b", b"a//b", b"a/", b"a\0b", b"\0"],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: bytes) -> None:
    assert check_path(path)


# --- the directory


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


# --- files


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
    with open_target(root, overwrite=overwrite) as target, pytest.raises(error), target.writing(ENTRY) as file:
        file.write(CONTENT)
        raise error
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


# --- temporary files


def test_what_a_killed_restore_left_is_taken_away(root: Path) -> None:
    partial = partial_of(root)
    write(partial, b"half of it", mode=0)
    put(root)
    assert everything(root) == ["a", "a/file"]
    assert (root / "a" / "file").read_bytes() == CONTENT


def test_a_temporary_file_in_use_is_left_alone(root: Path) -> None:
    partial = write(partial_of(root), b"half of it")
    with partial.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TakenError, match="another restore"):
            put(root)
    assert partial.read_bytes() == b"half of it"
    assert everything(root) == ["a", f"a/{partial.name}"]


@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "fifo"])
def test_what_is_planted_under_the_temporary_name_is_never_written_to(root: Path, kind: str) -> None:
    partial = partial_of(root)
    if kind in {"link", "dangling"}:
        partial.symlink_to(root.parent / "outside" / ("file" if kind == "link" else "new"))
    elif kind == "directory":
        partial.mkdir()
    else:
        os.mkfifo(partial)
    try:
        put(root)
    except OSError:
        assert not (root / "a" / "file").exists()
    else:
        assert (root / "a" / "file").read_bytes() == CONTENT
    assert os.listdir(root.parent / "outside") == ["file"]
    assert (root.parent / "outside" / "file").read_bytes() == b"outside"


def strike_at(monkeypatch: pytest.MonkeyPatch, module: object, name: str, action: Callable[[], object]) -> None:
    """Do something, once, just before the system is asked for something."""
    real, actions = getattr(module, name), iter([action])

    def call(*arguments: object, **more: object) -> object:
        for one in actions:
            one()
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, call)


def test_two_restores_that_begin_a_file_in_the_same_moment_do_not_finish_each_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one takes the fresh temporary file for a left one, before it is locked, and begins its own."""
    with open_target(root) as other:
        begun = other.writing(ENTRY)
        strike_at(monkeypatch, fcntl, "flock", lambda: begun.__enter__().write(b"half"))
        with pytest.raises(TakenError, match="another restore"):
            put(root)
        (partial,) = (root / "a").iterdir()
        assert partial.name != "file"
        begun.__exit__(None, None, None)
    assert (root / "a" / "file").read_bytes() == b"half"


def test_a_left_file_that_another_restore_just_replaced_is_not_taken_away(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = write(partial_of(root), b"left by a killed restore")
    with open_target(root) as other:
        begun = other.writing(ENTRY)
        strike_at(monkeypatch, fcntl, "flock", lambda: begun.__enter__().write(b"half"))
        with pytest.raises(TakenError, match="another restore"):
            put(root)
        assert everything(root) == ["a", f"a/{partial.name}"]
        begun.__exit__(None, None, None)
    assert everything(root) == ["a", "a/file"]


def test_many_threads_that_write_one_file_leave_it_whole(root: Path) -> None:
    outcomes: list[str] = []

    def write_once() -> None:
        try:
            put(root, overwrite=True)
            outcomes.append("written")
        except TakenError:
            outcomes.append("taken")

    threads = [threading.Thread(target=write_once) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 16
    assert "written" in outcomes
    assert (root / "a" / "file").read_bytes() == CONTENT
    assert everything(root) == ["a", "a/file"]


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer as a file system does that has no hard links."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", link)
    yield
    monkeypatch.undo()


def test_a_file_system_without_hard_links_is_written_to(root: Path, without_links: None) -> None:
    put(root)
    assert (root / "a" / "file").read_bytes() == CONTENT
    assert everything(root) == ["a", "a/file"]


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_without_hard_links_what_is_there_stays_too(root: Path, without_links: None, kind: str) -> None:
    if kind == "file":
        write(root / "a" / "file", b"mine")
    else:
        (root / "a").mkdir(parents=True)
        (root / "a" / "file").symlink_to("nowhere")
    with pytest.raises(TakenError):
        put(root)
    assert everything(root) == ["a", "a/file"]


# --- what is right already


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


# --- directories


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


# --- links


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
