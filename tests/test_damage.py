"""Repositories that were damaged, or written by someone who means harm: nothing false comes back, and it is said."""

import base64
import gzip
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.crypto.identities import new_identity
from tests.running import Result, Scene, backed_up, run, succeed, tree, write_file, write_job

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


def failed(result: Result) -> set[str]:
    return set(failures(result))


def failures(result: Result) -> dict[str, str]:
    """Return what a run says of each path that failed."""
    lines = (line.removeprefix("error: ") for line in result.errors if line.startswith("error: "))
    return dict(line.split(": ", 1) for line in lines)


# --- manifests


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
    assert (result.code, failed(result)) == (3, {"a"})
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
    assert (result.code, failed(result)) == (3, {"big"})
    assert tree(scene.target).keys() == tree(scene.source).keys() - {b"big"}


def test_contents_of_another_recipient_are_named_where_others_open(scene: Scene) -> None:
    ours = (scene.repository / "repo" / "recipients.txt").read_text()
    (scene.repository / "repo" / "recipients.txt").write_text(new_identity()[1])
    scene.put_content(CONTENT.encode())
    (scene.repository / "repo" / "recipients.txt").write_text(ours)
    (scene.source / "a").rename(scene.source / "z")
    succeed("backup", scene.repository, scene.job)
    result = scene.restore()
    assert failed(result) == {"z"}
    assert "no identity at hand opens it" in failures(result)["z"]
    assert result.code == 3


def test_a_check_names_missing_and_cut_contents_by_a_listing(scene: Scene) -> None:
    scene.object_of(CONTENT).unlink()
    scene.object_of("content of b").write_bytes(b"")
    result = scene.restore("-c")
    assert result.code == 3
    assert failures(result)["a"] == "its content is not in the repository"
    assert not scene.target.exists()


def test_a_cut_content_is_put_again_by_the_next_backup(scene: Scene) -> None:
    scene.object_of(CONTENT).write_bytes(b"")
    write_file(scene.source / "new", "new")
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


# --- hostile manifests


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """An empty repository whose keys are known to whoever plants manifests, and one content in it."""
    scene = Scene(tmp_path / "deep" / "scene")
    scene.enter(monkeypatch)
    scene.make()
    scene.put_content(b"harm")
    return scene


HARM = hashlib.sha256(b"harm").hexdigest()


def row(path: str, size: str = "4", mtime: str = "1600000000", mode: str = "0644", content: str = HARM) -> str:
    return f"{size},{mtime},{mode},{content},{path}\n"


def plant(scene: Scene, *rows: str) -> Result:
    """Restore a manifest of these rows and of one that does no harm."""
    scene.put_manifest("".join([*rows, row("zz-good")]).encode())
    return scene.restore("-o")


