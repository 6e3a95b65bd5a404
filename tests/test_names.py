"""Names of every byte and kind: directories, links and files of them come back, and none of them steers a terminal."""

import hashlib
import os
import pty
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rounds import rounds
from tests.running import Argument, Scene, program, run, succeed, tree, without_override, write_file
from tests.test_round_trip import NAMES

STEERING = (
    b"\x1b[2J\x1b]0;title\x07 escape",
    b"new\nline\rreturn",
    b"back\x08\x7fspace",
    "c1 \x9b31m \x85 controls".encode(),
    "bidi \u202e\u2066\u200f marks".encode(),
    "lines \u2028\u2029 apart".encode(),
    b"\xff\x9b31m no text \xed\xa0\x80",
    b"s3bu: error: not one",
    b"-rf",
)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    return scene


def random_name(draw: random.Random) -> bytes:
    """Return a name of bytes that are mostly odd ones."""
    kinds = (bytes(range(1, 32)), bytes(range(127, 256)), b"%,+ =@-.~", b"abcABC", "\u00e9e\u0301\u202e\ud55c".encode())
    letters = draw.choice(kinds) + draw.choice(kinds)
    name = bytes(draw.choice(letters) for _ in range(draw.choice((1, 2, 5, 50, 255))))
    return name if name not in (b".", b"..") else b"..."


def lay_out(source: Path, names: list[bytes], draw: random.Random) -> None:
    """Make of each name a directory with a file, a link that leads to a name, or a file."""
    for name in names:
        path = source / os.fsdecode(name)
        match draw.randrange(3):
            case 0:
                write_file(path / os.fsdecode(draw.choice(names)), name)
            case 1:
                path.symlink_to(os.fsdecode(draw.choice(names)))
            case 2:
                write_file(path, name)


def test_directories_and_links_of_any_name_come_back_and_go_through_the_index(scene: Scene) -> None:
    seed = os.urandom(4).hex()
    draw = random.Random(seed)
    names = sorted({*NAMES, *(random_name(draw) for _ in range(rounds(300)))})
    lay_out(scene.source, names, draw)
    succeed("backup", scene.repository, scene.job)
    assert "no change" in succeed("backup", scene.repository, scene.job).out
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source), f"seed {seed}"


def check_printed(said: str, *, is_terminal: bool = False) -> None:
    """Hold what was printed to one line a fact: no control, bidi mark or lone surrogate but the ends of lines."""
    allowed = "\n\r\x1b" if is_terminal else "\n"
    assert [letter for letter in said if not letter.isprintable() and letter not in allowed] == []
    if is_terminal:
        assert "\x1b[2J" not in said
        assert "\x1b]" not in said


def test_no_command_lets_a_name_steer_the_terminal(scene: Scene) -> None:
    for name in STEERING:
        text = os.fsdecode(name)
        write_file(scene.source / "files" / text, name)
        write_file(scene.source / "shut" / text, name, mode=0)
        (scene.source / "links").mkdir(exist_ok=True)
        (scene.source / "links" / text).symlink_to(text)
        write_file(scene.source / text / "inside", name)
    prefix = without_override()
    results = [program("backup", scene.repository, scene.job, prefix=prefix)]
    assert results[0].code == 3
    assert len(results[0].failures) == len(STEERING)
    for name in STEERING:
        scene.object_of(name).unlink()
        (scene.target / "files" / os.fsdecode(name)).mkdir(parents=True)
    others: tuple[tuple[Argument, ...], ...] = (
        ("ls", scene.repository, "home/src"),
        ("restore", scene.repository, "home/src", scene.target, "-c"),
        ("restore", scene.repository, "home/src", scene.target, "-f"),
        ("backup", scene.repository, scene.job),
        ("snapshots", scene.repository),
        ("index", "status", scene.repository),
    )
    results += [run(*arguments) for arguments in others]
    for result in results:
        check_printed(result.out + result.err)
    assert sum(result.err.count("\\x1b[2J") for result in results) >= 4
    assert results[1].out.count("\n") >= 4 * len(STEERING)
    assert not any(line.startswith("s3bu: error: not one") for line in results[1].out.splitlines())


