"""Disks that are full or read-only: what was there stays, it is said, and with room the next run succeeds."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import IS_CI, Result, Scene, check_refusal, program, run, succeed, tree, write_file

MIB = 1024 * 1024
LARGE = 9 * MIB


@contextmanager
def small_disk(path: Path, kib: int) -> Iterator[Path]:
    """Mount a file system of so many KiB; without the right to do so the test is skipped, but not under CI."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode != 0 and not IS_CI:
        pytest.skip(f"only root can mount a small disk: {os.fsdecode(mounted.stderr).strip()}")
    mounted.check_returncode()
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk but for so many bytes, in whole pages of 4 KiB."""
    balloon = disk / "balloon"
    with balloon.open("wb", buffering=0) as file:
        status = os.statvfs(disk)
        file.write(bytes(max(status.f_bavail * status.f_frsize - left, 0)))
    return balloon


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A source of files of different sizes, one of them larger than one put takes."""
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    for number in range(40):
        write_file(scene.source / f"{number:02}", bytes([number]) * 50_000)
    write_file(scene.source / "zz-large", bytes(LARGE))
    (scene.source / "zz-link").symlink_to("00")
    return scene


def check_nothing_false(result: Result) -> None:
    """Hold a run to an exit code that says what its errors say, and to no traceback."""
    assert "Traceback" not in result.err, result.err
    assert result.code in (0, 1, 2, 3), result
    assert bool(result.errors) == (result.code != 0), result


# --- the target of a restore


