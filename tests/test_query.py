"""`query`: how rows and errors are shown, and what can be asked."""

import csv
import io
import json
import re

import pytest

from s3bu.query import Query, ask, asked
from s3bu.views import VIEWS
from tests.past import column, told, with_past
from tests.running import Scene, check_refusal, run, succeed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return with_past(tmp_path_factory.mktemp("past") / "scene")


@pytest.fixture
def scene(made: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made.enter(monkeypatch)
    return made


def test_rows_come_as_a_table_with_numbers_to_the_right(scene: Scene) -> None:
    sql = "SELECT path, size FROM files WHERE job = 'home' AND path LIKE '%.%t' ORDER BY path"
    assert succeed("query", scene.repository, sql).out.splitlines() == [
        "path              size",
        "letters/anna.odt     5",
        "notes.txt            5",
    ]


def test_rows_come_as_csv_byte_for_byte(scene: Scene) -> None:
    sql = "SELECT path_raw, size, NULL AS none FROM files WHERE path LIKE 'evil%' OR path LIKE '%,%'"
    out = succeed("query", scene.repository, sql, "--csv").out
    assert list(csv.reader(io.StringIO(out, newline=""))) == [
        ["path_raw", "size", "none"],
        ["evil\x1b[2J\n", "4", ""],
    ]


def test_rows_come_as_json_with_bytes_that_are_no_text_beside(scene: Scene) -> None:
    sql = "SELECT path_raw, size, 1.5 AS half, NULL AS none FROM files WHERE path LIKE 'caf%'"
    assert told("query", scene.repository, sql) == [
        {
            "message_type": "row",
            "path_raw": "caf\\xe9\\",
            "path_raw_raw": "Y2Fm6Vw=",
            "size": 6,
            "half": 1.5,
            "none": None,
        }
    ]


def test_rows_come_as_one_json_array(scene: Scene) -> None:
    where = "job = 'home' AND (path LIKE 'caf%' OR path = 'notes.txt')"
    sql = f"SELECT path_raw, size, NULL AS none FROM files WHERE {where} ORDER BY path"
    assert json.loads(succeed("query", scene.repository, sql, "--array").out) == [
        {"path_raw": "caf\\xe9\\", "path_raw_raw": "Y2Fm6Vw=", "size": 6, "none": None},
        {"path_raw": "notes.txt", "size": 5, "none": None},
    ]
    assert succeed("query", scene.repository, "SELECT 1 WHERE 0", "--array").out == "[]\n"


def test_a_table_can_be_asked_for_by_name(scene: Scene) -> None:
    assert succeed("query", scene.repository, "SELECT 1 AS x", "--table").out == "x\n1\n"


def test_two_columns_of_one_name_are_both_told(scene: Scene) -> None:
    sql = "SELECT 'left' AS x, 2 AS x, 3 AS 'x:1', 4 AS x"
    assert told("query", scene.repository, sql) == [
        {"message_type": "row", "x": "left", "x:1": 2, "x:1:1": 3, "x:2": 4}
    ]
    assert succeed("query", scene.repository, sql).out.splitlines() == ["x     x  x:1  x", "left  2    3  4"]


def test_a_row_is_printed_when_it_is_found_and_not_when_many_are(scene: Scene) -> None:
    path = next((scene.keys / "index").glob("*.db"))
    # The fourth row and those behind it would not come in any time.
    sql = (
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r LIMIT 40), "
        "e(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM e LIMIT 1000000000) "
        "SELECT x, CASE WHEN x < 4 THEN 1 ELSE (SELECT count(*) FROM e) END FROM r"
    )
    with asked(path, Query(sql, {}, 60)) as answer:
        assert next(answer.rows) == (1, 1)


def test_text_that_is_none_is_escaped_wherever_among_the_rows_it_comes(scene: Scene) -> None:
    path = next((scene.keys / "index").glob("*.db"))
    sql = (
        "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c LIMIT 500) "
        "SELECT x, CASE WHEN x % 150 THEN 'text' ELSE CAST(x'ff41' AS TEXT) END FROM c"
    )
    assert ask(path, Query(sql)) == [(x, "text" if x % 150 else "\\xffA") for x in range(1, 501)]


def test_parameters_are_text(scene: Scene) -> None:
    sql = "SELECT job, path FROM files WHERE path = :path AND job = :job"
    rows = told("query", scene.repository, sql, "--param", "path=notes.txt", "--param", ":job=home")
    assert column(rows, "job", "path") == [("home", "notes.txt")]
    (row,) = told("query", scene.repository, "SELECT :x AS x", "--param", "x=a=b")
    assert row["x"] == "a=b"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SELECT :x"], ["supply a value", ":x"]),
        (["SELECT :x", "--param", "x"], ["'x' is no parameter", "NAME=VALUE"]),
        (["SELECT :x", "--param", "=x"], ["no parameter"]),
        ([], ["no statement", "--tables"]),
        (["SELECT 1", "--csv", "--array"], ["in one form, not in 2", "give one of --csv, --array"]),
        (["SELECT * FROM version5"], ["there is no view 'version5'", "did you mean 'versions'?"]),
        (["SELECT * FROM zzz"], ["there is no view 'zzz'", "there are snapshots, files"]),
        (["SELECT pathh FROM files"], ["there is no column 'pathh'", "did you mean 'path'?"]),
        (["SELECT f.first_sen FROM files f"], ["no column 'first_sen'", "did you mean 'first_seen'?"]),
        (["SELECT path_txt(path_key) FROM files"], ["there is no function 'path_txt'", "did you mean 'path_text'?"]),
        (["SELECT FROM"], ["the query cannot be run", "syntax error"]),
        (["DELETE FROM version"], ["a query may only read the views", "--tables"]),
        (["SELECT 1; SELECT 2"], ["one statement"]),
    ],
)
def test_an_error_says_what_is_wrong_and_what_may_have_been_meant(
    arguments: list[str], words: list[str], scene: Scene
) -> None:
    check_refusal(run("query", scene.repository, *arguments), 2, *words)


def test_the_tables_are_shown_with_every_column_and_function(scene: Scene) -> None:
    out = succeed("query", scene.repository, "--tables").out
    assert re.findall(r"^(\w+): ", out, re.MULTILINE) == [one.name for one in VIEWS]
    for view in VIEWS:
        block = out.partition(f"{view.name}: {view.meaning}\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines()] == [one.name for one in view.columns]
    rows = told("query", scene.repository, "--tables")
    assert column([row for row in rows if row["message_type"] == "view"], "name") == [one.name for one in VIEWS]
    assert {"path_text", "path_head", "regexp"} <= {one["name"] for one in rows if one["message_type"] == "function"}


def test_a_long_answer_is_printed_as_it_comes_with_columns_of_its_first_rows(scene: Scene) -> None:
    sql = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 601) "
        "SELECT CASE WHEN x > 600 THEN 'longer' ELSE 'a' END AS t, x FROM c"
    )
    lines = succeed("query", scene.repository, sql).out.splitlines()
    assert (lines[0], lines[1], lines[-1], len(lines)) == ("t    x", "a    1", "longer  601", 602)
