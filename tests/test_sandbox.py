"""Hostile SQL: whatever a statement tries, it ends soon with an error, writes nothing, and takes little memory.

Statements are run by the program as one of its own, which afterwards says how much memory the processes that ran the
SQL had at their peak: `ru_maxrss` of the children that it waited for, which the kernel keeps, and its own `VmHWM`.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import s3bu
from tests.hostile_sql import ENDLESS, GREEDY, MIB, RECURSION, REFUSED
from tests.running import SECONDS, Result, Scene, await_that, backed_up, check_refusal, run, started, succeed

SHORTLY = 1.5
"""Seconds of the processor that the program takes to start, and to end."""
_SCRIPT = r"""
import contextlib, io, json, re, resource, sys
from s3bu.cli import main
results = []
with open(sys.argv[1]) as file:
    for arguments in json.load(file):
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
        with contextlib.redirect_stderr(err):
            code = main(arguments)
        err.seek(0)
        results.append([code, err.read()])
own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
# A program's own `ru_maxrss` begins with what the process had from which it was started.
own_kib = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
measured = [
    [kib // 1024, usage.ru_utime + usage.ru_stime]
    for kib, usage in ((own_kib, own), (children.ru_maxrss, children))
]
with open(sys.argv[1], "w") as file:
    json.dump([results, *measured], file)
"""


class Used(NamedTuple):
    """What a process used: its peak of memory in MiB, and seconds of the processor."""

    mib: int
    seconds: float


class Ended(NamedTuple):
    """What came of statements: what was said of each, what the program used, and the processes that ran the SQL."""

    results: dict[str, Result]
    own: Used
    child: Used

    @property
    def result(self) -> Result:
        (result,) = self.results.values()
        return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("made") / "scene")


@pytest.fixture
def scene(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The machine on which every test runs: none of them may change it."""
    made.enter(monkeypatch)
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "temporary"))
    return made


@pytest.fixture
def unchanged(scene: Scene, tmp_path: Path) -> Iterator[None]:
    """Hold what lies around to what it was: names, sizes, hashes."""
    before = picture(scene.root, tmp_path)
    yield
    assert picture(scene.root, tmp_path) == before


def picture(*roots: Path) -> dict[str, tuple[int, str]]:
    found = (path for root in roots for path in root.rglob("*") if path.is_file() and path.name != "measured")
    return {str(path): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found}


