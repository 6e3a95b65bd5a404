"""Runs a target on case after case, and keeps each case that breaks it, made as small as it gets."""

import hashlib
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from s3bu.errors import S3buError
from tests.fuzz.mutation import Mutator

CASES = Path(__file__).parent / "cases"
CASE_SECONDS = 10
"""A case that takes more of the processor hangs; how busy the machine is makes no difference."""
MEMORY_NBYTES = 256 * 1024 * 1024
"""What a case may take besides what the process has when it begins."""
_SHRINKING_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: `run` gives it a document, and raises whatever it raises, or `AssertionError` for a wrong outcome."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    is_text: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Broken:
    """A case that broke its target, and how."""

    case: bytes
    kind: str
    trace: str


class Hang(BaseException):
    """A case took too long; not an `Exception`, so that nothing on the way takes it for a fault."""


def kept_cases(name: str) -> list[Path]:
    """Return the files of the cases that once broke a target."""
    return sorted(path for path in (CASES / name).glob("*") if path.is_file())


def attempt(target: Target, case: bytes) -> Broken | None:
    """Run one case; a value or an `S3buError` is as it should be."""
    try:
        with _alarm():
            target.run(case)
    except S3buError:
        return None
    except BaseException as error:
        # A panic of a library in Rust is no Exception.
        if isinstance(error, KeyboardInterrupt):
            raise
        return Broken(case, type(error).__name__, traceback.format_exc())
    return None


@contextmanager
def _alarm() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _hang(_number: int, _frame: object) -> None:
    raise Hang(f"the case took more than {CASE_SECONDS} seconds of the processor")


@contextmanager
def bounded() -> Iterator[None]:
    """Bound, for a block, the private memory of this process, and let a case that takes too long raise `Hang`."""
    handler = signal.signal(signal.SIGPROF, _hang)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_nbytes() + MEMORY_NBYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        signal.signal(signal.SIGPROF, handler)


def _data_nbytes() -> int:
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def fuzz(target: Target, seed: str, seconds: float, corpus: Sequence[bytes] = ()) -> tuple[int, Broken | None]:
    """Run cases until the time is over or one breaks the target; return how many there were, and that one.

    The cases that are kept and the seeds as they are come first. An equal `seed` gives equal cases.
    """
    kept = [path.read_bytes() for path in kept_cases(target.name)]
    mutator = Mutator([*target.seeds, *kept, *corpus], target.tokens)
    deadline, count = time.monotonic() + seconds, 0
    with bounded(), _noted(target.name) as note:
        for case in _cases(mutator, [*kept, *target.seeds, *corpus], seed):
            if time.monotonic() > deadline:
                break
            note(case)
            count += 1
            broken = attempt(target, case)
            if broken is not None:
                return count, _shrunk(target, broken)
    return count, None


def _cases(mutator: Mutator, first: Sequence[bytes], seed: str) -> Iterator[bytes]:
    yield from first
    draw = random.Random(seed)
    while True:
        yield mutator.case(draw)


@contextmanager
def _noted(name: str) -> Iterator[Callable[[bytes], None]]:
    """Write down each case before it runs: a library that never comes back cannot be asked afterwards."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"s3bu-fuzz-{name}-{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)

    def note(case: bytes) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, case, 0)

    try:
        yield note
    finally:
        os.close(descriptor)
        path.unlink()


def _shrunk(target: Target, broken: Broken) -> Broken:
    """Leave out of a case what it breaks its target without, as far as that is found soon."""
    deadline, size = time.monotonic() + _SHRINKING_SECONDS, max(len(broken.case) // 2, 1)
    while size and time.monotonic() < deadline:
        smaller = _without_a_piece(target, broken, size, deadline)
        if smaller is None:
            size //= 2
        else:
            broken = smaller
    return broken


def _without_a_piece(target: Target, broken: Broken, size: int, deadline: float) -> Broken | None:
    for start in range(0, len(broken.case), size):
        if time.monotonic() > deadline:
            return None
        found = attempt(target, broken.case[:start] + broken.case[start + size :])
        if found is not None and found.kind == broken.kind:
            return found
    return None


def keep(target: Target, broken: Broken) -> Path:
    """Keep a case that broke a target, so that it is run from now on, and return its file."""
    path = CASES / target.name / hashlib.sha256(broken.case).hexdigest()[:16]
    with suppress(OSError):  # a checkout that cannot be written to: the report has all of it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(broken.case)
    return path


def report(target: Target, broken: Broken, seed: str, path: Path) -> None:
    """Say how to see it again."""
    shown = repr(broken.case[:2000]) + ("..." if len(broken.case) > 2000 else "")
    sys.stderr.write(
        f"{target.name} breaks with {broken.kind} (seed {seed}):\n{broken.trace}\n"
        f"the case, {len(broken.case)} bytes: {shown}\n"
        f"again: python -m tests.fuzz {target.name} --case {path}\n"
    )
