"""`status`: how old the newest snapshots are, and who watches."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.running import Scene, await_that, backed_up, check_refusal, run, started, succeed, write_file, write_job
from tests.test_watch.watching import QUICK


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
        await_that(lambda: rows(scene)[0]["dirty"])
        assert " yes " in succeed("status", scene.repository, "--watched").out
        assert f"process {watcher.pid} since" in succeed("status", scene.repository, "-v").out
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0
    (row,) = rows(scene)
    assert (row["is_watched"], row["dirty"]) == (False, None)
    result = run("status", scene.repository, "--watched")
    assert (result.code, "no more" in result.out, result.err) == (3, True, ""), "it was told to end"


def test_the_next_run_is_shown(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--interval", "1h", "--settle", "1h") as watcher:
        watcher.await_line("snapshot")
        (row,) = rows(scene)
        assert row["next_run"] > row["watched_since"], "at the latest the full scan"
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def test_a_watcher_that_was_killed_is_named(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        assert run("status", scene.repository, "--watched").code == 0
        watcher.send(signal.SIGKILL)
        watcher.end()
    result = run("status", scene.repository, "--watched")
    assert result.code == 3
    assert f"home/src: process {watcher.pid} that watched it was killed" in result.err
    assert run("status", scene.repository, "--max-age", "1h").code == 0, "its snapshot is young all the same"


def test_a_watcher_that_hangs_is_named(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("watching")
        watcher.send(signal.SIGSTOP)
        (journal,) = (scene.keys / "journals").glob("*.db")
        with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
            connection.execute("UPDATE session SET beat_ns = beat_ns - 61000000000")  # as if it were a minute later
        result = run("status", scene.repository, "--watched")
        assert (result.code, " silent " in result.out) == (3, True)
        assert f"home/src: process {watcher.pid} that watches it gives no sign of life" in result.err
        watcher.send(signal.SIGCONT)


def test_a_source_that_nobody_ever_watched_is_not_watched(scene: Scene) -> None:
    result = run("status", scene.repository, "--watched")
    assert (result.code, result.err) == (3, "")


def test_what_the_last_run_lacked_is_shown_until_a_run_has_all(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("home/src: no change")
        scene.source.rename(scene.root / "elsewhere")
        watcher.await_line("home/src: ", "the source cannot be opened")
        result = run("status", scene.repository, "--watched")
        assert result.code == 3
        assert "home/src: not all is backed up since " in result.err
        assert "the source cannot be opened" in result.err
        (row,) = rows(scene)
        assert (row["is_watched"], "cannot be opened" in row["failure"]) == (True, True)
        (scene.root / "elsewhere").rename(scene.source)
        succeed("backup", scene.repository, scene.job)
        (row,) = rows(scene)
        assert (row["failing_since"], row["failure"]) == (None, None)
        assert run("status", scene.repository, "--watched").code == 0
        scene.source.rename(scene.root / "elsewhere")
        await_that(lambda: rows(scene)[0]["failure"])
        watcher.send(signal.SIGTERM)
        watcher.end()
    assert rows(scene)[0]["failure"] is None, "nobody knows what ran since it ended"


def test_what_this_machine_knows_is_shown_when_the_repository_cannot_be_read(scene: Scene) -> None:
    (before,) = rows(scene)
    (scene.repository / "manifests").rename(scene.root / "manifests")
    (scene.repository / "manifests").symlink_to("manifests")
    result = run("status", scene.repository, "--json")
    (row,) = [json.loads(line) for line in result.out.splitlines()]
    assert (result.code, row["snapshot_id"], row["newest"]) == (1, before["snapshot_id"], before["newest"])
    assert "cannot use" in result.err
    assert "this is what this machine knows" in result.err


def test_a_source_that_is_watched_by_a_local_job_and_has_no_snapshot_is_shown(scene: Scene) -> None:
    write_job(scene.job, {"src": "source", "gone": "gone"})
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("home/gone: not there")
        assert [row["label"] for row in rows(scene)] == ["gone", "src"]
        assert run("status", scene.repository, "--max-age", "1h").code == 3
        write_job(scene.job, {"src": "source"})
        watcher.await_line("home/gone: not in the job any more")
        await_that(lambda: len(rows(scene)) == 1)


def test_what_is_not_there_is_refused(scene: Scene) -> None:
    check_refusal(run("status", scene.repository, "nothing"), 10, "no job 'nothing'")
    check_refusal(run("status", scene.root), 10, "not a repository")
    check_refusal(run("status", scene.repository, "--max-age", "old"), 2, "--max-age 'old' is no age")