def ask(scene: Scene, statements: Mapping[str, str], *options: str) -> Ended:
    """Run the statements by the program, as one of its own."""
    file = Path("..", "measured")
    arguments = [["query", str(scene.repository), *options, "--", sql] for sql in statements.values()]
    file.write_text(json.dumps(arguments))
    environment = os.environ | {"PYTHONPATH": str(Path(s3bu.__file__).parents[1])}
    command = [sys.executable, "-c", _SCRIPT, str(file)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.read(MIB):  # what endless rows print is much, and not kept
            pass
        assert process.wait(SECONDS) == 0
    results, own, child = json.loads(file.read_text())
    said = {name: Result(code, "", err) for name, (code, err) in zip(statements, results, strict=True)}
    return Ended(said, Used(*own), Used(*child))


def check_error(result: Result, *words: str) -> None:
    """Hold a result to an error that says something, in our form alone."""
    assert result.code in (1, 2), result
    check_refusal(result, result.code, *words)
    assert [line for line in result.err.splitlines() if not line.startswith("s3bu: ")] == []
    assert len(result.err) < 2_000


# --- hostile statements


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("group", REFUSED)
def test_what_may_not_be_run_is_refused_and_leaves_nothing(group: str, scene: Scene) -> None:
    ended = ask(scene, REFUSED[group])
    assert {name: result for name, result in ended.results.items() if result.code != 2} == {}
    for result in ended.results.values():
        check_error(result)
        assert "the query was ended" not in result.err  # it would be where no statement can be run at all
    assert ended.child.mib < 256
    assert ended.child.seconds < len(ended.results)
    assert ended.own.mib < 256


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", GREEDY)
def test_what_wants_much_memory_is_ended_and_leaves_nothing(name: str, scene: Scene) -> None:
    ended = ask(scene, {name: GREEDY[name]})
    check_error(ended.result)
    assert ended.child.mib < 256, ended
    # Of time only that of the processor is ours: other programs run too.
    assert max(ended.child.seconds, ended.own.seconds) < SHORTLY + 5, ended


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_ended_and_leaves_nothing(name: str, scene: Scene) -> None:
    ended = ask(scene, {name: ENDLESS[name]}, "--timeout", "2")
    check_error(ended.result, "the query took longer than 2 seconds, and was ended", "--timeout allows more")
    assert ended.child.mib < 256, ended
    assert max(ended.child.seconds, ended.own.seconds) < SHORTLY + 2, ended
    assert ended.own.mib < 256, ended


# --- what a statement may do


ALLOWED = {
    "SELECT count(*) FROM json_each('[1, 2]')": "2",
    "SELECT group_concat(value) FROM json_tree('[1, 2]') WHERE atom": "1,2",
    "WITH mine AS (SELECT 1) SELECT count(*) FROM mine": "1",
    "VALUES (7)": "7",
    "SELECT 1;": "1",
    "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c LIMIT 9) SELECT max(x) FROM c": "9",
    "SELECT path REGEXP '^.$' FROM files LIMIT 1": "1",
    "SELECT count(*) FROM files WHERE path_matches('direct*/?', path_raw)": "1",
    "SELECT path_head(path_key, 1) FROM files WHERE path = 'directory/c'": "directory",
    "SELECT lower(hex(CAST(x'ff' AS TEXT)))": "ff",
    "SELECT x'ff'": "\\xff",
    "SELECT CAST(x'ff' AS TEXT)": "\\xff",
    "SELECT char(27) || char(10) || 'a'": "\\x1b\\x0aa",
    "SELECT NULL": "",
}


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_only_reads_is_answered(sql: str, scene: Scene) -> None:
    assert succeed("query", scene.repository, sql).out.splitlines()[1].strip() == ALLOWED[sql]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("sql", ["SELECT * FROM files", "VACUUM INTO 'made.db'"])
def test_how_a_statement_would_be_run_may_be_asked_and_runs_nothing(sql: str, scene: Scene) -> None:
    succeed("query", scene.repository, f"EXPLAIN QUERY PLAN {sql}")


@pytest.mark.parametrize("value", ["a\0b", "\udcff", "\U0001f600", "x" * MIB, ""])
def test_any_text_may_be_a_parameter(value: str, scene: Scene) -> None:
    sql = "SELECT length(CAST(:value AS BLOB)) AS length"
    said = succeed("query", scene.repository, sql, "--param", f"value={value}").out
    assert said.split() == ["length", str(len(os.fsencode(value)))]


def test_a_path_that_is_no_text_may_be_a_parameter(scene: Scene) -> None:
    sql = "SELECT path_key(:path) = x'61ff' AS a, path_matches(:path, x'61ff') AS b, x'61ff' REGEXP :path AS c"
    assert succeed("query", scene.repository, sql, "--param", "path=a\udcff").out.split() == ["a", "b", "c", *"111"]


# --- its end


def processes_of(parent: int) -> list[int]:
    """Return the processes of the sandbox that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"s3bu.sandbox" in command and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_busy(process: int) -> bool:
    """Whether a process has used so much of the processor that it is past its start."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > os.sysconf("SC_CLK_TCK") // 2


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [("recursion", signal.SIGINT, 130), ("instr", signal.SIGINT, 130), ("recursion", signal.SIGTERM, 143)],
)
def test_a_query_that_is_stopped_ends_at_once_and_leaves_no_process(
    name: str, number: signal.Signals, code: int, scene: Scene
) -> None:
    with started("query", scene.repository, ENDLESS[name], "--timeout", "600") as program:
        await_that(lambda: any(is_busy(one) for one in processes_of(program.pid)))
        (child,) = processes_of(program.pid)
        program.send(number)
        began = time.monotonic()
        result = program.end()
    assert time.monotonic() - began < 5
    check_refusal(result, code)
    assert not is_running(child)


def test_a_query_whose_program_is_killed_ends_with_it(scene: Scene) -> None:
    with started("query", scene.repository, ENDLESS["recursion"], "--timeout", "600") as program:
        await_that(lambda: any(is_busy(one) for one in processes_of(program.pid)))
        (child,) = processes_of(program.pid)
        program.send(signal.SIGKILL)
        program.end()
    await_that(lambda: not is_running(child))


def test_time_in_which_the_reader_of_the_output_is_slow_does_not_count(scene: Scene) -> None:
    sql = f"{RECURSION} SELECT x || printf('%.*c', 100, 'x') FROM c LIMIT 30000"
    command = [sys.executable, "-m", "s3bu", "query", str(scene.repository), sql, "--csv", "--timeout", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        time.sleep(6)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, b"")
    assert len(out.splitlines()) == 30_001


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300"])
def test_a_time_that_is_none_is_refused(seconds: str, scene: Scene) -> None:
    check_refusal(run("query", scene.repository, "SELECT 1", "--timeout", seconds), 2, "is no time to wait")


def test_the_time_that_was_given_is_named(scene: Scene) -> None:
    result = run("query", scene.repository, ENDLESS["recursion"], "--timeout", "0.5")
    check_refusal(result, 1, "the query took longer than 0.5 seconds, and was ended")
