"""What is relied on of watchdog's inotify layer, which is no documented interface."""

import ctypes
import os
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyFD, Mask

from s3bu.watch import inotify
from tests.test_watch.living import SECONDS

MASK = Mask(inotify.CHANGED | inotify.APPEARED | inotify.VANISHED | inotify.UPROOTED)


class Reader(InotifyFD):
    """Keeps what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int, bytes]] = []

    def run(self) -> None:
        while self.should_keep_running():
            read = self._read_event_buffer(65536)
            self.events += [(watch, mask, name) for watch, mask, _, name in self._parse_event_buffer(read)]

    def watch(self, path: Path) -> int:
        return inotify_c.inotify_add_watch(self._inotify_fd, os.fsencode(path), MASK)

    def await_mask(self, mask: int) -> tuple[int, int, bytes]:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for event in self.events:
                if event[1] & mask:
                    return event
            time.sleep(0.005)
        raise AssertionError(f"no event with {mask:#x} in {self.events}")


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("watchdog").startswith("7.1.")


def test_what_it_reads_has_the_watch_the_mask_and_the_name_of_each_event(tmp_path: Path) -> None:
    reader = Reader()
    reader.start()
    watch = reader.watch(tmp_path)
    (tmp_path / "é").touch()
    assert reader.await_mask(inotify.CREATED) == (watch, inotify.CREATED, "é".encode())
    reader.stop()
    reader.join(SECONDS)
    assert not reader.is_alive()


def test_it_opens_a_queue_of_its_own_and_closes_it_in_its_thread(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    reader = Reader()
    assert os.readlink(f"/proc/self/fd/{reader._inotify_fd}") == "anon_inode:inotify"
    reader.start()
    reader.stop()
    reader.join(SECONDS)
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_overflow_is_an_event_of_no_watch(tmp_path: Path) -> None:
    reader = Reader()
    reader.watch(tmp_path)
    nevents = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(nevents // 2 + 10):
        (tmp_path / f"{number % 2}").touch()
        (tmp_path / f"{number % 2}").unlink()
    reader.start()
    assert reader.await_mask(inotify.OVERFLOW) == (-1, inotify.OVERFLOW, b"")
    reader.stop()
    reader.join(SECONDS)


def test_the_end_of_a_watch_is_told_once_and_last(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    reader = Reader()
    watch = reader.watch(tmp_path / "a")
    (tmp_path / "a").rmdir()
    reader.start()
    reader.await_mask(inotify.IGNORED)
    assert [mask & ~inotify.OF_DIRECTORY for _, mask, _ in reader.events] == [
        inotify.UPROOTED & ~inotify.MOVED_ITSELF,
        inotify.IGNORED,
    ]
    assert reader.watch(tmp_path) != watch
    reader.stop()
    reader.join(SECONDS)


def test_the_number_of_a_watch_is_the_same_for_the_same_directory_and_never_used_again(tmp_path: Path) -> None:
    reader = Reader()
    numbers = [reader.watch(tmp_path), reader.watch(tmp_path)]
    assert numbers[0] == numbers[1]
    inotify_c.inotify_rm_watch(reader._inotify_fd, inotify_c.WatchDescriptor(numbers[0]))
    assert reader.watch(tmp_path) > numbers[0]
    reader.start()
    reader.stop()
    reader.join(SECONDS)


def test_a_watch_that_cannot_be_is_a_negative_number_and_an_error_number(tmp_path: Path) -> None:
    reader = Reader()
    assert reader.watch(tmp_path / "nowhere") == -1
    assert os.strerror(ctypes.get_errno()) == "No such file or directory"
    reader.start()
    reader.stop()
    reader.join(SECONDS)


def test_its_own_way_to_add_a_watch_passes_over_missing_rights_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why it is not used here."""
    ctypes.set_errno(13)
    InotifyFD._raise_error()
    ctypes.set_errno(28)
    with pytest.raises(OSError, match="inotify watch limit reached"):
        InotifyFD._raise_error()


def test_an_error_in_reading_ends_its_loop_but_not_ours(tmp_path: Path) -> None:
    watched = inotify.Inotify()
    watched.start()
    queue = watched._reader._inotify_fd
    kept, directory = os.dup(queue), os.open(tmp_path, os.O_RDONLY)
    watched.watch(directory)
    os.dup2(directory, queue)  # to be read no more
    (tmp_path / "x").touch()
    deadline = time.monotonic() + SECONDS
    events: list[inotify.Event] = []
    while not any(event.fault for event in events):
        assert time.monotonic() < deadline
        events += watched.take(0.1)
    assert watched.is_reading
    os.dup2(kept, queue)
    os.close(kept)
    (tmp_path / "y").touch()
    while not any(event.name == b"y" for event in events):
        assert time.monotonic() < deadline
        events += watched.take(0.1)
    watched.close(1)
    os.close(directory)
