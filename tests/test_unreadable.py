"""Sources that may not be read, or change while they are read: named, carried forward, and never taken for removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.cli.opening import NOTHING_COMMON, load_job, open_local_index, open_repository
from s3bu.progress import Silent
from tests.running import Scene, backed_up, program, succeed, tree, without_override, write_file


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def backup_without_rights(scene: Scene, *options: str) -> tuple[int, list[str], str]:
    result = program("backup", scene.repository, scene.job, *options, prefix=without_override())
    return result.code, result.errors, result.out


@pytest.mark.parametrize(("closed", "kept"), [("a", b"a"), ("directory", b"directory/c")])
def test_what_cannot_be_read_is_named_and_its_last_state_is_kept(scene: Scene, closed: str, kept: bytes) -> None:
    before = tree(scene.source)
    (scene.source / closed).chmod(0)
    write_file(scene.source / "new", "new")
    os.utime(scene.source / closed, (1_650_000_000, 1_650_000_000))
    code, errors, out = backup_without_rights(scene)
    assert (code, errors) == (3, [f"error: {closed}: permission denied"])
    assert "carried forward" in out
    result = scene.restore()
    assert result.code == 3
    assert f"error: {closed}: an older state, since it failed to be backed up: permission denied" in result.errors
    assert tree(scene.target)[kept].content == before[kept].content
    assert (scene.target / "new").read_text() == "new"


@pytest.mark.parametrize("closed", ["a", "directory"])
def test_what_can_be_read_again_is_backed_up_again(scene: Scene, closed: str) -> None:
    mode = (scene.source / closed).stat().st_mode
    os.utime(scene.source / closed, (1_650_000_000, 1_650_000_000))
    (scene.source / closed).chmod(0)
    assert backup_without_rights(scene)[0] == 3
    (scene.source / closed).chmod(mode)
    assert backup_without_rights(scene)[:2] == (0, [])
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_what_could_never_be_read_is_named_and_is_no_entry(scene: Scene) -> None:
    write_file(scene.source / "closed", "closed", mode=0)
    assert backup_without_rights(scene)[:2] == (3, ["error: closed: permission denied"])
    result = scene.restore()
    assert (result.code, result.errors) == (
        3,
        ["error: closed: not in the snapshot, since it failed to be backed up: permission denied"],
    )
    assert tree(scene.target).keys() == tree(scene.source).keys() - {b"closed"}


def test_the_same_failure_again_is_said_again_but_makes_no_snapshot(scene: Scene) -> None:
    write_file(scene.source / "closed", "closed", mode=0)
    backup_without_rights(scene)
    manifests = scene.manifests()
    code, errors, out = backup_without_rights(scene)
    assert (code, errors) == (3, ["error: closed: permission denied"])
    assert "no change" in out
    assert scene.manifests() == manifests


def test_a_source_that_cannot_be_listed_is_not_taken_for_empty(scene: Scene) -> None:
    scene.source.chmod(0)
    code, errors, _ = backup_without_rights(scene, "--accept-deletions")
    scene.source.chmod(0o755)
    assert code == 3
    assert errors[0] == f"error: {scene.source}: the source cannot be opened (permission denied)"
    assert errors[1] == "hint: run as a user who may read it"
    assert len(scene.manifests()) == 1


def test_a_closed_directory_in_the_target_is_opened_where_its_owner_restores(scene: Scene) -> None:
    write_file(scene.target / "directory" / "c", "mine")
    (scene.target / "directory").chmod(0o555)
    options = ("restore", scene.repository, "home/src", scene.target, "-o")
    assert program(*options, prefix=without_override()).code == 0
    assert tree(scene.target) == tree(scene.source)


# --- a source in motion


class Meddling(Silent):
    """A `Progress` that changes the source between the scan and the reading."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        if name == "storing":
            self._meddle()


def back_up_while(scene: Scene, meddle: Callable[[Path], object]) -> Outcome:
    """Back up a source to which something happens right after it was scanned."""
    for name in ("m-new", "z-stays"):
        write_file(scene.source / name, f"content of {name}")
    write_file(scene.source / "a", "new content of a")
    progress = Meddling(lambda: meddle(scene.source))
    with (
        open_repository(str(scene.repository), NOTHING_COMMON) as repository,
        open_local_index(repository, progress) as index,
    ):
        job, _ = load_job(repository, str(scene.job))
        (outcome,) = run_backup(repository, index, job, job.sources, Options(host="here"), progress)
    return outcome


def make_fifo(source: Path) -> None:
    (source / "m-new").unlink()
    os.mkfifo(source / "m-new")


def make_link(source: Path) -> None:
    (source / "m-new").unlink()
    (source / "m-new").symlink_to("/etc/passwd")


def make_directory(source: Path) -> None:
    (source / "m-new").unlink()
    write_file(source / "m-new" / "inside", "inside")


def test_a_file_that_was_removed_since_it_was_seen_is_gone(scene: Scene) -> None:
    def meddle(source: Path) -> None:
        (source / "m-new").unlink()
        (source / "a").unlink()

    outcome = back_up_while(scene, meddle)
    assert outcome.failures == []
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


@pytest.mark.parametrize("meddle", [make_fifo, make_link, make_directory])
def test_a_file_that_became_something_else_is_a_failure(scene: Scene, meddle: Callable[[Path], object]) -> None:
    outcome = back_up_while(scene, meddle)
    assert [failure.path for failure in outcome.failures] == [b"m-new"]
    scene.restore()
    assert b"m-new" not in tree(scene.target)
    assert (scene.target / "z-stays").exists()


def test_a_file_that_became_another_is_backed_up_as_it_is_then(scene: Scene) -> None:
    outcome = back_up_while(scene, lambda source: write_file(source / "m-new", "longer, and of another time", mtime=7))
    assert outcome.failures == []
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_a_directory_that_became_a_link_leads_nowhere(scene: Scene) -> None:
    def meddle(source: Path) -> None:
        (source / "n").rename(source.parent / "outside")
        (source / "n").symlink_to(source.parent / "outside")

    write_file(scene.source / "n" / "secret", "what lies outside")
    outcome = back_up_while(scene, meddle)
    assert [failure.path for failure in outcome.failures] == [b"n/secret"]
    assert not scene.object_of("what lies outside").exists()
