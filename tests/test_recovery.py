"""A repository is read without s3bu, by the commands of the README and the `age` program alone."""

import hashlib
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from s3bu.keyring import load_secrets
from tests.running import Scene, started, succeed, tree, write_file

README = (Path(__file__).parents[1] / "README.md").read_text()
SECONDS = 60
PACKABLE = b"the same line again and again\n" * 1000
GZIPPED = b"\x1f\x8b\x08 looks like gzip and is none"

EXAMPLES = {
    "directory": r"/mnt/backup",
    "manifest": r"manifests/\S+\.csv\.gz",
    "content": r"data/[0-9a-f]{4}/[0-9a-f]{64}",
}


def command(name: str, **examples: str) -> str:
    """Return a command of the README with what it names as an example replaced."""
    text = re.search(rf"^<!-- command: {name} -->\n```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert text is not None, f"the README has no command {name!r}"
    script = text[1]
    for pattern, actual in examples.items():
        script, count = re.subn(EXAMPLES[pattern], actual, script)
        assert count == 1, f"{pattern} in {script}"
    return script


@pytest.fixture
def scene(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return made.copy(tmp_path / "scene", monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A backup with compressed contents and contents that are not, and a directory to recover it in."""
    scene = Scene(tmp_path_factory.mktemp("made") / "scene")
    with pytest.MonkeyPatch.context() as monkeypatch:
        scene.enter(monkeypatch)
        make(scene)
    return scene


def make(scene: Scene) -> None:
    scene.make()
    write_file(scene.source / "plain" / "random", hashlib.sha256(b"seed").digest() * 3)
    write_file(scene.source / "plain" / "empty", b"")
    write_file(scene.source / "plain" / "kept.gz", GZIPPED, mode=0o640)
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "packed, 100%" / "a b\\c\ttab\nline\n", PACKABLE, mode=0o600)
    write_file(scene.source / "packed, 100%" / os.fsdecode(b"\xff"), PACKABLE + b"more")
    write_file(scene.source / "-rf", PACKABLE + b"dash", mtime=-5)
    (scene.source / "hollow" / "deep").mkdir(parents=True)
    (scene.source / "plain" / "link").symlink_to("../packed, 100%/it's\nnot there")
    succeed("backup", scene.repository, scene.job, "-c")
    work(scene).mkdir()
    shutil.copy(scene.identities, work(scene))


def work(scene: Scene) -> Path:
    return scene.root / "recovery"


def shell(scene: Scene, *scripts: str) -> None:
    get = command("recovery directory", directory=str(scene.repository))
    ended = subprocess.run(
        ["bash", "-c", "\n".join((get, *scripts))], cwd=work(scene), capture_output=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 0, ended
    assert b"broken" not in ended.stderr + ended.stdout
    assert b"refused" not in ended.stderr + ended.stdout


def typed(scene: Scene, script: str, passphrase: str) -> None:
    """Run a script on a terminal of its own, on which the passphrase is typed when it is asked for."""
    terminal, inside = pty.openpty()
    get = command("recovery directory", directory=str(scene.repository))
    shell_command = ["setsid", "--ctty", "--wait", "bash", "-c", f"{get}\n{script}"]
    with subprocess.Popen(shell_command, cwd=work(scene), stdin=inside, stdout=inside, stderr=inside) as process:
        os.close(inside)
        said = b""
        while b"passphrase" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, passphrase.encode() + b"\n")
        said += rest_of(terminal)
        assert process.wait(SECONDS) == 0, said
    os.close(terminal)


def rest_of(terminal: int) -> bytes:
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # Linux: nobody holds the other end any more
        pass
    return said


def recover_manifest(scene: Scene) -> None:
    script = command("recovery manifest", manifest=scene.manifests()[-1])
    typed(scene, script, load_secrets(scene.secrets)[-1].passphrase)


def test_a_content_opens_with_the_identity_alone(scene: Scene) -> None:
    key = str(scene.object_of(GZIPPED).relative_to(scene.repository))
    shell(scene, command("recovery content", content=key))
    assert (work(scene) / "content").read_bytes() == GZIPPED


def test_a_compressed_content_opens_with_gunzip_behind_it(scene: Scene) -> None:
    key = str(scene.object_of(PACKABLE).relative_to(scene.repository))
    shell(scene, command("recovery content", content=key), "gunzip < content > unpacked")
    assert (work(scene) / "unpacked").read_bytes() == PACKABLE


def test_a_manifest_opens_with_the_passphrase_and_has_the_lines_that_the_readme_explains(scene: Scene) -> None:
    recover_manifest(scene)
    lines = (work(scene) / "manifest.csv").read_text().splitlines()
    digest = hashlib.sha256(GZIPPED).hexdigest()
    assert f"{len(GZIPPED)},1600000000,0640,{digest},plain%2Fkept.gz" in lines
    assert lines[0].startswith("#s3bu 1 ")


def test_all_of_a_snapshot_comes_back_by_the_commands_of_the_readme(scene: Scene) -> None:
    recover_manifest(scene)
    shell(scene, command("recovery all"), command("recovery links"))
    recovered = tree(work(scene) / "restored")
    wanted = tree(scene.source)
    assert recovered.keys() == wanted.keys()
    for path, node in wanted.items():
        found = recovered[path]
        assert (found.kind, found.content) == (node.kind, node.content), path
        assert path.startswith(b"hollow") or not node.content or found.mode == node.mode, path


def test_files_come_back_with_mode_and_time(scene: Scene) -> None:
    recover_manifest(scene)
    shell(scene, command("recovery all"))
    status = (work(scene) / "restored" / "-rf").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o644, -5)
    assert (work(scene) / "restored" / "plain" / "kept.gz").stat().st_mode & 0o777 == 0o640


def test_the_program_writes_work_factor_18(scene: Scene) -> None:
    write_file(scene.source / "later", b"more")
    with started("backup", scene.repository, scene.job) as program:
        assert program.end().code == 0
    newest = (scene.repository / scene.manifests()[-1]).read_bytes()
    assert newest.split(b"\n")[1].endswith(b" 18")


def test_a_path_that_leads_elsewhere_is_refused(scene: Scene) -> None:
    digest = hashlib.sha256(GZIPPED).hexdigest()
    manifest = work(scene) / "manifest.csv"
    manifest.write_text(f"{len(GZIPPED)},1600000000,0640,{digest},x%2F..%2F..%2Foutside\n")
    script = command("recovery directory", directory=str(scene.repository)) + command("recovery all")
    ended = subprocess.run(["bash", "-c", script], cwd=work(scene), capture_output=True, timeout=SECONDS, check=True)
    assert b"refused: x/../../outside" in ended.stderr
    assert not (work(scene) / "outside").exists()


def test_a_content_that_was_exchanged_is_not_restored(scene: Scene) -> None:
    recover_manifest(scene)
    scene.put_content(b"something else", at=GZIPPED)
    script = command("recovery directory", directory=str(scene.repository)) + command("recovery all")
    ended = subprocess.run(["bash", "-c", script], cwd=work(scene), capture_output=True, timeout=SECONDS, check=False)
    assert b"broken: plain/kept.gz" in ended.stderr
    assert not (work(scene) / "restored" / "plain" / "kept.gz").exists()
    assert (work(scene) / "restored" / "plain" / "random").exists()
