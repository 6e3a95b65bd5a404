"""What is run while something fails, on what, and what may be true afterwards."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3bu import parallel, restore, store
from s3bu.cli.opening import NOTHING_COMMON, open_repository
from s3bu.index import open_index
from s3bu.progress import Silent
from s3bu.verify import reading
from tests.fakes import IN_MEMORY, check_content
from tests.running import Result, Scene, own_environment, run, succeed, tree, write_file
from tests.test_machine.expected import Said, Told, has_failed, said_of_all, said_of_tree, told_of

KIB = 1024
LARGE = 200 * KIB
"""More than one put takes in these tests."""


ALL_THERE = "all there, none too short"
"""What verify says of contents with which nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A scene in the state from which each run starts, kept aside so that it can be put back."""

    scene: Scene

    @property
    def _aside(self) -> Path:
        return self.scene.root / "aside"

    @classmethod
    def set(cls, scene: Scene, set_up: Callable[[Scene], None]) -> "Stage":
        """Set the stage, and keep what a run may change; the source stays where it is, and so its inodes."""
        set_up(scene)
        stage = cls(scene)
        stage._keep()
        return stage

    def _keep(self) -> None:
        for name in ("repository", "keys", "target"):
            if (self.scene.root / name).exists():
                shutil.copytree(self.scene.root / name, self._aside / name, symlinks=True)

    def put_back(self) -> None:
        for name in ("repository", "keys", "target"):
            shutil.rmtree(self.scene.root / name, ignore_errors=True)
            if (self._aside / name).exists():
                shutil.copytree(self._aside / name, self.scene.root / name, symlinks=True)


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a put take no more than 64 KiB, so that a large file need not be long."""
    for module in (store, restore, reading):
        monkeypatch.setattr(module, "PART_BOUND", 64 * KIB)
    monkeypatch.setattr(parallel, "_BATCH_NBYTES", 16 * KIB)


