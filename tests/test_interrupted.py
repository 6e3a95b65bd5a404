"""Runs that are stopped or killed: nothing is lost, and the next run goes on from there."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.running import (
    Scene,
    await_that,
    backed_up,
    own_environment,
    run,
    started,
    succeed,
    tree,
    write_file,
    write_job,
)

MIB = 1024 * 1024
SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


# --- a backup is stopped


@pytest.fixture
def long_source(tmp_path: Path) -> Path:
    """A source that takes far longer to store than it takes to stop: small files, middling ones, and a huge one."""
    for number in range(300):
        write_file(tmp_path / "source" / f"small-{number}", f"content {number}")
    for name, nbytes in {"middling": 64 * MIB, "huge": 3072 * MIB}.items():
        with (tmp_path / "source" / name).open("wb") as file:
            file.truncate(nbytes)
    return tmp_path / "source"


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket, looked at from another side than the program's."""

    name: str
    client: Any

    def uploads(self) -> list[Any]:
        """Return the uploads that are neither complete nor aborted."""
        try:
            found: list[Any] = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        except self.client.exceptions.NoSuchUpload:  # how rclone says that there are none
            return []
        return found

    def manifests(self) -> list[str]:
        found = (one["Key"] for one in self.client.list_objects_v2(Bucket=self.name)["Contents"])
        return [key for key in found if key.endswith(".csv.gz")]


@pytest.fixture(params=["moto", "rclone"])
def bucket(
    request: pytest.FixtureRequest,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Bucket:
    url = request.getfixturevalue(f"{request.param}_url")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    name = make_bucket(url)
    succeed("init", name)
    return Bucket(name, make_client(url))


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_backup_that_is_stopped_publishes_nothing_and_leaves_no_upload_open(
    bucket: Bucket, number: signal.Signals, code: int, word: str, long_source: Path
) -> None:
    with started("backup", bucket.name, write_job(long_source.parent / "home.yml", {"src": long_source})) as program:
        await_that(bucket.uploads)
        program.send(number)
        result = program.end()
    assert (result.code, result.errors[:1]) == (code, [f"error: {word}"])
    assert bucket.uploads() == []
    assert bucket.manifests() == []


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_backup_into_a_directory_that_is_stopped_leaves_no_temporary_file(
    number: signal.Signals, code: int, word: str, long_source: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    succeed("init", repository)
    with started("backup", repository, write_job(tmp_path / "home.yml", {"src": long_source})) as program:
        await_that(lambda: list((repository / ".s3bu-tmp").glob("*")))
        program.send(number)
        result = program.end()
    assert (result.code, result.errors[:1]) == (code, [f"error: {word}"])
    assert list((repository / ".s3bu-tmp").iterdir()) == []
    assert list((repository / "manifests").rglob("*.csv.gz")) == []


def test_a_backup_that_was_killed_is_finished_by_the_next_one(tmp_path: Path, long_source: Path) -> None:
    repository, job = tmp_path / "repository", write_job(tmp_path / "home.yml", {"src": long_source})
    succeed("init", repository)
    with started("backup", repository, job) as program:
        await_that(lambda: list((repository / "data").glob("*/*")))
        program.send(signal.SIGKILL)
        program.end()
    stored = len(list((repository / "data").glob("*/*")))
    (long_source / "huge").unlink()
    succeed("backup", repository, job)
    succeed("restore", repository, "home/src", tmp_path / "target")
    assert 0 < stored < 302
    assert tree(tmp_path / "target") == tree(long_source)


# --- a restore is stopped


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A snapshot that takes a while to restore: one large file that comes first, and many small ones."""
    scene = Scene(tmp_path_factory.mktemp("large") / "scene")
    with own_environment(scene.keys):
        scene.make()
        for number in range(400):
            write_file(scene.source / "small" / str(number), f"content {number}")
        with (scene.source / "a-large-one").open("wb") as file:
            file.truncate(400 * MIB)
        succeed("backup", scene.repository, scene.job)
    return scene


@pytest.fixture
def machine(large: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return the large scene with a target of its own; its repository is shared, and only read."""
    large.enter(monkeypatch)
    shutil.rmtree(large.target, ignore_errors=True)
    return large


def restored(scene: Scene) -> list[str]:
    return [name for name in os.listdir(scene.target / "small") if not name.startswith(".s3bu-")]


@contextmanager
def restoring(scene: Scene, number: signal.Signals) -> Iterator[int]:
    """Stop a restore when it has written some files; yields its exit code."""
    with started("restore", scene.repository, "home/src", scene.target) as program:
        await_that(lambda: (scene.target / "small").exists() and len(restored(scene)) > 20)
        program.send(number)
        yield program.end().code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_restore_that_is_stopped_leaves_only_whole_files(machine: Scene, number: signal.Signals, code: int) -> None:
    with restoring(machine, number) as seen:
        assert seen == code
    after, before = tree(machine.target), tree(machine.source)
    assert not any(b".s3bu-" in path for path in after)
    assert 20 < len(after) < len(before)
    assert all(after[path].content == before[path].content for path in after)


def test_a_restore_that_was_killed_is_finished_with_what_is_missing_alone(
    machine: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with restoring(machine, signal.SIGKILL) as seen:
        assert seen == -signal.SIGKILL
    done = restored(machine)
    shutil.copytree(machine.repository, tmp_path / "repository")
    for name in done:
        # What is there already cannot be fetched again, so it must not be asked for.
        Scene(tmp_path).object_of(f"content {name}").unlink()
    result = run("restore", tmp_path / "repository", "home/src", machine.target, "-f")
    assert (result.code, result.errors) == (0, [])
    assert f"{len(done)} files were right already" in result.out
    assert tree(machine.target) == tree(machine.source)


def test_a_restore_that_was_killed_between_two_names_of_a_file_leaves_one(scene: Scene) -> None:
    succeed("restore", scene.repository, "home/src", scene.target)
    for name in ("a", "directory/c"):
        path = scene.target / name
        os.link(path, path.with_name(f".s3bu-{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part"))
    succeed("restore", scene.repository, "home/src", scene.target, "-f")
    assert tree(scene.target) == tree(scene.source)
