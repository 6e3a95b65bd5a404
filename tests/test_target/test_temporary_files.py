"""The files that a restore writes first: nobody else finishes them, and none is taken for done."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.restore.target import TakenError
from tests.fakes import write
from tests.test_target.targets import CONTENT, ENTRY, everything, open_target, partial_of, put, strike_at


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


def test_a_temporary_file_that_could_not_be_looked_at_is_let_go_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "input/output error")

    strike_at(monkeypatch, os, "fstat", fail)
    with pytest.raises(OSError, match="input/output"):
        put(root)
    put(root)
    assert everything(root) == ["a", "a/file"]


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
