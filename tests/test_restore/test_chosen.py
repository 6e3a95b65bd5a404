"""Restore by query: rows choose versions of paths, and what comes back is just those."""

import json
import stat
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from s3bu.errors import UsageError
from s3bu.history import Facts, take_in
from s3bu.index import Index, open_passing_index
from s3bu.manifest import DIRECTORY, FILE, Entry, sort_key
from s3bu.restore.chosen import choose
from tests.fakes import OLD, SECOND, file_entry, hash_of, manifest_key
from tests.past import EVIL, MONTHS, NO_TEXT, SEA, with_past
from tests.running import Node, Result, Scene, check_refusal, run, succeed, tree

JANUARY, FEBRUARY, MARCH, APRIL, MAY = MONTHS
LOST = Node(stat.S_IFREG, 0o600, OLD + 7, hash_of(b"lost"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return with_past(tmp_path_factory.mktemp("past") / "scene")


@pytest.fixture
def scene(made: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made.enter(monkeypatch)
    return made


@pytest.fixture
def damaged(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The machine, with a repository that lost two contents."""
    scene = made.copy(tmp_path / "scene", monkeypatch)
    succeed("index", "sync", scene.repository)
    for content in (b"second, longer", SEA):
        scene.object_of(content).unlink()
    return scene


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def contents(target: Path) -> dict[bytes, str | bytes]:
    """Return what came back: files by the hash of their content, links by their target; no directories."""
    return {path: node.content for path, node in tree(target).items() if node.kind != stat.S_IFDIR}


def hashes(**files: bytes) -> dict[bytes, str]:
    return {name.encode(): hash_of(content) for name, content in files.items()}


def restore(scene: Scene, what: str, target: Path, *options: str) -> Result:
    return run("restore", scene.repository, what, target, *options)


# --- a deleted file comes back by one command


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT path, hash FROM deleted WHERE path = 'lost.txt'",
        "SELECT path_raw, hash FROM versions WHERE path LIKE 'lost%'",
        "select hash, size, path_raw, path from deleted",
        "  WITH gone AS (SELECT * FROM deleted) SELECT path, hash FROM gone",
        f"VALUES ('lost.txt', '{hash_of(b'lost')}')",
        "SELECT*FROM deleted",
    ],
)
def test_a_file_that_was_deleted_comes_back_by_sql(sql: str, scene: Scene, target: Path) -> None:
    if sql.startswith("VALUES"):
        sql = f"SELECT column1 AS path, column2 AS hash FROM ({sql})"
    result = restore(scene, sql, target)
    assert (result.code, result.errors) == (0, [])
    assert tree(target) == {b"lost.txt": LOST}


def test_a_file_that_was_deleted_is_found_and_comes_back_by_verbs(scene: Scene, target: Path) -> None:
    (line,) = succeed("find", scene.repository, "lost*", "--deleted", "--json").out.splitlines()
    result = restore(scene, json.loads(line)["last_snapshot"], target, "^lost[.]txt$")
    assert result.code == 0, result
    assert tree(target) == {b"lost.txt": LOST}


@pytest.mark.parametrize("column", ["path", "path_raw"])
@pytest.mark.parametrize("raw", [EVIL, NO_TEXT])
def test_names_that_are_no_text_come_back_byte_for_byte(raw: bytes, column: str, scene: Scene, target: Path) -> None:
    sql = f"SELECT {column}, hash FROM files WHERE path_raw = x'{raw.hex()}'"
    result = restore(scene, sql, target)
    assert result.code == 0, result
    assert list(tree(target)) == [raw]
    assert "\x1b" not in result.out + result.err


def test_the_plan_is_shown_first(scene: Scene, target: Path) -> None:
    result = restore(scene, "SELECT path, hash FROM deleted", target)
    assert result.out.splitlines()[0].split() == ["size", "written", "path"]
    assert result.out.splitlines()[1].endswith("  lost.txt")


def test_a_pattern_chooses_among_the_rows(scene: Scene, target: Path) -> None:
    result = restore(scene, "SELECT path, hash, job, label FROM files WHERE job = 'home'", target, "[.]jpg$")
    assert result.code == 0, result
    assert contents(target) == {b"photos/copy.jpg": hash_of(SEA), b"photos/sea.jpg": hash_of(SEA)}


def test_directories_above_come_along_with_their_modes(scene: Scene, target: Path) -> None:
    sql = f"SELECT path, hash FROM versions WHERE hash = '{hash_of(b'third')}'"
    assert restore(scene, sql, target).code == 0
    found = tree(target)
    assert sorted(found) == [b"letters", b"letters/anna.odt"]
    assert (found[b"letters"].mode, found[b"letters"].mtime) == (0o700, OLD)


def test_links_and_directories_may_be_chosen(scene: Scene, target: Path) -> None:
    assert restore(scene, "SELECT path, hash FROM files WHERE kind IN ('symlink', 'dir')", target).code == 0
    found = tree(target)
    assert {path: (node.kind, node.mode) for path, node in found.items()} == {
        b"letters": (stat.S_IFDIR, 0o700),
        b"link": (stat.S_IFLNK, 0),
    }
    assert found[b"link"].content == b"notes.txt"


# --- what cannot be decided


def test_several_versions_of_a_path_are_listed_and_nothing_is_written(scene: Scene, target: Path) -> None:
    result = restore(scene, "SELECT path, hash FROM versions WHERE path = 'letters/anna.odt'", target)
    times = ("2026-02-01T120000Z", "2026-03-01T120000Z", "2026-04-01T120000Z")
    check_refusal(result, 2, "several versions of one path", "--all-versions", *times)
    assert not target.exists()


def test_all_versions_come_back_named_by_time(scene: Scene, target: Path) -> None:
    sql = "SELECT path, hash FROM versions WHERE path IN ('letters/anna.odt', 'lost.txt')"
    assert restore(scene, sql, target, "--all-versions").code == 0
    assert contents(target) == {
        b"letters/anna@2026-02-01T120000Z.odt": hash_of(b"second, longer"),
        b"letters/anna@2026-03-01T120000Z.odt": hash_of(b"third"),
        b"letters/anna@2026-04-01T120000Z.odt": hash_of(b"first"),
        b"lost.txt": hash_of(b"lost"),
    }


def test_a_path_and_content_in_two_sources_is_asked_back(scene: Scene, target: Path) -> None:
    result = restore(scene, "SELECT path, hash FROM files WHERE path = 'notes.txt'", target)
    check_refusal(result, 2, "'notes.txt' is in several sources: home/docs, work/docs", "`job` and `label`")
    assert not target.exists()


def test_a_row_that_names_its_source_is_of_that_source(scene: Scene, target: Path) -> None:
    sql = "SELECT path, hash, job, label FROM files WHERE path = 'notes.txt' AND job = 'work'"
    assert restore(scene, sql, target).code == 0
    assert contents(target) == {b"notes.txt": hash_of(b"notes")}


def test_the_same_path_of_two_sources_comes_back_under_two_names(scene: Scene, target: Path) -> None:
    sql = "SELECT path, hash, job, label FROM files WHERE path = 'notes.txt'"
    check_refusal(restore(scene, sql, target), 2, "several versions of one path")
    assert restore(scene, sql, target, "--all-versions").code == 0
    assert sorted(tree(target)) == [b"notes@2026-01-01T120000Z.txt", b"notes@2026-03-01T120000Z.txt"]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT path FROM files", ["must yield `path` or `path_raw`, and `hash`", "it yields path"]),
        ("SELECT hash FROM files", ["must yield"]),
        ("SELECT 'none' AS path, hash FROM deleted", ["the index has no version of none"]),
        (f"SELECT 'lost.txt' AS path, '{'0' * 64}' AS hash", ["no version of lost.txt of that content"]),
        ("SELECT 'lost.txt' AS path, 'xyz' AS hash", ["'xyz' is no hash"]),
        ("SELECT 'lost.txt' AS path, 7 AS hash", ["'7' is no hash"]),
        ("SELECT 5 AS path, hash FROM deleted", ["a row whose path is no path: 5"]),
        ("SELECT NULL AS path, hash FROM deleted", ["no path: None"]),
        ("SELECT path, hash, 'dir' AS kind FROM deleted", ["no version of lost.txt"]),
        ("SELECT '../x' AS path, hash FROM deleted", ["no version of ../x"]),
        ("SELECT path, hash FROM files WHERE 0", ["nothing comes of what the query yields"]),
        ("SELECT path, hash FROM fils", ["there is no view 'fils'", "did you mean 'files'?"]),
        ("SELECT path, hash FROM", ["the query cannot be run"]),
        ("WITH a AS (SELECT 1) DELETE FROM version", ["may only read"]),
    ],
)
def test_rows_that_choose_nothing_that_there_is_are_refused(
    sql: str, words: list[str], scene: Scene, target: Path
) -> None:
    check_refusal(restore(scene, sql, target), 2, *words)
    assert not target.exists()


# --- a condition over a snapshot


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        ("path LIKE 'lost%'", [b"lost.txt"]),
        ("path LIKE 'lost%' -- the one that I want", [b"lost.txt"]),
        ("path = ')' OR path = 'lost.txt'", [b"lost.txt"]),
        ("path = 'lost.txt' /* ) */", [b"lost.txt"]),
        ("hash IN (SELECT hash FROM deleted)", [b"lost.txt"]),
        ("kind = 'symlink'", [b"link"]),
        ("size > 1000", [b"photos/sea.jpg"]),
        ("mtime_text > '2020-09-13T12:26:40Z'", [b"lost.txt"]),
    ],
)
def test_a_condition_chooses_entries_of_a_snapshot(
    condition: str, paths: list[bytes], scene: Scene, target: Path
) -> None:
    result = restore(scene, "home/docs@2026-02-02", target, "--where", condition)
    assert result.code == 0, result
    assert sorted(contents(target)) == paths


def test_a_condition_does_not_reach_beyond_its_snapshot(scene: Scene, target: Path) -> None:
    result = restore(scene, "home/docs@2026-03-02", target, "--where", "path = 'lost.txt') OR (path = 'lost.txt'")
    check_refusal(result, 2, "nothing comes of")
    result = restore(scene, "work/docs", target, "--where", "1) OR (1")
    assert result.code == 0, result
    assert sorted(tree(target)) == [b"notes.txt"]


@pytest.mark.parametrize("condition", ["", "1 --\n) --", "/*", "nope = 1", "1; DELETE FROM version", "1)"])
def test_a_condition_that_is_none_is_refused(condition: str, scene: Scene, target: Path) -> None:
    check_refusal(restore(scene, "home/docs", target, "--where", condition), 2)
    assert not target.exists()


def test_a_condition_belongs_to_a_snapshot_and_not_to_a_statement(scene: Scene, target: Path) -> None:
    check_refusal(restore(scene, "SELECT path, hash FROM files", target, "--where", "1"), 2, "--where", "leave out one")
    check_refusal(restore(scene, "home/none", target, "--where", "1"), 2, "names no snapshot in the index")


@pytest.mark.parametrize("job", ["with-photos", "values", "select.all"])
def test_a_job_may_be_named_like_a_word_of_sql(job: str, scene: Scene, target: Path) -> None:
    result = restore(scene, f"{job}/docs", target)
    check_refusal(result, 10, f"job '{job}' has no snapshots")


# --- contents that are gone


def test_what_is_lost_is_told_before_anything_is_written_and_the_rest_comes_back(damaged: Scene, target: Path) -> None:
    sql = "SELECT path, hash, job, label FROM versions WHERE hash IS NOT NULL AND job = 'home'"
    result = restore(damaged, sql, target, "--all-versions")
    assert result.code == 3
    assert result.failed == {"letters/anna@2026-02-01T120000Z.odt", "photos/copy.jpg", "photos/sea.jpg"}
    assert set(result.failures.values()) == {"its content is not in the repository"}
    lines = result.err.splitlines()
    assert max(lines.index(line) for line in lines if "error" in line) < lines.index("making directories")
    assert sorted(contents(target)) == sorted(
        [
            NO_TEXT,
            EVIL,
            b"letters/anna@2026-03-01T120000Z.odt",
            b"letters/anna@2026-04-01T120000Z.odt",
            b"lost.txt",
            b"notes.txt",
        ]
    )


def test_a_check_says_what_would_come_back_and_writes_nothing(damaged: Scene, target: Path) -> None:
    result = restore(damaged, "SELECT path, hash, job, label FROM files WHERE job = 'home'", target, "-c")
    assert result.code == 3
    assert result.failed == {"photos/copy.jpg", "photos/sea.jpg"}
    assert "would restore 6 files" in result.out
    assert not target.exists()
    assert restore(damaged, "SELECT path, hash FROM deleted", target, "--check").code == 0
    assert not target.exists()


def test_many_contents_are_checked_by_one_listing(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = made.copy(tmp_path / "scene", monkeypatch)
    texts = [f"text {number}".encode() for number in range(60)]
    lines = b"".join(
        b"%d,1600000000,0644,%s,f%d\n" % (len(text), hash_of(text).encode(), number)
        for number, text in enumerate(texts)
    )
    scene.put_manifest(lines, "manifests/home/many/home-many-2026-01-01-00000.csv.gz")
    for text in texts[1:]:
        scene.put_content(text)
    succeed("index", "sync", scene.repository)
    result = restore(scene, "home/many", tmp_path / "target", "--where", "1")
    assert (result.code, result.failed) == (3, {"f0"})
    assert len(contents(tmp_path / "target")) == 59


# --- the choice itself, of histories in memory


def indexed(*snapshots: list[Entry], label: str = "docs", index: Index | None = None) -> Index:
    """Return an index with these snapshots, an hour between them."""
    index = index or open_passing_index("x")
    for number, entries in enumerate(snapshots):
        key = manifest_key("2026-05-01", 3600 * number, label=label)
        take_in(index, Facts(key, f"etag{number}", key.stamp.replace(tzinfo=UTC)), entries)
    return index


def chosen(index: Index, *rows: tuple[Any, ...], keeps_all: bool = False) -> dict[bytes, Entry]:
    columns = ("path_raw", "hash", "label")
    full = [(*row, *[None] * (3 - len(row))) for row in rows]
    entries = choose(index, columns, full, keeps_all=keeps_all).entries
    assert [entry.path for entry in entries] == sorted((entry.path for entry in entries), key=sort_key)
    return {entry.path: entry for entry in entries}


def test_mode_and_time_are_those_of_the_newest_version_with_that_content() -> None:
    old, new = file_entry(b"a", b"x", mode=0o600), file_entry(b"a", b"x", mtime=OLD + 9, mode=0o644)
    index = indexed([old], [new], [file_entry(b"a", b"y")])
    assert chosen(index, (b"a", hash_of(b"x")))[b"a"] == new


def test_rows_that_say_the_same_choose_once() -> None:
    row = (b"a", hash_of(b"x"))
    assert list(chosen(indexed([file_entry(b"a", b"x")]), row, row)) == [b"a"]


def test_the_directory_above_is_as_it_was_last_in_that_source() -> None:
    modes = [Entry(b"d", DIRECTORY, 0, OLD * SECOND, mode) for mode in (0o700, 0o750)]
    index = indexed([modes[0], file_entry(b"d/a", b"x")], [modes[1]], [])
    indexed([Entry(b"d", DIRECTORY, 0, OLD * SECOND, 0o777)], label="other", index=index)
    assert chosen(index, (b"d/a", hash_of(b"x")))[b"d"].mode == 0o750


def test_a_path_that_was_a_file_and_then_a_directory_is_what_the_row_says() -> None:
    index = indexed([file_entry(b"a", b"x")], [Entry(b"a", DIRECTORY, 0, 0, 0o755)])
    assert chosen(index, (b"a", hash_of(b"x")))[b"a"].kind == FILE
    assert chosen(index, (b"a", None))[b"a"].kind == DIRECTORY


def test_versions_of_one_second_and_a_file_named_like_one_keep_names_of_their_own() -> None:
    index = indexed([file_entry(b"a.t", b"1"), file_entry(b"a@2026-05-01T000000Z.t", b"3")])
    indexed([file_entry(b"a.t", b"2")], label="other", index=index)
    other = b"a@2026-05-01T000000Z.t"
    rows = [(b"a.t", hash_of(b"1"), "docs"), (b"a.t", hash_of(b"2"), "other"), (other, hash_of(b"3"), "docs")]
    found = chosen(index, *rows, keeps_all=True)
    assert found[other].hash == hash_of(b"3")
    assert sorted(entry.hash for entry in found.values()) == sorted(hash_of(one) for one in (b"1", b"2", b"3"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"a/b.c/d", b"a/b.c/d@2026-05-01T000000Z"),
        (b".profile", b".profile@2026-05-01T000000Z"),
        (b"a.tar.gz", b"a.tar@2026-05-01T000000Z.gz"),
        (b"\xff.", b"\xff@2026-05-01T000000Z."),
    ],
)
def test_a_time_stands_before_the_suffix(path: bytes, name: bytes) -> None:
    index = indexed([file_entry(path, b"1")], [file_entry(path, b"2")])
    rows = [(path, hash_of(one)) for one in (b"1", b"2")]
    assert name in chosen(index, *rows, keeps_all=True)


def test_not_all_of_many_versions_are_listed() -> None:
    index = indexed(*([file_entry(b"a", b"%d" % number)] for number in range(23)))
    with pytest.raises(UsageError, match=r"and 3 more"):
        chosen(index, *((b"a", hash_of(b"%d" % number)) for number in range(23)))
