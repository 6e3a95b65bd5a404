"""How the sources of a repository stand: their newest snapshots, and what the watchers of this machine know of them."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from s3bu.cli.opening import load_job
from s3bu.console import Console
from s3bu.console.text import counted
from s3bu.errors import IntegrityError, JobError, PassphraseNotFoundError
from s3bu.job import Job, is_job_file
from s3bu.moment import format_local, instant

if TYPE_CHECKING:
    from s3bu.index import Index, IndexedSnapshot
    from s3bu.journal import Journal
    from s3bu.journal.watched import Failing, Watched
    from s3bu.repository import Repository, StoredManifest

_Source: TypeAlias = tuple[str, str]
_TRIED = 5
"""So many of the newest manifests are tried to be opened."""
_SILENT_SECONDS = 60


class Newest(NamedTuple):
    """The newest snapshot of a source that can be read, by key and time, if there is any."""

    key: str | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands; `watched`, and how much waits or is not watched, are of this machine's journal."""

    job: str
    label: str
    newest: Newest
    watched: "Watched | None"
    ndirty: int | None
    nunwatched: int | None

    def is_too_old(self, oldest: datetime | None) -> bool:
        """Whether its newest snapshot is older than that, or there is none."""
        created = self.newest.created
        return oldest is not None and (created is None or created < oldest)

    @property
    def is_alive(self) -> bool:
        """Whether a watcher is there, and says so."""
        if self.watched is None:
            return False
        session = self.watched.session
        return session.is_running and session.beat_age < _SILENT_SECONDS

    @property
    def is_watched(self) -> bool:
        """Whether somebody watches it, whose journal a run may believe."""
        return self.is_alive and self.watched is not None and self.watched.obstacle is None

    @property
    def failing(self) -> "Failing | None":
        """What the last run of its watcher lacked; of one that has ended nobody knows what ran since."""
        return self.watched.failing if self.watched is not None and self.watched.session.is_running else None

    def problems(self) -> Iterator[str]:
        """Yield what a person should know who sees to it that there are backups."""
        if self.watched is None:
            return
        session, failing = self.watched.session, self.failing
        if not session.is_running and not session.is_ended:
            yield f"process {session.pid} that watched it was killed, or ended by itself, and nobody watches it"
        elif session.is_running and not self.is_alive:
            yield f"process {session.pid} that watches it gives no sign of life"
        if failing is not None:
            yield f"not all is backed up since {format_local(instant(failing.since_us))}: {failing.failure}"
        if self.is_alive and self.watched.obstacle is not None:
            yield f"each run looks at all of it: {self.watched.obstacle}"
        elif self.is_alive and self.nunwatched:
            yield f"{counted(self.nunwatched, 'directory')} not watched, and looked at by each run"


def standings(
    repository: "Repository", index: "Index | None", journal: "Journal | None", job: str | None, console: Console
) -> Iterator[Standing]:
    """Yield how each source stands, in order: of the job that is named, or of all."""
    known = {one.key: one for one in index.snapshots()} if index else {}
    jobs = _jobs(repository, index, job, console)
    listed = repository.manifests(next(iter(jobs)) if job else None)
    manifests = {key: list(of) for key, of in groupby(listed, lambda one: (one.key.job, one.key.label))}
    # What a job has no more has no newest snapshot that could be too old.
    sources = {(one.name, source.label) for one in jobs.values() for source in one.sources}
    sources |= {key for key in (*manifests, *_watched(journal, job)) if key[0] not in jobs}
    newest = {key: _newest(repository, manifests.get(key, ()), known, console) for key in sorted(sources)}
    yield from _joined(newest, journal)


def local_standings(index: "Index | None", journal: "Journal | None", job: str | None) -> Iterator[Standing]:
    """Yield how each source stands as far as this machine knows."""
    from s3bu.repository.layout import parse_manifest_key  # noqa: PLC0415 - start-up counts

    name = _name_of(job)
    newest: dict[_Source, Newest] = dict.fromkeys(_watched(journal, name), Newest())
    for one in sorted(index.snapshots() if index else (), key=lambda one: one.key):
        key = parse_manifest_key(one.key)
        if key is not None and one.error is None and name in (None, key.job):
            newest[key.job, key.label] = Newest(one.key, one.created)
    yield from _joined(newest, journal)


def _name_of(job: str | None) -> str | None:
    return Path(job).stem if job is not None and is_job_file(job) else job


def _watched(journal: "Journal | None", job: str | None) -> list[_Source]:
    """Return what was watched here: a job that is a local file is known by that alone."""
    return [key for key in journal.sources() if job in (None, key[0])] if journal else []


def _joined(newest: dict[_Source, Newest], journal: "Journal | None") -> Iterator[Standing]:
    for (job, label), snapshot in sorted(newest.items()):
        watched = journal.find(job, label) if journal else None
        ndirty = nunwatched = None
        if journal and watched and watched.session.is_running:
            ndirty, nunwatched = _count_dirty(journal, watched), journal.count_unwatched(watched.id)
        yield Standing(job, label, snapshot, watched, ndirty, nunwatched)


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
) -> Newest:
    """Return the newest snapshot that can be read."""
    for manifest in list(manifests)[: -_TRIED - 1 : -1]:
        key = str(manifest.key)
        indexed = known.get(key)
        if indexed is not None and indexed.error is None and indexed.etag == manifest.etag:
            return Newest(key, indexed.created)
        try:
            with repository.open_manifest(manifest.key) as (_, created):
                return Newest(key, created)
        except (IntegrityError, PassphraseNotFoundError) as error:
            console.warning(f"{key}: {error.message}")
    return Newest()
