"""The watcher as a program: it watches, backs up, answers signals, and outlives what goes wrong around it."""

import json
import os
import signal
import socket
import time
from random import Random

import pytest

from tests.rounds import rounds
from tests.running import (
    Scene,
    await_that,
    check_refusal,
    program,
    run,
    started,
    succeed,
    tree,
    write_file,
    write_job,
)
from tests.test_watch.watching import (
    NEW_SESSION,
    QUICK,
    children,
    restored,
    restored_if_any,
    watching,
)

# --- what it is for


def test_nothing_is_watched_where_no_backup_could_ever_be_made(scene: Scene) -> None:
    (scene.keys / "secrets.yml").unlink()
    check_refusal(run("watch", scene.repository, scene.job), 2, "secrets.yml: no such file")
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("home/src: watching 2 directories")


def test_a_server_that_does_not_answer_holds_no_watching_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        with started("watch", "s3://bucket", scene.job, "--endpoint-url", endpoint) as watcher:
            watcher.await_line("home/src: watching 2 directories")
            watcher.send(signal.SIGTERM)
            assert watcher.end().code == 0


def test_once_backs_up_each_source_and_ends(scene: Scene) -> None:
    result = program("watch", scene.repository, scene.job, "--once")
    assert (result.code, result.errors) == (0, [])
    assert restored(scene) == tree(scene.source)
    assert "home/src: watching 2 directories\n" in result.err
    assert "home/src: snapshot of 2 files: 3 paths new, 0 changed, 0 removed" in result.err


def test_what_is_odd_about_a_job_is_said_once(scene: Scene) -> None:
    write_job(scene.job, {"src": "source"}, "skip_dirz: [x]\n")
    result = program("watch", scene.repository, scene.job, "--once")
    assert result.code == 0
    assert result.err.count("unknown key 'skip_dirz'") == 1, result.err
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        watcher.await_line("unknown key 'skip_dirz'")


def test_once_ends_with_the_worst_exit_code(scene: Scene) -> None:
    write_job(scene.job, {"gone": "gone", "src": "source"})
    result = program("watch", scene.repository, scene.job, "--once")
    assert result.code == 3
    assert "the source cannot be opened" in result.err
    assert restored(scene) == tree(scene.source)


