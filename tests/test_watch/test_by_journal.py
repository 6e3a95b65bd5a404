"""A run that goes by the journal says what a full scan says, and finds by itself what nobody may have told it."""

import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from s3bu.backup import Options
from s3bu.errors import StorageError
from s3bu.filters import Filters
from s3bu.journal import Dirty, Journal, rules_of
from s3bu.manifest import FILE
from tests.fakes import World
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import JOURNAL, Compared, compare, run_by_journal
from tests.test_watch.recorder import Recorder, recording

pytestmark = pytest.mark.usefixtures("quick_scrypt", "quick_ticks", "untouched")

NAMES = ("a", "b", "deep/c", "deep/er/d", "other/e")
LONG_AGO = 1_500_000_000


def fill(world: World) -> None:
    for name in NAMES:
        world.write(name, name.encode(), mtime=LONG_AGO)
    (world.source / "link").symlink_to("a")
    (world.source / "empty").mkdir()
    let_tick()


@pytest.fixture
def recorder(world: World) -> Iterator[Recorder]:
    """Watch a source that was backed up once."""
    fill(world)
    with recording(world) as recorder:
        first = run_by_journal(world)
        assert first.why_full == "there is no snapshot to go on from"
        let_tick()
        yield recorder


def by_journal(world: World) -> Compared:
    """Back up by the journal and everywhere, and hold the one to the other; it did go by the journal."""
    let_tick()
    compared = compare(world)
    assert compared.why_full is None
    return compared


def changes(compared: Compared) -> dict[str, int]:
    return {status: number for status, number in compared.outcome.counts.items() if number and status != "unmodified"}


# --- nothing, and what the watcher saw


def test_nothing_changed_is_nothing_to_publish(world: World, recorder: Recorder) -> None:
    compared = by_journal(world)
    assert (compared.outcome.published, changes(compared)) == (None, {})
    assert compared.outcome.counts["unmodified"] == len(NAMES) + 3 + 2


