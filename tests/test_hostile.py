"""Manifests and jobs by someone who has the keys and means harm: no way out of the target, no crash, no false file."""

import hashlib
import stat
from pathlib import Path

import pytest

from tests.running import Result, Scene, run, tree, write_job


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
    assert len(result.failures) == 1
    assert "refused" in result.errors[0]
    assert {name for name in tree(hostile.root.parent) if b"/target/" in name} == {b"scene/target/zz-good"}
    added = tree(hostile.root.parent).keys() - before
    assert all(name.startswith((b"scene/target", b"scene/repository")) for name in added)
    assert not Path("/tmp/s3bu-out").exists()
    assert not Path("/tmp/s3bu-raw").exists()


def test_a_file_with_the_name_of_a_temporary_one_takes_no_other_files_place(hostile: Scene) -> None:
    name = f".s3bu-{hashlib.sha256(b'x').hexdigest()[:16]}.part"
    result = plant(hostile, row(name), row("x"))
    assert (result.code, set(result.failures)) == (3, {name})
    assert (hostile.target / "x").read_bytes() == b"harm"


def test_a_link_to_no_path_is_refused_and_the_rest_comes_back(hostile: Scene) -> None:
    links = ["@symlink path=a target=b%00c mtime=1.000000000\n", "@symlink path=z target=b mtime=1.000000000\n"]
    result = plant(hostile, *links)
    assert (result.code, set(result.failures)) == (3, {"a"})
    assert (hostile.target / "z").readlink() == Path("b")


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
    assert "a/b" in result.failures
    assert list(outside.iterdir()) == []
    assert (hostile.target / "zz-good").read_bytes() == b"harm"
    assert (hostile.target / "file").is_symlink() == (option == "-f")


def test_a_link_of_the_snapshot_leads_no_file_outside(hostile: Scene) -> None:
    outside = hostile.root / "outside"
    outside.mkdir()
    target = str(outside).replace("/", "%2F")
    result = plant(hostile, f"@symlink path=a target={target} mtime=0.000000000\n", row("a%2Fb"))
    assert (result.code, result.failed) == (3, {"a"})
    assert list(outside.iterdir()) == []
    assert (hostile.target / "a" / "b").read_bytes() == b"harm"


def test_a_directory_entry_does_not_change_what_a_planted_link_points_to(hostile: Scene) -> None:
    outside = hostile.root / "outside"
    outside.mkdir(mode=0o700)
    hostile.target.mkdir()
    (hostile.target / "a").symlink_to(outside)
    result = plant(hostile, "@dir path=a mtime=0.000000000 mode=0777\n")
    assert (result.code, result.failed) == (3, {"a"})
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_a_file_that_has_a_second_name_outside_is_replaced_and_not_written_through(hostile: Scene) -> None:
    outside = hostile.root / "outside"
    outside.write_bytes(b"mine")
    outside.chmod(0o600)
    hostile.target.mkdir()
    (hostile.target / "a").hardlink_to(outside)
    assert plant(hostile, row("a", mode="0777")).code == 0
    assert (hostile.target / "a").read_bytes() == b"harm"
    assert (outside.read_bytes(), stat.S_IMODE(outside.stat().st_mode)) == (b"mine", 0o600)


def test_a_target_that_is_a_link_is_where_it_leads_and_no_link_below_it_is(hostile: Scene) -> None:
    real, outside = hostile.root / "real", hostile.root / "outside"
    real.mkdir()
    outside.mkdir()
    hostile.target.symlink_to(real)
    (real / "a").symlink_to(outside)
    assert plant(hostile, row("a%2Fb")).code == 3
    assert hostile.target.is_symlink()
    assert (real / "zz-good").read_bytes() == b"harm"
    assert list(outside.iterdir()) == []


def test_setuid_modes_are_masked(hostile: Scene) -> None:
    assert plant(hostile, row("suid", mode="06777")).code == 0
    assert stat.S_IMODE((hostile.target / "suid").stat().st_mode) == 0o777


@pytest.mark.parametrize("mtime", ["9223372036854775807", "-9223372036854775807", "9999999999999"])
def test_a_time_beyond_all_bounds_fails_its_file_alone(hostile: Scene, mtime: str) -> None:
    result = plant(hostile, row("late", mtime=mtime))
    assert result.code in (0, 3)  # some of these fit some file systems
    assert result.failed <= {"late"}
    assert not any(name.endswith(b".part") for name in tree(hostile.target))
    assert (hostile.target / "zz-good").exists()


@pytest.mark.parametrize("size", ["5", "0", "8388609", "4611686018427387904"])
def test_a_size_that_lies_fails_its_file_alone(hostile: Scene, size: str) -> None:
    # Another path has the same content, and its true size: what one says is not held against the other.
    result = plant(hostile, row("liar", size=size))
    assert (result.code, result.failed) == (3, {"liar"})
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


def test_a_hostile_job_is_refused_before_it_takes_long(hostile: Scene) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    hostile.job.write_text(bomb + "sources: *a29\n")
    result = hostile.backup()
    assert result.code == 2
    assert hostile.manifests() == []


def test_a_job_of_another_machine_cannot_name_a_relative_source(hostile: Scene) -> None:
    job = write_job(hostile.root / "other.yml", {"src": "source"})
    result = run("job", "upload", hostile.repository, "other", job)
    assert result.code == 2
    assert "is relative, write the whole path" in "\n".join(result.errors)
