"""What a restore makes of what lies in its target already."""

from pathlib import Path

import pytest

from tests.running import Scene, backed_up, check_refusal, succeed, tree, write_file


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def test_a_target_that_is_not_empty_is_refused(scene: Scene) -> None:
    write_file(scene.target / "mine", "mine")
    check_refusal(scene.restore(), 2, f"{scene.target}: the target is not empty", "-f", "-o")
    assert tree(scene.target).keys() == {b"mine"}


@pytest.mark.parametrize(("option", "code", "content"), [("-f", 3, "mine"), ("-o", 0, "content of a")])
def test_what_is_in_the_target_is_kept_unless_overwritten(scene: Scene, option: str, code: int, content: str) -> None:
    write_file(scene.target / "a", "mine")
    write_file(scene.target / "extra", "mine")
    result = scene.restore(option)
    assert result.code == code
    assert ("error: a: a file with other content is there already; -o overwrites it" in result.errors) == bool(code)
    assert (scene.target / "a").read_text() == content
    assert (scene.target / "extra").read_text() == "mine"
    assert (scene.target / "b").read_text() == "content of b"


@pytest.mark.parametrize("option", ["-f", "-o"])
def test_a_directory_in_the_way_of_a_file_is_kept(scene: Scene, option: str) -> None:
    write_file(scene.target / "a" / "mine", "mine")
    check_refusal(scene.restore(option), 3, "a: a directory is there already")
    assert (scene.target / "a" / "mine").read_text() == "mine"
    assert (scene.target / "b").read_text() == "content of b"


@pytest.mark.parametrize("option", ["-f", "-o"])
def test_a_file_in_the_way_of_a_directory_is_kept(scene: Scene, option: str) -> None:
    write_file(scene.target / "directory", "mine")
    check_refusal(scene.restore(option), 3, "directory")
    assert (scene.target / "directory").read_text() == "mine"
    assert (scene.target / "b").read_text() == "content of b"


def test_a_target_that_cannot_be_a_directory_is_refused(scene: Scene) -> None:
    write_file(scene.target, "a file")
    check_refusal(scene.restore(), 2, f"{scene.target}: cannot be restored into")
    assert scene.target.read_text() == "a file"


def test_what_is_right_already_is_not_written_again(scene: Scene) -> None:
    succeed("restore", scene.repository, "home/src", scene.target)
    before = (scene.target / "a").stat().st_ino
    assert "3 files were right already" in scene.restore("-o").out
    assert (scene.target / "a").stat().st_ino == before
    assert "1 file was right already" in scene.restore("^a$", "-o").out
