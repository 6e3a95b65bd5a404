"""Whether the journal of a source may be believed: each condition, and what to say of one that does not hold.

The journal only saves looking. Wherever it might not tell of a change, a run looks at the whole source instead: after
any doubt there is nothing to find out, and nothing to lose but time.
"""

import hashlib
import os
import time
from collections.abc import Container
from dataclasses import dataclass

from s3bu.filters import Filters
from s3bu.journal import Journal, rules_of
from s3bu.journal.watched import Left, Watched
from s3bu.mounts import is_local, is_uncovered, mounts_of
from s3bu.scan.found import Excluded, signed

_BEAT_BOUND_SECONDS = 60
_COOKIE_SECONDS = 10
_OF_OWNERS = ("/etc/passwd", "/etc/group")
"""Where the names of owners stand, which snapshots have."""
NEVER = "no journal of changes is kept"


@dataclass(frozen=True, slots=True)
class Ways:
    """Where a source is, and by what rules it is looked at, now: what the last run left is of use if that is the same.

    `mounts` are a digest of what is mounted at it and below, `foreign` names a file system among them on which changes
    come unseen, with the path of its mount point below the source; `None` where this machine tells nothing of mounts.
    """

    root: bytes
    inode: int
    device: int
    rules: str
    mounts: str | None
    foreign: tuple[tuple[bytes, str], ...] = ()


def ways_of(path: bytes, filters: Filters, excluded: Excluded) -> Ways:
    """Look where a source is; one that is not there has no inode."""
    root = os.path.realpath(path)
    try:
        status = os.stat(root)
        inode, device = signed(status.st_ino), signed(status.st_dev)
    except OSError:
        inode, device = 0, 0
    mounts = mounts_of(root)
    rules = _digest(repr((rules_of(filters), sorted(excluded.items()), [_stamp(path) for path in _OF_OWNERS])))
    if mounts is None:
        return Ways(root, inode, device, rules, None)
    foreign = tuple(
        (mount.path[len(root) :].strip(b"/") if number else b"", mount.kind)
        for number, mount in enumerate(mounts)
        if not is_local(mount.kind) and (number == 0 or is_uncovered(mount))
    )
    return Ways(root, inode, device, rules, _digest(repr(mounts)), foreign)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino


def watcher_doubt(watched: Watched | None, filters: Filters) -> str | None:
    """Return why nobody records what changes in a source, by these rules, if that is so."""
    if watched is None:
        return NEVER
    session = watched.session
    if not session.is_running:
        return "the watcher ended since"
    if session.beat_age > _BEAT_BOUND_SECONDS:
        return f"the watcher gave no sign of life for {session.beat_age:,.0f} seconds"
    if watched.rules != rules_of(filters):
        return "the watcher goes by another version of the job, or of the program"
    return watched.obstacle


def answer_doubt(journal: Journal, watched: Watched) -> str | None:
    """Wait until the watcher has written down all that happened so far; return why that cannot be known."""
    if journal.await_answer(watched.session.id, _COOKIE_SECONDS):
        return None
    return f"the watcher did not say within {_COOKIE_SECONDS} seconds that it has seen all"


def left_doubt(watched: Watched, ways: Ways, token: str | None, base: str | None) -> str | None:
    """Return why what the last run left is of no use to this one: something else is where it was, or it is too old.

    `token` stands in the index, `base` is the key of the newest snapshot.
    """
    left = watched.left
    if left is None or left.full_session != watched.session.id:
        return "the watcher started after the last full scan"
    if left.rules != ways.rules:
        return "the job, the program or the users of this machine changed"
    if (left.root, left.inode, left.device) != (ways.root, ways.inode, ways.device):
        return "another directory is where the source was"
    if ways.mounts is None:
        return "this system does not tell what is mounted"
    if left.mounts != ways.mounts:
        return "something was mounted or unmounted"
    return _age_doubt(watched, left) or _index_doubt(left, token, base)


def _age_doubt(watched: Watched, left: Left) -> str | None:
    age = time.time() - left.full_us / 1_000_000
    return None if 0 <= age < watched.full_seconds else f"the last full scan is over {_span(watched.full_seconds)} old"


def _span(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds >= 3600 else f"{seconds} s"


def _index_doubt(left: Left, token: str | None, base: str | None) -> str | None:
    if left.base != base:
        return "the newest snapshot was not made by the last run on this machine"
    return None if left.token == token else "the index is not as the last run left it"


def foreign_doubt(ways: Ways, directories: Container[bytes]) -> str | None:
    """Return that a part of the source lies where changes come unseen, on a network or an overlay, if it does."""
    for path, kind in ways.foreign:
        if path in directories:
            where = f"{os.fsdecode(path)} lies" if path else "it lies"
            return f"{where} on a file system where changes may come unseen ({kind})"
    return None
