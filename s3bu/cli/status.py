"""`s3bu status`."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, load_job, open_journal, open_repository
from s3bu.console import Console, Row, Table
from s3bu.console.text import shown, shown_line
from s3bu.errors import IntegrityError, JobError, PassphraseNotFoundError, S3buError
from s3bu.job import Job, is_job_file
from s3bu.moment import format_duration, format_local, parse_moment

if TYPE_CHECKING:
    from s3bu.index import Index, IndexedSnapshot
    from s3bu.journal import Journal, Watched
    from s3bu.repository import Repository, StoredManifest

_TRIED = 5
"""So many of the newest manifests are tried to be opened."""
_SILENT_SECONDS = 60


def status(
    repository: Location, job: str | None = None, /, *, max_age: str | None = None, common: Common = NOTHING_COMMON
) -> int:
    """Show how old the newest snapshots are, and who watches the sources.

    The snapshots are those of the repository, of all machines; the rest is of this machine. Exit codes: 3 a newest
    snapshot is too old, or there is none, 10 no repository or job, 12 key missing or wrong.

    For example:

      s3bu status my-bucket
      s3bu status my-bucket home --max-age 26h

    Parameters
    ----------
    job
        only the sources of this job, or of that local .yml file
    max_age
        exit with 3 when the newest snapshot of a source is older than this, such as 26h or 8d, or there is none
    """
    oldest = parse_moment(max_age, now=datetime.now(UTC)) if max_age is not None else None
    with open_repository(repository, common) as opened, common.console() as console:
        with _open_index(opened, console) as index, open_journal(opened) as journal:
            found = list(_standings(opened, index, journal, job, console))
        console.finish()
        titles = ("source", "newest snapshot", "age", "watched by", "dirty", "next run", "last full scan", "why")
        rows = [_row(one, oldest) for one in found]
        console.table(Table("source_status", titles, rows, right=frozenset({4})))
    return 3 if any(one.is_too_old(oldest) for one in found) else 0


@dataclass(frozen=True, slots=True)
class _Standing:
    """A source: its newest snapshot, by key and time, and what the journal knows of it."""

    job: str
    label: str
    key: str | None
    created: datetime | None
    watched: "Watched | None"
    ndirty: int | None

    def is_too_old(self, oldest: datetime | None) -> bool:
        return oldest is not None and (self.created is None or self.created < oldest)

    @property
    def is_watched(self) -> bool:
        """Whether somebody watches it, whose journal a run may believe."""
        if self.watched is None or self.watched.obstacle is not None:
            return False
        session = self.watched.session
        return session.is_running and session.beat_age < _SILENT_SECONDS


@contextmanager
def _open_index(repository: "Repository", console: Console) -> Iterator["Index | None"]:
    """Hold the index open, if there is one: it knows the times of snapshots, which stand in their manifests else."""
    from s3bu.index import held, open_index  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415

    try:
        index = open_index(default_home(os.environ), repository.storage.identity, console)
    except S3buError:
        yield None
        return
    with held(index):
        yield index


def _standings(
    repository: "Repository", index: "Index | None", journal: "Journal | None", job: str | None, console: Console
) -> Iterator[_Standing]:
    known = {one.key: one for one in index.snapshots()} if index else {}
    jobs = _jobs(repository, index, job, console)
    # What a job has no more has no newest snapshot that could be too old.
    wanted = {(one.name, source.label): one for one in jobs.values() for source in one.sources}
    listed = repository.manifests(next(iter(jobs)) if job else None)
    manifests = {key: list(of) for key, of in groupby(listed, lambda one: (one.key.job, one.key.label))}
    loose = [key for key in manifests if key[0] not in jobs]
    for name, label in sorted({*wanted, *loose}):
        newest = _newest(repository, manifests.get((name, label), ()), known, console)
        watched = journal.find(name, label) if journal else None
        ndirty = _count_dirty(journal, watched) if journal and watched and watched.session.is_running else None
        yield _Standing(name, label, *newest, watched, ndirty)


def _count_dirty(journal: "Journal", watched: "Watched") -> int:
    """Return how many paths wait for the next run; those that only later ones are to take do not."""
    now_us = time.time_ns() // 1000
    return sum(one.not_before_us <= now_us for one in journal.dirty(watched.id))


def _jobs(repository: "Repository", index: "Index | None", job: str | None, console: Console) -> dict[str, Job]:
    """Return the job that was named, or all of the repository that can be read."""
    if job is not None:
        loaded, warnings = load_job(repository, job, index)
        for warning in warnings if is_job_file(job) else ():
            console.warning(warning)
        return {loaded.name: loaded}
    found = {}
    stored = repository.jobs()
    if not stored:
        _ = repository.recipients()  # says so when this is no repository
    for name in sorted(stored):
        try:
            found[name] = load_job(repository, name, index)[0]
        except (JobError, IntegrityError) as error:
            console.warning(f"{error.message}; so only what was backed up of it is shown")
    return found


def _newest(
    repository: "Repository",
    manifests: "Iterable[StoredManifest]",
    known: "dict[str, IndexedSnapshot]",
    console: Console,
) -> tuple[str | None, datetime | None]:
    """Return key and time of the newest snapshot that can be read."""
    for manifest in list(manifests)[: -_TRIED - 1 : -1]:
        key = str(manifest.key)
        indexed = known.get(key)
        if indexed is not None and indexed.error is None and indexed.etag == manifest.etag:
            return key, indexed.created
        try:
            with repository.open_manifest(manifest.key) as (_, created):
                return key, created
        except (IntegrityError, PassphraseNotFoundError) as error:
            console.warning(f"{key}: {error.message}")
    return None, None


# --- what is told


def _row(one: _Standing, oldest: datetime | None) -> Row:
    watched = one.watched
    left = watched.left if watched else None
    session = watched.session if watched and one.is_watched else None
    age = (datetime.now(UTC) - one.created).total_seconds() if one.created else None
    next_run = _moment(watched.next_run_us) if watched and session else None
    full = _moment(left.full_us) if left else None
    facts = {
        "job": one.job,
        "label": one.label,
        "newest": one.created,
        "snapshot_id": one.key,
        "age_seconds": round(age) if age is not None else None,
        "too_old": one.is_too_old(oldest),
        "is_watched": one.is_watched,
        "pid": session.pid if session else None,
        "watched_since": _moment(session.began_us) if session else None,
        "obstacle": watched.obstacle if watched else None,
        "dirty": one.ndirty,
        "next_run": next_run,
        "last_full_scan": full,
        "full_scan": left.full_why if left else None,
    }
    cells = (
        shown(f"{one.job}/{one.label}"),
        format_local(one.created) if one.created else "none",
        (format_duration(max(age, 0.0)) + (", too old" if one.is_too_old(oldest) else "")) if age is not None else "",
        _watcher(one),
        f"{one.ndirty:,}" if one.ndirty is not None else "",
        format_local(next_run) if next_run else "",
        format_local(full) if full else "",
        shown_line(left.full_why) if left else "",
    )
    return Row(facts, cells)


def _watcher(one: _Standing) -> str:
    """Return who watches a source, or why nobody does."""
    if one.watched is None:
        return "nobody"
    session = one.watched.session
    if not session.is_running:
        return "nobody any more"
    if one.watched.obstacle is not None:
        return f"nobody: {shown_line(one.watched.obstacle)}"
    since = format_local(_moment(session.began_us) or datetime.now(UTC))
    silent = "" if one.is_watched else ", without a sign of life"
    return f"process {session.pid} since {since}{silent}"


def _moment(microseconds: int | None) -> datetime | None:
    if microseconds is None:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