@contextmanager
def quick_scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Hold a scene for quick runs, in memory where there is a disk of it."""
    quicken(monkeypatch)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        scene = Scene(Path(directory).resolve())
        with own_environment(scene.keys):
            yield scene


@dataclass(frozen=True, slots=True)
class Scenario:
    """One command: how its stage is set, how it is run, what holds after a run that met a failure, and after the next.

    `again` is the clean run; `code` is how a run ends that meets no failure.
    """

    set_up: Callable[[Scene], None]
    run: Callable[[Scene], Result]
    check: Callable[[Scene, Result], None]
    again: Callable[[Scene], None]
    code: int = 0


def fill(scene: Scene) -> None:
    scene.make()
    for name in ("a", "b", "directory/c"):
        write_file(scene.source / name, f"content of {name}")
    write_file(scene.source / "large", os.urandom(LARGE))
    (scene.source / "empty").mkdir()
    (scene.source / "link").symlink_to("a")


def change(scene: Scene) -> None:
    """Back up, and change something of every kind."""
    fill(scene)
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "a", "new content of a")
    (scene.source / "b").unlink()
    write_file(scene.source / "directory" / "d", "content of d")
    write_file(scene.source / "directory" / "deeper" / "e", "content of e")
    write_file(scene.source / "another large", os.urandom(LARGE))
    (scene.source / "directory").chmod(0o700)


def back_up_both(scene: Scene) -> None:
    change(scene)
    succeed("backup", scene.repository, scene.job)


def fill_target(scene: Scene) -> None:
    back_up_both(scene)
    write_file(scene.target / "a", "mine")
    write_file(scene.target / "directory" / "d", "content of d", mode=0o600)
    write_file(scene.target / "mine", "mine")
    (scene.target / "link").symlink_to("elsewhere")


def lose_index(scene: Scene) -> None:
    back_up_both(scene)
    shutil.rmtree(scene.keys / "index")


# --- what holds


def snapshots(scene: Scene) -> dict[str, Told]:
    """Return what each snapshot says, oldest first, and hold every content to its name."""
    with open_repository(str(scene.repository), NOTHING_COMMON) as repository:
        for found, _ in repository.objects():
            check_content(repository, found)
        stored = {found for found, _ in repository.objects()}
        told = {str(one.key): told_of(repository.read_snapshot(one.key)) for one in repository.manifests()}
    named = {said.what for one in told.values() for said in one.said.values() if said.kind == "file"}
    assert named <= stored
    return told


def check_backup(scene: Scene, result: Result) -> None:
    """Hold the newest snapshot to the source, as far as the run did not say that something failed."""
    new = check_new_snapshots(scene)
    if result.code == 0:
        assert result.errors == []
        assert new == [Told(said_of_tree(scene.source))]
        return
    assert result.errors, result
    assert result.code != 3 or all(one.failed == {os.fsencode(path) for path in result.failed} for one in new)


def check_new_snapshots(scene: Scene) -> list[Told]:
    """Return what was published since the stage was set, if anything, and hold it to the source."""
    base = scene.root / "aside" / "repository"
    before = {str(path.relative_to(base)) for path in base.rglob("*.csv.gz")}
    told = snapshots(scene)
    assert before <= told.keys()
    new = [told[key] for key in told if key not in before]
    assert len(new) <= 1
    for one in new:
        check_truth(one, said_of_tree(scene.source))
    return new


def check_truth(told: Told, truth: dict[bytes, Said]) -> None:
    """Hold a snapshot to what is there: all is said that did not fail, and nothing else but earlier states."""
    for path in told.said.keys() | truth.keys():
        if not has_failed(path, told.failed):
            assert told.said.get(path) == truth.get(path), path


def check_backup_again(scene: Scene) -> None:
    succeed("backup", scene.repository, scene.job)
    told = snapshots(scene)
    assert told[max(told)] == Told(said_of_tree(scene.source))
    assert not list((scene.repository / "data").rglob(".s3bu*"))


def check_restore(scene: Scene, result: Result) -> None:
    """Hold each name in the target to what it should be or was; only what the run said failed may be otherwise."""
    wrong = check_target(scene)
    if result.code == 0:
        assert (wrong, result.errors) == (set(), [])
        return
    assert result.errors, result
    if result.code == 3:
        failed = {os.fsencode(path) for path in result.failed}
        assert {path for path in wrong if not has_failed(path, failed)} == set()


def check_target(scene: Scene) -> set[bytes]:
    """Hold each name in the target to verified content, or to what was there; return the paths that differ."""
    truth, found = tree(scene.source), tree(scene.target) if scene.target.exists() else {}
    aside = scene.root / "aside" / "target"
    earlier = tree(aside) if aside.exists() else {}
    for path, node in found.items():
        if b".s3bu-" not in path and path in truth and node.content != truth[path].content:
            assert node == earlier[path], path
    assert earlier.keys() <= found.keys()
    return {path for path in truth if found.get(path) != truth[path]}


def check_restore_again(*options: str) -> Callable[[Scene], None]:
    def check(scene: Scene) -> None:
        succeed("restore", scene.repository, "home/src", scene.target, *options)
        aside = scene.root / "aside" / "target"
        own = tree(aside).keys() - tree(scene.source).keys() if aside.exists() else set()
        found, truth = tree(scene.target), tree(scene.source)
        assert found.keys() == own | truth.keys(), found.keys() ^ (own | truth.keys())
        wrong = {path: (found[path], truth[path]) for path in truth if found[path] != truth[path]}
        assert not wrong, wrong

    return check


def check_sync(scene: Scene, result: Result) -> None:
    """Hold the index to the manifests: each snapshot that it has it has whole."""
    is_whole = check_indexed(scene)
    if result.code == 0:
        assert is_whole
        assert result.errors == []
    else:
        assert result.errors or "could not be opened" in result.out, result


def check_indexed(scene: Scene) -> bool:
    """Hold the snapshots that the index has to their manifests, and say whether it has all."""
    told, found = snapshots(scene), _indexed(scene)
    assert found == {key: told[key].said for key in found}
    return found.keys() == told.keys()


def check_sync_again(scene: Scene) -> None:
    succeed("index", "sync", scene.repository)
    assert check_indexed(scene)


def _indexed(scene: Scene) -> dict[str, dict[bytes, Said]]:
    with closing(open_index(scene.keys, str(scene.repository.resolve()), Silent())) as index:
        taken = [one for one in index.snapshots() if one.error is None]
        return {one.key: said_of_all(index.entries(one.source, one.number)) for one in taken}


def damage(scene: Scene) -> None:
    """Back up twice, lose one content of the newest snapshot, and swap another."""
    back_up_both(scene)
    scene.object_of("content of d").unlink()
    scene.put_content(b"another", at=b"new content of a")


def check_verify(scene: Scene, result: Result) -> None:
    """Hold a run to what it says: it never calls damage sound, nor a failure damage, and what it calls repaired is.

    Any code but 0 may be right: it is that of the error, such as 2 when `secrets.yml` cannot be read.
    """
    assert result.code != 0, result
    assert not (ALL_THERE in result.out and "damaged;" in result.err), result
    if result.code == 3 and ALL_THERE in result.out and not result.errors:
        snapshots(scene)
    else:
        assert result.errors or result.code == 3, result


def verify(scene: Scene) -> Result:
    return run("verify", scene.repository, scene.job, "--read-data", "all", "--repair")


def check_verify_again(scene: Scene) -> None:
    result = verify(scene)
    assert result.code in (0, 3), result
    assert ALL_THERE in result.out
    succeed("verify", scene.repository, "--read-data", "all")
    snapshots(scene)


SCENARIOS = {
    "first backup": Scenario(fill, lambda scene: scene.backup(), check_backup, check_backup_again),
    "backup of changes": Scenario(change, lambda scene: scene.backup(), check_backup, check_backup_again),
    "restore": Scenario(back_up_both, lambda scene: scene.restore(), check_restore, check_restore_again("-f")),
    "restore over a tree": Scenario(
        fill_target, lambda scene: scene.restore("-o"), check_restore, check_restore_again("-o")
    ),
    "verify": Scenario(damage, verify, check_verify, check_verify_again, code=3),
    "sync": Scenario(lose_index, lambda scene: run("index", "sync", scene.repository), check_sync, check_sync_again),
}