@pytest.mark.parametrize(
    "path",
    [
        "..%2Fout",
        "..",
        "%2Ftmp%2Fs3bu-out",
        "a%2F..%2F..%2Fout",
        "a%2F..%2Fb",
        "a%2F%2Fb",
        "a%2F.%2Fb",
        ".",
        "a%2F",
        "%2F",
        "nul%00byte",
        "../raw",
        "/tmp/s3bu-raw",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(hostile: Scene, path: str) -> None:
    before = tree(hostile.root.parent).keys()
    result = plant(hostile, row(path))
    assert result.code == 3
    assert len(failures(result)) == 1
    assert "refused" in result.errors[0]
    assert {name for name in tree(hostile.root.parent) if b"/target/" in name} == {b"scene/target/zz-good"}
    added = tree(hostile.root.parent).keys() - before
    assert all(name.startswith((b"scene/target", b"scene/repository")) for name in added)
    assert not Path("/tmp/s3bu-out").exists()
    assert not Path("/tmp/s3bu-raw").exists()


@pytest.mark.parametrize("option", ["-f", "-o"])
def test_a_link_planted_in_the_target_leads_nowhere(hostile: Scene, option: str) -> None:
    outside = hostile.root / "outside"
    outside.mkdir()
    hostile.target.mkdir()
    (hostile.target / "a").symlink_to(outside)
    (hostile.target / "file").symlink_to(outside / "file")
    hostile.put_manifest((row("a%2Fb") + row("file") + row("zz-good")).encode())
    result = hostile.restore(option)
    assert result.code == 3
    assert "a/b" in failures(result)
    assert list(outside.iterdir()) == []
    assert (hostile.target / "zz-good").read_bytes() == b"harm"
    assert (hostile.target / "file").is_symlink() == (option == "-f")


def test_a_link_of_the_snapshot_leads_no_file_outside(hostile: Scene) -> None:
    outside = hostile.root / "outside"
    outside.mkdir()
    target = str(outside).replace("/", "%2F")
    result = plant(hostile, f"@symlink path=a target={target} mtime=0.000000000\n", row("a%2Fb"))
    assert (result.code, failed(result)) == (3, {"a"})
    assert list(outside.iterdir()) == []
    assert (hostile.target / "a" / "b").read_bytes() == b"harm"


def test_a_directory_entry_does_not_change_what_a_planted_link_points_to(hostile: Scene) -> None:
    outside = hostile.root / "outside"
    outside.mkdir(mode=0o700)
    hostile.target.mkdir()
    (hostile.target / "a").symlink_to(outside)
    result = plant(hostile, "@dir path=a mtime=0.000000000 mode=0777\n")
    assert (result.code, failed(result)) == (3, {"a"})
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_setuid_modes_are_masked(hostile: Scene) -> None:
    assert plant(hostile, row("suid", mode="06777")).code == 0
    assert stat.S_IMODE((hostile.target / "suid").stat().st_mode) == 0o777


@pytest.mark.parametrize("mtime", ["9223372036854775807", "-9223372036854775807", "9999999999999"])
def test_a_time_beyond_all_bounds_fails_its_file_alone(hostile: Scene, mtime: str) -> None:
    result = plant(hostile, row("late", mtime=mtime))
    assert result.code in (0, 3)  # some of these fit some file systems
    assert failed(result) <= {"late"}
    assert not any(name.endswith(b".part") for name in tree(hostile.target))
    assert (hostile.target / "zz-good").exists()


@pytest.mark.parametrize("size", ["5", "0", "8388609", "4611686018427387904"])
def test_a_size_that_lies_fails_its_file_alone(hostile: Scene, size: str) -> None:
    # Another path has the same content, and its true size: what one says is not held against the other.
    result = plant(hostile, row("liar", size=size))
    assert (result.code, failed(result)) == (3, {"liar"})
    assert tree(hostile.target).keys() == {b"zz-good"}


@pytest.mark.parametrize("path", ["a%2Fb%2Fc", "a"])
def test_a_path_that_is_both_file_and_directory_fails_one_of_them(hostile: Scene, path: str) -> None:
    result = plant(hostile, row("a"), row("a%2Fb"), row(path))
    assert result.code == 3
    assert (hostile.target / "zz-good").exists()


def test_of_two_rows_of_a_path_the_last_one_counts(hostile: Scene) -> None:
    other = hostile.put_content(b"last")
    assert plant(hostile, row("twice"), row("twice", content=other)).code == 0
    assert (hostile.target / "twice").read_bytes() == b"last"


@pytest.mark.parametrize(
    "line",
    [
        row("x", content=HARM.upper()),
        row("x", content=HARM[:-1]),
        row("x", content="../../../../etc/passwd"),
        row("x", size="-1"),
        row("x", size="1e3"),
        row("x", size="99999999999999999999"),
        row("x", mode="9"),
        "4,1,0644\n",
        "\0" * 100 + "\n",
        "@dir path=x\n",
        "@symlink path=x target=y mtime=never\n",
        "@dir path= mtime=0.000000000 mode=0755\n",
        "#s3bu 2\n",
    ],
)
def test_a_line_that_no_program_writes_is_refused_with_its_number(hostile: Scene, line: str) -> None:
    hostile.put_manifest((row("aa-first") + line + row("zz-good")).encode())
    result = hostile.restore()
    assert result.code == 1
    assert "broken manifest: " in result.errors[0]
    assert "line 2" in result.errors[0]
    assert not hostile.target.exists()


def test_a_line_that_is_too_long_is_refused(hostile: Scene) -> None:
    hostile.put_manifest((row("x" * 70_000) * 100).encode())
    result = hostile.restore()
    assert result.code == 1
    assert "broken manifest: a line is longer than 64 KiB" in result.errors[0]


def test_names_of_a_hostile_manifest_do_not_steer_the_terminal(hostile: Scene) -> None:
    hostile.put_manifest(row("..%2F%1B[2J%0Afake line%E2%80%AE").encode())
    for result in (hostile.restore(), run("ls", hostile.repository, "home/src")):
        said = result.out + result.err
        assert "..%2F" not in said
        assert "../\\x1b[2J\\x0afake line\\xe2\\x80\\xae" in said
        assert "\x1b" not in said


def test_a_hostile_job_is_refused_before_it_takes_long(scene: Scene) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    scene.job.write_text(bomb + "sources: *a29\n")
    result = scene.backup()
    assert result.code == 2
    assert len(scene.manifests()) == 1


def test_a_job_of_another_machine_cannot_name_a_relative_source(scene: Scene) -> None:
    job = write_job(scene.root / "other.yml", {"src": "source"})
    result = run("job", "upload", scene.repository, "other", job)
    assert result.code == 2
    assert "is relative, write the whole path" in "\n".join(result.errors)
