"""`s3bu status`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_journal, open_repository
from s3bu.cli.standing import Standing, local_standings, standings
from s3bu.cli.values import oldest_of
from s3bu.console import Console, Row, Table
from s3bu.console.text import shown, shown_line
from s3bu.errors import S3buError, StorageError
from s3bu.moment import format_duration, format_local, instant

if TYPE_CHECKING:
    from s3bu.index import Index
    from s3bu.repository import Repository

_TITLES = ("source", "newest snapshot", "age", "watched", "waiting", "next run")
_VERBOSE_TITLES = ("watched by", "last full scan", "why")


def status(
    repository: Location,
    job: str | None = None,
    /,
    *,
    max_age: str | None = None,
    watched: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Show how old the newest snapshots are, who watches the sources, and what is wrong.

    The snapshots are those of the repository, of all machines; the rest is of this machine, and is shown also when the
    repository cannot be reached. Exit codes: 1 it cannot be reached, 3 a newest snapshot is too old, or there is none,
    or with --watched a source is not watched, or not all of it is backed up, 10 no repository or job, 12 key missing or
    wrong.

    For example:

      s3bu status my-bucket
      s3bu status my-bucket home --watched
      s3bu status my-bucket home --max-age 26h

    Parameters
    ----------
    job
        only the sources of this job, or of that local .yml file
    max_age
        exit with 3 when the newest snapshot of a source is older than this, such as 26h or 8d, or there is none
    watched
        exit with 3 when no watcher of this machine is alive for a source, or its last run failed or lacked something
    """
    oldest = oldest_of("--max-age", max_age)
    with open_repository(repository, common) as opened, common.console() as console:
        found, code = _found(opened, job, console)
        console.finish()
        console.table(Table("source_status", *_told(found, oldest, is_verbose=console.lists_all), right=frozenset({4})))
        for one in found:
            for problem in one.problems():
                console.warning(f"{one.job}/{one.label}: {problem}")
    is_late = any(one.is_too_old(oldest) for one in found)
    is_unwatched = watched and any(not one.is_alive or one.failing is not None for one in found)
    return code or (3 if is_late or is_unwatched else 0)


def _found(repository: "Repository", job: str | None, console: Console) -> tuple[list[Standing], int]:
    """Return how all stands, or what this machine knows of it, and an exit code, when the repository does not tell."""
    with _open_index(repository, console) as index, open_journal(repository) as journal:
        try:
            return list(standings(repository, index, journal, job, console)), 0
        except StorageError as error:
            found = list(local_standings(index, journal, job))
            if not found:
                raise
            console.error(error, during="listing the snapshots")
            console.warning("this is what this machine knows; snapshots of others may be newer")
            return found, error.exit_code


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


# --- what is told


def _told(found: list[Standing], oldest: datetime | None, *, is_verbose: bool) -> tuple[tuple[str, ...], list[Row]]:
    """Return titles and rows; a person who wants it gets columns that take a wide terminal."""
    rows = []
    for one in found:
        cells = (*_cells(one, oldest), *(_verbose_cells(one) if is_verbose else ()))
        rows.append(Row(_facts(one, oldest), cells))
    return (*_TITLES, *(_VERBOSE_TITLES if is_verbose else ())), rows


def _facts(one: Standing, oldest: datetime | None) -> dict[str, object]:
    watched = one.watched
    left = watched.left if watched else None
    failing = one.failing
    session = watched.session if watched and one.is_watched else None
    age = _age(one)
    return {
        "job": one.job,
        "label": one.label,
        "newest": one.newest.created,
        "snapshot_id": one.newest.key,
        "age_seconds": round(age) if age is not None else None,
        "too_old": one.is_too_old(oldest),
        "is_watched": one.is_watched,
        "pid": session.pid if session else None,
        "watched_since": instant(session.began_us) if session else None,
        "obstacle": watched.obstacle if watched else None,
        "unwatched_directories": one.nunwatched,
        "dirty": one.ndirty,
        "next_run": _next_run(one),
        "failing_since": instant(failing.since_us) if failing else None,
        "failure": failing.failure if failing else None,
        "last_full_scan": instant(left.full_us) if left else None,
        "full_scan": left.full_why if left else None,
    }


def _age(one: Standing) -> float | None:
    return (datetime.now(UTC) - one.newest.created).total_seconds() if one.newest.created else None


def _next_run(one: Standing) -> datetime | None:
    if one.watched is None or not one.is_alive or one.watched.next_run_us is None:
        return None
    return instant(one.watched.next_run_us)


def _cells(one: Standing, oldest: datetime | None) -> tuple[str, ...]:
    age = _age(one)
    return (
        shown(f"{one.job}/{one.label}"),
        format_local(one.newest.created) if one.newest.created else "none",
        (format_duration(max(age, 0.0)) + (", too old" if one.is_too_old(oldest) else "")) if age is not None else "",
        _watched(one),
        f"{one.ndirty:,}" if one.ndirty is not None else "",
        _until(_next_run(one)),
    )


def _watched(one: Standing) -> str:
    """Return whether a source is watched."""
    if one.watched is None:
        return "no"
    if one.is_alive:
        return "yes"
    return "silent" if one.watched.session.is_running else "no more"


def _until(when: datetime | None) -> str:
    """Return in how long something is to be."""
    if when is None:
        return ""
    seconds = (when - datetime.now(UTC)).total_seconds()
    return "now" if seconds < 1 else f"in {format_duration(seconds)}"


def _verbose_cells(one: Standing) -> tuple[str, ...]:
    left = one.watched.left if one.watched else None
    return (
        f"process {one.watched.session.pid} since {_since(one.watched.session.began_us)}"
        if one.watched and one.is_alive
        else "",
        _since(left.full_us) if left else "",
        shown_line(left.full_why) if left else "",
    )


def _since(microseconds: int) -> str:
    return format_local(instant(microseconds))
