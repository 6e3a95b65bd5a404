"""`s3bu plan`."""

import os
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.backup import chosen_sources
from s3bu.cli.opening import (
    NOTHING_COMMON,
    Common,
    Location,
    excluded_directories,
    load_job,
    open_journal,
    open_repository,
)
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_dollars, format_nbytes, shown, shown_line

if TYPE_CHECKING:
    from s3bu.backup import Options
    from s3bu.backup.estimate import Estimate
    from s3bu.backup.plan import Plan, Planned
    from s3bu.job import Job
    from s3bu.repository import Repository
    from s3bu.selection import Rule

_SHOWN = 60
"""More paths than these are grouped by directory."""
_SOMETHING_TO_DO = 4
_ACTIONS = ("new", "changed", "check", "removed", "carried", "failed", "skipped")


def plan(
    repository: Location,
    job: str,
    label: str | None = None,
    /,
    *,
    explain: str | None = None,
    exit_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Show what a backup would do, without doing it.

    Each path that would be new, changed, checked (read to see whether it changed), removed, carried forward or
    skipped, and why; then what it would take at most. Nothing is written, and no content is read. Exit codes: 0 done,
    1 failed, or so much vanished or looks changed that the backup would publish nothing, 2 wrong usage, 3 the backup
    would be incomplete, 4 with --exit-code: there is something to do, 10 no repository or job,
    12 key missing or wrong.

    For example:

      s3bu plan my-bucket home
      s3bu plan my-bucket home.yml documents -v
      s3bu plan my-bucket home --explain Projects/site/node_modules
      s3bu plan my-bucket home --exit-code -q || s3bu backup my-bucket home

    Parameters
    ----------
    job
        a job's name, or a local .yml file
    label
        plan only the source of this label
    explain
        say of one path, below the source or from the root on, which rule lets it in or leaves it out, and what the
        last snapshots have of it
    exit_code
        end with 4 when there is something to do
    """
    from s3bu.backup import Options  # noqa: PLC0415 - start-up counts

    options = Options(host=platform.node(), excluded=excluded_directories(repository))
    with open_repository(repository, common) as opened, common.console() as console:
        if explain is not None:
            from s3bu.cli.explain import tell_explained  # noqa: PLC0415 - start-up counts

            return tell_explained(opened, job, label, explain, options, console)
        return tell_plans(opened, job, label, options, console, tells_something=exit_code)


def tell_plans(
    repository: "Repository",
    text: str,
    label: str | None,
    options: "Options",
    console: Console,
    *,
    tells_something: bool,
) -> int:
    """Make the plan of each source of the job that the user named, tell it, and return the exit code."""
    from s3bu.backup.plan import plan as make_plans  # noqa: PLC0415 - start-up counts
    from s3bu.index import held, open_copied_index  # noqa: PLC0415
    from s3bu.keyring import default_home  # noqa: PLC0415

    codes = [0]
    with (
        held(open_copied_index(default_home(os.environ), repository.storage.identity)) as index,
        open_journal(repository) as journal,
    ):
        options = replace(options, journal=journal)
        job, warnings = load_job(repository, text, index)
        for warning in warnings:
            console.warning(warning)
        for made in make_plans(repository, index, job, chosen_sources(job, label), options, console):
            console.finish()
            _tell(console, job, made, has_prices=repository.storage.url.startswith("s3://"))
            codes.append(_exit_code(made, tells_something=tells_something))
    return max(codes, key=[0, _SOMETHING_TO_DO, 3, 2, 1].index)


def _exit_code(made: "Plan", *, tells_something: bool) -> int:
    from s3bu.scan.source import SourceMissingError  # noqa: PLC0415 - start-up counts

    if made.error is not None:
        return 3 if isinstance(made.error, SourceMissingError) else made.error.exit_code
    if made.alarm is not None:
        return 1
    if made.failures:
        return 3
    return _SOMETHING_TO_DO if tells_something and made.is_something else 0


def _tell(console: Console, job: "Job", made: "Plan", *, has_prices: bool) -> None:
    if made.error is not None:
        console.error(made.error, during=f"{job.name}/{made.label}")
        return
    _tell_paths(console, job.name, made)
    for failure in made.failures:
        console.failure(failure)
    if made.alarm is not None:
        _tell_alarm(console, f"{job.name}/{made.label}", made)
    costs = _costs(job, made.estimate) if has_prices and made.estimate else None
    console.summary(_facts(job.name, made, costs), *_lines(job.name, made, costs))


def _tell_alarm(console: Console, name: str, made: "Plan") -> None:
    from s3bu.backup import DeletionsRefusedError  # noqa: PLC0415 - start-up counts

    sure = "" if made.publishes is False else ", if reading shows that they did"
    message = f"{name}: {made.alarm}; a backup would publish nothing without --accept-deletions{sure}"
    console.error(DeletionsRefusedError(message), during=name)


# --- paths


def _tell_paths(console: Console, job: str, made: "Plan") -> None:
    """Name each path; a person sees directories instead where they are many, unless all are asked for."""
    total = sum(made.counts[action] for action in _ACTIONS)
    if not total:
        return
    if total > _SHOWN and not console.lists_all:
        _tell_directories(console, made)
        return
    rows = (Row(_path_facts(job, made.label, one), _path_cells(one)) for one in made.paths())
    console.table(Table("plan", ("action", "size", "why", "path"), rows, right=frozenset({1}), measured=1_000))


def _path_facts(job: str, label: str, one: "Planned") -> dict[str, object]:
    return {
        "job": job,
        "label": label,
        "action": one.action,
        "item": one.path,
        "type": one.kind,
        "size": one.nbytes,
        "reason": one.reason,
        "reads": one.is_read,
        **rule_facts(one.rule),
    }


def rule_facts(rule: "Rule | None") -> dict[str, object]:
    """Return what a message says of a rule: its key in the job, the pattern or name, and where a file has it."""
    if rule is None:
        return dict.fromkeys(("rule", "rule_detail", "rule_file", "rule_line"))
    file = None if rule.file is None else os.fsdecode(rule.file)
    return {"rule": rule.key, "rule_detail": os.fsdecode(rule.detail), "rule_file": file, "rule_line": rule.line}


def _path_cells(one: "Planned") -> tuple[str, str, str, str]:
    from s3bu.manifest import DIRECTORY, FILE  # noqa: PLC0415 - start-up counts

    size = format_nbytes(one.nbytes) if one.kind == FILE and one.action != "skipped" else ""
    slash = "/" if one.kind == DIRECTORY else ""
    return (one.action, size, shown(one.reason or ""), shown(one.path) + slash)


def _tell_directories(console: Console, made: "Plan") -> None:
    groups = _grouped(made)
    rows = (
        Row({}, (*(f"{counts[action]:,}" if counts[action] else "" for action in _ACTIONS), _directory_cell(path)))
        for path, counts in sorted(groups.items())
    )
    console.table(Table("", (*_ACTIONS, "directory"), rows, right=frozenset(range(len(_ACTIONS)))))
    console.note("-v names each path")


def _directory_cell(path: tuple[bytes, ...]) -> str:
    return shown(b"/".join(path)) + "/" if path else "(the source itself)"


def _grouped(made: "Plan") -> dict[tuple[bytes, ...], Counter[str]]:
    """Return how many paths of each action there are by directory, cut at the depth at which they are few."""
    groups: dict[tuple[bytes, ...], Counter[str]] = {}
    depth = 8
    for one in made.paths():
        above = tuple(one.path.split(b"/")[:-1][:depth])
        groups.setdefault(above, Counter())[one.action] += 1
        while len(groups) > _SHOWN and depth > 1:
            depth -= 1
            groups = _cut(groups, depth)
    return groups


def _cut(groups: dict[tuple[bytes, ...], Counter[str]], depth: int) -> dict[tuple[bytes, ...], Counter[str]]:
    cut: dict[tuple[bytes, ...], Counter[str]] = {}
    for path, counts in groups.items():
        cut.setdefault(path[:depth], Counter()).update(counts)
    return cut


# --- what it takes


def _costs(job: "Job", estimated: "Estimate") -> tuple[float, float]:
    """Return what the requests cost at most, and what is sent for a month, in dollars."""
    from s3bu.prices import price_of_requests, price_of_storage  # noqa: PLC0415 - start-up counts

    nbytes = estimated.nbytes_sent + estimated.nbytes_manifest
    return price_of_requests(estimated.requests, job.prices), price_of_storage(nbytes, job.prices)


def _facts(job: str, made: "Plan", costs: tuple[float, float] | None) -> dict[str, object]:
    from s3bu.prices import DATED  # noqa: PLC0415 - start-up counts

    estimated = made.estimate
    assert estimated is not None  # only a plan with an error has none
    return {
        "job": job,
        "label": made.label,
        **{action: made.counts[action] for action in (*_ACTIONS, "unmodified")},
        "publishes": made.publishes,
        "publishes_since": made.news,
        "files_to_read": estimated.nfiles,
        "bytes_to_read": estimated.nbytes,
        "bytes_to_send_at_most": estimated.nbytes_sent + estimated.nbytes_manifest,
        "manifest_bytes_at_most": estimated.nbytes_manifest,
        "requests_at_most": estimated.requests.total,
        "put_requests_at_most": estimated.requests.put,
        "get_requests_at_most": estimated.requests.get,
        "list_requests_at_most": estimated.requests.list,
        "cost_of_requests_at_most": costs and round(costs[0], 6),
        "cost_of_storage_a_month_at_most": costs and round(costs[1], 6),
        "prices_dated": DATED if costs else None,
        "full_scan": made.why_full,
        "lists_contents": made.why_listed or None,
        "alarm": str(made.alarm) if made.alarm else None,
        "not_backed_up": dict(made.left.special),
    }


def _lines(job: str, made: "Plan", costs: tuple[float, float] | None) -> Iterator[str]:
    estimated = made.estimate
    assert estimated is not None  # only a plan with an error has none
    counts = ", ".join(f"{made.counts[one]:,} {_WORDS.get(one, one)}" for one in _ACTIONS if made.counts[one])
    yield f"{job}/{made.label}: {counts or 'nothing new'}; {made.counts['unmodified']:,} unmodified"
    yield f"  {_publishing(made)}"
    if made.is_something:
        sent = format_nbytes(estimated.nbytes_sent + estimated.nbytes_manifest)
        yield f"  would read {counted(estimated.nfiles, 'file')}, {format_nbytes(estimated.nbytes)}"
        yield f"  would send at most {sent}, of it a manifest of {format_nbytes(estimated.nbytes_manifest)}"
    yield f"  would ask for at most {_requests(estimated)}{_costs_told(costs)}"
    where = (
        "only where the watcher saw changes"
        if made.why_full is None
        else f"at the whole source: {shown_line(made.why_full)}"
    )
    yield f"  would look {where}"
    if made.why_listed:
        yield f"  would list all that is stored: {made.why_listed}"
    left = [counted(number, kind) for kind, number in sorted(made.left.special.items())]
    if left:
        yield f"  would not back up: {', '.join(left)}"


def _publishing(made: "Plan") -> str:
    if made.alarm is not None:
        sure = "" if made.publishes is False else ", if reading shows that they did"
        return f"would publish nothing without --accept-deletions, since {made.alarm}{sure}"
    if made.news:
        return f"would publish a snapshot: {made.news}"
    if made.is_something:
        return "would publish a snapshot if one of the files to check has changed"
    return "would publish nothing"


_WORDS = {"check": "to check", "carried": "carried forward"}


def _requests(estimated: "Estimate") -> str:
    requests = estimated.requests
    return f"{counted(requests.total, 'request')} ({requests.put:,} put, {requests.get:,} get, {requests.list:,} list)"


def _costs_told(costs: tuple[float, float] | None) -> str:
    from s3bu.prices import DATED, REGION  # noqa: PLC0415 - start-up counts

    if costs is None:
        return ""
    return f", {format_dollars(costs[0])}, and {format_dollars(costs[1])} a month to keep it (S3, {REGION}, {DATED})"
