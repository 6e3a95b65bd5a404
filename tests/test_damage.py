"""Repositories that were damaged: nothing false comes back, all else does, and it is said."""

import base64
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.crypto.identities import new_identity
from tests.running import Scene, backed_up, run, succeed, tree, write_file

MIB = 1024 * 1024
BIG = 9 * MIB
PLAIN = b"1,1600000000,0644,%s,planted\n"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene", big=BIG)


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def manifest_of(scene: Scene) -> Path:
    return scene.repository / scene.manifests()[-1]


# --- manifests


def test_a_broken_manifest_is_followed_by_a_sound_one_although_nothing_changed(scene: Scene) -> None:
    write_file(scene.source / "new", "new")
    assert scene.backup().code == 0
    newest = manifest_of(scene)
    cut(newest)
    assert scene.backup().code == 0
    assert manifest_of(scene) != newest
    succeed("restore", scene.repository, "home/src", scene.target)
    assert (scene.target / "new").read_text() == "new"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def flip(path: Path, position: int = -1) -> None:
    body = bytearray(path.read_bytes())
    body[position] ^= 1
    path.write_bytes(body)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "cut in its header": cut_header,
    "altered at its end": flip,
    "altered in its header": lambda path: flip(path, 150),
    "empty": lambda path: path.write_bytes(b""),
    "random": lambda path: path.write_bytes(b"\x00\xff\n" * 10_000),
    "plain": lambda path: path.write_bytes(PLAIN % (b"0" * 64)),
    "plain and packed": lambda path: path.write_bytes(gzip.compress(PLAIN % (b"0" * 64))),
    "a packed bomb": lambda path: path.write_bytes(gzip.compress(b"\n" * 64 * MIB)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused(scene: Scene, damage: str) -> None:
    DAMAGES[damage](manifest_of(scene))
    result = scene.restore()
    assert result.code == 1
    assert result.errors[0].startswith(f"error: {scene.manifests()[0]}: "), result.errors
    assert not scene.target.exists()


@pytest.mark.parametrize("damage", ["cut", "altered in its header", "plain"])
def test_a_damaged_manifest_does_not_stop_a_backup(scene: Scene, damage: str) -> None:
    DAMAGES[damage](manifest_of(scene))
    result = scene.backup()
    assert result.code == 0
    assert f"s3bu: warning: {scene.manifests()[0]}: " in result.err
    assert "comparing with an older snapshot instead" in result.err
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_a_damaged_manifest_is_listed_as_such(scene: Scene) -> None:
    cut(manifest_of(scene))
    result = run("snapshots", scene.repository)
    assert result.code == 3
    assert scene.manifests()[0] in result.out
    assert f"s3bu: warning: {scene.manifests()[0]}: " in result.err


def test_a_manifest_moved_to_another_label_is_refused(scene: Scene) -> None:
    other = scene.repository / "manifests/home/other/home-other-2030-01-01-00000.csv.gz"
    other.parent.mkdir()
    shutil.copy(manifest_of(scene), other)
    result = scene.restore(what="home/other")
    assert result.code == 1
    assert "home-other-2030-01-01-00000.csv.gz: an older or moved manifest" in result.errors[0]
    assert f"it lies under '{scene.manifests()[0]}'" in result.errors[0]


def test_a_manifest_copied_over_a_newer_one_is_refused(scene: Scene) -> None:
    write_file(scene.source / "a", "newer content of a")
    succeed("backup", scene.repository, scene.job)
    (older, newer) = scene.manifests()
    shutil.copy(scene.repository / older, scene.repository / newer)
    result = scene.restore()
    assert result.code == 1
    assert f"{newer}: an older or moved manifest" in result.errors[0]


def test_a_plain_manifest_is_taken_when_that_is_allowed(scene: Scene) -> None:
    content = scene.put_content(b"planted")
    manifest_of(scene).write_bytes(PLAIN.replace(b"1,", b"7,", 1) % content.encode())
    refused = scene.restore()
    assert refused.code == 1
    assert "the manifest is not encrypted" in refused.errors[0]
    assert "--allow-plain" in refused.errors[1]
    assert scene.restore("--allow-plain").code == 0
    assert tree(scene.target).keys() == {b"planted"}


def test_a_work_factor_that_would_take_hours_is_refused(scene: Scene) -> None:
    salt, body, mac = (base64.b64encode(bytes(length)).decode().rstrip("=") for length in (16, 32, 32))
    header = f"age-encryption.org/v1\n-> scrypt {salt} 30\n{body}\n--- {mac}\n"
    manifest_of(scene).write_bytes(header.encode() + bytes(64))
    result = scene.restore()
    assert result.code == 1
    assert "refuses work factor 30, the highest allowed is 20" in result.errors[0]


# --- contents


CONTENT = "content of a"
CONTENT_DAMAGES: dict[str, Callable[[Scene, Path], object]] = {
    "missing": lambda _, path: path.unlink(),
    "empty": lambda _, path: path.write_bytes(b""),
    "cut": lambda _, path: cut(path),
    "altered": lambda _, path: flip(path),
    "altered in its header": lambda _, path: flip(path, 100),
    "random": lambda _, path: path.write_bytes(os.urandom(500)),
    "not encrypted": lambda _, path: path.write_bytes(CONTENT.encode()),
    "another content": lambda scene, _: scene.put_content(b"CONTENT OF A", at=CONTENT.encode()),
    "a longer content": lambda scene, _: scene.put_content(CONTENT.encode() + b"!", at=CONTENT.encode()),
    "a packed bomb": lambda scene, _: scene.put_content(gzip.compress(bytes(64 * MIB)), at=CONTENT.encode()),
    "another content, packed": lambda scene, _: scene.put_content(gzip.compress(b"x"), at=CONTENT.encode()),
}


@pytest.mark.parametrize("damage", CONTENT_DAMAGES)
def test_a_damaged_content_does_not_come_back_and_all_else_does(scene: Scene, damage: str) -> None:
    CONTENT_DAMAGES[damage](scene, scene.object_of(CONTENT))
    result = scene.restore()
    assert (result.code, result.failed) == (3, {"a"})
    expected = {path: node for path, node in tree(scene.source).items() if path != b"a"}
    assert tree(scene.target) == expected


@pytest.mark.parametrize("damage", ["missing", "cut", "another content"])
def test_a_good_file_is_not_replaced_by_a_damaged_content(scene: Scene, damage: str) -> None:
    CONTENT_DAMAGES[damage](scene, scene.object_of(CONTENT))
    write_file(scene.target / "a", "an older state of a")
    assert scene.restore("-o").code == 3
    assert (scene.target / "a").read_text() == "an older state of a"


def flip_late(path: Path) -> None:
    flip(path, BIG - 1000)


@pytest.mark.parametrize("damage", [cut, flip_late, Path.unlink])
def test_a_large_content_that_is_damaged_late_leaves_nothing(scene: Scene, damage: Callable[[Path], object]) -> None:
    damage(scene.object_of((scene.source / "big").read_bytes()))
    result = scene.restore()
    assert (result.code, result.failed) == (3, {"big"})
    assert tree(scene.target).keys() == tree(scene.source).keys() - {b"big"}


def test_contents_of_another_recipient_are_named_where_others_open(scene: Scene) -> None:
    ours = (scene.repository / "repo" / "recipients.txt").read_text()
    (scene.repository / "repo" / "recipients.txt").write_text(new_identity()[1])
    scene.put_content(CONTENT.encode())
    (scene.repository / "repo" / "recipients.txt").write_text(ours)
    (scene.source / "a").rename(scene.source / "z")
    succeed("backup", scene.repository, scene.job)
    result = scene.restore()
    assert result.failed == {"z"}
    assert "no identity at hand opens it" in result.failures["z"]
    assert result.code == 3


def test_a_check_names_missing_and_cut_contents_by_a_listing(scene: Scene) -> None:
    scene.object_of(CONTENT).unlink()
    scene.object_of("content of b").write_bytes(b"")
    result = scene.restore("-c")
    assert result.code == 3
    assert result.failures["a"] == "its content is not in the repository"
    assert not scene.target.exists()


def test_a_cut_content_is_put_again_by_the_next_backup(scene: Scene) -> None:
    scene.object_of(CONTENT).write_bytes(b"")
    write_file(scene.source / "new", "new")
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)
