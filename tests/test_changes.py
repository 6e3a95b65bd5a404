"""What changes in a source makes a snapshot, what does not, and what is sent for it."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Scene, backed_up, listing, run, succeed, tree, write_file


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def touch(scene: Scene) -> None:
    os.utime(scene.source / "a", (1_600_000_001, 1_600_000_001))


def replace_by_directory(scene: Scene) -> None:
    (scene.source / "b").unlink()
    write_file(scene.source / "b" / "inside", "was a file")


def replace_by_file(scene: Scene) -> None:
    shutil.rmtree(scene.source / "directory")
    write_file(scene.source / "directory", "was a directory")


def replace_by_link(scene: Scene) -> None:
    (scene.source / "a").unlink()
    (scene.source / "a").symlink_to("b")


def point_link_elsewhere(scene: Scene) -> None:
    (scene.source / "link").unlink()
    (scene.source / "link").symlink_to("b")


def rewrite_at_same_size(scene: Scene) -> None:
    write_file(scene.source / "a", "content of X", mtime=1_600_000_002)


CHANGES: dict[str, Callable[[Scene], object]] = {
    "a new file": lambda scene: write_file(scene.source / "new", "new"),
    "a new empty directory": lambda scene: (scene.source / "empty").mkdir(),
    "a file of the same size": rewrite_at_same_size,
    "a removed file": lambda scene: (scene.source / "a").unlink(),
    "another mode of a file": lambda scene: (scene.source / "a").chmod(0o600),
    "another mode of a directory": lambda scene: (scene.source / "directory").chmod(0o700),
    "another time of a file": touch,
    "a renamed file": lambda scene: (scene.source / "a").rename(scene.source / "z"),
    "a file made a directory": replace_by_directory,
    "a directory made a file": replace_by_file,
    "a file made a link": replace_by_link,
    "another target of a link": point_link_elsewhere,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_in_a_new_snapshot(scene: Scene, change: str) -> None:
    CHANGES[change](scene)
    succeed("backup", scene.repository, scene.job)
    assert len(scene.manifests()) == 2
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_no_change_makes_no_snapshot(scene: Scene) -> None:
    before = listing(scene.repository / "data")
    assert "no change since the last snapshot (3 files, 36 B)" in succeed("backup", scene.repository, scene.job).out
    assert len(scene.manifests()) == 1
    assert listing(scene.repository / "data") == before


def test_the_time_of_a_directory_alone_makes_no_snapshot(scene: Scene) -> None:
    os.utime(scene.source / "directory")
    assert "no change" in succeed("backup", scene.repository, scene.job).out
    assert len(scene.manifests()) == 1


@pytest.mark.parametrize("change", ["another mode of a file", "another time of a file", "a renamed file"])
def test_a_content_that_is_stored_is_not_sent_again(scene: Scene, change: str) -> None:
    before = listing(scene.repository / "data")
    CHANGES[change](scene)
    assert " 0 B and a manifest of " in succeed("backup", scene.repository, scene.job).out
    assert listing(scene.repository / "data") == before


def test_equal_contents_are_stored_once(scene: Scene) -> None:
    write_file(scene.source / "copy of a", "content of a")
    assert " 0 B and a manifest of " in succeed("backup", scene.repository, scene.job).out
    assert len(scene.contents()) == 3


def test_a_content_that_vanished_from_the_repository_is_stored_again(scene: Scene) -> None:
    scene.object_of("content of a").unlink()
    write_file(scene.source / "new", "new")
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target)
    assert (scene.target / "a").read_text() == "content of a"


def test_an_older_snapshot_still_comes_back_after_a_file_was_a_directory_for_a_while(scene: Scene) -> None:
    before = tree(scene.source)
    aside = shutil.copytree(scene.source, scene.root / "aside", symlinks=True)
    replace_by_directory(scene)
    succeed("backup", scene.repository, scene.job)
    shutil.rmtree(scene.source)
    shutil.copytree(aside, scene.source, symlinks=True)
    succeed("backup", scene.repository, scene.job)
    for number, key in enumerate(scene.manifests()):
        succeed("restore", scene.repository, key, scene.target / str(number))
    restored = [tree(scene.target / str(number)) for number in range(3)]
    assert (restored[0], restored[2]) == (before, before)
    assert stat.S_ISDIR(restored[1][b"b"].kind)


def test_an_older_snapshot_is_found_by_its_time(scene: Scene) -> None:
    older = scene.put_manifest(b"")
    os.utime(scene.repository / older, (1_500_000_000, 1_500_000_000))
    newer = scene.manifests()[-1]
    assert older in run("restore", scene.repository, "home/src@2018-01-01", scene.target, "-c").err
    assert newer in run("restore", scene.repository, "home/src@2999-01-01", scene.target, "-c").err


def test_a_rehash_finds_what_kept_size_and_time(scene: Scene) -> None:
    write_file(scene.source / "a", "CONTENT OF A")
    assert "no change" in succeed("backup", scene.repository, scene.job).out
    assert " 1 changed" in succeed("backup", scene.repository, scene.job, "--rehash").out


def test_a_file_written_while_it_was_backed_up_is_read_again(scene: Scene) -> None:
    write_file(scene.source / "a", "first", mtime=2_000_000_000)
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "a", "other", mtime=2_000_000_000)
    assert " 1 changed" in succeed("backup", scene.repository, scene.job).out


def test_setuid_is_never_given_to_a_file(scene: Scene) -> None:
    (scene.source / "a").chmod(0o6755)
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target, "--special-bits")
    assert stat.S_IMODE((scene.target / "a").stat().st_mode) == 0o755


def test_special_bits_of_directories_come_back_on_demand_alone(scene: Scene) -> None:
    (scene.source / "directory").chmod(0o3777)
    succeed("backup", scene.repository, scene.job)
    for option, mode in (("-f", 0o777), ("--special-bits", 0o3777)):
        succeed("restore", scene.repository, "home/src", scene.target / option, option)
        assert stat.S_IMODE((scene.target / option / "directory").stat().st_mode) == mode


def test_a_pattern_restores_a_part(scene: Scene) -> None:
    succeed("restore", scene.repository, "home/src", scene.target, "^directory/")
    assert tree(scene.target).keys() == {b"directory", b"directory/c"}


def test_special_files_are_counted_and_said(scene: Scene) -> None:
    os.mkfifo(scene.source / "fifo")
    write_file(scene.source / "new", "new")
    assert "not backed up: 1 FIFO" in succeed("backup", scene.repository, scene.job).out
    succeed("restore", scene.repository, "home/src", scene.target)
    assert b"fifo" not in tree(scene.target)
