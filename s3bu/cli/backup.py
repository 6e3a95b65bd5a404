"""`s3bu backup`."""

import os
import platform
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import (
    NOTHING_COMMON,
    Common,
    Location,
    excluded_directories,
    load_job,
    open_journal,
    open_local_index,
    open_repository,
    words_of,
)
from s3bu.cli.values import value_of
from s3bu.console import Console
from s3bu.console.text import changes, counted, format_nbytes, sent, shown_line
from s3bu.errors import UsageError
from s3bu.job import is_job_file
from s3bu.moment import parse_duration

if TYPE_CHECKING:
    from s3bu.backup import Options, Outcome
    from s3bu.job import Job, Source
    from s3bu.repository import Repository


def backup(
    repository: Location,
    job: str,
    label: str | None = None,
    /,
    *,
    compress: Annotated[bool, Parameter(name=["--compress", "-c"], negative="")] = False,
    init: Annotated[bool, Parameter(negative="")] = False,
    full_scan: Annotated[bool, Parameter(negative="")] = False,
    rehash: Annotated[bool, Parameter(negative="")] = False,
    accept_deletions: Annotated[bool, Parameter(negative="")] = False,
    large_interval: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Back up the sources of a job.

    JOB is a job of the repository, or a local file that ends in .yml. Exit codes: 0 done or nothing to do, 1 failed,
    2 wrong usage, 3 done but incomplete, 10 no repository or job, 11 another run has the job,
    12 key missing or wrong.

    For example:

      s3bu backup my-bucket home
      s3bu backup my-bucket server etc -c
      s3bu backup --init ./repository home.yml
      s3bu backup my-bucket home --dry-run

    Parameters
    ----------
    job
        a job's name, or a local .yml file
    label
        back up only the source of this label
    compress
        compress new contents that get smaller by it
    init
        make the repository and keys first where there are none
    full_scan
        look at everything anew: every file of the source, and what is stored in the repository
    rehash
        read every file, also those that look unmodified
    accept_deletions
        publish even if more than half of the files vanished, or changed
    large_interval
        take a file over 256 MiB that keeps changing again only when so long has gone by, such as 1h; in between it
        stays as it was
    dry_run
        only show what it would do, as `s3bu plan` does
    """
    from s3bu.backup import Options  # noqa: PLC0415 - start-up counts
    from s3bu.cli.keys import run_init  # noqa: PLC0415
    from s3bu.cli.plan import tell_plans  # noqa: PLC0415 - it takes what is here
    from s3bu.index import IndexDamagedError  # noqa: PLC0415

    if dry_run and init:
        raise UsageError("--dry-run makes nothing, and --init would", hint="leave out one of them")
    options = Options(
        host=platform.node(),
        is_compressing=compress,
        is_rehash=rehash,
        accepts_deletions=accept_deletions,
        excluded=excluded_directories(repository),
        is_full=full_scan,
        large_seconds=int(value_of("--large-interval", large_interval, parse_duration) or 0),
    )
    written = () if dry_run else ("locks",)
    with open_repository(repository, common, *written) as opened, common.console() as console:
        if dry_run:
            return tell_plans(opened, job, label, options, console, tells_something=False)
        if is_job_file(job):
            _ = load_job(opened, job)  # before anything is made for a job that cannot be used
        if init:
            run_init(opened, None, console)
        try:
            name, outcomes = _run(opened, repository, job, label, options, console)
        except IndexDamagedError as error:
            console.warning(f"{error.message}; beginning again with a new one")
            name, outcomes = _run(opened, repository, job, label, options, console)
        console.finish()
        words = (repository, job, *(("-c",) if compress else ()), *words_of(common))
        for outcome in outcomes:
            _explain(outcome, words)
            _tell(console, name, outcome)
    return max((_exit_code(outcome) for outcome in outcomes), key=[0, 3, 2, 1].index)


def _run(
    repository: "Repository", place: str, text: str, label: str | None, options: "Options", console: Console
) -> tuple[str, "list[Outcome]"]:
    """Back up the job that the user named, under its lock; return its name and what came of each source."""
    from s3bu.backup import run  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415
    from s3bu.lock import hold  # noqa: PLC0415

    with open_local_index(repository, console) as index:
        job, warnings = load_job(repository, text, index)
        for warning in warnings:
            console.warning(warning)
        sources = chosen_sources(job, label)
        with (
            hold(default_home(os.environ), repository.storage.identity, job.name, console),
            open_journal(repository) as journal,
        ):
            # What s3bu writes on this machine is left out, and by now all of it is there.
            options = replace(options, excluded=excluded_directories(place), journal=journal)
            return job.name, run(repository, index, job, sources, options, console)


def chosen_sources(job: "Job", label: str | None) -> tuple["Source", ...]:
    """Return the sources of a job, or the one of a label."""
    if label is None:
        return job.sources
    chosen = tuple(source for source in job.sources if source.label == label)
    if not chosen:
        labels = ", ".join(source.label for source in job.sources)
        raise UsageError(f"job '{job.name}' has no source with the label '{label}'", hint=f"it has {labels}")
    return chosen


def _exit_code(outcome: "Outcome") -> int:
    from s3bu.scan.source import SourceMissingError  # noqa: PLC0415 - start-up counts

    if outcome.error is not None and not isinstance(outcome.error, SourceMissingError):
        return outcome.error.exit_code
    return 3 if outcome.error is not None or outcome.failures else 0


def _explain(outcome: "Outcome", words: tuple[str, ...]) -> None:
    """Have a refusal say the command that accepts it, in the words of this one."""
    from s3bu.backup import DeletionsRefusedError  # noqa: PLC0415 - start-up counts

    if isinstance(outcome.error, DeletionsRefusedError):
        place, job, *options = words
        command = shlex.join(["s3bu", "backup", place, job, outcome.label, *options, "--accept-deletions"])
        outcome.error.hint = f"{outcome.error.hint} with `{command}`"


_TOLD = ("new", "changed", "removed", "unmodified")


def _tell(console: Console, job: str, outcome: "Outcome") -> None:
    if outcome.error is not None:
        console.error(outcome.error, during=f"{job}/{outcome.label}")
    else:
        console.summary(_facts(job, outcome), *_lines(job, outcome))


def _facts(job: str, outcome: "Outcome") -> dict[str, object]:
    from s3bu.compare import CARRIED  # noqa: PLC0415 - start-up counts

    return {
        "job": job,
        "label": outcome.label,
        "snapshot_id": str(outcome.published) if outcome.published else None,
        **{f"files_{one}": outcome.files[one] for one in _TOLD},
        **{f"others_{one}": outcome.counts[one] - outcome.files[one] for one in _TOLD},
        "carried_forward": outcome.counts[CARRIED],
        "failed": len(outcome.failures),
        "not_backed_up": dict(outcome.left.special),
        "total_files_processed": outcome.nfiles,
        "total_bytes_processed": outcome.nbytes,
        "data_added_packed": outcome.nbytes_sent,
        "manifest_size": outcome.manifest_nbytes,
        "full_scan": outcome.why_full,
        "unwatched_directories": outcome.nunwatched,
        "deferred": outcome.ndeferred,
        "backup_start": outcome.started,
        "total_duration": round(outcome.seconds, 3),
    }


def _lines(job: str, outcome: "Outcome") -> Iterator[str]:
    from s3bu.compare import CARRIED  # noqa: PLC0415 - start-up counts

    *moved, unmodified = (outcome.counts[one] for one in _TOLD)
    yield f"{job}/{outcome.label}: {changes(*moved)}, {unmodified:,} unmodified"
    if outcome.counts[CARRIED]:
        yield f"  {counted(outcome.counts[CARRIED], 'path')} carried forward, as they could not be read"
    left = [counted(number, kind) for kind, number in sorted(outcome.left.special.items())]
    if left:
        yield f"  not backed up: {', '.join(left)}"
    for path, what in outcome.left.excluded:
        yield f"  not backed up: {what}, at {shown_line(repr(path)[2:-1])}"
    yield from _lines_of_view(outcome)
    if outcome.failures:
        yield f"  incomplete: {counted(len(outcome.failures), 'path')} failed"
    size = f"{counted(outcome.nfiles, 'file')}, {format_nbytes(outcome.nbytes)}"
    if outcome.published is None:
        yield f"  no change since the last snapshot ({size})"
    else:
        yield f"  snapshot of {size}; {sent(outcome.nbytes_sent, outcome.manifest_nbytes or 0)}"
        yield f"  {outcome.published}"


def _lines_of_view(outcome: "Outcome") -> Iterator[str]:
    from s3bu.backup.doubts import NEVER  # noqa: PLC0415 - start-up counts

    if outcome.why_full is None:
        yield "  looked only where the watcher saw changes"
    elif outcome.why_full != NEVER:
        yield f"  looked at the whole source: {shown_line(outcome.why_full)}"
    if outcome.nunwatched:
        yield f"  met {counted(outcome.nunwatched, 'directory')} that nobody watches"
    if outcome.ndeferred:
        yield f"  {counted(outcome.ndeferred, 'large file')} not taken again yet"
