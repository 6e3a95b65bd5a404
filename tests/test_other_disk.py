"""Another disk at the same path: the repository's, and the source's."""

import os
import shutil
from pathlib import Path

import pytest

from tests.running import Scene, backed_up, check_refusal, succeed, tree


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    assert scene.backup().code == 0
    return scene


def swap(path: Path) -> Path:
    """Put an empty directory in the place of another, as a mount does, and return where that one is now."""
    aside = path.with_name(f"{path.name}-aside")
    path.rename(aside)
    path.mkdir()
    return aside


def check_restore(scene: Scene) -> None:
    """Compare what the newest snapshot gives back with the source."""
    shutil.rmtree(scene.target, ignore_errors=True)
    assert scene.restore().code == 0
    assert tree(scene.target) == tree(scene.source)


def test_an_empty_disk_is_no_repository(scene: Scene) -> None:
    swap(scene.repository)
    check_refusal(scene.backup(), 10, "not a repository", "s3bu init")


def test_a_new_repository_at_the_same_path_gets_all_contents(scene: Scene) -> None:
    swap(scene.repository)
    result = scene.backup("--init")
    assert result.code == 0
    assert "gone from the repository, or altered, since it was read" in result.err
    check_restore(scene)


def test_the_first_disk_is_gone_on_with_when_it_is_back(scene: Scene) -> None:
    aside = swap(scene.repository)
    scene.backup("--init")
    shutil.rmtree(scene.repository)
    aside.rename(scene.repository)
    (scene.source / "new").write_text("written meanwhile")
    assert scene.backup().code == 0
    check_restore(scene)
    assert len(scene.manifests()) == 2


def test_files_of_another_disk_with_the_same_names_sizes_and_times_are_read(scene: Scene) -> None:
    aside = swap(scene.source)
    shutil.rmtree(scene.source)
    shutil.copytree(aside, scene.source, symlinks=True)
    changed = scene.source / "a"
    status, content = changed.stat(), changed.read_bytes()
    changed.write_bytes(content[::-1])
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    succeed("backup", scene.repository, scene.job)
    check_restore(scene)
