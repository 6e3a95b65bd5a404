"""`status`: how old the newest snapshots are, and who watches."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.running import Scene, backed_up, check_refusal, run, started, succeed, write_file, write_job


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    return scene


def rows(scene: Scene, *arguments: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("status", scene.repository, *arguments, "--json").out.splitlines()]


def test_the_newest_snapshot_and_its_age_are_shown(scene: Scene) -> None:
    (row,) = rows(scene)
    assert (row["job"], row["label"], row["snapshot_id"]) == ("home", "src", scene.manifests()[-1])
    assert 0 <= row["age_seconds"] < 3600
    assert (row["is_watched"], row["pid"], row["dirty"], row["too_old"]) == (False, None, None, False)
    assert "home/src" in succeed("status", scene.repository).out


def test_a_snapshot_that_is_too_old_or_missing_shows_in_the_exit_code(scene: Scene) -> None:
    assert run("status", scene.repository, "--max-age", "1h").code == 0
    result = run("status", scene.repository, "--max-age", "0m")
    assert (result.code, "too old" in result.out) == (3, True)
    write_job(scene.job, {"src": "source", "new": "new"})
    assert run("status", scene.repository, scene.job).code == 0
    missing = run("status", scene.repository, scene.job, "--max-age", "1h")
    assert (missing.code, "none" in missing.out) == (3, True)


def test_a_label_that_the_job_has_no_more_is_not_too_old(scene: Scene) -> None:
    write_job(scene.job, {"other": "source"})
    succeed("backup", scene.repository, scene.job)
    assert [row["label"] for row in rows(scene, scene.job, "--max-age", "1h")] == ["other"]
    assert [row["label"] for row in rows(scene)] == ["other", "src"], "no job of the repository says which there are"


def test_without_the_index_the_manifest_tells_its_time(scene: Scene) -> None:
    (before,) = rows(scene)
    for path in (scene.keys / "index").iterdir():
        path.unlink()
    (after,) = rows(scene)
    assert (after["newest"], after["snapshot_id"]) == (before["newest"], before["snapshot_id"])


def test_the_watcher_is_shown_with_what_waits(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        (row,) = rows(scene)
        assert (row["is_watched"], row["pid"]) == (True, watcher.pid)
        assert row["dirty"] == 1, "the whole source, since nobody looked at it since the watcher began"
        succeed("backup", scene.repository, scene.job)
        (row,) = rows(scene)
        assert row["full_scan"] == "the watcher started after the last full scan"
        assert row["dirty"] == 0
        write_file(scene.source / "new", "new")
        while rows(scene)[0]["dirty"] == 0:
            pass
        assert f"process {watcher.pid} since" in succeed("status", scene.repository).out
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0
    (row,) = rows(scene)
    assert (row["is_watched"], row["dirty"]) == (False, None)
    assert "nobody any more" in succeed("status", scene.repository).out


def test_the_next_run_is_shown(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--interval", "1h", "--settle", "1h") as watcher:
        watcher.await_line("snapshot")
        (row,) = rows(scene)
        assert row["next_run"] > row["watched_since"], "at the latest the full scan"
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def test_what_is_not_there_is_refused(scene: Scene) -> None:
    check_refusal(run("status", scene.repository, "nothing"), 10, "no job 'nothing'")
    check_refusal(run("status", scene.root), 10, "not a repository")
    check_refusal(run("status", scene.repository, "--max-age", "old"), 2, "is no time")
