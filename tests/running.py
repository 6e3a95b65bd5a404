"""Runs the program as its users do, and looks at what came of it.

`run` calls it in this process, which is quick; `program` and `started` start it as a program of its own, where what a
process does matters: signals, memory, permissions. `tree` reads a directory by means of its own, not those of s3bu.
"""

import gc
import hashlib
import io
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import s3bu
from s3bu.cli import main
from s3bu.crypto import encrypt
from s3bu.crypto.passphrase import encrypt_with_passphrase
from s3bu.crypto.recipients import parse_recipients
from s3bu.keyring import load_secrets
from tests.servers import ACCESS_KEY, SECRET_KEY

Argument = str | bytes | Path

IS_LONG = os.environ.get("S3BU_LONG") == "1"
IS_CI = bool(os.environ.get("CI"))
IS_ROOT = os.geteuid() == 0
SECONDS = 300
"""After this long a program is taken to hang."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of errors and hints, without the program's name."""
        return [line.removeprefix("s3bu: ") for line in self.err.splitlines() if _is_error(line)]

    @property
    def failures(self) -> dict[str, str]:
        """What the run says of each path that failed."""
        lines = (line.removeprefix("error: ") for line in self.errors if line.startswith("error: "))
        return dict(line.split(": ", 1) for line in lines)

    @property
    def failed(self) -> set[str]:
        """The paths that failed."""
        return set(self.failures)


def _is_error(line: str) -> bool:
    return line.startswith(("s3bu: error: ", "s3bu: hint: "))


def run(*arguments: Argument) -> Result:
    """Run the program in this process; what it changes of the process is put back."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    mask, handler, threshold = os.umask(0o077), signal.getsignal(signal.SIGTERM), gc.get_threshold()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([os.fsdecode(argument) for argument in arguments])
    finally:
        os.umask(mask)
        signal.signal(signal.SIGTERM, handler)
        gc.set_threshold(*threshold)
    return Result(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def succeed(*arguments: Argument) -> Result:
    """Run the program in this process, and hold it to an exit code of 0 and to not a word of error."""
    result = run(*arguments)
    assert (result.code, result.errors) == (0, []), result
    return result


def check_refusal(result: Result, code: int, *words: str) -> None:
    """Hold a result to its exit code, to the form of errors, and to words that they must have."""
    assert result.code == code, result
    assert result.errors, result
    assert result.errors[0].startswith("error: ")
    assert not any(line.endswith(".") for line in result.errors), result.errors
    said = "\n".join(result.errors)
    assert [word for word in words if word not in said] == [], said


def program(*arguments: Argument, prefix: Sequence[str] = ()) -> Result:
    """Run the program as one of its own, begun by the command in `prefix` if there is one."""
    ended = subprocess.run(
        [*prefix, *_command(arguments)], env=_environment(), capture_output=True, timeout=SECONDS, check=False
    )
    return Result(ended.returncode, os.fsdecode(ended.stdout), os.fsdecode(ended.stderr))


def await_that(holds: Callable[[], object]) -> None:
    """Wait until something holds; a test that waits for ever tells nobody why."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


