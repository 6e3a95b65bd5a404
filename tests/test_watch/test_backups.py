"""When a watcher starts runs, and what it says of them: processes that answer what a test wants, by a test's clock."""

import json
import selectors
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from s3bu.filters import Filters
from s3bu.job import Job, parse_job
from s3bu.watch.backups import Backups, Means
from s3bu.watch.children import Children
from s3bu.watch.recorder import Place, Recorder
from s3bu.watch.runs import Commands
from s3bu.watch.schedule import Pace
from tests.running import write_file

KEY = ("home", "src")
HOUR = 3600.0
_PROGRAM = """
import pathlib, sys, time
with open({begun!r}, "a") as file:
    file.write(sys.argv[1] + chr(10))
answer = pathlib.Path({answers!r}, sys.argv[1])
while not answer.exists():
    time.sleep(0.01)
code, *messages = answer.read_text().splitlines()
answer.unlink()
print(*messages, sep=chr(10))
sys.exit(int(code))
"""


class Stage:
    """Backups of one source; their runs wait until they are told what to answer, and it is the log that they write."""

    def __init__(self, root: Path, *, retention: str = "") -> None:
        self._root = root
        self.now = 1_000_000.0
        self.said: list[tuple[str, str, str]] = []
        self.answers = root / "answers"
        self.answers.mkdir()
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._selector)
        source = write_file(root / "source" / "a", "a").parent
        self.job = self._job(source, retention)
        self._recorder = Recorder(Place(root / "state", "there", 86_400), {}, threading.Event().set)
        self._recorder.add("home", self.job.sources[0], Filters())
        text = _PROGRAM.format(begun=str(root / "begun"), answers=str(self.answers))
        commands = Commands((sys.executable, "-c", text), "repo")
        means = Means(commands, self._children, self._recorder, self, lambda: self.now)
        self.backups = Backups(Pace(), means, lambda _: self.job, lambda: None, is_once=False)
        self.backups.add(KEY, "home")

    @staticmethod
    def _job(source: Path, retention: str) -> Job:
        text = f"sources:\n- path: {source}\n  label: src\n{retention}"
        return parse_job(text.encode(), name="home", origin="home.yml", strict=True, directory=None)

    def say(self, event: str, message: str, *, source: str = "") -> None:
        self.said.append((event, source, message))

    def ended(self, source: str, code: int, _summary: object) -> None:
        self.said.append(("ended", source, str(code)))

    @property
    def begun(self) -> list[str]:
        path = self._root / "begun"
        return path.read_text().split() if path.exists() else []

    def events(self, event: str) -> list[tuple[str, str]]:
        return [(source, message) for one, source, message in self.said if one == event]

    def begin(self, command: str) -> None:
        """Start what is due."""
        self.backups.start_due()
        self.await_begun(command)

    def await_begun(self, command: str) -> None:
        """Wait until a run of a command has begun."""
        self._await(lambda: self.begun[-1:] == [command])

    def answer(self, command: str, code: int = 0, **summary: object) -> None:
        """Let the run that is under way end."""
        nsaid, beside = len(self.said), self.answers / "beside"
        message = json.dumps({"message_type": "summary", "full_scan": None, **summary})
        beside.write_text(f"{code}\n{message}\n")
        beside.replace(self.answers / command)
        self._await(lambda: len(self.said) > nsaid)

    def _await(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < deadline, "it does not come"
            for key, _ in self._selector.select(0.02) if self._selector.get_map() else ():
                key.data()
            self._children.reap()

    def close(self) -> None:
        self._children.stop()
        self._await(lambda: not self._children.are_there)
        self._recorder.close()
        self._selector.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


RETENTION = "s3bu:\n  retention:\n    keep_daily: 7\n"


def test_a_source_that_may_change_unseen_takes_a_tenth_of_the_time(stage: Stage) -> None:
    stage.begin("backup")
    stage.now += 1000
    stage.answer("backup", total_duration=1000)
    ended = stage.now
    assert stage.backups.next() > ended + HOUR, "nothing wants a run but the daily full scan"
    stage.backups.doubt(KEY)
    assert stage.backups.next() == ended + 9000
    stage.backups.changed(KEY, [b"a"])
    assert stage.backups.next() == ended + 10, "a change is another matter"


def test_a_quick_source_that_may_change_unseen_is_backed_up_each_interval(stage: Stage) -> None:
    stage.begin("backup")
    began = stage.now
    stage.answer("backup", total_duration=1)
    stage.now += 20
    stage.backups.doubt(KEY)
    assert stage.backups.next() == began + 300


def test_a_run_that_does_not_end_is_told_each_hour_until_it_does(stage: Stage) -> None:
    stage.begin("backup")
    stage.now += HOUR - 1
    stage.backups.tell_long()
    assert stage.events("running") == []
    for _ in range(120):
        stage.now += 60
        stage.backups.tell_long()
    message = "a run has not ended, and the job waits for it; it began "
    assert stage.events("running") == [("home", message + "1 h 1 min ago"), ("home", message + "2 h 1 min ago")]
    stage.answer("backup", total_duration=3 * HOUR)
    stage.now += 2 * HOUR
    stage.backups.tell_long()
    assert len(stage.events("running")) == 2


def test_forgetting_that_does_not_end_is_told_too(tmp_path: Path) -> None:
    with closing(Stage(tmp_path, retention=RETENTION)) as stage:
        stage.begin("backup")
        stage.answer("backup", total_duration=1)
        stage.await_begun("forget")
        stage.now += 2 * HOUR
        stage.backups.tell_long()
        assert len(stage.events("running")) == 1
        stage.answer("forget", forgotten=3, kept=4)
        assert stage.events("forgot") == [("home", "forgot 3 old snapshots, kept 4")]
        stage.backups.tell_long()
        assert len(stage.events("running")) == 1
