"""What is seen stands in the journal, or is kept until it can: also on a full disk, and when the file is taken away."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3bu.filters import Filters
from s3bu.job import Source
from s3bu.journal import Journal, JournalError, open_for_run
from s3bu.watch import recorder as module
from s3bu.watch import tree
from s3bu.watch.recorder import CHANGED_JOB, Place, Recorder
from tests.running import await_that, write_file

KEY = ("home", "src")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_file(tmp_path / "source" / "a", "a").parent


@pytest.fixture
def recorder(tmp_path: Path, source: Path) -> Iterator[Recorder]:
    made = Recorder(Place(tmp_path / "state", "there", 86_400), {}, threading.Event().set)
    made.add("home", Source("src", os.fsencode(source)), Filters())
    record(made)
    yield made
    made.close()


def opened(tmp_path: Path) -> Journal:
    journal = open_for_run(tmp_path / "state", "there")
    assert journal is not None
    return journal


def record(recorder: Recorder) -> None:
    recorder.collect()
    recorder.record()


def dirty(tmp_path: Path) -> set[bytes]:
    journal = opened(tmp_path)
    watched = journal.find(*KEY)
    assert watched is not None
    found = {one.path for one in journal.dirty(watched.id)}
    journal.close()
    return found


def fill(recorder: Recorder) -> None:
    """Let the disk be full, for this journal: it may not grow any more."""
    recorder._journal._connection.execute("PRAGMA max_page_count = 1")


def make_room(recorder: Recorder) -> None:
    recorder._journal._connection.execute("PRAGMA max_page_count = 1000000")


def seen(recorder: Recorder, name: bytes) -> Callable[[], bool]:
    """Return what asks whether a path was seen, though not yet written down."""

    def is_seen() -> bool:
        recorder.collect()
        return any(path == name for _, path in recorder._kept.changed)

    return is_seen


def names(count: int) -> list[str]:
    return [f"{number:0200}" for number in range(count)]


def test_what_a_full_disk_does_not_take_is_kept_and_written_later(
    recorder: Recorder, source: Path, tmp_path: Path
) -> None:
    fill(recorder)
    for name in names(200):
        write_file(source / name, "new")
    await_that(seen(recorder, names(200)[-1].encode()))
    for _ in range(3):
        with pytest.raises(JournalError, match="full"):
            recorder.record()
    assert recorder.has_more
    assert dirty(tmp_path) == {b""}
    make_room(recorder)
    record(recorder)
    assert dirty(tmp_path) >= {name.encode() for name in names(200)}
    assert not recorder.has_more


def test_nobody_gets_an_answer_that_cannot_be_written(recorder: Recorder, source: Path, tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(recorder)
    for name in names(200):
        write_file(source / name, "new")
    await_that(seen(recorder, names(200)[-1].encode()))
    answers: list[bool] = []
    session = recorder._session

    def ask() -> None:
        own = opened(tmp_path)
        answers.append(own.await_answer(session, 3))
        own.close()

    asking = threading.Thread(target=ask)
    asking.start()
    await_that(lambda: recorder.collect()[1])
    with pytest.raises(JournalError):
        recorder.record()
    asking.join()
    assert answers == [False]
    make_room(recorder)
    record(recorder)
    journal.close()


def test_a_cookie_is_answered_once_what_came_before_it_is_written(
    recorder: Recorder, source: Path, tmp_path: Path
) -> None:
    is_over = threading.Event()
    journal = opened(tmp_path)
    session = recorder._session
    write_file(source / "b", "b")
    answered: list[set[bytes]] = []

    def ask() -> None:
        own = opened(tmp_path)
        if own.await_answer(session, 30):
            answered.append(dirty(tmp_path))
        own.close()
        is_over.set()

    asking = threading.Thread(target=ask)
    asking.start()
    while not is_over.wait(0.01):
        if recorder.collect()[1]:
            recorder.record()
    asking.join()
    assert b"b" in answered[0]
    journal.close()


def test_what_is_too_much_to_keep_is_walked_anew(
    recorder: Recorder, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_BOUND", 100)
    before = recorder._session
    fill(recorder)
    for name in names(200):
        write_file(source / name, "new")
    await_that(seen(recorder, names(200)[-1].encode()))
    with pytest.raises(JournalError):
        recorder.record()
    recorder.collect()
    assert not recorder._kept.changed
    assert recorder.has_more
    make_room(recorder)
    recorder.record()
    record(recorder)
    assert recorder._session != before, "another session, so that the next run looks at everything"
    assert dirty(tmp_path) == {b""}


def test_a_journal_that_was_taken_away_is_missed_and_made_anew(
    recorder: Recorder, source: Path, tmp_path: Path
) -> None:
    places = [recorder.is_in_place]
    for path in (tmp_path / "state" / "journals").glob("*.db*"):
        path.unlink()
    places.append(recorder.is_in_place)
    recorder.renew()
    record(recorder)
    assert [*places, recorder.is_in_place] == [True, False, True]
    write_file(source / "b", "b")
    await_that(lambda: b"b" in recorder.collect()[0].get(KEY, set()))
    recorder.record()
    assert b"b" in dirty(tmp_path)


def test_a_directory_of_cookies_that_is_another_one_is_missed(recorder: Recorder) -> None:
    cookies = recorder._journal.cookies
    cookies.rename(cookies.with_name("aside"))
    places = [recorder.is_in_place]
    cookies.mkdir()
    assert [*places, recorder.is_in_place] == [False, False]


def test_a_source_that_is_watched_no_more_is_not_believed(recorder: Recorder, tmp_path: Path) -> None:
    recorder.remove(KEY)
    record(recorder)
    journal = opened(tmp_path)
    watched = journal.find(*KEY)
    assert watched is not None
    assert watched.obstacle == "the watcher does not watch it any more"
    journal.close()


def test_a_source_whose_job_changed_is_believed_again_after_a_full_scan(
    recorder: Recorder, source: Path, tmp_path: Path
) -> None:
    recorder.remove(KEY)
    recorder.add("home", Source("src", os.fsencode(source)), Filters(skip_dirs=(b"x",)), reason=CHANGED_JOB)
    record(recorder)
    journal = opened(tmp_path)
    watched = journal.find(*KEY)
    assert watched is not None
    assert watched.obstacle is None
    ((path, is_tree, *_, why),) = journal.dirty(watched.id)
    assert (path, is_tree, why is not None) == (b"", True, True)
    assert journal.watched(watched.id).keys() == {b""}
    journal.close()


STUCK = "a walk through directories does not come to its end"


def test_a_walk_that_does_not_end_lets_all_be_scanned(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a server is gone from which a directory was mounted: meanwhile nothing is seen in any source."""
    monkeypatch.setattr(tree, "_BUSY_SECONDS", 0.01)
    assert recorder.obstacle(KEY) is None
    with recorder._tree._lock, monkeypatch.context() as patched:
        patched.setattr(tree, "_STUCK_SECONDS", 0)
        recorder.look_again()
        assert recorder.obstacle(KEY) == STUCK

    def is_over() -> bool:
        recorder.look_again()
        return recorder.obstacle(KEY) is None

    await_that(is_over)


def test_a_first_walk_that_does_not_end_holds_nobody_up(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_BUSY_SECONDS", 0.01)
    other, key = write_file(tmp_path / "other" / "a", "a").parent, ("home", "other")
    with recorder._tree._lock, monkeypatch.context() as patched:
        patched.setattr(tree, "_STUCK_SECONDS", 0)
        recorder.add("home", Source("other", os.fsencode(other)), Filters())
        assert (recorder.obstacle(key), recorder.counts(key).nwatched) == (STUCK, 0)
        recorder.remove(KEY)
    await_that(lambda: recorder.counts(key).nwatched == 1)
    assert recorder.obstacle(key) is None
    assert recorder.sources == [key]


def test_the_end_writes_down_what_was_seen_last(source: Path, tmp_path: Path) -> None:
    made = Recorder(Place(tmp_path / "state", "there", 86_400), {}, threading.Event().set)
    made.add("home", Source("src", os.fsencode(source)), Filters())
    record(made)
    write_file(source / "b", "b")
    await_that(seen(made, b"b"))
    made.close()
    journal = opened(tmp_path)
    watched = journal.find(*KEY)
    assert watched is not None
    assert watched.session.is_ended
    assert b"b" in dirty(tmp_path)
    journal.close()
