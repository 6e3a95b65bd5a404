"""`s3bu verify`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, load_job, open_repository
from s3bu.cli.values import oldest_of, value_of
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_nbytes, shown, shown_line
from s3bu.errors import IntegrityError, JobError, JobNotFoundError
from s3bu.job import Job, is_job_file
from s3bu.moment import format_local
from s3bu.progress import Failure
from s3bu.size import parse_share

if TYPE_CHECKING:
    from s3bu.index import Index
    from s3bu.repository import Repository
    from s3bu.verify import Manifests, Options, Report
    from s3bu.verify.live import Live
    from s3bu.verify.report import Fault, Gap, Standing

_MEASURED = 200


def verify(
    repository: Location,
    job: str | None = None,
    label: str | None = None,
    /,
    *,
    read_data: str | None = None,
    against_source: str | None = None,
    repair: Annotated[bool, Parameter(negative="")] = False,
    max_age: str | None = None,
    common: Common = NOTHING_COMMON,
) -> int:
    """Check that every snapshot can come back: by size, or by reading.

    By one listing of all objects; contents are read with --read-data alone. Names the paths and snapshots that
    something is wrong with, and the newest snapshot that is whole. Exit codes: 0 sound, 1 something is damaged, or
    it failed, 2 wrong usage, 3 something was repaired, or cannot be told, or is too old, 10 no repository or
    snapshots, 11 a backup uses the index just now, 12 key missing or wrong.

    For example:

      s3bu verify my-bucket home --read-data 5% --max-age 26h
      s3bu verify my-bucket home --against-source 1%
      s3bu verify my-bucket home --read-data all --repair

    Parameters
    ----------
    job
        only snapshots of this job, or of that local .yml file
    label
        only those of this label
    read_data
        read so much of what is stored (5%, 2GB or all), what was not read for the longest time first
    against_source
        compare so much of the newest snapshot (1%, 2GB or all) with the files of this machine
    repair
        put back what is missing or bad, where this machine still has a file with that content
    max_age
        exit with 3 when the newest snapshot of a source is older than this, such as 26h or 8d
    """
    from s3bu.verify import Options, run  # noqa: PLC0415 - start-up counts

    reads = value_of("--read-data", read_data, parse_share)
    compares = value_of("--against-source", against_source, parse_share)
    oldest = oldest_of("--max-age", max_age)
    with (
        open_repository(repository, common) as opened,
        common.console() as console,
        _open_index(opened, console) as index,
    ):
        wants_live = repair or compares is not None
        named = _named_job(opened, index, job, console) if job and (wants_live or is_job_file(job)) else None
        options = Options(named.name if named else job, label, reads, compares, repair, oldest)
        manifests = _brought_up_to_date(opened, index, console)
        live = _live(opened, index, named, options, console) if wants_live else []
        report = run(opened, index, manifests, live, options, console)
        console.finish()
        _tell(index, report, console)
    _end(opened, report, is_repairing=repair)
    return report.exit_code


def _end(repository: "Repository", report: "Report", *, is_repairing: bool) -> None:
    """Raise what a run that found damage, or could not do all of its work, ends with."""
    if report.is_damaged:
        hint = "`s3bu verify --repair` puts back what this machine still has; versions of a bucket may be sound"
        if is_repairing:
            hint = "this machine has not what is left; another one that backs up here may, with `s3bu verify --repair`"
        raise IntegrityError(f"{repository.storage.url}: damaged; {', '.join(_damage(report))}", hint=hint)
    if report.errors:
        raise report.errors[0]


def _damage(report: "Report") -> Iterator[str]:
    snapshots = sum(one.nsnapshots for one in report.standings)
    lost = snapshots - sum(one.nwhole for one in report.standings)
    if lost:
        yield f"{lost:,} of {counted(snapshots, 'snapshot')} cannot come back whole"
    if report.compared and report.compared.differing:
        yield f"{counted(len(report.compared.differing), 'file')} of this machine not as backed up"


@contextmanager
def _open_index(repository: "Repository", console: Console) -> Iterator["Index"]:
    from s3bu.index import held, open_index  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import usable_home  # noqa: PLC0415

    with held(open_index(usable_home(os.environ, "index"), repository.storage.identity, console)) as index:
        yield index


def _brought_up_to_date(repository: "Repository", index: "Index", console: Console) -> "Manifests":
    """Take in what is new, as `index sync` does: what every snapshot needs is known from the index."""
    from s3bu.lock import alone  # noqa: PLC0415 - start-up counts
    from s3bu.sync import sync  # noqa: PLC0415
    from s3bu.verify import Manifests  # noqa: PLC0415

    assert index.path is not None
    with alone(index.path, console):
        outcome = sync(repository, index, console)
    return Manifests(outcome.taken, outcome.vanished, outcome.altered, outcome.locked)


# --- live files


def _named_job(repository: "Repository", index: "Index", text: str, console: Console) -> Job:
    job, warnings = load_job(repository, text, index)
    for warning in warnings:
        console.warning(warning)
    return job


def _live(
    repository: "Repository", index: "Index", named: Job | None, options: "Options", console: Console
) -> list["Live"]:
    """Return the sources of the job, or of all that have snapshots, with where they lie on this machine."""
    from s3bu.verify.live import Live  # noqa: PLC0415 - start-up counts

    rows = index.connection.execute("SELECT job, label, id FROM source").fetchall()
    numbers = {(job, label): number for job, label, number in rows}
    jobs = [named] if named else list(_all_jobs(repository, index, console))
    return [
        Live(numbers[job.name, source.label], job.name, source.label, source.path)
        for job in jobs
        for source in job.sources
        if (job.name, source.label) in numbers and options.label in (None, source.label)
    ]


def _all_jobs(repository: "Repository", index: "Index", console: Console) -> Iterator[Job]:
    rows = index.connection.execute("SELECT DISTINCT job FROM source ORDER BY job").fetchall()
    for (name,) in rows:
        try:
            yield load_job(repository, name, index)[0]
        except (JobNotFoundError, JobError, IntegrityError) as error:
            console.warning(f"{error.message}; so nobody knows where its files lie")


# --- what is told


def _tell(index: "Index", report: "Report", console: Console) -> None:
    _tell_broken(report, console)
    _tell_faults(index, report, console)
    _tell_differing(report, console)
    titles = ("source", "snapshots", "whole", "damaged", "unreadable", "newest", "newest whole", "key")
    if report.standings:
        rows = [_standing_row(one) for one in report.standings]
        console.table(Table("standing", titles, rows, right=frozenset({1, 2, 3, 4})))
    for error in report.errors if report.is_damaged else ():
        console.error(error, during="verify")
    console.summary(_facts(report), *_lines(report))


def _tell_broken(report: "Report", console: Console) -> None:
    """Name the snapshots that are not whole: those whose manifest is at fault, and those that lack files."""
    rows = [
        Row(
            {
                "problem": one.problem,
                "detail": one.detail,
                "snapshots": 1,
                "first_snapshot": one.key,
                "last_snapshot": one.key,
                "files": None,
            },
            (one.problem, shown_line(one.detail), "1", "", "", shown(one.key)),
        )
        for one in report.broken
    ]
    for standing in report.standings:
        rows.extend(_gap_row(gap) for gap in standing.gaps)
    if rows:
        titles = ("problem", "what", "snapshots", "from", "until", "newest of them")
        console.table(Table("broken", titles, rows, right=frozenset({2})))


def _gap_row(gap: "Gap") -> Row:
    first, last = gap.first, gap.last
    facts = {
        "problem": "damaged",
        "detail": None,
        "snapshots": gap.nsnapshots,
        "first_snapshot": first.key,
        "last_snapshot": last.key,
        "files": gap.nfiles,
    }
    times = (format_local(first.created), format_local(last.created))
    what = f"{counted(gap.nfiles, 'file')} cannot come back"
    return Row(facts, ("damaged", what, f"{gap.nsnapshots:,}", *times, shown(last.key)))


def _tell_faults(index: "Index", report: "Report", console: Console) -> None:
    from s3bu.verify.contents import UNVERIFIED  # noqa: PLC0415 - start-up counts
    from s3bu.verify.report import faults  # noqa: PLC0415

    wants_unverified = console.wants_changes
    named = sum(number for problem, number in report.problems.items() if wants_unverified or problem != UNVERIFIED)
    if named or report.repaired:
        rows = (_fault_row(one) for one in faults(index, wants_unverified=wants_unverified))
        titles = ("problem", "snapshots", "from", "until", "path")
        console.table(Table("fault", titles, rows, right=frozenset({1}), measured=_MEASURED))


def _fault_row(fault: "Fault") -> Row:
    facts = {
        "problem": fault.problem,
        "repaired": fault.is_repaired,
        "job": fault.job,
        "label": fault.label,
        "path": fault.path,
        "size": fault.nbytes,
        "hash": fault.hash,
        "stored": fault.stored,
        "detail": fault.detail,
        "snapshots": fault.nsnapshots,
        "first_snapshot": fault.first.key,
        "last_snapshot": fault.last.key,
    }
    problem = f"{fault.problem}, repaired" if fault.is_repaired else fault.problem
    times = (format_local(fault.first.created), format_local(fault.last.created))
    source = shown(f"{fault.job}/{fault.label}")
    return Row(facts, (problem, f"{fault.nsnapshots:,}", *times, f"{source}: {shown(fault.path)}"))


def _tell_differing(report: "Report", console: Console) -> None:
    if report.compared is None:
        return
    for live, failure in report.compared.failures:
        console.failure(Failure(failure.path, f"{live.job}/{live.label}: {failure.error}"))
    rows = [
        Row(
            {"job": live.job, "label": live.label, "path": path},
            ("differs", f"{shown(f'{live.job}/{live.label}')}: {shown(path)}"),
        )
        for live, path in report.compared.differing
    ]
    if rows:
        console.table(Table("differing", ("problem", "path"), rows))


def _standing_row(one: "Standing") -> Row:
    newest, whole = one.newest, one.newest_whole
    facts = {
        "job": one.job,
        "label": one.label,
        "snapshots": one.nsnapshots,
        "whole": one.nwhole,
        "damaged": one.ndamaged,
        "unreadable": one.nunreadable,
        "newest": newest.created if newest else None,
        "newest_snapshot": newest.key if newest else None,
        "newest_whole": whole.created if whole else None,
        "newest_whole_snapshot": whole.key if whole else None,
        "too_old": one.is_too_old,
    }
    numbers = (one.nsnapshots, one.nwhole, one.ndamaged, one.nunreadable)
    times = (format_local(found.created) if found else "none" for found in (newest, whole))
    source = shown(f"{one.job}/{one.label}")
    return Row(facts, (source, *(f"{number:,}" for number in numbers), *times, shown(whole.key) if whole else ""))


_PROBLEMS = ("missing", "empty", "cut", "damaged", "unopened", "archived", "unreadable", "unverified")


def _facts(report: "Report") -> dict[str, object]:
    tally, read, compared = report.tally, report.read, report.compared
    return {
        "snapshots": sum(one.nsnapshots for one in report.standings),
        "whole": sum(one.nwhole for one in report.standings),
        "contents": tally.ncontents,
        "bytes": tally.nbytes,
        "stored": tally.nbytes_stored,
        **{problem: report.problems.get(problem, 0) for problem in _PROBLEMS},
        "repaired": report.repaired,
        "orphans": tally.norphans,
        "orphan_bytes": tally.orphan_nbytes,
        "manifests_vanished": sum(one.problem == "vanished" for one in report.broken),
        "manifests_read": report.nmanifests_read,
        "contents_read": read.ncontents if read else 0,
        "bytes_read": read.nbytes if read else 0,
        "share_read": round(read.covered, 4) if read else None,
        "files_compared": compared.nsame + len(compared.differing) if compared else 0,
        "files_differing": len(compared.differing) if compared else 0,
        "files_changed": compared.nchanged if compared else 0,
        "exit_code": report.exit_code,
    }


def _lines(report: "Report") -> Iterator[str]:
    tally, problems = report.tally, report.problems
    snapshots = sum(one.nsnapshots for one in report.standings)
    whole = sum(one.nwhole for one in report.standings)
    yield f"{whole:,} of {counted(snapshots, 'snapshot')} whole"
    yield f"  {counted(tally.ncontents, 'content')}, {format_nbytes(tally.nbytes)}; {_told(problems)}"
    if problems.get("unverified"):
        yield "  unverified: compressed, or not as it was; nobody knows until it is read, see --read-data"
    if report.repaired:
        yield f"  repaired: {counted(report.repaired, 'content')}"
    if report.read:
        size = f"{counted(report.read.ncontents, 'content')}, {format_nbytes(report.read.nbytes)}"
        yield f"  read: {size}; {report.read.covered:.1%} of all were read now or before"
    if report.compared:
        compared = report.compared
        same = f"{counted(compared.nsame, 'file')} as in the snapshot, {compared.nchanged:,} changed since"
        yield f"  compared: {same}, {len(compared.differing):,} look unmodified and differ"
    if tally.norphans:
        size = f"{counted(tally.norphans, 'object')}, {format_nbytes(tally.orphan_nbytes)}"
        doubt = (
            "; snapshots that cannot be read may need them" if any(one.nunreadable for one in report.standings) else ""
        )
        yield f"  needed by no snapshot: {size}{doubt}"
    for one in report.standings:
        if one.is_too_old:
            yield f"  too old: the newest snapshot of {shown(f'{one.job}/{one.label}')}"
    yield _verdict(report)


def _verdict(report: "Report") -> str:
    if report.is_damaged:
        return "DAMAGED"
    found = []
    if report.repaired:
        found.append("repaired")
    if report.problems or report.broken or report.errors or (report.compared and report.compared.has_gaps):
        found.append("not all of it could be verified")
    if any(one.is_too_old for one in report.standings):
        found.append("too old")
    return "; ".join(found) or "sound"


def _told(problems: dict[str, int]) -> str:
    found = [f"{problems[problem]:,} {problem}" for problem in _PROBLEMS if problems.get(problem)]
    return ", ".join(found) or "all there, none too short"