def test_a_change_is_backed_up_and_only_what_changed_is_looked_at(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files", "full scan")
        write_file(scene.source / "directory" / "c", "content of c")
        line = watcher.await_line("home/src: snapshot of 3 files: 1 path new, 0 changed, 0 removed")
        assert "full scan" not in line
        (scene.source / "a").unlink()
        assert "full scan" not in watcher.await_line("0 paths new, 0 changed, 1 removed")
        assert restored(scene) == tree(scene.source)


def test_no_run_begins_as_long_as_nothing_changes(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("home/src: snapshot")
        time.sleep(4)
        assert children(watcher.pid) == []
        watcher.send(signal.SIGTERM)
        result = watcher.end()
    assert result.code == 0
    assert result.err.count("backup began") == 1


def test_a_directory_in_which_a_file_came_and_went_is_backed_up_when_it_goes(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        (scene.source / "directory" / ".lock").touch()
        (scene.source / "directory" / ".lock").unlink()
        watcher.await_line("home/src: no change since the last snapshot")
        (scene.source / "directory").rename(scene.root / "elsewhere")
        watcher.await_line("home/src: snapshot of 1 file: 0 paths new, 0 changed, 2 removed")


def test_a_backup_from_elsewhere_goes_by_what_is_only_recorded(scene: Scene) -> None:
    with watching(scene, "--record-only") as watcher:
        watcher.await_line("watching 2 directories")
        (first,) = (
            json.loads(line) for line in succeed("backup", scene.repository, scene.job, "--json", "-q").out.splitlines()
        )
        write_file(scene.source / "directory" / "c", "content of c")
        (second,) = (
            json.loads(line) for line in succeed("backup", scene.repository, scene.job, "--json", "-q").out.splitlines()
        )
        assert (first["full_scan"] is None, second["full_scan"], second["files_new"]) == (False, None, 1)
        assert children(watcher.pid) == []


def test_a_large_file_that_keeps_changing_is_taken_in_its_time(scene: Scene) -> None:
    large = scene.source / "large"
    with large.open("wb") as file:
        file.truncate(257 * 1024**2)
    with started("watch", scene.repository, scene.job, *QUICK, "-c", "--large-interval", "40s", "--json") as watcher:
        await_that(scene.manifests)
        os.utime(large, (1, 1))
        write_file(scene.source / "c", "content of c")
        await_that(lambda: len(scene.manifests()) >= 2)
        assert restored(scene)[b"large"] != tree(scene.source)[b"large"]
        assert restored(scene)[b"c"] == tree(scene.source)[b"c"]
        await_that(lambda: len(scene.manifests()) >= 3)
        assert restored(scene) == tree(scene.source)
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0
    assert len(scene.manifests()) == 3, "the first one, one without it, and one with it"


def test_several_jobs_are_watched_by_one_process(scene: Scene) -> None:
    mail = write_file(scene.root / "mail" / "letter", "dear").parent
    other = write_job(scene.root / "mail.yml", {"inbox": mail})
    with watching(scene, "--also", other) as watcher:
        watcher.await_line("mail/inbox: watching 1 director")
        watcher.await_line("snapshot")
        watcher.await_line("snapshot")
        write_file(mail / "answer", "dear too")
        watcher.await_line("mail/inbox: snapshot of 2 files: 1 path new")
        assert restored(scene, "mail/inbox") == tree(mail)


def test_the_label_chooses_one_source(scene: Scene) -> None:
    write_job(scene.job, {"other": "other", "src": "source"})
    result = program("watch", scene.repository, scene.job, "src", "--once")
    assert result.code == 0
    assert "other" not in result.err


# --- one watcher, and its death


def test_a_second_watcher_is_told_who_watches(scene: Scene) -> None:
    with watching(scene, "--record-only") as watcher:
        watcher.await_line("watching")
        result = program("watch", scene.repository, scene.job, "--record-only")
        check_refusal(result, 11, f"source 'home/src' is being watched by process {watcher.pid} since", "stop it with")
        assert "wait until" not in result.err


def test_after_a_kill_the_next_one_scans_in_full_and_says_why(scene: Scene) -> None:
    with started("watch", scene.repository, scene.job, *QUICK) as watcher:
        watcher.await_line("home/src: snapshot")
        watcher.send(signal.SIGKILL)
        assert watcher.end().code == -signal.SIGKILL
    write_file(scene.source / "c", "content of c")
    with watching(scene) as watcher:
        line = watcher.await_line("home/src: snapshot of 3 files: 1 path new")
        assert f"full scan: {NEW_SESSION}" in line
        assert restored(scene) == tree(scene.source)


@pytest.mark.parametrize("seed", range(rounds(2)))
def test_what_a_killed_watcher_had_seen_is_backed_up_by_the_next_one(scene: Scene, seed: int) -> None:
    chance = Random(seed)
    for number in range(2):
        with started("watch", scene.repository, scene.job, *QUICK) as watcher:
            watcher.await_line("watching")
            time.sleep(chance.uniform(0, 3))
            write_file(scene.source / f"{number}" / "file", f"content {number}")
            (scene.source / "a").write_text(f"content of a, {number}")
            time.sleep(chance.uniform(0, 3))
            watcher.send(signal.SIGKILL)
            watcher.end()
    with watching(scene) as watcher:
        while restored_if_any(scene) != tree(scene.source):
            watcher.await_line("home/src: ")
            time.sleep(0.5)


# --- usage


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--once", "--record-only"], "--record-only does not"),
        (["--once", "--print-unit"], "a service does not"),
        (["--interval", "0s"], "--interval '0s' is too short"),
        (["--settle=-1s"], "--settle '-1s' is no length of time"),
        (["--interval", "soon"], "--interval 'soon' is no length of time"),
        (["--large-interval", "5"], "--large-interval '5' is no length of time"),
        (["--large-interval", "0h"], "--large-interval '0h' is too short"),
        (["--manifest-budget", "0"], "--manifest-budget 0"),
        (["--manifest-budget", "much"], "--manifest-budget 'much' is no size"),
        (["--full-scan-every", "8d"], "too seldom"),
        (["--full-scan-every", "0s"], "is too short"),
        (["--also", "home.yml"], "named twice"),
    ],
)
def test_what_makes_no_sense_is_refused(scene: Scene, options: list[str], word: str) -> None:
    check_refusal(run("watch", scene.repository, scene.job, *options), 2, word)


def test_a_label_that_the_job_does_not_have_is_refused(scene: Scene) -> None:
    check_refusal(run("watch", scene.repository, scene.job, "nothing"), 2, "no source with the label 'nothing'")


def test_a_job_or_repository_that_is_not_there_ends_it_at_once(scene: Scene) -> None:
    check_refusal(run("watch", scene.repository, "nothing"), 10, "no job 'nothing'")
    check_refusal(run("watch", scene.root / "nowhere", scene.job), 10, "there is no directory")
    check_refusal(run("watch", scene.source, scene.job), 10, "not a repository")
