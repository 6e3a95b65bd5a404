"""Runs as child processes, of this program and of others that behave badly."""

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.watch.runs import Child, Commands, Ended
from tests.running import Scene, await_that, backed_up, write_file

PROGRAM = (sys.executable, "-m", "s3bu")


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    return scene


def finish(child: Child, selector: selectors.BaseSelector) -> Ended:
    """Do what a watcher does until the child has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for key, _ in selector.select(0.05) if selector.get_map() else ():
            key.data()
        ended = child.ended()
        if ended is not None:
            assert not selector.get_map()
            return ended
    child.kill()
    raise AssertionError("it does not end")


def python(text: str, selector: selectors.BaseSelector) -> Child:
    return Child([sys.executable, "-c", text], selector)


def test_the_summary_of_a_backup_is_kept(scene: Scene, selector: selectors.BaseSelector) -> None:
    write_file(scene.source / "new", "new")
    commands = Commands(PROGRAM, str(scene.repository))
    ended = finish(Child(commands.backup(str(scene.job), "src"), selector), selector)
    assert (ended.code, ended.errors, ended.why) == (0, [], None)
    assert ended.summary["snapshot_id"] == scene.manifests()[-1]
    assert ended.summary["files_new"] == 1


def test_what_ended_a_backup_is_told_with_its_hint(scene: Scene, selector: selectors.BaseSelector) -> None:
    commands = Commands(PROGRAM, str(scene.repository))
    ended = finish(Child(commands.backup(str(scene.job), "nonsense"), selector), selector)
    assert (ended.code, ended.summary) == (2, {})
    assert ended.why == "job 'home' has no source with the label 'nonsense'; it has src"


def test_other_facts_are_kept_if_they_are_wanted(scene: Scene, selector: selectors.BaseSelector) -> None:
    commands = Commands(PROGRAM, str(scene.repository), ("--region", "here"))
    ended = finish(Child(commands.list_jobs(), selector, keeps="job_versions"), selector)
    assert (ended.code, ended.facts) == (0, [])


def test_errors_and_warnings_are_counted_and_the_first_ones_kept(selector: selectors.BaseSelector) -> None:
    error = {"message_type": "error", "error": {"message": "permission denied"}, "item": "a"}
    warning = {"message_type": "warning", "message": "odd"}
    said = f"{json.dumps(error)}\n{json.dumps(warning)}\n"
    text = f"import sys\nfor _ in range(5000): sys.stderr.write({said!r})"
    ended = finish(python(text, selector), selector)
    assert (ended.nerrors, ended.errors, ended.warnings) == (5000, ["a: permission denied"] * 10, ["odd"] * 10)


def test_a_traceback_is_told_by_its_last_line(selector: selectors.BaseSelector) -> None:
    ended = finish(python("raise ValueError('nonsense')", selector), selector)
    assert (ended.code, ended.why) == (1, "ValueError: nonsense")


def test_a_line_without_end_takes_no_memory(selector: selectors.BaseSelector) -> None:
    text = (
        "import sys\nfor _ in range(400): sys.stdout.write('x' * 2**17)\n"
        'print()\nprint(\'{"message_type": "summary", "a": 1}\')'
    )
    child = python(text, selector)
    ended = finish(child, selector)
    assert ended.summary["a"] == 1
    assert ended.nerrors == 0, "what is too long is passed over"


def test_what_a_signal_ended_has_the_number_that_a_shell_tells(selector: selectors.BaseSelector) -> None:
    child = python("import time; time.sleep(60)", selector)
    child.stop()
    ended = finish(child, selector)
    assert (ended.code, ended.why) == (128 + signal.SIGTERM, "ended with 143")


def test_a_child_that_is_deaf_is_killed_with_what_it_started(selector: selectors.BaseSelector, tmp_path: Path) -> None:
    text = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid) + chr(10))\ntime.sleep(60)"
    )
    child = python(text, selector)
    path = tmp_path / "pid"
    await_that(lambda: path.exists() and path.read_text().endswith("\n"))
    child.stop()
    time.sleep(0.2)
    assert child.ended() is None
    child.kill()
    assert finish(child, selector).code == 137
    status = Path(f"/proc/{path.read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while status.exists() and b") Z" not in status.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not status.exists() or b") Z" in status.read_bytes()


def test_a_child_has_a_session_of_its_own_and_nothing_of_systemd(
    selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nowhere")
    text = (
        "import json, os, sys\nprint(json.dumps({'message_type': 'summary', 'session': os.getsid(0), "
        "'socket': os.environ.get('NOTIFY_SOCKET'), 'input': sys.stdin.read()}))"
    )
    child = python(text, selector)
    summary = finish(child, selector).summary
    assert (summary["session"], summary["socket"], summary["input"]) == (child.pid, None, "")
    assert summary["session"] != os.getsid(0)
