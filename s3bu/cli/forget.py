"""`s3bu forget`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository, open_synced_index, read_stored_job
from s3bu.cli.values import value_of
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, shown
from s3bu.errors import JobError, UsageError
from s3bu.job import is_job_file, load_job_file, parse_job
from s3bu.moment import format_local
from s3bu.retention import COUNTS, Policy, parse_count, parse_span

if TYPE_CHECKING:
    from s3bu.forget import Decision
    from s3bu.repository import Repository


def forget(
    repository: Location,
    job: str | None = None,
    label: str | None = None,
    /,
    *,
    keep_last: str | None = None,
    keep_hourly: str | None = None,
    keep_daily: str | None = None,
    keep_weekly: str | None = None,
    keep_monthly: str | None = None,
    keep_yearly: str | None = None,
    keep_within: str | None = None,
    dry_run: Annotated[bool, Parameter(name=["--dry-run", "-n"], negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Let old snapshots of each source go, by rules as restic has them.

    Without rules those of the job count, below `retention` (docs/jobs.md). What no rule keeps goes, but the newest
    snapshot of a source that lacks nothing always stays. Contents stay until `s3bu prune`. Exit codes: 3 a snapshot
    cannot be read and was kept, 11 a backup uses the index just now.

    For example:

      s3bu forget my-bucket home --keep-daily 7 --keep-monthly 12 --dry-run
      s3bu forget my-bucket home documents --keep-within 1y6m
      s3bu forget my-bucket home

    Parameters
    ----------
    job
        only the snapshots of this job; needed where its own rules are to count
    label
        only those of this label
    keep_last
        keep the newest N
    keep_hourly
        keep the newest of each of the last N hours that have any
    keep_daily
        the same with days
    keep_weekly
        the same with weeks
    keep_monthly
        the same with months
    keep_yearly
        the same with years
    keep_within
        keep all that are not older, counted from the newest one, than 1y5m7d2h: years, months, days, hours
    dry_run
        only show each snapshot, and which rule keeps it
    """
    from s3bu.forget import plan_forget, run  # noqa: PLC0415 - start-up counts
    from s3bu.repository.naming import manifests_of  # noqa: PLC0415

    counts = dict(
        zip(COUNTS, (keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly), strict=True)
    )
    policy = Policy(
        **{name: value_of(f"--keep-{name}", text, parse_count) for name, text in counts.items() if text is not None},
        within=value_of("--keep-within", keep_within, parse_span),
    )
    with open_repository(repository, common) as opened, common.console() as console:
        name, policy = _policy(opened, job, policy, console)
        with open_synced_index(opened, console) as index:
            manifests = manifests_of(opened, name, label)
            decisions = plan_forget(index, manifests, policy, now=datetime.now(UTC))
            gone = [] if dry_run else run(opened, index, decisions, console)
        console.finish()
        if dry_run or common.verbose:
            _tell(console, decisions)
        return _report(console, decisions, len(gone), is_dry=dry_run)


def _policy(repository: "Repository", job: str | None, policy: Policy, console: Console) -> tuple[str | None, Policy]:
    """Return the job's name, and the rules: those of the command line, or else the job's own."""
    if job is None and policy.is_empty:
        raise UsageError(
            "no rule says what to keep",
            hint="give one, such as --keep-daily 7, or name a job that has rules of its own",
        )
    if job is None:
        return None, policy
    name, text = load_job_file(Path(job)) if is_job_file(job) else (job, None)
    return name, policy if not policy.is_empty else _own_rules(repository, name, text, console)


def _own_rules(repository: "Repository", name: str, text: bytes | None, console: Console) -> Policy:
    """Return the rules of a job; of one in the repository only if nobody else can have written them."""
    is_encrypted = True
    if text is None:
        stored = read_stored_job(repository, name)
        text, is_encrypted = stored.text, stored.is_encrypted
    # Where relative sources start does not matter here, but one is no reason to refuse a local file.
    job = parse_job(text, name=name, origin=name, strict=False, directory=Path.cwd())
    for warning in job.warnings:
        console.warning(warning)
    if not is_encrypted:
        raise JobError(
            f"job '{name}' is not encrypted, so anybody with access to the bucket may have written what it keeps",
            hint="upload it again, or give the rules with --keep-…",
        )
    if job.retention is None:
        raise UsageError(
            f"job '{name}' has no rules that say what to keep, or none that are clear",
            hint="write them below 's3bu: retention:', or give them with --keep-…",
        )
    return job.retention


def _tell(console: Console, decisions: "list[Decision]") -> None:
    titles = ("time", "", "why", "snapshot")
    console.table(Table("decision", titles, [_row(decision) for decision in decisions]))


def _row(decision: "Decision") -> Row:
    action = "keep" if decision.is_kept else "forget"
    facts = {
        "id": str(decision.key),
        "job": decision.key.job,
        "label": decision.key.label,
        "time": decision.created,
        "action": action,
        "reasons": list(decision.reasons),
    }
    why = ", ".join(decision.reasons) or "no rule keeps it"
    return Row(facts, (format_local(decision.created), action, why, shown(str(decision.key))))


def _report(console: Console, decisions: "list[Decision]", ngone: int, *, is_dry: bool) -> int:
    from s3bu.forget import UNREAD  # noqa: PLC0415 - start-up counts

    doomed = sum(not decision.is_kept for decision in decisions)
    unread = [decision.key for decision in decisions if decision.reasons == (UNREAD,)]
    facts = {
        "kept": len(decisions) - doomed,
        "forgotten": ngone,
        "unread": [str(key) for key in unread],
        "dry_run": is_dry,
    }
    console.summary(
        facts | ({"would_forget": doomed} if is_dry else {}), *_lines(len(decisions), doomed, is_dry=is_dry)
    )
    for key in unread:
        console.warning(f"{key}: cannot be read, so it was kept")
    return 3 if unread else 0


def _lines(total: int, doomed: int, *, is_dry: bool) -> Iterator[str]:
    verb = "would be forgotten" if is_dry else "forgotten"
    yield f"{counted(doomed, 'snapshot')} {verb}, {total - doomed:,} kept"
    if doomed and not is_dry:
        yield "what only these held stays stored until `s3bu prune`"
