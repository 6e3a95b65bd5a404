"""What goes wrong around a watcher, and jobs that change while it watches: it goes on, and says what it does."""

import fcntl
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.running import (
    IS_CI,
    Scene,
    await_that,
    program,
    run,
    succeed,
    tree,
    without_override,
    write_file,
    write_job,
)
from tests.test_watch.alone import OWN_LIMITS
from tests.test_watch.watching import (
    NEW_SESSION,
    await_run,
    can_mount,
    restored,
    restored_if_any,
    watching,
)

# --- what goes wrong around it


def test_a_repository_that_is_away_loses_nothing(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot")
        away = scene.repository.rename(scene.root / "away")
        write_file(scene.source / "c", "content of c")
        line = watcher.await_line("home/src: backup failed:")
        assert "next try in 1" in line
        write_file(scene.source / "d", "content of d")
        away.rename(scene.repository)
        watcher.await_line("home/src: snapshot of 4 files: 2 paths new")
        assert restored(scene) == tree(scene.source)


def test_a_source_that_is_missing_is_watched_when_it_comes(scene: Scene) -> None:
    away = scene.source.rename(scene.root / "away")
    with watching(scene) as watcher:
        watcher.await_line("home/src: not there; watched as soon as it is")
        watcher.await_line("home/src: ", "the source cannot be opened")
        away.rename(scene.source)
        watcher.await_line("home/src: watching 2 directories")  # before its first snapshot is there, or after that
        await_that(lambda: restored_if_any(scene) == tree(scene.source))


def test_a_source_that_may_not_be_opened_is_said_to_be_that(scene: Scene) -> None:
    scene.source.chmod(0)
    with watching(scene, prefix=without_override()) as watcher:
        watcher.await_line("home/src: cannot be opened (permission denied); watched as soon as it can be")
        line = watcher.await_line("home/src: ", "the source cannot be opened (permission denied)")
        assert "run as a user who may read it" in line
        assert "mounted" not in line
        scene.source.chmod(0o700)
        watcher.await_line("home/src: snapshot of 2 files")


def test_a_journal_that_somebody_deleted_is_made_anew(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot")
        for path in (scene.keys / "journals").glob("*.db*"):
            path.unlink()
        watcher.await_line("the journal was taken away; beginning a new one")
        assert NEW_SESSION in watcher.await_line("home/src: no change since the last snapshot", "full scan")
        write_file(scene.source / "c", "content of c")
        assert "full scan" not in watcher.await_line("home/src: snapshot of 3 files: 1 path new")


def test_a_journal_on_a_full_disk_ends_nothing(scene: Scene) -> None:
    if not can_mount():
        assert not IS_CI, "mounts are needed"
        pytest.skip("mounts are needed")
    journals = scene.keys / "journals"
    journals.mkdir()
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"', str(journals)]
    with watching(scene, prefix=mount) as watcher:
        watcher.await_line("home/src: snapshot")
        filler = Path(f"/proc/{watcher.pid}/root{journals}/filler")
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        watcher.send(signal.SIGSTOP)  # or it may begin a run in the midst of this
        for number in range(300):
            write_file(scene.source / f"{number:0200}", "new")
        watcher.send(signal.SIGCONT)
        watcher.await_line("the journal cannot be written", "until it can be, runs look at everything")
        watcher.await_line("home/src: snapshot of 302 files: 300 paths new", "full scan: ")
        filler.unlink()
        watcher.await_line("the journal is written again")
        write_file(scene.source / "c", "content of c")
        watcher.await_line("home/src: snapshot of 303 files: 1 path new")
        assert restored(scene) == tree(scene.source)


def test_beyond_the_kernels_limit_directories_are_scanned_instead(scene: Scene) -> None:
    for number in range(20):
        (scene.source / f"{number}").mkdir()
    limit = ["sh", "-c", 'echo 12 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
    with watching(scene, prefix=[*OWN_LIMITS, *limit]) as watcher:
        line = watcher.await_line("home/src: watching ", "cannot be watched", "and are scanned each time")
        assert "watching 22 " not in line
        watcher.await_line("22 directories, and the kernel watches 12", "sysctl fs.inotify.max_user_watches=")
        watcher.await_line("home/src: ", "snapshot of 2 files")
        told = run("status", scene.repository)
        assert re.search("home/src: [0-9]+ directories not watched, and looked at by each run\n", told.err)
        for number in range(20):
            write_file(scene.source / f"{number}" / "file", f"content {number}")
        while restored(scene) != tree(scene.source):
            watcher.await_line("home/src: snapshot")


def test_without_a_single_watch_all_is_scanned_and_that_is_said(scene: Scene) -> None:
    limit = ["sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
    result = program("watch", scene.repository, scene.job, "--once", prefix=[*OWN_LIMITS, *limit])
    assert (result.code, result.errors) == (0, [])
    assert "home/src: watching 0 directories; 2 cannot be watched (the kernel watches no more" in result.err
    assert restored(scene) == tree(scene.source)


def test_on_a_file_system_where_changes_come_unseen_each_run_scans_in_full(scene: Scene) -> None:
    if not can_mount():
        assert not IS_CI, "mounts are needed"
        pytest.skip("mounts are needed")
    inner = scene.source / "inner"
    inner.mkdir()
    lower = write_file(scene.root / "lower" / "file", "below").parent
    options = f"lowerdir={lower}:{scene.source / 'directory'}"
    mount = ["unshare", "-m", "sh", "-c", f'mount -t overlay -o {options} overlay "$0" && exec "$@"', str(inner)]
    with watching(scene, prefix=mount) as watcher:
        watcher.await_line("home/src: watching", "all is scanned each time, since")
        watcher.await_line("home/src: snapshot", "full scan")
        assert "home/src: each run looks at all of it: " in run("status", scene.repository, "--watched").err
        watcher.await_line("home/src: no change since the last snapshot", "full scan: ", "overlay")
        watcher.await_line("home/src: no change since the last snapshot", "full scan: ", "overlay")


def test_a_file_that_cannot_be_read_is_named_once(scene: Scene) -> None:
    write_file(scene.source / "closed", "closed").chmod(0)
    with watching(scene, prefix=without_override()) as watcher:
        assert "incomplete: 1 path failed" in watcher.await_line("home/src: snapshot of 2 files")
        watcher.await_line("home/src: closed: permission denied")
        write_file(scene.source / "c", "content of c")
        assert "incomplete: 1 path failed" in watcher.await_line("home/src: snapshot of 3 files")
        told = run("status", scene.repository, "--watched")
        assert told.code == 3
        assert re.search("home/src: not all is backed up since .*: closed: permission denied\n", told.err)
        watcher.send(signal.SIGTERM)
        assert watcher.end().err.count("permission denied") == 1


# --- jobs that change


def test_a_local_job_that_changed_is_followed(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        other = write_file(scene.root / "other" / "file", "other").parent
        write_job(scene.job, {"src": "source", "other": other}, "exclude_extensions: [.o]\n")
        watcher.await_line("home: the job was read again")
        watcher.await_line("home/other: watching 1 director")
        write_file(scene.source / "x.o", "not wanted")
        write_file(scene.source / "directory" / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files: 1 path new")
        assert set(restored(scene)) == {b"a", b"directory", b"directory/b", b"directory/c"}


def test_what_is_odd_about_a_job_that_changed_is_told_also_without_runs(scene: Scene) -> None:
    with watching(scene, "--record-only") as watcher:
        watcher.await_line("home/src: watching")
        write_job(scene.job, {"src": "source"}, "exclude_exts: [.p]\n")
        watcher.await_line("home: the job was read again")
        watcher.await_line("home: ", "exclude_exts")


def test_a_source_that_goes_and_comes_back_during_its_backup_is_backed_up_again(scene: Scene) -> None:
    other = write_file(scene.root / "other" / "file", "other").parent
    with watching(scene) as watcher:
        watcher.await_line("backup began")
        run_of_it = await_run(watcher.pid)
        os.kill(run_of_it, signal.SIGSTOP)
        write_job(scene.job, {"other": other})
        watcher.await_line("home/src: not in the job any more")
        write_job(scene.job, {"src": "source", "other": other})
        watcher.await_line("home/src: watching 2 directories")
        os.kill(run_of_it, signal.SIGCONT)
        watcher.await_line("home/src: backup began")
        watcher.await_line("home/src: no change since the last snapshot")  # the run that nobody waited for made it
        write_file(scene.source / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files")


def test_a_job_that_is_broken_stands_as_it_was(scene: Scene) -> None:
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 2 files")
        text = scene.job.read_text()
        scene.job.write_text("sources: 3\n")
        watcher.await_line("home: the job cannot be read again, and stands as it was")
        scene.job.write_text(text)
        write_file(scene.source / "c", "content of c")
        watcher.await_line("home/src: snapshot of 3 files: 1 path new")


def test_a_job_of_a_repository_that_is_away_stands_as_it_was(scene: Scene) -> None:
    succeed("job", "upload", scene.repository, "home", write_job(scene.root / "first.yml", {"src": scene.source}))
    with watching(scene, "--record-only", job="home") as watcher:
        watcher.await_line("home/src: watching")
        away = scene.repository.rename(scene.root / "away")
        for _ in range(2):
            watcher.send(signal.SIGHUP)
            watcher.await_line("the jobs were read again")
        away.rename(scene.repository)
        write_file(scene.source / "c", "content of c")
        succeed("backup", scene.repository, "home")
        write_file(scene.source / "d", "content of d")
        summary = json.loads(succeed("backup", scene.repository, "home", "--json", "-q").out)
        assert (summary["files_new"], summary["full_scan"]) == (1, None)
        watcher.send(signal.SIGTERM)
        assert watcher.end().err.count("the job cannot be read again, and stands as it was") == 1


def test_old_snapshots_go_by_the_rules_of_the_job(scene: Scene) -> None:
    write_job(scene.job, {"src": "source"}, "s3bu:\n  retention:\n    keep_last: 1\n")
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "c", "content of c")
    with watching(scene) as watcher:
        watcher.await_line("home/src: snapshot of 3 files: 1 path new")
        watcher.await_line("home: forgot 1 old snapshot")
    assert len(scene.manifests()) == 1


def test_that_old_snapshots_cannot_go_is_said_and_is_no_failure_of_the_backup(scene: Scene) -> None:
    write_job(scene.job, {"src": "source"}, "s3bu:\n  retention:\n    keep_last: 1\n")
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "c", "content of c")
    (index,) = (scene.keys / "index").glob("*.db")
    with index.with_suffix(".use").open() as used:
        fcntl.flock(used, fcntl.LOCK_SH)  # as a backup of another job does
        with watching(scene) as watcher:
            watcher.await_line("home/src: snapshot of 3 files: 1 path new")
            watcher.await_line("home: old snapshots could not be forgotten: ", "in use by a backup")
            write_file(scene.source / "d", "content of d")
            watcher.await_line("home/src: snapshot of 4 files: 1 path new")
            watcher.send(signal.SIGTERM)
            assert watcher.end().err.count("could not be forgotten") == 1
    assert len(scene.manifests()) == 3
