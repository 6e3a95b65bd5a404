"""A file that a program has mapped, or open to write, can change without an event, and is asked for by each run."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3bu.held import held
from tests.fakes import World
from tests.test_watch.alone import OWN_MOUNTS
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import compare, run_by_journal
from tests.test_watch.recorder import recording
from tests.test_watch.test_mounts import needs_root

_HOLDER = """
import mmap, sys
file = open(sys.argv[1], "rb" if sys.argv[2] == "private" else "r+b", buffering=0)
if sys.argv[2] != "open":
    memory = mmap.mmap(file.fileno(), 0, **({} if sys.argv[2] == "shared" else {"access": mmap.ACCESS_COPY}))
    file.close()
print("held", flush=True)
for line in sys.stdin:
    if sys.argv[2] == "open":
        file.write(b"y")
    else:
        memory[0] ^= 1
    print("written", flush=True)
"""


@contextmanager
def holding(path: Path, kind: str = "shared", prefix: Sequence[str] = ()) -> Iterator["subprocess.Popen[str]"]:
    """Hold a file in a program of its own, that writes into it for each line that it is given."""
    command = [*prefix, sys.executable, "-c", _HOLDER, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.stdin.close()


def have_written(process: "subprocess.Popen[str]") -> None:
    """Have a program write into the file that it holds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("write\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"
    let_tick()


@pytest.mark.parametrize("kind", ["shared", "open"])
@pytest.mark.parametrize("name", ["file", "two words", "new\nline", "(deleted)", "é"])
def test_a_file_that_another_program_holds_is_found(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / name
    path.write_bytes(b"x")
    with holding(path, kind):
        assert held(os.fsencode(tmp_path)).paths == [os.fsencode(f"a/{name}")]
        assert held(os.fsencode(tmp_path / "a")).paths == [os.fsencode(name)]
        assert os.fsencode(path)[1:] in held(b"/").paths
        assert held(os.fsencode(tmp_path / "b")).paths == []
    assert held(os.fsencode(tmp_path)).paths == []


def test_a_file_that_is_open_to_be_read_or_mapped_to_be_copied_is_of_no_account(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with holding(path, "private"), open(path, "rb") as file:
        assert held(os.fsencode(tmp_path)).paths == []
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ):
            assert held(os.fsencode(tmp_path)).paths == []


@needs_root
@pytest.mark.usefixtures("quick_scrypt", "quick_ticks", "untouched")
@pytest.mark.parametrize("kind", ["shared", "open"])
def test_a_file_that_is_held_by_another_path_is_found_too(world: World, kind: str) -> None:
    """As a program in a container holds what lies on a volume."""
    path = world.write("deep/file", b"x" * 5000, mtime=1_500_000_000)
    volume = world.root / "volume"
    volume.mkdir()
    let_tick()
    mount = [*OWN_MOUNTS, "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(path.parent), str(volume)]
    with recording(world):
        run_by_journal(world)
        let_tick()
        with holding(volume / "file", kind, mount) as process:
            have_written(process)
            compared = compare(world)
            assert (compared.why_full, compared.outcome.counts["changed"]) == (None, 1)


@pytest.mark.usefixtures("quick_scrypt", "quick_ticks", "untouched")
@pytest.mark.parametrize("kind", ["shared", "open"])
def test_what_is_written_into_a_file_that_is_held_is_taken_without_an_event(world: World, kind: str) -> None:
    path = world.write("deep/file", b"x" * 5000, mtime=1_500_000_000)
    let_tick()
    with recording(world):
        run_by_journal(world)
        let_tick()
        with holding(path, kind) as process:
            let_tick()
            assert compare(world).outcome.published is None
            have_written(process)
            compared = compare(world)
            assert (compared.why_full, compared.outcome.counts["changed"]) == (None, 1)
