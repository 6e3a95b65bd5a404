"""A source that is watched, and what the last run of it left."""

from dataclasses import dataclass
from typing import NamedTuple

from s3bu.journal.session import Session

GONE = "the watcher does not watch it any more"
"""The obstacle of a source that left its job."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left behind that has seen a source as it was, for the next one to go on from.

    `token` also stands in the index, `base` is the key of its newest snapshot, `rules` are those that held. `root`,
    `inode`, `device` and `mounts` say where the source was. `full_session` is the watcher of the last full scan,
    `full_us` when it began, and `full_why` what for.
    """

    token: str
    base: str
    rules: str
    root: bytes
    inode: int
    device: int
    mounts: str
    full_session: int
    full_us: int
    full_why: str


class Failing(NamedTuple):
    """What was wrong with the last run that a watcher started, and since when something is."""

    since_us: int
    failure: str


@dataclass(frozen=True, slots=True)
class Watched:
    """A source that a watcher of this machine watches, or watched.

    `rules` are those it goes by; `obstacle` is why it can never be believed.
    """

    id: int
    job: str
    label: str
    session: Session
    rules: str
    obstacle: str | None
    full_seconds: int
    next_run_us: int | None
    left: Left | None
    failing: Failing | None
