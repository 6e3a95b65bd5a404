"""Let old snapshots go: which ones the rules keep is decided first, then their manifests are deleted.

What the index says of a manifest counts as long as the listing shows that very manifest; and before anything is
deleted, the repository itself is asked, for the times of all of them and for a whole snapshot that stays: no local
state ever deletes what is remote. The contents stay until a prune.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from s3bu.errors import IntegrityError
from s3bu.history import let_go, microseconds
from s3bu.index import AT, Index, IndexedSnapshot
from s3bu.manifest import FILE
from s3bu.parallel import each
from s3bu.progress import Progress
from s3bu.repository import Repository, StoredManifest
from s3bu.repository.layout import ManifestKey
from s3bu.retention import Policy, reasons_to_keep

UNREAD = "cannot be read"
"""Why a snapshot stays whose time and content nobody knows."""
_COMPLETE = "newest complete"
_NEWEST = "newest"
_READERS = 2


@dataclass(frozen=True, slots=True)
class Decision:
    """One snapshot, and what keeps it; with no reason it is let go."""

    key: ManifestKey
    created: datetime
    reasons: tuple[str, ...]
    is_complete: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def plan_forget(index: Index, manifests: Iterable[StoredManifest], policy: Policy, *, now: datetime) -> list[Decision]:
    """Return what becomes of each of these manifests, those of a source together and the newest first.

    One that the index does not know as it is listed stays, and so does the newest snapshot of each source that lacks
    nothing, whatever the rules say; where all lack something, the newest.
    """
    known = {(snapshot.key, snapshot.etag): snapshot for snapshot in index.snapshots() if snapshot.error is None}
    decisions = []
    for _, group in groupby(manifests, key=lambda manifest: (manifest.key.job, manifest.key.label)):
        listed = list(group)
        read = [(one, known[str(one.key), one.etag]) for one in listed if (str(one.key), one.etag) in known]
        unread = [one for one in listed if (str(one.key), one.etag) not in known]
        decisions += [Decision(one.key, one.modified, (UNREAD,)) for one in unread]
        decisions += _decide(index, read, policy, now)
    return decisions


def _decide(
    index: Index, read: list[tuple[StoredManifest, IndexedSnapshot]], policy: Policy, now: datetime
) -> list[Decision]:
    read = sorted(read, key=lambda pair: (pair[1].created_us, pair[0].key), reverse=True)
    kept = reasons_to_keep([snapshot.created for _, snapshot in read], policy, now=now)
    complete = [_is_complete(index, snapshot) for _, snapshot in read]
    if read:
        stays = complete.index(True) if True in complete else 0
        kept[stays] = (*kept[stays], _COMPLETE if complete[stays] else _NEWEST)
    return [
        Decision(manifest.key, snapshot.created, reasons, is_complete)
        for (manifest, snapshot), reasons, is_complete in zip(read, kept, complete, strict=True)
    ]


def _is_complete(index: Index, snapshot: IndexedSnapshot) -> bool:
    """Say whether a snapshot lacks nothing: no path failed in it, and no file is without its content."""
    values = {"source": snapshot.source, "number": snapshot.number}
    without = index.connection.execute(f"SELECT 1 FROM version WHERE {AT} AND kind = 0 AND hash IS NULL", values)
    return not index.failed(snapshot) and without.fetchone() is None


def run(repository: Repository, index: Index, decisions: list[Decision], progress: Progress) -> list[ManifestKey]:
    """Delete the manifests that nothing keeps, and let go of them in the index; return their keys.

    `IntegrityError` when a manifest is not what the index says of it, or the one that is to stay cannot be read: then
    nothing was deleted.
    """
    doomed = [decision for decision in decisions if not decision.is_kept]
    _check(repository, decisions, progress)
    progress.phase("forgetting", files=len(doomed), noun="snapshot")
    gone: list[ManifestKey] = []
    try:
        for decision in doomed:
            repository.storage.delete(str(decision.key))
            gone.append(decision.key)
            progress.advance(files=1)
    finally:
        _let_go(index, gone)
    return gone


def _check(repository: Repository, decisions: list[Decision], progress: Progress) -> None:
    """Ask the repository whether it is as the index says, in all that matters for what is to be deleted."""
    checks: list[Callable[[], None]] = []
    for _, group in groupby(decisions, key=lambda decision: (decision.key.job, decision.key.label)):
        of_source = list(group)
        if not all(decision.is_kept for decision in of_source):
            kept = next(one for one in of_source if one.reasons[-1:] in ((_COMPLETE,), (_NEWEST,)))
            checks.append(lambda kept=kept: _check_kept(repository, kept))  # type: ignore[misc]
            read = [one for one in of_source if one.reasons != (UNREAD,)]
            checks += [lambda one=one: _check_time(repository, one) for one in read]  # type: ignore[misc]
    progress.phase("looking at them once more", files=len(checks), noun="snapshot")
    for _ in each(lambda check: check(), checks, workers=_READERS, give_up=repository.storage.stop):
        progress.advance(files=1)


def _check_kept(repository: Repository, decision: Decision) -> None:
    snapshot = repository.read_snapshot(decision.key)
    is_without = any(entry.kind == FILE and not entry.hash for entry in snapshot.entries)
    if decision.is_complete and (snapshot.failed or snapshot.is_truncated or is_without):
        raise _wrong_index(decision.key)


def _check_time(repository: Repository, decision: Decision) -> None:
    with repository.open_manifest(decision.key) as (_, created):
        if microseconds(created) != microseconds(decision.created):
            raise _wrong_index(decision.key)


def _wrong_index(key: ManifestKey) -> IntegrityError:
    return IntegrityError(
        f"{key}: the index does not say of it what it holds; nothing was deleted", hint="`s3bu index rebuild`"
    )


def _let_go(index: Index, gone: list[ManifestKey]) -> None:
    keys = {str(key) for key in gone}
    with index.transaction():
        for snapshot in list(_of(index, keys)):
            let_go(index, snapshot)


def _of(index: Index, keys: set[str]) -> Iterator[IndexedSnapshot]:
    return (snapshot for snapshot in index.snapshots() if snapshot.key in keys)