def test_a_restore_onto_a_full_disk_keeps_what_is_whole_and_can_be_finished(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    with small_disk(scene.target, 1024) as disk:
        result = scene.restore()
        assert result.code == 1
        assert result.errors[0] == "error: the target cannot take more: no space left on device"
        assert "run the same command again with -f" in result.errors[1]
        before, partly = tree(scene.source), tree(disk)
        assert all(partly[path] == before[path] for path in partly)
        remount(disk, "size=30m")
        succeed("restore", scene.repository, "home/src", disk, "-f")
        assert tree(disk) == before


@pytest.mark.parametrize("kib", [0, 52, 9000])
def test_overwriting_onto_a_full_disk_leaves_each_file_as_it_was_or_as_it_should_be(scene: Scene, kib: int) -> None:
    succeed("backup", scene.repository, scene.job)
    older = dict.fromkeys(["00", "20", "39", "zz-large", "not in the snapshot"], "an older state")
    with small_disk(scene.target, 20_000) as disk:
        for name, content in older.items():
            write_file(disk / name, content)
        (disk / "zz-link").symlink_to("older")
        balloon, before = fill(disk, kib * 1024), tree(disk)
        result = scene.restore("-o")
        after, wanted = tree(disk), tree(scene.source)
        check_refusal(result, 1, "no space left on device")
        assert all(node in (before.get(path), wanted.get(path)) for path, node in after.items() if path != b"balloon")
        assert before.keys() <= after.keys()
        balloon.unlink()
        succeed("restore", scene.repository, "home/src", disk, "-o")
        kept = {b"not in the snapshot": before[b"not in the snapshot"]}
        assert tree(disk) == wanted | kept


def test_a_target_that_is_read_only_ends_the_restore_and_keeps_what_it_holds(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    with small_disk(scene.target, 1024) as disk:
        write_file(disk / "00", "an older state")
        before = tree(disk)
        remount(disk, "ro")
        check_refusal(scene.restore("-o"), 1, "the target cannot take more: read-only file system")
        assert tree(disk) == before


@pytest.mark.parametrize("key", ["data", "manifest"])
def test_a_download_onto_a_full_disk_leaves_no_part(scene: Scene, key: str) -> None:
    succeed("backup", scene.repository, scene.job)
    name = hashlib.sha256(bytes(LARGE)).hexdigest()
    wanted = f"data/{name[:4]}/{name}" if key == "data" else scene.manifests()[0]
    with small_disk(scene.target, 1024) as disk:
        balloon = fill(disk, 0)
        check_refusal(run("download", scene.repository, wanted, disk), 1, "no space left on device")
        assert list(disk.iterdir()) == [balloon]


# --- the repository


@pytest.mark.parametrize("kib", [0, 200, 9000])
def test_a_backup_onto_a_full_disk_publishes_nothing_false_and_can_be_finished(scene: Scene, kib: int) -> None:
    shutil.move(scene.repository, scene.root / "aside")
    with small_disk(scene.repository, 16_000) as disk:
        shutil.copytree(scene.root / "aside", disk, dirs_exist_ok=True)
        balloon = fill(disk, kib * 1024)
        result = scene.backup()
        # One file may be too large for what is left, and all others fit.
        code, failed = (3, {"zz-large"}) if kib == 9000 else (1, set())
        check_refusal(result, code, "no space is left")
        assert len(scene.manifests()) == len(failed)
        assert result.failed >= failed
        temporary = disk / ".s3bu-tmp"
        assert not temporary.exists() or list(temporary.iterdir()) == []
        balloon.unlink()
        succeed("backup", scene.repository, scene.job)
        succeed("restore", scene.repository, "home/src", scene.target)
        assert tree(scene.target) == tree(scene.source)


def test_a_repository_that_is_read_only_is_told_and_can_still_be_restored_from(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    shutil.move(scene.repository, scene.root / "aside")
    with small_disk(scene.repository, 16_000) as disk:
        shutil.copytree(scene.root / "aside", disk, dirs_exist_ok=True)
        before = tree(scene.source)
        write_file(scene.source / "new", "new")
        remount(disk, "ro")
        check_refusal(scene.backup(), 1, "the file system is read-only")
        assert len(scene.manifests()) == 1
        succeed("restore", scene.repository, "home/src", scene.target)
        assert tree(scene.target) == before


# --- the index, and all of $S3BU_HOME


@contextmanager
def home_on(disk_of: Scene, kib: int) -> Iterator[Path]:
    """Put the machine's keys and state on a small disk of their own."""
    shutil.move(disk_of.keys, disk_of.root / "keys aside")
    with small_disk(disk_of.keys, kib) as disk:
        shutil.copytree(disk_of.root / "keys aside", disk, dirs_exist_ok=True)
        yield disk


@pytest.mark.parametrize(("is_first", "kib"), [(True, 8), (True, 160), (False, 0), (False, 40), (False, 160)])
def test_a_home_that_is_full_costs_no_snapshot_and_no_truth(scene: Scene, is_first: bool, kib: int) -> None:
    for number in range(2000):
        write_file(scene.source / "many" / f"a name of some length {number}", b"")
    with home_on(scene, 6000) as disk:
        if not is_first:
            succeed("backup", scene.repository, scene.job)
            for number in range(2000, 4000):
                write_file(scene.source / "many" / f"a name of some length {number}", b"")
        earlier = len(scene.manifests())
        balloon = fill(disk, kib * 1024)
        result = program("backup", scene.repository, scene.job)
        check_nothing_false(result)
        if result.code == 0:
            assert len(scene.manifests()) == earlier + 1
        else:
            assert "full" in result.err or "no space left" in result.err.lower(), result.err
        balloon.unlink()
        succeed("backup", scene.repository, scene.job)
        succeed("restore", scene.repository, "home/src", scene.target)
        assert tree(scene.target) == tree(scene.source)


@pytest.mark.parametrize("kib", [0, 4, 36])
def test_an_index_that_cannot_be_opened_on_a_full_disk_is_kept(scene: Scene, kib: int) -> None:
    with home_on(scene, 6000) as disk:
        succeed("backup", scene.repository, scene.job)
        (index,) = (disk / "index").glob("*.db")
        before = hashlib.sha256(index.read_bytes()).hexdigest()
        balloon = fill(disk, kib * 1024)
        for command in (("status", scene.repository), ("find", scene.repository, "zz-*"), ("status", scene.repository)):
            check_nothing_false(program(*command))
        check_nothing_false(program("backup", scene.repository, scene.job))
        assert list((disk / "index").glob("*.aside")) == []
        balloon.unlink()
        assert hashlib.sha256(index.read_bytes()).hexdigest() == before
        result = succeed("find", scene.repository, "zz-*")
        assert (result.err, "zz-large" in result.out) == ("", True)


def test_an_index_whose_making_was_cut_off_is_made_anew(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    (index,) = (scene.keys / "index").glob("*.db")
    index.write_bytes(b"")
    result = succeed("backup", scene.repository, scene.job)
    assert "moved to" not in result.err
    assert list(index.parent.glob("*.aside")) == []


def test_a_home_that_is_read_only_is_told_and_can_still_be_restored_with(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    with home_on(scene, 6000) as disk:
        write_file(scene.source / "new", "new")
        remount(disk, "ro")
        check_refusal(scene.backup(), 1, "set S3BU_HOME to a directory that can be written")
        assert len(scene.manifests()) == 1
        succeed("restore", scene.repository, "home/src", scene.target)
        remount(disk, "rw")
        succeed("backup", scene.repository, scene.job)


@pytest.mark.parametrize("kib", [0, 4, 8])
def test_keys_are_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kib: int) -> None:
    home, repository = tmp_path / "small home", tmp_path / "repository"
    monkeypatch.setenv("S3BU_HOME", str(home))
    with small_disk(home, 1024) as disk:
        balloon = fill(disk, kib * 1024)
        result = run("init", repository)
        check_nothing_false(result)
        assert all(path.stat().st_size for path in disk.rglob("*") if path.is_file() and path != balloon)
        balloon.unlink()
        succeed("init", repository)
        write_file(tmp_path / "source" / "a", "a")
        (tmp_path / "home.yml").write_text(f"sources: [{{path: '{tmp_path / 'source'}', label: src}}]\n")
        succeed("backup", repository, tmp_path / "home.yml")
