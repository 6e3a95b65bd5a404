"""Files that change between the scan and any reading: what is stored is whole and named right, or a failure is told.

The change strikes when the scan is over, just before the file is opened, at its k-th piece in the first or second
reading, or when its upload begins. Whatever it is, the next run, in peace, has the tree as it is then.
"""

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.backup import Outcome
from s3bu.storage import PART_BOUND
from tests.fakes import OLD, World, hash_of, key_of, strike_before_open, strike_while_reading
from tests.rounds import rounds
from tests.test_backup.runs import back_up, files, when_storing

SMALL = b"some text " * 500
LARGE = random.Random(7).randbytes(PART_BOUND + 300_000)
SECRET = b"what lies outside"
PIECES = 2 * (len(LARGE) // (256 * 1024) + 1)
"""So many pieces a large file is read in, in both readings together."""
SECONDS = 120


def rewrite(path: Path, outside: Path) -> None:
    """Write over it, from the end on, and give it its times back."""
    status = path.stat()
    with path.open("r+b") as file:
        content = file.read()[::-1]
        file.seek(0)
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path, outside: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more " * 1000)


def shrink(path: Path, outside: Path) -> None:
    os.truncate(path, 1000)


def replace(path: Path, outside: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"another file")
    os.utime(other, (OLD, OLD))
    other.rename(path)


def remove(path: Path, outside: Path) -> None:
    path.unlink()


def swap_for_link(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "file")


def swap_for_fifo(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap_for_directory(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def swap_directory_for_link(path: Path, outside: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.symlink_to(outside)


Change = Callable[[Path, Path], None]
CHANGES: list[Change] = [
    rewrite,
    grow,
    shrink,
    replace,
    remove,
    swap_for_link,
    swap_for_fifo,
    swap_for_directory,
    swap_directory_for_link,
]


class Scene:
    """A source with a file that will change once, and what it was and became."""

    def __init__(self, world: World, plain: bytes, change: Change) -> None:
        self.world = world
        self.path = world.write("above/file", plain)
        self.outside = world.root / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_bytes(SECRET)
        world.write("calm", b"calm")
        self.states = {hash_of(plain)}
        self.has_struck = False
        self._change = change
        self._lock = threading.Lock()

    def strike(self) -> None:
        with self._lock:
            if self.has_struck:
                return
            self.has_struck = True
            self._change(self.path, self.outside)
            if self.path.is_file() and not self.path.is_symlink() and not self.path.parent.is_symlink():
                self.states.add(hash_of(self.path.read_bytes()))

    def strike_at(self, number: int) -> Callable[[], None]:
        """Return what strikes when it is called for the `number`th time."""
        calls = iter(range(1, number + 1))

        def count() -> None:
            if next(calls, None) == number:
                self.strike()

        return count

    def check(self, outcome: Outcome) -> None:
        """Hold the run to the truth: the file as it was at some moment, a failure, or none; and all the rest."""
        found = files(self.world.newest())
        failed = {failure.path for failure in outcome.failures}
        assert hash_of(b"calm") == found[b"calm"].hash
        assert hash_of(SECRET) not in self.world.hashes()
        if b"above/file" in found:
            assert found[b"above/file"].hash in self.states
        elif not any(path in failed for path in (b"above/file", b"above")):
            assert not self.path.exists() or self.path.parent.is_symlink()

    def check_next(self) -> None:
        """Hold the next run to the tree as it is."""
        outcome = run_in_time(lambda: back_up(self.world))
        assert outcome.failures == []
        regular = [path for path in self.world.source.rglob("*") if path.is_file() and not path.is_symlink()]
        wanted = {os.fsencode(path.relative_to(self.world.source)): hash_of(path.read_bytes()) for path in regular}
        assert {path: entry.hash for path, entry in files(self.world.newest()).items()} == wanted
        self.world.check_newest()


def run_in_time(run: Callable[[], Outcome]) -> Outcome:
    """Run something that must not hang on a FIFO."""
    outcomes: list[Outcome | BaseException] = []

    def keep() -> None:
        try:
            outcomes.append(run())
        except BaseException as error:  # noqa: BLE001 - it is raised again, where it is seen
            outcomes.append(error)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert outcomes, "it hangs"
    (outcome,) = outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def plain(request: pytest.FixtureRequest) -> bytes:
    content: bytes = request.param
    return content


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_after_the_scan_is_told_or_taken_whole(world: World, plain: bytes, change: Change) -> None:
    scene = Scene(world, plain, change)
    outcome = run_in_time(lambda: back_up(world, on_phase=when_storing(scene.strike)))
    assert scene.has_struck
    scene.check(outcome)
    scene.check_next()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", [b"file", b"above"])
def test_a_change_just_before_the_file_is_opened_is_told_or_taken_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Change, name: bytes
) -> None:
    scene = Scene(world, SMALL, change)
    arm = when_storing(lambda: strike_before_open(monkeypatch, name, scene.strike))
    outcome = run_in_time(lambda: back_up(world, on_phase=arm))
    assert scene.has_struck
    scene.check(outcome)
    scene.check_next()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_when_the_upload_begins_is_told_or_taken_whole(world: World, change: Change) -> None:
    scene = Scene(world, LARGE, change)
    world.storage.before_send = lambda key: scene.strike() if key == key_of(LARGE) else None
    outcome = run_in_time(lambda: back_up(world))
    assert scene.has_struck
    scene.check(outcome)
    scene.check_next()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_at_any_piece_of_either_reading_is_told_or_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    half = PIECES // 2
    edges = [half + 1, half, PIECES, 1]
    for number in [*edges[: rounds(1)], *random.sample(range(1, PIECES + 1), min(rounds(1), PIECES))]:
        with monkeypatch.context() as patch:
            directory = tmp_path / f"{number}-{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            world = World.make(directory)
            scene = Scene(world, LARGE, change)
            strike_while_reading(patch, scene.path, scene.strike_at(number))
            outcome = run_in_time(lambda world=world: back_up(world))  # type: ignore[misc]
            assert scene.has_struck, number
            scene.check(outcome)
        scene.check_next()
        shutil.rmtree(directory)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_small_file_that_changes_while_it_is_read_is_told_or_taken_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    scene = Scene(world, SMALL, change)
    strike_while_reading(monkeypatch, scene.path, scene.strike)
    outcome = run_in_time(lambda: back_up(world))
    assert scene.has_struck
    scene.check(outcome)
    scene.check_next()
