"""Small objects made to take hours or all memory: each ends soon, in little memory, and says why.

Whoever can write to the bucket can put data objects, headers and recipients there; manifests and jobs take the
passphrase too. Each run is a process of its own, whose time and memory are measured.
"""

import base64
import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.crypto.passphrase import encrypt_with_passphrase
from s3bu.keyring import load_secrets
from tests.running import Argument, Measured, Scene, measured, run, write_file

MIB = 1024 * 1024
MOST_SECONDS = 10
MOST_MIB = 256
HARM = hashlib.sha256(b"harm").hexdigest()
KEY = "manifests/home/src/home-src-2020-01-01-00000.csv.gz"
ROW = f"4,1600000000,0644,{HARM},a\n".encode()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """An empty repository, and one content in it."""
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    scene.put_content(b"harm")
    return scene


def check(found: Measured, code: int, *words: str) -> None:
    """Hold a run to time, memory and exit code, and to words that it must have said."""
    result, seconds, mib = found
    assert (result.code, seconds < MOST_SECONDS, mib < MOST_MIB) == (code, True, True), found
    assert [word for word in words if word not in result.err] == [], result.err
    assert "Traceback" not in result.err


def packed(piece: bytes, nbytes: int) -> bytes:
    """Return a piece, repeated to so many bytes, as gzip packs it best."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = piece * (MIB // len(piece))
    return b"".join([*(packer.compress(block) for _ in range(nbytes // len(block))), packer.flush()])


# --- manifests


LINES = {
    "one path": (ROW, "more lines than any snapshot packs"),
    "a directory": (b"@dir path=x mtime=0.000000000 mode=0755\n", "more lines than any snapshot packs"),
    "failures": (b"@fail path=x error=y since=z\n", "more lines than any snapshot packs"),
    "what is not known": (b"@later path=x\n", "more lines than any snapshot packs"),
    "empty lines": (b"\n", "more lines than any snapshot packs"),
    "no line at all": (b"0" * MIB, "longer than 64 KiB"),
}


@pytest.mark.parametrize("lines", LINES)
def test_a_manifest_that_is_a_bomb_is_refused(scene: Scene, lines: str) -> None:
    piece, words = LINES[lines]
    scene.put_manifest(packed(piece, 96 * MIB))
    check(measured("restore", scene.repository, "home/src", scene.target), 1, f"{KEY}: broken manifest: ", words)
    assert not scene.target.exists()


COMMANDS: dict[str, tuple[Callable[[Scene], list[Argument]], int]] = {
    "ls": (lambda scene: ["ls", scene.repository, "home/src"], 1),
    "snapshots": (lambda scene: ["snapshots", scene.repository], 3),
    "sync": (lambda scene: ["index", "sync", scene.repository], 3),
    "backup": (lambda scene: ["backup", scene.repository, scene.job], 0),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_is_held_up_by_a_manifest_that_is_a_bomb(scene: Scene, command: str) -> None:
    scene.put_manifest(packed(ROW, 96 * MIB))
    write_file(scene.source / "a", "a")
    arguments, code = COMMANDS[command]
    check(measured(*arguments(scene)), code, f"{KEY}: broken manifest: ")


def test_a_manifest_of_many_regular_names_is_no_bomb(scene: Scene) -> None:
    rows = [f"0,1600000000,0644,{HARM},{number:07}\n".encode() for number in range(100_000)]
    scene.put_manifest(gzip.compress(b"".join(rows), 9))
    assert run("ls", scene.repository, "home/src", "0099999").out.count("\n") == 1


def test_a_manifest_in_a_great_many_pieces_is_read_in_little_time(scene: Scene) -> None:
    rows = b"".join(zlib.compress(bytes([letter]), 9, 31) for letter in ROW * 300)
    scene.put_manifest(rows)
    check(measured("restore", scene.repository, "home/src", scene.target), 0)


def header(*stanzas: str) -> bytes:
    """Return an age file of nothing but its header, which is well formed."""
    return f"age-encryption.org/v1\n{''.join(stanzas)}--- {base64_of(32)}\n".encode() + bytes(64)


def base64_of(nbytes: int) -> str:
    return base64.b64encode(bytes(nbytes)).decode().rstrip("=")


FACTOR_30 = f"-> scrypt {base64_of(16)} 30\n{base64_of(32)}\n"
HEADERS = {
    "a work factor that takes hours": (header(FACTOR_30), "refuses work factor 30"),
    "a work factor beyond all numbers": (header(FACTOR_30.replace(" 30", " " + "9" * 1000)), "scrypt stanza"),
    "many passphrases": (header(*[FACTOR_30.replace(" 30", " 1")] * 900), "a passphrase is not alone"),
    "many recipients": (header(*["-> a\n\n"] * 10_000), "more than 1,500 stanzas"),
    "a header without end": (b"age-encryption.org/v1\n" + b"-> a\n\n" * 5_000_000, "longer than"),
    "a line without end": (b"age-encryption.org/v1\n-> " + b"a" * 30 * MIB, "longer than"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_manifest_whose_header_is_a_bomb_is_refused(scene: Scene, kind: str) -> None:
    body, words = HEADERS[kind]
    path = scene.repository / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    check(measured("restore", scene.repository, "home/src", scene.target), 1, f"{KEY}: ", words)


# --- jobs


ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
JOBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "packed": (lambda: packed(b"# a comment\n", 96 * MIB), "longer than any job"),
    "aliases": ((ALIASES + "sources: *a29\n").encode, "more than 10,000 keys and items"),
    "merge keys": (
        lambda: ALIASES.replace("[x]", "{k: v}").replace("[", "{<<: [").replace("]", "]}").encode(),
        "more ",
    ),
    "depth": (lambda: b"sources: " + b"[" * 500_000, "nested more than 20 deep"),
    "keys": (lambda: b"".join(b"sourcesx%06d: a\n" % number for number in range(50_000)), "more than 10,000 keys"),
    "one long text": (lambda: b"sources: '" + b" x\n\n" * 200_000 + b"'", "'sources' must be a list"),
}


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_that_is_a_bomb_is_refused(scene: Scene, kind: str) -> None:
    make, words = JOBS[kind]
    path = scene.repository / "jobs/home/home-001.yml"
    path.parent.mkdir(parents=True)
    passphrase = load_secrets(scene.secrets)[-1].passphrase
    path.write_bytes(encrypt_with_passphrase(make(), passphrase))
    check(measured("backup", scene.repository, "home"), 1 if kind == "packed" else 2, words)
    assert scene.manifests() == []


@pytest.mark.parametrize("kind", ["a work factor that takes hours", "a header without end"])
def test_a_job_whose_header_is_a_bomb_is_refused(scene: Scene, kind: str) -> None:
    body, words = HEADERS[kind]
    path = scene.repository / "jobs/home/home-001.yml"
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    check(measured("backup", scene.repository, "home"), 1, "jobs/home/home-001.yml: ", words)


# --- contents and recipients


def test_a_content_that_is_a_bomb_is_a_failure_of_its_path_alone(scene: Scene) -> None:
    bomb = packed(bytes(MIB), 256 * MIB)
    rows = []
    for number in range(4):
        scene.put_content(bomb, at=b"%d" % number)
        rows.append(f"1,1600000000,0644,{hashlib.sha256(b'%d' % number).hexdigest()},{number}\n")
    scene.put_manifest("".join([*rows, f"4,1600000000,0644,{HARM},good\n"]).encode())
    check(measured("restore", scene.repository, "home/src", scene.target), 3, "is not the content of that name")
    assert [path.name for path in scene.target.iterdir()] == ["good"]


def test_a_content_far_longer_than_its_row_says_does_not_fill_the_memory(scene: Scene) -> None:
    scene.put_content(bytes(300 * MIB), at=b"harm")
    scene.put_manifest(ROW)
    check(measured("restore", scene.repository, "home/src", scene.target), 3, "is not the content of that name")
    assert list(scene.target.iterdir()) == []


@pytest.mark.parametrize("kind", [kind for kind in HEADERS if "recipients" in kind or "end" in kind])
def test_contents_whose_headers_are_bombs_are_failures_of_their_paths(scene: Scene, kind: str) -> None:
    body, words = HEADERS[kind]
    rows = []
    for number in range(20):
        plain = b"%d" % number
        path = scene.object_of(plain)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        rows.append(f"{len(plain)},1600000000,0644,{hashlib.sha256(plain).hexdigest()},{number}\n")
    scene.put_manifest("".join([*rows, f"4,1600000000,0644,{HARM},good\n"]).encode())
    check(measured("restore", scene.repository, "home/src", scene.target), 3, words)
    assert [path.name for path in scene.target.iterdir()] == ["good"]


@pytest.mark.parametrize(("text", "words"), [(b"# a comment\n", "longer than"), (b"age1" + b"q" * MIB, "longer than")])
def test_recipients_without_end_are_refused(scene: Scene, text: bytes, words: str) -> None:
    write_file(scene.source / "a", "a")
    (scene.repository / "repo/recipients.txt").write_bytes(text * (64 * MIB // len(text)))
    check(measured("backup", scene.repository, scene.job), 2, words)
    assert scene.manifests() == []


def test_marks_without_end_are_refused(scene: Scene) -> None:
    write_file(scene.source / "a", "a")
    (scene.repository / "repo/marks").mkdir()
    (scene.repository / "repo/marks/x").write_bytes(bytes(96 * MIB))
    check(measured("backup", scene.repository, scene.job), 1, "repo/marks/x, line 1: not a hash")
    assert scene.manifests() == []
