"""How the watcher finds newer versions of jobs, by a program that says which there are when it is let."""

import selectors
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.job import parse_job
from s3bu.watch.children import Children
from s3bu.watch.jobs import Following, Jobs
from s3bu.watch.runs import Commands
from tests.running import await_that

_TEXT = "sources:\n- path: /x\n  label: src\n"
_PROGRAM = """
import json, pathlib, sys, time
directory = pathlib.Path(sys.argv[1])
newest = int((directory / "newest").read_text())
if sys.argv[3] == "list":
    print(json.dumps({"message_type": "job_versions", "job": "home", "newest": newest}))
else:
    print(json.dumps({"message_type": "job", "version": newest, "text": (directory / "text").read_text()}))
(directory / "looked").touch()
while not (directory / "go").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def children() -> Iterator[Children]:
    with selectors.DefaultSelector() as selector:
        yield Children(selector)


def test_who_asks_in_the_midst_of_a_look_hears_of_what_came_before_he_asked(children: Children, tmp_path: Path) -> None:
    (tmp_path / "newest").write_text("1")
    (tmp_path / "text").write_text(_TEXT)
    commands = Commands((sys.executable, "-c", _PROGRAM, str(tmp_path)), "repository")
    job = parse_job(_TEXT.encode(), name="home", origin="home", strict=False, directory=None)
    following = Following("home", None, job, 1)
    said: list[str] = []
    jobs = Jobs([following], commands, children, lambda one: said.append(f"version {one.version}"), lambda *_: None)
    jobs.reload(lambda: said.append("first"))
    await_that((tmp_path / "looked").exists)
    (tmp_path / "newest").write_text("2")
    jobs.reload(lambda: said.append("second"))
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 60
    while children.are_there:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        children.reap()
    assert said == ["first", "version 2", "second"]
