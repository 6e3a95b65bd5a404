"""A file that a program has mapped can change without an event, and is asked for by each run."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3bu.mapped import mapped_below
from tests.fakes import World
from tests.test_watch.conftest import let_tick
from tests.test_watch.oracle import compare, run_by_journal
from tests.test_watch.recorder import recording

_HOLDER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0, **({} if sys.argv[2] == "shared" else {"access": mmap.ACCESS_COPY}))
print("mapped", flush=True)
for line in sys.stdin:
    memory[0] ^= 1
    print("written", flush=True)
"""


@contextmanager
def holding(path: Path, kind: str = "shared") -> Iterator["subprocess.Popen[str]"]:
    """Hold a file mapped in a program of its own, that writes into it for each line that it is given."""
    command = [sys.executable, "-c", _HOLDER, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "mapped\n"
        try:
            yield process
        finally:
            process.stdin.close()


@pytest.mark.parametrize("name", ["file", "two words", "new\nline", "(deleted)", "é"])
def test_a_file_that_another_program_has_mapped_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / name
    path.write_bytes(b"x")
    with holding(path):
        assert mapped_below(os.fsencode(tmp_path)) == [os.fsencode(f"a/{name}")]
        assert mapped_below(os.fsencode(tmp_path / "a")) == [os.fsencode(name)]
        assert os.fsencode(path)[1:] in mapped_below(b"/")
        assert mapped_below(os.fsencode(tmp_path / "b")) == []
    assert mapped_below(os.fsencode(tmp_path)) == []


def test_a_file_that_is_mapped_to_be_read_or_copied_is_of_no_account(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with holding(path, "private"), open(path, "rb") as file:
        assert mapped_below(os.fsencode(tmp_path)) == []
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ):
            assert mapped_below(os.fsencode(tmp_path)) == []


@pytest.mark.usefixtures("quick_scrypt", "quick_ticks")
def test_what_is_written_into_a_mapped_file_is_taken_without_an_event(world: World) -> None:
    path = world.write("deep/file", b"x" * 5000, mtime=1_500_000_000)
    let_tick()
    with recording(world):
        run_by_journal(world)
        let_tick()
        with holding(path) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            let_tick()
            assert compare(world).outcome.published is None
            process.stdin.write("write\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"
            let_tick()
            compared = compare(world)
            assert (compared.why_full, compared.outcome.counts["changed"]) == (None, 1)