def test_a_run_with_nothing_to_do_opens_nothing_below_the_source(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    real_open = os.open

    def note(path: str | bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None or os.fsencode(path).startswith(os.fsencode(world.source)):
            opened.append(path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    let_tick()
    monkeypatch.setattr(os, "open", note)
    assert run_by_journal(world).why_full is None
    assert opened == [os.fsencode(world.source)]


def test_a_file_that_was_rewritten_in_place_is_taken_once_it_was_seen(world: World, recorder: Recorder) -> None:
    rewrite(world.source / "deep/c", b"C")
    recorder.see("deep/c")
    assert changes(by_journal(world)) == {"changed": 1}


def rewrite(path: Path, content: bytes) -> None:
    """Write other bytes into a file, with the time that it had: no directory shows it."""
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_without_the_event_such_a_file_is_not_found(world: World, recorder: Recorder) -> None:
    """So the tests above and below show something: it is the journal alone that leads there."""
    rewrite(world.source / "deep/c", b"C")
    let_tick()
    assert run_by_journal(world).counts["changed"] == 0


@pytest.mark.parametrize("name", ["deep", "deep/er", "deep/er/d", "link", "a"])
def test_what_was_removed_is_found_without_an_event(world: World, recorder: Recorder, name: str) -> None:
    path = world.source / name
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    compared = by_journal(world)
    assert set(changes(compared)) == {"removed"}


CHANGES = {
    "a new file": "echo new > deep/er/new",
    "a new file in the source itself": "echo new > new",
    "a new tree": "cp -r deep other/tree",
    "a file renamed": "mv a other/z",
    "a file renamed over another": "mv a deep/er/d",
    "a directory renamed": "mv deep deeper",
    "a directory moved down": "mv other deep/er",
    "a directory for a file": "rm a && mkdir a && touch a/b",
    "a file for a directory": "rm -r deep && echo file > deep",
    "a link for a directory": "mv deep x && ln -s x deep",
    "another link": "ln -sf b link",
    "directories exchanged": "mv deep x && mv other deep && mv x other",
    "a FIFO": "mkfifo deep/fifo",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_shows_in_a_directory_is_found_without_an_event(world: World, recorder: Recorder, change: str) -> None:
    subprocess.run(["sh", "-c", CHANGES[change]], cwd=world.source, check=True)
    assert by_journal(world).outcome.published is not None
    recorder.watch_all()
    assert by_journal(world).outcome.published is None
    assert run_by_journal(world).nunwatched == 0


def test_a_mode_that_changed_is_taken_once_it_was_seen(world: World, recorder: Recorder) -> None:
    (world.source / "deep/er/d").chmod(0o600)
    (world.source / "empty").chmod(0o700)
    recorder.see("deep/er/d", "empty")
    assert changes(by_journal(world)) == {"changed": 2}


def test_a_dirty_directory_means_all_below_it(world: World, recorder: Recorder) -> None:
    rewrite(world.source / "deep/er/d", b"D")
    rewrite(world.source / "deep/c", b"C")
    recorder.see("deep", tree=True)
    assert changes(by_journal(world)) == {"changed": 2}


def test_times_of_directories_alone_reach_the_next_snapshot(world: World, recorder: Recorder) -> None:
    (world.source / "other/new").touch()
    (world.source / "other/new").unlink()
    assert by_journal(world).outcome.published is None
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    assert by_journal(world).outcome.published is not None


# --- what nobody saw, and is asked for


def test_a_write_through_another_link_is_found(world: World, recorder: Recorder) -> None:
    os.link(world.source / "a", world.root / "outside")
    recorder.see("a")
    by_journal(world)
    rewrite(world.root / "outside", b"through the other link")
    assert changes(by_journal(world)) == {"changed": 1}
    (world.root / "outside").unlink()
    recorder.see("a")
    by_journal(world)


def test_a_write_by_a_new_name_of_an_old_file_is_found_by_the_old_name_too(world: World, recorder: Recorder) -> None:
    os.link(world.source / "a", world.source / "deep" / "again")
    let_tick()
    assert compare(world).why_full == "files got further names, by which they may have changed unseen"
    rewrite(world.source / "deep" / "again", b"by the new name")
    recorder.see("deep/again")
    assert changes(by_journal(world)) == {"changed": 2}


def test_a_tree_of_further_names_is_no_surprise_twice(world: World, recorder: Recorder) -> None:
    subprocess.run(["cp", "-al", "deep", "linked"], cwd=world.source, check=True)
    let_tick()
    assert compare(world).why_full is not None
    recorder.watch_all()
    assert by_journal(world).outcome.published is None
    rewrite(world.source / "linked/er/d", b"D")
    assert changes(by_journal(world)) == {"changed": 2}


def test_a_file_that_changed_lately_is_asked(world: World, recorder: Recorder) -> None:
    (world.source / "a").write_bytes(b"lately")
    recorder.see("a")
    by_journal(world)
    with (world.source / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:2] = b"LA"
        mapped.flush()
        compared = by_journal(world)
    assert changes(compared) == {"changed": 1}


def test_a_file_that_was_touched_lately_is_asked(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As archives and copies leave it: changed a moment ago, with a time of long ago."""
    monkeypatch.setattr("s3bu.backup.looking._MOST_TOUCHED", 100)
    os.link(world.source / "a", world.root / "outside")
    rewrite(world.root / "outside", b"through a link that nobody saw")
    assert changes(by_journal(world)) == {"changed": 1}


def test_a_large_file_is_asked(world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3bu.backup.looking.LARGE_NBYTES", 4)
    rewrite(world.source / "deep/er/d", b"DEEP/ER/D")
    assert changes(by_journal(world)) == {"changed": 1}


def test_a_file_that_may_have_been_read_too_soon_is_read_again(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("racy", b"one", mtime=LONG_AGO)
    recorder.see("racy")
    with monkeypatch.context() as patched:
        patched.setattr("s3bu.draft.RACY_NS", 60 * 10**9)
        assert run_by_journal(world).counts["new"] == 1
    (world.source / "racy").write_bytes(b"two")
    os.utime(world.source / "racy", (LONG_AGO, LONG_AGO))
    assert changes(by_journal(world)) == {"changed": 1}


def test_what_failed_is_looked_at_again(world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    readlink = os.readlink

    def refuse(path: bytes, **where: int) -> bytes:
        if path == b"link":
            raise PermissionError(13, "Permission denied")
        return readlink(path, **where)

    with monkeypatch.context() as patched:
        patched.setattr(os, "readlink", refuse)
        (world.source / "link").unlink()
        (world.source / "link").symlink_to("b")
        failed = by_journal(world)
        assert [one.path for one in failed.outcome.failures] == [b"link"]
        assert by_journal(world).outcome.published is None
    assert by_journal(world).outcome.failures == []


def test_a_directory_that_is_not_watched_is_listed_each_time(world: World, recorder: Recorder) -> None:
    shutil.copytree(world.source / "deep", world.source / "fresh")
    by_journal(world)
    rewrite(world.source / "fresh/er/d", b"D")
    compared = by_journal(world)
    assert (changes(compared), compared.outcome.nunwatched) == ({"changed": 1}, 2)
    recorder.watch_all()
    assert by_journal(world).outcome.nunwatched == 0


# --- large files that change all the time


def test_a_large_file_that_keeps_changing_waits(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3bu.backup.large.LARGE_NBYTES", 4)
    hourly = Options("here", large_seconds=3600)
    rewrite(world.source / "deep/er/d", b"again")
    recorder.see("deep/er/d")
    let_tick()
    waiting = run_by_journal(world, options=hourly)
    assert (waiting.why_full, waiting.published, waiting.ndeferred) == (None, None, 1)
    (dirty,) = recorder.journal.dirty(recorder.number)
    assert dirty.path == b"deep/er/d"
    assert dirty.not_before_us > 0
    taken = run_by_journal(world, options=Options("here", large_seconds=0))
    assert (taken.why_full, taken.counts["changed"]) == (None, 1)
    assert {one.path: one.nbytes for one in world.newest().entries if one.kind == FILE}[b"deep/er/d"] == 5


def test_a_large_file_does_not_wait_for_a_clock_that_was_ahead(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3bu.backup.large.LARGE_NBYTES", 4)
    with closing(world.index(JOURNAL)) as index:
        index.connection.execute("UPDATE snapshot SET created_us = created_us + 365 * 86400000000")
    rewrite(world.source / "deep/er/d", b"again")
    recorder.see("deep/er/d")
    let_tick()
    taken = run_by_journal(world, options=Options("here", large_seconds=3600))
    assert (taken.ndeferred, taken.counts["changed"]) == (0, 1)


def test_a_run_that_fails_drops_nothing(world: World, recorder: Recorder) -> None:
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    let_tick()

    def fail(key: str) -> None:
        if key.startswith("manifests/"):
            raise StorageError("the network is away")

    world.storage.before_send = fail
    with pytest.raises(StorageError, match="away"):
        run_by_journal(world)
    world.storage.before_send = lambda key: None
    assert changes(by_journal(world)) == {"changed": 1}


def test_what_changes_during_a_run_is_left_to_the_next(world: World, recorder: Recorder) -> None:
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    let_tick()

    def change(phase: str) -> None:
        if phase == "publishing the snapshot":
            rewrite(world.source / "b", b"B")
            recorder.see("b")

    assert run_by_journal(world, on_phase=change).counts["changed"] == 1
    assert changes(by_journal(world)) == {"changed": 1}


def test_what_changed_before_a_source_is_watched_anew_is_not_forgotten_with_that(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its job changes just when a run has its answer, and the walk is done before the run looks further."""
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    let_tick()
    freeze = Journal.freeze

    def freeze_just_then(journal: Journal, number: int) -> tuple[int, list[Dirty]]:
        recorder.journal.watch_source(recorder.session, "home", "docs", 86_400, rules_of(Filters()))
        frozen = freeze(journal, number)
        recorder.watch_all()
        return frozen

    monkeypatch.setattr(Journal, "freeze", freeze_just_then)
    assert compare(world).why_full == "the source is watched anew"


def test_a_source_that_is_swapped_between_the_look_and_the_walk_is_no_mixture(world: World, recorder: Recorder) -> None:
    shutil.copytree(world.source, world.root / "other", symlinks=True)
    for name in NAMES:
        rewrite(world.root / "other" / name, b"of the other one")
    rewrite(world.source / "a", b"A")
    recorder.see("a")
    let_tick()

    def swap(phase: str) -> None:
        if phase.startswith("scanning") and not (world.root / "away").exists():
            world.source.rename(world.root / "away")
            (world.root / "other").rename(world.source)

    outcome = run_by_journal(world, on_phase=swap)
    assert outcome.why_full == "another directory took the place of one while it was looked at"
    assert {one.nbytes for one in world.newest().entries if one.kind == FILE} == {len(b"of the other one")}


def test_a_directory_without_the_right_to_read_keeps_its_place(world: World, recorder: Recorder) -> None:
    """Only its mode is seen to change; whoever runs the tests may be allowed to read it all the same."""
    directory = world.source / "deep"
    directory.chmod(0)
    recorder.see("deep")
    by_journal(world)
    directory.chmod(stat.S_IRWXU)
    recorder.see("deep")
    by_journal(world)
