"""Each parser takes whatever bytes come: a short run of its fuzzer, with the same cases each time and with new ones.

`S3BU_FUZZ_SECONDS` says how long each of them runs, 5 if nothing else is asked for. A run is a process of its own, so
that a library that never comes back, dies, or takes all memory is a failure like any other.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from s3bu.errors import S3buError
from tests.fuzz.engine import CASE_SECONDS, Target, attempt, bounded, fuzz, kept_cases
from tests.fuzz.targets import TARGETS, target_of

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("S3BU_FUZZ_SECONDS", "5"))


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_bytes_come_a_parser_reads_them_or_refuses_them(name: str, tmp_path: Path) -> None:
    seeds = ["--seed", "s3bu", "--seed", secrets.token_hex(4)]
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz", name, "--seconds", f"{SECONDS}", *seeds]
    with (tmp_path / "said").open("wb") as said:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdout=said,
            stderr=said,
            timeout=SECONDS + 5 * CASE_SECONDS + 60,
            check=False,
        )
    assert ended.returncode == 0, f"{seeds}: " + (tmp_path / "said").read_text(errors="replace")[-6000:]


def test_every_kept_case_belongs_to_a_target() -> None:
    cases = Path(__file__).parent / "cases"
    assert {path.name for path in cases.iterdir() if path.is_dir()} <= set(TARGETS)
    assert all(path.stat().st_size for name in TARGETS for path in kept_cases(name))


def test_the_examples_of_each_target_are_sound() -> None:
    for name in TARGETS:
        with target_of(name) as target:
            taken = [seed for seed in target.seeds if _is_taken(target, seed)]
            assert taken or name in ("passphrase", "lock"), name


def _is_taken(target: Target, seed: bytes) -> bool:
    try:
        target.run(seed)
    except S3buError:
        return False
    return True


# --- the fuzzer itself finds what it is there for


def _crash(document: bytes) -> None:
    if b"7" in document:
        raise KeyError("seven")


def _hang(document: bytes) -> None:
    while b"7" in document:
        pass


def _swell(document: bytes) -> None:
    if b"7" in document:
        bytearray(1 << 30)


def _refuse(document: bytes) -> None:
    raise S3buError("as it should be")


def test_a_fuzzer_finds_a_crash_and_makes_its_case_small() -> None:
    count, broken = fuzz(Target("crash", _crash, [b"some number 1234"]), "seed", 60)
    assert count > 1
    assert broken is not None
    assert (broken.case, broken.kind) == (b"7", "KeyError")


def test_a_fuzzer_finds_what_takes_too_much_memory() -> None:
    _, broken = fuzz(Target("swell", _swell, [b"0"]), "seed", 60)
    assert broken is not None
    assert broken.kind == "MemoryError"


def test_a_fuzzer_finds_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.engine.CASE_SECONDS", 0.2)
    with bounded():
        broken = attempt(Target("hang", _hang, []), b"7")
    assert broken is not None
    assert broken.kind == "Hang"


def test_a_fuzzer_takes_a_refusal_for_sound_and_ends_in_time() -> None:
    count, broken = fuzz(Target("refuse", _refuse, [b"0"]), "seed", 0.5)
    assert count > 10
    assert broken is None


def test_an_equal_seed_gives_equal_cases() -> None:
    seen: list[list[bytes]] = []
    for _ in range(2):
        cases: list[bytes] = []
        fuzz(Target("note", cases.append, [b"a 1", b"b 2"]), "seed", 1)
        seen.append(cases[:100])
    count = min(map(len, seen))
    assert count > 10
    assert seen[0][:count] == seen[1][:count]