@pytest.mark.parametrize("name", STEERING)
def test_what_is_typed_is_escaped_when_it_is_said_again(scene: Scene, name: bytes) -> None:
    for arguments in (
        ("restore", scene.repository, name, scene.target),
        ("restore", scene.repository, b"home/" + name, scene.target),
        ("restore", scene.repository, b"home/src@" + name, scene.target),
        ("ls", scene.repository, "home/src", b"re:(" + name),
        ("backup", scene.repository, name),
        ("backup", scene.repository, name + b".yml"),
        ("backup", b"/nowhere/" + name, scene.job),
        ("backup", b"s3://" + name, scene.job),
        ("backup", scene.repository, scene.job, name),
        ("job", "check", scene.root / os.fsdecode(name)),
        ("download", scene.repository, name, scene.target),
        (name,),
        ("backup", b"--" + name),
    ):
        result = run(*arguments)
        assert result.code in (1, 2, 10), (arguments, result)
        check_printed(result.out + result.err)
        assert "Traceback" not in result.err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_of_any_encoding_is_told_names_and_not_steered(scene: Scene, encoding: str) -> None:
    source = scene.root / os.fsdecode(STEERING[0])
    for name in STEERING:
        write_file(source / os.fsdecode(name), name, mode=0 if name.startswith(b"\x1b") else 0o644)
    scene.job.write_text(f"sources:\n- path: {str(source)!r}\n  label: src\n".replace("'", '"'))
    command = [*without_override(), sys.executable, "-m", "s3bu", "backup", str(scene.repository), str(scene.job)]
    said = on_a_terminal(command, os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"})
    check_printed(said, is_terminal=True)
    assert "\\x1b[2J" in said
    assert "Traceback" not in said


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Run a command whose output is a terminal, and return all that it printed."""
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while chunk := _read(ours):
            said += chunk
        assert process.wait(60) == 3
    os.close(ours)
    return said.decode("utf-8", "surrogateescape")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""


@pytest.mark.parametrize("name", [b"\xff\xfe no text", b"\xed\xa0\x80", "caf\u00e9".encode()])
def test_a_repository_may_lie_under_any_name(scene: Scene, name: bytes) -> None:
    repository = scene.root / os.fsdecode(name)
    scene.repository.rename(repository)
    write_file(scene.source / "a", "a")
    succeed("backup", repository, scene.job)
    assert "no change" in succeed("backup", repository, scene.job).out
    assert succeed("index", "sync", repository).err.count("moved to") == 0
    succeed("restore", repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_a_manifest_whose_host_and_failures_are_no_text_is_taken_in_and_compared_with(scene: Scene) -> None:
    key = "manifests/home/src/home-src-2020-01-01-00000.csv.gz"
    head = (
        f"#s3bu 1 key={key.replace('/', '%2F')} job=home label=src host=%FF created=2020-01-01T00:00:00Z parent=%FE\n"
    )
    lines = head.encode() + b"@fail path=%FF error=%FD%1B since=%FC\n"
    digest = hashlib.sha256(lines).hexdigest()
    scene.put_manifest(lines + f"#end entries=0 sha256={digest}\n".encode())
    write_file(scene.source / "a", "a")
    for result in (run("snapshots", scene.repository), run("index", "sync", scene.repository), scene.backup()):
        assert (result.code, result.errors) == (0, [])
        check_printed(result.out + result.err)


def test_objects_whose_keys_are_no_text_are_no_manifests_and_no_jobs(scene: Scene) -> None:
    write_file(scene.source / "a", "a")
    for name in (b"manifests/home/\xff/home-\xff-2020-01-01-00000.csv.gz", b"jobs/\xff/\xff-001.yml"):
        write_file(scene.repository / os.fsdecode(name), "x")
    assert "0 snapshots taken in" in succeed("index", "sync", scene.repository).out
    for arguments in (("snapshots", scene.repository), ("job", "list", scene.repository)):
        check_printed(succeed(*arguments).out)
    succeed("backup", scene.repository, scene.job)
