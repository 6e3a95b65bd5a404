"""A `$S3BU_HOME` that this user cannot use: every command says that, and says nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Scene, check_refusal, program, without_override, write_file

READING = [
    "status {} {job}",
    "backup {} {job}",
    "watch {} {job} --once",
    "plan {} {job}",
    "restore {} home/src target",
    "snapshots {}",
    "ls {} home/src",
    "find {} a",
    "verify {}",
    "init {}",
    "keys list {}",
    "index sync {}",
    "forget {} --keep-last 1",
    "prune {}",
]
WRITING = ["backup {} {job}", "watch {} {job} --once", "init {}", "keys accept {}", "index sync {}", "find {} a"]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A scene with keys in a directory that holds nothing else yet."""
    made = Scene(tmp_path / "scene")
    made.enter(monkeypatch)
    made.make()
    write_file(made.source / "a", "content of a")
    monkeypatch.chdir(tmp_path)
    yield made
    made.keys.parent.chmod(0o700)
    made.keys.chmod(0o700)


def refuse(scene: Scene, command: str, *words: str) -> None:
    """Hold a command to what it says where the directory of keys cannot be used."""
    arguments = command.format(scene.repository, job=scene.job).split(" ")
    result = program(*arguments, prefix=without_override())
    check_refusal(result, 2, f"{scene.keys}: cannot be", "by user", "set HOME or S3BU_HOME", *words)
    assert "Errno" not in result.err
    assert "remove the file" not in result.err
    assert "the output" not in result.err
    assert result.errors[0].count(str(scene.keys)) == 1


@pytest.mark.parametrize("command", READING)
def test_keys_in_a_directory_that_may_not_be_entered(scene: Scene, command: str) -> None:
    scene.keys.chmod(0)
    refuse(scene, command, "permission denied")


def test_keys_in_the_home_of_another_user(scene: Scene) -> None:
    scene.keys.parent.chmod(0o600)
    result = program("snapshots", "./no-repository", prefix=without_override())
    check_refusal(result, 2, f"{scene.keys}: cannot be used by user", "permission denied", "set HOME or S3BU_HOME")


@pytest.mark.parametrize("command", WRITING)
def test_keys_in_a_directory_that_may_not_be_written(scene: Scene, command: str) -> None:
    for path in scene.keys.iterdir():
        if path.is_dir():
            for one in path.iterdir():
                one.unlink()
            path.rmdir()
    scene.keys.chmod(0o500)
    refuse(scene, command, "permission denied")


def test_a_home_that_nobody_may_make(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3BU_HOME", str(scene.keys / "absent"))
    scene.keys.chmod(0o500)
    result = program("init", scene.repository, prefix=without_override())
    check_refusal(result, 2, f"{scene.keys / 'absent'}: cannot be made by user", "permission denied")


def test_a_home_that_is_a_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3BU_HOME", str(scene.secrets))
    result = program("snapshots", scene.repository)
    check_refusal(result, 2, f"{scene.secrets}: cannot be used by user", "not a directory")


def test_what_needs_to_write_nothing_works_with_keys_that_cannot_be_written(scene: Scene) -> None:
    assert scene.backup().code == 0
    scene.keys.chmod(0o500)
    result = program("restore", scene.repository, "home/src", scene.target, prefix=without_override())
    assert (result.code, result.errors) == (0, [])
    assert (scene.target / "a").read_text() == "content of a"


def test_accepted_recipients_that_may_not_be_read_are_not_to_be_removed(scene: Scene) -> None:
    assert scene.backup().code == 0
    (path,) = (scene.keys / "repositories").iterdir()
    path.chmod(0)
    result = program("snapshots", scene.repository, prefix=without_override())
    check_refusal(result, 1, f"{path}: cannot be read (permission denied)")
    assert "remove" not in result.err
    assert "Errno" not in result.err


def test_a_path_that_is_not_the_output_is_not_called_so(scene: Scene) -> None:
    (scene.keys / "journals").mkdir(exist_ok=True)
    (scene.keys / "journals").rmdir()
    (scene.keys / "journals").write_text("no directory")
    result = program("watch", scene.repository, scene.job, "--once")
    assert "the output" not in result.err
    assert str(scene.keys / "journals") in result.err
