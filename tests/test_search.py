"""`find`, `history`, `diff` and `du`: what the program says of a past that is known."""

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from s3bu.errors import UsageError
from s3bu.size import parse_size
from tests.fakes import hash_of, without_override
from tests.past import EVIL, MONTHS, NO_TEXT, SEA, column, key_of, told, with_past
from tests.running import Scene, check_refusal, run, succeed, write_file, write_job

FIRST, SECOND, THIRD, FOURTH, FIFTH = MONTHS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return with_past(tmp_path_factory.mktemp("past") / "scene")


@pytest.fixture
def scene(made: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made.enter(monkeypatch)
    return made


# --- find


def test_a_label_that_no_source_has_is_refused_with_those_that_are_there(scene: Scene) -> None:
    result = run("find", scene.repository, "*", "--label", "nowhere")
    check_refusal(result, 2, "no source in the index has the label 'nowhere'", "there are ")


def test_a_file_that_did_not_change_is_one_line(scene: Scene) -> None:
    (row,) = told("find", scene.repository, "sea.jpg")
    assert (row["path"], row["is_current"], row["ended"]) == ("photos/sea.jpg", 1, None)
    assert row["last_snapshot"] == key_of(FIFTH)
    titles, line = succeed("find", scene.repository, "sea.jpg").out.splitlines()
    assert titles.split() == ["first", "seen", "last", "seen", "then", "size", "source", "path"]
    assert line.split()[-4:] == ["2.9", "KiB", "home/docs", "photos/sea.jpg"]


def test_each_version_of_a_file_is_a_line_in_order_of_time(scene: Scene) -> None:
    rows = told("find", scene.repository, "anna.*")
    assert column(rows, "hash") == [hash_of(one) for one in (b"first", b"second, longer", b"third", b"first")]
    assert column(rows, "ended") == ["changed", "changed", "changed", None]


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        (["lost.txt"], ["lost.txt"]),
        (["*", "--deleted"], ["lost.txt"]),
        (["*.jpg"], ["photos/copy.jpg", "photos/sea.jpg"]),
        (["photos/*"], ["photos/copy.jpg", "photos/sea.jpg"]),
        (["re:^n.*txt$", "--label", "docs"], ["notes.txt", "notes.txt"]),
        (["*", "--larger", "1k"], ["photos/copy.jpg", "photos/sea.jpg"]),
        (["*", "--larger", "3000"], ["photos/copy.jpg", "photos/sea.jpg"]),
        (["*", "--larger", "3001"], []),
        (["lost.txt", "--since", "2026-02-01T12:00Z"], ["lost.txt"]),
        (["lost.txt", "--since", "2026-02-01T12:01Z"], []),
        (["lost.txt", "--until", "2026-01-01T11:59Z"], []),
        (["*copy*", "--until", "2026-05-01T11:59Z"], []),
        (["*copy*", "--until", "2026-05-01T12:00Z"], ["photos/copy.jpg"]),
        (["anna.*", "--since", "2026-02-15", "--until", "2026-03-15"], ["letters/anna.odt"]),
        (["[", "--deleted"], []),
    ],
)
def test_what_is_found_is_what_was_asked_for(arguments: list[str], paths: list[str], scene: Scene) -> None:
    assert column(told("find", scene.repository, *arguments), "path") == paths


def test_a_name_that_is_no_text_is_found_by_its_bytes(scene: Scene) -> None:
    pattern = os.fsdecode(NO_TEXT[:-1]) + "*"
    assert column(told("find", scene.repository, pattern), "path") == ["caf\\xe9\\\\"]


@pytest.mark.parametrize(
    "arguments",
    [["re:("], ["*", "--since", "soon"], ["*", "--larger", "big"]]
    # An empty text is most often a variable that a script forgot to set; without the bound all would be found.
    + [["*", option, ""] for option in ("--since", "--until", "--larger")],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], scene: Scene) -> None:
    check_refusal(run("find", scene.repository, *arguments), 2, *arguments[1:2])


# --- history


