"""`s3bu index`: what the program says and returns, on repositories of its own and on those of the original."""

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from s3bu.crypto.passphrase import encrypt_with_passphrase
from tests.running import Scene, backed_up, check_refusal, program, run, succeed, write_file
from tests.test_interop import BUCKETS, take_keys


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene with two snapshots of `src`, and an index that knows of neither, as on a machine that is new."""
    scene = backed_up(tmp_path_factory.mktemp("made") / "scene")
    key = scene.manifests()[0]
    day, second = key.rsplit("-", 1)
    write_copy(scene, key, f"{day}-{int(second[:5]) + 1:05d}.csv.gz")
    forget(scene)
    return scene


def write_copy(scene: Scene, key: str, other: str) -> None:
    """Store a snapshot after another one, in which one file is gone."""
    shown = succeed("download", scene.repository, key, scene.root / "downloaded", "-s", scene.secrets)
    assert shown.code == 0
    (text,) = [path.read_bytes() for path in (scene.root / "downloaded").rglob("*") if path.is_file()]
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith((b"#", b"@"))]
    scene.put_manifest(b"".join(lines[1:]), other)


def forget(scene: Scene) -> None:
    shutil.rmtree(scene.keys / "index", ignore_errors=True)


@pytest.fixture
def scene(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return made.copy(tmp_path / "scene", monkeypatch)


def index_of(scene: Scene) -> Path:
    return Path(succeed("index", "path", scene.repository).out.strip())


def rows(scene: Scene) -> list[Any]:
    """Return what the index says of snapshots and versions."""
    with sqlite3.connect(index_of(scene)) as connection:
        versions = connection.execute("SELECT * FROM version ORDER BY source, sort_key, first").fetchall()
        snapshots = "SELECT number, key, etag, created_us, host, nfiles, nbytes, error FROM snapshot ORDER BY key"
        found = [versions, connection.execute(snapshots).fetchall()]
    connection.close()
    return found


def lock_all(scene: Scene) -> None:
    for key in scene.manifests():
        lock(scene, key)


def lock(scene: Scene, key: str) -> None:
    """Replace a manifest by one whose passphrase this machine does not have."""
    (scene.repository / key).write_bytes(encrypt_with_passphrase(b"", "another"))


# --- sync


def test_a_sync_takes_in_all_and_says_so(scene: Scene) -> None:
    result = succeed("index", "sync", scene.repository)
    assert result.out == "2 snapshots taken in, 2 in the index\n"
    assert result.err.splitlines() == ["listing snapshots", "taking in snapshots: 2 snapshots"]


def test_a_second_sync_takes_in_nothing(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    assert succeed("index", "sync", scene.repository).out == "0 snapshots taken in, 2 in the index\n"


def test_a_snapshot_that_is_gone_is_warned_of(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    key = scene.manifests()[0]
    (scene.repository / key).unlink()
    result = succeed("index", "sync", scene.repository)
    assert f"s3bu: warning: {key}: gone from the repository since it was read" in result.err
    assert result.out == "0 snapshots taken in, 1 in the index\n  1 snapshot gone from the repository\n"


def test_a_snapshot_that_was_altered_is_warned_of_and_shows_in_the_exit_code(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    key = scene.put_manifest(b"", scene.manifests()[1])
    result = run("index", "sync", scene.repository)
    assert result.code == 3
    assert f"s3bu: warning: {key}: ALTERED in the repository since it was read" in result.err
    assert result.out == "1 snapshot taken in, 2 in the index\n  1 snapshot altered in the repository\n"


def test_a_snapshot_that_cannot_be_opened_shows_in_the_exit_code(scene: Scene) -> None:
    lock(scene, scene.manifests()[0])
    result = run("index", "sync", scene.repository)
    assert result.code == 3
    assert result.out == "1 snapshot taken in, 1 in the index\n  1 snapshot could not be opened\n"


def test_when_no_passphrase_opens_anything_it_says_where_they_are_looked_for(scene: Scene) -> None:
    lock_all(scene)
    result = run("index", "sync", scene.repository)
    check_refusal(result, 12, "none of its snapshots can be opened", str(scene.secrets))


def test_what_is_no_repository_is_refused(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_refusal(run("index", "sync", tmp_path / "empty"), 10, "not a repository")


def test_what_a_backup_recorded_is_what_a_rebuild_finds(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)  # else the backup takes in the newest snapshot only
    write_file(scene.source / "new", "new")
    (scene.source / "a").unlink()
    assert scene.backup().code == 0
    local = ("local_nanos", "ctime_ns", "inode", "device")
    recorded = [[row[: -len(local)] for row in rows(scene)[0]], rows(scene)[1]]
    succeed("index", "rebuild", scene.repository)
    assert [[row[: -len(local)] for row in rows(scene)[0]], rows(scene)[1]] == recorded


@pytest.mark.parametrize("name", ["original-bucket", "leftovers-bucket"])
def test_buckets_of_the_original_are_taken_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3BU_HOME", str(take_keys(tmp_path)))
    objects = shutil.copytree(BUCKETS / name / "objects", tmp_path / name)
    result = program("index", "sync", objects)
    count = len(list((objects / "manifests").rglob("*.csv.gz")))
    assert result.code == 0, result
    assert result.out == f"{count} snapshots taken in, {count} in the index\n"


# --- rebuild


def test_a_rebuild_gives_the_same_rows_as_before(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    before = rows(scene)
    assert succeed("index", "rebuild", scene.repository).out == "2 snapshots taken in, 2 in the index\n"
    assert rows(scene) == before
    assert before[0]


def test_a_rebuild_says_nothing_of_what_is_gone(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    (scene.repository / scene.manifests()[0]).unlink()
    result = succeed("index", "rebuild", scene.repository)
    assert result.out == "1 snapshot taken in, 1 in the index\n"
    assert "warning" not in result.err


def test_an_index_that_was_deleted_comes_back_the_same(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    before = rows(scene)
    forget(scene)
    succeed("index", "sync", scene.repository)
    assert rows(scene) == before


# --- status and path


def test_the_status_of_an_index_that_is_not_there_says_how_to_fill_it(scene: Scene) -> None:
    out = succeed("index", "status", scene.repository).out
    assert out.splitlines()[1:] == ["no snapshots; `s3bu index sync` takes them in"]


def test_the_status_shows_each_label_and_what_is_unopened(scene: Scene) -> None:
    lock(scene, scene.manifests()[0])
    run("index", "sync", scene.repository)
    first, titles, row = succeed("index", "status", scene.repository).out.splitlines()
    assert first.startswith(f"{index_of(scene)}: ")
    assert titles.split() == ["job", "label", "snapshots", "unopened", "versions", "newest"]
    assert row.split()[:5] == ["home", "src", "1", "1", "2"]


def test_the_status_of_a_label_that_cannot_be_opened_has_no_newest(scene: Scene) -> None:
    lock_all(scene)
    run("index", "sync", scene.repository)
    assert succeed("index", "status", scene.repository).out.splitlines()[2].split() == [
        *("home", "src", "0", "2", "0", "none")
    ]


def test_the_status_needs_neither_the_repository_nor_keys(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    before = succeed("index", "status", scene.repository).out.splitlines()[1:]
    scene.secrets.unlink()
    shutil.rmtree(scene.repository / "manifests")
    assert succeed("index", "status", scene.repository).out.splitlines()[1:] == before


def test_the_path_is_where_the_index_lies(scene: Scene) -> None:
    path = index_of(scene)
    assert path.parent == scene.keys / "index"
    assert not path.exists()
    succeed("index", "sync", scene.repository)
    assert path.is_file()
    assert os.listdir(path.parent).count(path.name) == 1


def test_two_names_of_a_repository_have_one_index(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.root)
    assert Path(succeed("index", "path", "./repository").out.strip()) == index_of(scene)
