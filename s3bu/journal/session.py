"""One life of a watcher, and whether it is still lived."""

import time
from pathlib import Path
from typing import NamedTuple

_ENDED = (b"Z", b"X")
"""How the kernel calls a process that has ended, and for which nobody asked yet."""


class Session(NamedTuple):
    """One life of a watcher: its process, by boot, number and start; `beat_ns` is of CLOCK_BOOTTIME."""

    id: int
    boot: str
    pid: int
    ticks: int
    began_us: int
    beat_ns: int
    is_ended: bool

    @property
    def beat_age(self) -> float:
        """Seconds since it last said that it lives; time that the machine slept counts."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.beat_ns) / 1e9

    @property
    def is_running(self) -> bool:
        """Whether that very process is there, and had not ended watching."""
        return not self.is_ended and (self.boot, self.ticks) == (boot_id(), start_ticks(self.pid))


def boot_id() -> str:
    """Return what names this boot of the machine, or an empty text where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int:
    """Return when a process started, in ticks since the boot; -1 when there is no such process, or it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return -1
    fields = status.rpartition(b") ")[2].split()
    return -1 if fields[0] in _ENDED else int(fields[19])