def test_the_history_of_a_path_says_since_when_and_what_became_of_it(scene: Scene) -> None:
    (row,) = told("history", scene.repository, "lost.txt")
    assert (row["first_snapshot"], row["last_snapshot"]) == (key_of(FIRST), key_of(SECOND))
    assert (row["ended"], row["is_current"]) == ("deleted", 0)
    assert " deleted " in succeed("history", scene.repository, "lost.txt").out


def test_the_history_of_a_path_as_it_is_printed(scene: Scene) -> None:
    (row,) = told("history", scene.repository, "caf\\xe9\\\\")
    assert row["hash"] == hash_of(b"coffee")
    (same,) = told("history", scene.repository, os.fsdecode(NO_TEXT))
    assert same == row


def test_a_path_that_no_snapshot_has_is_an_error(scene: Scene) -> None:
    result = run("history", scene.repository, "letter/anna.odt")
    check_refusal(result, 2, "letter/anna.odt", "s3bu find")
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("find", "nosuch"), "nothing found"),
        (("find", "nosuch", "--deleted"), "nothing found"),
        (("diff", "home/docs", "home/docs"), "no difference"),
        (("du", "--growth", "0m"), "nothing grew or shrank"),
    ],
)
def test_nothing_is_said_to_be_nothing(words: tuple[str, ...], said: str, scene: Scene) -> None:
    command, *rest = words
    result = succeed(command, scene.repository, *rest)
    assert (result.out, result.err.splitlines()[-1:]) == ("", [said])
    assert succeed(command, scene.repository, *rest, "--json").out == ""


# --- diff


def differences(scene: Scene, a: str, b: str, code: int = 0) -> list[tuple[Any, ...]]:
    return column(told("diff", scene.repository, a, b, code=code), "status", "path", "size_before", "size")


def test_what_differs_between_two_snapshots_is_told_once_a_path(scene: Scene) -> None:
    assert differences(scene, key_of(SECOND), key_of(THIRD)) == [
        ("changed", "letters/anna.odt", 14, 5),
        ("removed", "lost.txt", 4, 0),
    ]
    assert differences(scene, key_of(FOURTH), "home/docs") == [
        ("new", "caf\\xe9\\\\", 0, 6),
        ("new", "evil\x1b[2J\n", 0, 4),
        ("new", "photos/copy.jpg", 0, 3000),
    ]


def test_what_was_different_only_in_between_is_no_difference(scene: Scene) -> None:
    assert differences(scene, key_of(FIRST), key_of(FOURTH)) == [("removed", "lost.txt", 4, 0)]


def test_a_snapshot_does_not_differ_from_itself(scene: Scene) -> None:
    assert differences(scene, "home/docs", "home/docs") == []


def test_snapshots_in_the_wrong_order_are_told_in_the_right_one_with_a_warning(scene: Scene) -> None:
    result = run("diff", scene.repository, "home/docs@2026-03-02", "home/docs@2026-02-02")
    assert result.code == 0
    assert f"s3bu: warning: {key_of(THIRD)} is the later one" in result.err
    assert [line.split()[0] for line in result.out.splitlines()] == ["status", "changed", "removed"]


def test_snapshots_of_different_sources_are_not_compared(scene: Scene) -> None:
    check_refusal(run("diff", scene.repository, "home/docs", "work/docs"), 2, "of different sources")


@pytest.mark.parametrize("name", ["home/other", "home", "home/docs@2025-01-01", "home/docs@soon"])
def test_what_names_no_snapshot_is_refused(name: str, scene: Scene) -> None:
    check_refusal(run("diff", scene.repository, name, "home/docs"), 2)


