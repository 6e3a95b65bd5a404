"""What `--json` prints: one object a line, with the fields that docs/json.md tells, for every command."""

import base64
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.battery import Said, every_command
from tests.running import Result, Scene, backed_up, run, write_file
from tests.test_docs import all_commands

_DOCUMENT = (Path(__file__).parents[1] / "docs" / "json.md").read_text()
_ALWAYS = {"message_type"}


def documented() -> dict[str, set[str]]:
    """Return the fields that are documented, by heading."""
    found: dict[str, set[str]] = {}
    for heading, text in re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", _DOCUMENT, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        found[heading.replace("`", "")] = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    return found


def messages(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def told(result: Result, message_type: str) -> list[dict[str, Any]]:
    return [one for one in messages(result.out) if one["message_type"] == message_type]


def ask(*arguments: Any) -> Result:
    return run(*arguments, "--json")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    return scene


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Said]]:
    """Run every command once, and some so that they fail."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("EDITOR", "sed -i s/home/house/")
        scene = backed_up(tmp_path_factory.mktemp("battery") / "scene")
        scene.enter(monkeypatch)
        yield list(every_command(scene, "--json"))


def test_every_field_is_documented_and_every_documented_field_is_there(battery: list[Said]) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for said in battery:
        for one in messages(said.result.out) + messages(said.result.err):
            place = said.heading if one["message_type"] == "summary" else one["message_type"]
            seen[place] |= one.keys() - _ALWAYS
    seen["index"].add("path_raw")  # where a home has such a name
    assert seen.pop("row") == {"path", "path_raw", "path_raw_raw"}  # the columns of a statement
    assert documented().pop("row") == set()
    assert dict(seen) == {heading: fields for heading, fields in documented().items() if heading != "row"}


def test_the_battery_holds_every_command(battery: list[Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # in the help, a line a command
    commands = set(all_commands())
    assert {command for command in commands for one in battery if one.words[: len(command)] == command} == commands


def test_errors_go_to_stderr_and_all_else_to_stdout(battery: list[Said]) -> None:
    for said in battery:
        kinds = {one["message_type"] for one in messages(said.result.err)}
        assert kinds <= {"error", "exit_error", "warning", "note"}
        assert not kinds & {one["message_type"] for one in messages(said.result.out)}
        ends = [one["code"] for one in messages(said.result.err) if one["message_type"] == "exit_error"]
        assert ends in ([said.result.code], [] if said.result.code in (0, 3, 10) else None)


def test_the_summary_of_a_backup_counts_by_what_became_of_paths(scene: Scene) -> None:
    write_file(scene.source / "new", "new")
    (scene.source / "empty").mkdir()
    (scene.source / "b").unlink()
    write_file(scene.source / "a", "changed")
    (summary,) = told(ask("backup", scene.repository, scene.job), "summary")
    assert {name: summary[name] for name in summary if name.startswith(("files_", "others_"))} == {
        "files_new": 1,
        "files_changed": 1,
        "files_removed": 1,
        "files_unmodified": 1,
        "others_new": 1,
        "others_changed": 0,
        "others_removed": 0,
        "others_unmodified": 2,
    }
    assert summary["total_files_processed"] == 3
    assert summary["snapshot_id"] == scene.manifests()[-1]


def test_each_path_is_told_with_verbose(scene: Scene) -> None:
    write_file(scene.source / "new", "new")
    (scene.source / "b").unlink()
    changes = told(ask("backup", scene.repository, scene.job, "-v"), "change")
    assert [(one["action"], one["item"], one["type"], one["size"]) for one in changes] == [
        ("removed", "b", "file", 12),
        ("new", "new", "file", 3),
    ]
    restored = told(ask("restore", scene.repository, "home/src", scene.target, "-v"), "change")
    assert {one["item"] for one in restored} == {"a", "directory", "directory/c", "link", "new"}
    again = told(ask("restore", scene.repository, "home/src", scene.target, "-f", "-v"), "change")
    assert {one["item"] for one in again if one["action"] == "unmodified"} == {"a", "directory/c", "new"}


def test_a_name_that_is_no_text_comes_with_its_bytes(scene: Scene) -> None:
    write_file(scene.source / os.fsdecode(b"\xffx"), "odd")
    run("backup", scene.repository, scene.job)
    (node,) = (one for one in told(ask("ls", scene.repository, "home/src"), "node") if "path_raw" in one)
    assert (node["path"], base64.b64decode(node["path_raw"])) == ("\\xffx", b"\xffx")


def test_quiet_and_no_progress_leave_out_the_status(scene: Scene) -> None:
    assert told(ask("backup", scene.repository, scene.job, "--full-scan"), "status")
    for option in ("-q", "--no-progress"):
        result = ask("backup", scene.repository, scene.job, "--full-scan", option)
        assert [one["message_type"] for one in messages(result.out)] == ["summary"]


def test_a_word_behind_two_dashes_is_no_option(scene: Scene) -> None:
    result = run("ls", scene.repository, "home/nothing", "--", "--json")
    assert result.errors[0].startswith("error: ")