@contextmanager
def started(*arguments: Argument, prefix: Sequence[str] = ()) -> Iterator["Started"]:
    """Start the program as one of its own; it is killed at the end of the block if it still runs."""
    with subprocess.Popen(
        [*prefix, *_command(arguments)], env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield Started(process)
        finally:
            process.kill()


class Started:
    """A program under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said: list[str] = []

    def await_phase(self, name: str) -> str:
        """Wait until the program says that it begins a phase."""
        return self._await(lambda line: line.startswith(name), name)

    def await_line(self, *words: str) -> str:
        """Wait until the program says a line with these words, and return it."""
        return self._await(lambda line: all(word in line for word in words), " … ".join(words))

    def _await(self, is_it: Callable[[str], bool], name: str) -> str:
        assert self._process.stderr is not None
        killer = threading.Timer(SECONDS / 5, self._process.kill)
        killer.start()
        try:
            for line in map(os.fsdecode, self._process.stderr):
                self._said.append(line)
                if is_it(line):
                    return line
        finally:
            killer.cancel()
        raise AssertionError(f"it ended before {name!r}: {''.join(self._said)}")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> Result:
        """Wait for its end."""
        _, err = self._process.communicate(timeout=SECONDS)
        return Result(self._process.returncode, "", "".join(self._said) + os.fsdecode(err))


def without_override() -> list[str]:
    """Return the start of a command that even root runs without the right to read what its mode forbids."""
    if not IS_ROOT:
        return []
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}"]


def _command(arguments: Sequence[Argument]) -> list[str]:
    return [sys.executable, "-m", "s3bu", *(os.fsdecode(argument) for argument in arguments)]


def _environment() -> Mapping[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(s3bu.__file__).parents[1])}


class Measured(NamedTuple):
    """What a run said, its seconds of the processor, and the most memory that it had at once."""

    result: Result
    seconds: float
    mib: int


def measured(*arguments: Argument) -> Measured:
    """Run the program as one of its own."""
    script = (
        "import os, re, sys; from s3bu.cli import main; code = main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], sum(os.times()[:4]), flush=True); "
        "os._exit(code)"
    )
    command = [sys.executable, "-c", script, *(os.fsdecode(argument) for argument in arguments)]
    ended = subprocess.run(command, env=_environment(), capture_output=True, timeout=SECONDS, check=False)
    *out, used = os.fsdecode(ended.stdout).splitlines(keepends=True) or [""]
    result = Result(ended.returncode, "".join(out), os.fsdecode(ended.stderr))
    measures = re.fullmatch(r"(\d+) ([0-9.]+)\n", used)
    assert measures is not None, result
    return Measured(result, float(measures[2]), int(measures[1]) // 1024)


def peak_memory_mib(*arguments: Argument) -> int:
    """Run the program as one of its own, which must succeed, and return the most memory that it had at once."""
    result, _, mib = measured(*arguments)
    assert result.code == 0, result
    return mib


class Node(NamedTuple):
    """One thing in a tree: `content` is the hash of a file and the target of a link; a link has no mode."""

    kind: int
    mode: int
    mtime: int
    content: str | bytes


def tree(root: Path | bytes) -> dict[bytes, Node]:
    """Return all below a directory by path; walked by descriptors, since paths may be longer than the system takes."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return dict(_walk(descriptor, b""))
    finally:
        os.close(descriptor)


def _walk(directory: int, prefix: bytes) -> Iterator[tuple[bytes, Node]]:
    for text in os.listdir(directory):
        name = os.fsencode(text)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind, mode, mtime = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9
        if kind == stat.S_IFLNK:
            yield prefix + name, Node(kind, 0, mtime, os.readlink(name, dir_fd=directory))
            continue
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            yield prefix + name, Node(kind, mode, mtime, _hash(descriptor) if kind == stat.S_IFREG else b"")
            if kind == stat.S_IFDIR:
                yield from _walk(descriptor, prefix + name + b"/")
        finally:
            os.close(descriptor)


def _hash(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Return the objects of a repository in a directory, each with its inode and mtime: what a rewrite would change."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def write_job(path: Path, sources: Mapping[str, Path | str], more: str = "") -> Path:
    """Write a job file with these sources by label, and lines of rules."""
    lines = "".join(f"- path: '{source}'\n  label: {label}\n" for label, source in sources.items())
    path.write_text(f"sources:\n{lines}{more}")
    return path


def write_file(path: Path, content: bytes | str, mtime: int = 1_600_000_000, mode: int = 0o644) -> Path:
    """Write a file of that time, an old one unless told otherwise, so that no run takes it for one in motion."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.utime(path, (mtime, mtime))
    return path


@dataclass(frozen=True, slots=True)
class Scene:
    """A machine with a source, a job file that backs it up (label `src`), keys, and a repository in a directory."""

    root: Path

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def job(self) -> Path:
        return self.root / "home.yml"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def secrets(self) -> Path:
        return self.keys / "secrets.yml"

    @property
    def identities(self) -> Path:
        return self.keys / "identities.txt"

    @property
    def target(self) -> Path:
        return self.root / "target"

    def copy(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> "Scene":
        """Copy all of it, times too, and make the copy the machine that commands run on."""
        shutil.copytree(self.root, root, symlinks=True)
        scene = Scene(root)
        scene.enter(monkeypatch)
        return scene

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3BU_HOME", str(self.keys))

    def make(self) -> None:
        """Make keys and an empty repository, a source without files, and the job file."""
        self.source.mkdir(parents=True)
        write_job(self.job, {"src": "source"})
        succeed("init", self.repository)

    def backup(self, *options: Argument) -> Result:
        return run("backup", self.repository, self.job, *options)

    def restore(self, *options: Argument, what: str = "home/src") -> Result:
        return run("restore", self.repository, what, self.target, *options)

    def manifests(self, label: str = "src") -> list[str]:
        """Return the keys of a label's manifests, oldest first."""
        found = (self.repository / "manifests" / "home" / label).glob("*.csv.gz")
        return sorted(str(path.relative_to(self.repository)) for path in found)

    def contents(self) -> set[str]:
        """Return the hashes that are stored."""
        return {path.name for path in (self.repository / "data").rglob("*") if path.is_file()}

    def object_of(self, content: bytes | str) -> Path:
        """Return where the object of a content lies."""
        name = hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()
        return self.repository / "data" / name[:4] / name

    def put_content(self, content: bytes, at: bytes | None = None) -> str:
        """Store a content as anybody can who knows the recipients; under the name of another one with `at`."""
        recipients = parse_recipients((self.repository / "repo" / "recipients.txt").read_text(), "here")
        path = self.object_of(content if at is None else at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encrypt(content, recipients))
        return hashlib.sha256(content).hexdigest()

    def put_manifest(self, plain: bytes, key: str = "manifests/home/src/home-src-2020-01-01-00000.csv.gz") -> str:
        """Store a manifest as whoever knows the passphrase can; not packed, and quick to open."""
        passphrase = load_secrets(self.secrets)[-1].passphrase
        path = self.repository / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encrypt_with_passphrase(plain, passphrase))
        return key


@contextmanager
def own_environment(keys: Path, url: str | None = None) -> Iterator[None]:
    """Be a machine with these keys and the server at `url`: for fixtures of a module, which run before `environment`.

    The credentials are those that the servers of the tests know.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "S3BU_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(keys.parent))
        monkeypatch.setenv("S3BU_HOME", str(keys))
        if url is not None:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        yield


def backed_up(root: Path, *, big: int = 0) -> Scene:
    """Make a scene whose source was backed up once: three small files, a link, and a `big` one of that length."""
    scene = Scene(root)
    with own_environment(scene.keys):
        scene.make()
        write_file(scene.source / "a", "content of a")
        write_file(scene.source / "b", "content of b")
        write_file(scene.source / "directory" / "c", "content of c")
        (scene.source / "link").symlink_to("a")
        if big:
            write_file(scene.source / "big", random.Random(1).randbytes(big))
        succeed("backup", scene.repository, scene.job)
    return scene