@pytest.fixture
def now(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The machine with the source as it was in the last snapshot, and the job in the repository."""
    scene = made.copy(tmp_path / "scene", monkeypatch)
    succeed("index", "sync", scene.repository)
    source = scene.source
    write_file(source / "notes.txt", "notes", mode=0o640)
    write_file(source / "letters" / "anna.odt", "first")
    (source / "letters").chmod(0o700)
    (source / "link").symlink_to("notes.txt")
    for name in ("sea.jpg", "copy.jpg"):
        write_file(source / "photos" / name, SEA)
    for raw, content in ((EVIL, b"evil"), (NO_TEXT, b"coffee")):
        write_file(source / os.fsdecode(raw), content)
    job = write_job(scene.root / "docs.yml", {"docs": source})
    succeed("job", "upload", scene.repository, "home", job)
    return scene


def test_a_snapshot_and_now_differ_by_what_was_done_since(now: Scene) -> None:
    write_file(now.source / "notes.txt", "notes and more", mode=0o640)
    write_file(now.source / "new", "new")
    (now.source / "photos" / "copy.jpg").unlink()
    found = [one for one in differences(now, "home/docs", "now") if one[1] not in ("photos", "letters", "link")]
    assert found == [
        ("new", "new", 0, 3),
        ("changed", "notes.txt", 5, 14),
        ("removed", "photos/copy.jpg", 3000, 0),
    ]


def test_now_is_compared_with_a_job_that_is_a_local_file(now: Scene, tmp_path: Path) -> None:
    write_file(now.source / "new", "new")
    job = tmp_path / "jobs" / "home.yml"
    job.parent.mkdir()
    write_job(job, {"docs": now.source})
    assert (now.repository / "jobs").exists()
    shutil.rmtree(now.repository / "jobs")
    result = run("diff", now.repository, "home/docs", "now")
    check_refusal(result, 10, "no job 'home'", f"`s3bu diff {now.repository} home.yml/docs now`")
    assert ("new", "new", 0, 3) in differences(now, f"{job}/docs", "now")


def test_what_cannot_be_looked_at_now_is_told_and_is_no_removal(now: Scene) -> None:
    (now.source / "letters").chmod(0)
    with without_override():
        result = run("diff", now.repository, "home/docs", "now")
    (now.source / "letters").chmod(0o700)
    assert result.code == 3
    assert result.failed == {"letters"}
    assert "anna" not in result.out


def test_a_source_that_the_job_does_not_have_any_more_is_an_error(now: Scene) -> None:
    succeed("job", "upload", now.repository, "home", write_job(now.root / "docs.yml", {"else": now.source}))
    check_refusal(run("diff", now.repository, "home/docs", "now"), 2, "no source 'docs' any more")


# --- du


def test_directories_are_shown_by_what_they_hold_now(scene: Scene) -> None:
    rows = told("du", scene.repository)
    assert column(rows, "job", "directory", "files", "size") == [
        ("home", "photos", 2, 6000),
        ("home", ".", 3, 15),
        ("work", ".", 1, 5),
        ("home", "letters", 1, 5),
    ]


def test_of_a_snapshot_and_to_a_depth(scene: Scene) -> None:
    rows = told("du", scene.repository, "home/docs@2026-02-02", "--depth", "0")
    assert column(rows, "directory", "files", "size") == [(".", 4, 3000 + 5 + 14 + 4)]
    assert len(told("du", scene.repository, "--limit", "1")) == 1


def test_the_largest_files(scene: Scene) -> None:
    rows = told("du", scene.repository, "--largest", "--limit", "2")
    assert column(rows, "path", "size") == [("photos/copy.jpg", 3000), ("photos/sea.jpg", 3000)]


def test_copies_of_one_content_are_shown_by_what_they_waste(scene: Scene) -> None:
    rows = told("du", scene.repository, "--duplicates")
    assert column(rows, "path", "copies", "spare") == [("photos/copy.jpg", 2, 3000), ("notes.txt", 2, 5)]
    nothing = succeed("du", scene.repository, "work/docs", "--duplicates")
    assert (nothing.out, nothing.err) == ("", "no content is there twice\n")


def test_files_that_were_never_read_are_no_copies_of_each_other(tmp_path: Path, made: Scene, monkeypatch: Any) -> None:
    scene = made.copy(tmp_path / "scene", monkeypatch)
    lines = b"5,1600000000,0644,,unread\n5,1600000000,0644,,unread too\n"  # as the original has them
    scene.put_manifest(lines, "manifests/home/other/home-other-2026-01-01-00000.csv.gz")
    succeed("index", "sync", scene.repository)
    assert column(told("du", scene.repository, "home/other"), "files") == [2]
    assert told("du", scene.repository, "home/other", "--duplicates") == []


def test_what_grew_since_a_time(scene: Scene) -> None:
    rows = told("du", scene.repository, "--growth", "2026-02-02")
    assert column(rows, "job", "directory", "growth", "size") == [
        ("home", "photos", 3000, 6000),
        ("home", "letters", -9, 5),
        ("home", ".", 6, 15),
        ("work", ".", 5, 5),
    ]
    lines = succeed("du", scene.repository, "--growth", "2026-02-02").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["+2.9", "-9", "+6", "+5"]


@pytest.mark.parametrize(
    "options",
    [
        ["--largest", "--duplicates"],
        ["--growth", "3d", "--largest"],
        ["home/docs", "--growth", "3d"],
        ["home/none"],
        ["--growth", ""],
        [""],
    ],
)
def test_what_excludes_each_other_or_names_nothing_is_refused(options: list[str], scene: Scene) -> None:
    check_refusal(run("du", scene.repository, *options), 2)


# --- the SQL behind it


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", "*.txt"],
        ["find", "*.jpg", "--larger", "1k", "--since", "2026-01-15", "--until", "2026-12-01", "--label", "docs"],
        ["find", "*", "--deleted"],
        ["history", "letters/anna.odt"],
        ["diff", key_of(FIRST), key_of(FIFTH)],
        ["du"],
        ["du", "home/docs@2026-02-02", "--depth", "1"],
        ["du", "--largest"],
        ["du", "--duplicates"],
        ["du", "--growth", "2026-02-02"],
    ],
    ids=" ".join,
)
def test_the_sql_that_is_shown_yields_the_same_rows(arguments: list[str], scene: Scene) -> None:
    command, *rest = arguments
    result = succeed(command, scene.repository, *rest, "-v")
    (shown,) = [line for line in result.err.splitlines() if line.startswith(("SELECT", "WITH"))]
    sql, _, values = shown.partition("  with ")
    pairs = re.findall(r":(\w+) = ('[^']*'|\d+)", values)
    params = [text for name, value in pairs for text in ("--param", f"{name}={ast.literal_eval(value)}")]
    expected = told(command, scene.repository, *rest)
    found = told("query", scene.repository, sql, *params)
    assert found
    assert [row | {"message_type": ""} for row in found] == [row | {"message_type": ""} for row in expected]


# --- an index that knows nothing, and names that are not harmless


@pytest.mark.parametrize(
    "arguments",
    [["find", "*"], ["history", "a"], ["diff", "home/docs", "now"], ["du"], ["query", "SELECT 1"]],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_index_says_how_it_is_filled(
    arguments: list[str], made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = made.copy(tmp_path / "scene", monkeypatch)
    shutil.rmtree(scene.keys / "index")
    result = run(arguments[0], scene.repository, *arguments[1:])
    check_refusal(result, 2, "holds no snapshot", "s3bu index sync")
    (command,) = re.findall("`s3bu (.*)`", result.err)
    succeed(*command.split())
    assert run(arguments[0], scene.repository, *arguments[1:]).errors[:1] != result.errors[:1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", "evil*"],
        ["history", os.fsdecode(EVIL)],
        ["diff", key_of(FOURTH), key_of(FIFTH)],
        ["du", "--largest"],
        ["query", "SELECT path FROM files"],
        ["query", "SELECT path_raw FROM files"],
        ["query", "SELECT path AS 'evil\x1b[2J\n' FROM files WHERE path LIKE 'evil%'"],
    ],
    ids=" ".join,
)
def test_a_name_cannot_steer_the_terminal(arguments: list[str], scene: Scene) -> None:
    result = succeed(arguments[0], scene.repository, *arguments[1:], "-v")
    assert "evil\\x1b[2J\\x0a" in result.out
    assert "\x1b" not in result.out + result.err


# --- sizes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("0", 0), ("500", 500), ("10k", 10_240), ("1.5G", 1_610_612_736), ("2 MiB", 2_097_152), ("1kb", 1024)],
)
def test_a_size_is_read_as_people_write_it(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "-1", "1e3", "k", "1 x", "٣", "1" * 16])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_no_size_is_larger_than_a_file_can_be(scene: Scene) -> None:
    assert told("find", scene.repository, "*", "--larger", "99999999T") == []
