"""`s3bu restore` and `s3bu download`."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, index_for_reading, open_repository
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_nbytes, shown
from s3bu.errors import UsageError
from s3bu.moment import format_local, moment_of
from s3bu.pattern import compile_regex

if TYPE_CHECKING:
    from s3bu.repository import Repository, Snapshot
    from s3bu.restore import Outcome, Plan
    from s3bu.restore.chosen import Chosen

_SHOWN = 50
"""So many paths of a query's plan are shown."""


def restore(
    repository: Location,
    what: str,
    destination: Path,
    pattern: str | None = None,
    /,
    *,
    force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False,
    overwrite: Annotated[bool, Parameter(name=["--overwrite", "-o"], negative="")] = False,
    check: Annotated[bool, Parameter(name=["--check", "-c"], negative="")] = False,
    where: str | None = None,
    all_versions: Annotated[bool, Parameter(negative="")] = False,
    special_bits: Annotated[bool, Parameter(negative="")] = False,
    allow_plain: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Bring a snapshot back, or what a query yields of all snapshots.

    Every file is verified before it takes its name. A restore that was interrupted is finished by running it again
    with -f: what is right already is not fetched again. Exit codes: 0 all came back, 1 failed, 2 wrong usage,
    3 some paths did not come back, 10 no repository or job, 12 key missing or wrong.

    For example:

      s3bu restore my-bucket home/documents ./restored
      s3bu restore my-bucket home/documents@2026-05-01 ./restored
      s3bu restore my-bucket home/documents ./restored '^letters/.*[.]odt$'
      s3bu restore my-bucket home/docs ./restored --where "mtime_text > '2026-05'"
      s3bu restore my-bucket "SELECT * FROM deleted WHERE path LIKE '%.odt'" ./odt

    Parameters
    ----------
    what
        a snapshot (JOB/LABEL, JOB/LABEL@TIME, or a key), or a SELECT that yields path or path_raw, and hash
    destination
        the directory to restore into
    pattern
        only paths in which this regular expression is found
    force
        restore into a directory that is not empty, keeping what is there
    overwrite
        replace files and links that differ
    check
        write nothing, only show what would be written, overwritten and left, what it takes, and whether all could
        be restored
    where
        only entries of the snapshot for which this SQL condition holds, over the columns of the view entries
    all_versions
        of several versions of a path that a query yields restore all, each named by its time
    special_bits
        also restore setuid, setgid and sticky bits of directories
    allow_plain
        accept a manifest that is not encrypted
    """
    from s3bu.restore import run  # noqa: PLC0415 - start-up counts
    from s3bu.restore.target import Target  # noqa: PLC0415

    wanted = _Wanted(what, pattern, where, keeps_all=all_versions, allows_plain=allow_plain)
    with open_repository(repository, common) as opened, common.console() as console:
        key, plan = _plan(opened, wanted, console)
        console.note(f"restoring {key}")
        if check:
            from s3bu.cli.outlook import Into, tell_outlook  # noqa: PLC0415 - start-up counts

            into = Into(os.fsencode(destination), is_filled_fine=force or overwrite, overwrites=overwrite)
            return tell_outlook(opened, _planned(key, plan), plan, into, console)
        if wanted.is_query:
            _leave_out_lost(opened, plan, console)
        target = Target(
            os.fsencode(destination),
            is_filled_fine=force,
            overwrites=overwrite,
            mode_mask=0o7777 if special_bits else 0o777,
        )
        with target:
            outcome = run(opened, plan, target, console)
        console.finish()
        console.summary(_facts(key, plan, outcome), *_lines(plan, outcome))
    return 3 if outcome.failures else 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of all is to be restored, as the user said it."""

    what: str
    pattern: str | None
    where: str | None
    keeps_all: bool
    allows_plain: bool

    @property
    def is_statement(self) -> bool:
        """Whether it is a query by itself."""
        # What follows the word tells it from a job of that name, as in `with-photos/docs`.
        return re.match(r"\s*(select|with|values)([\s(*'\"`\[]|/\*)", self.what, re.IGNORECASE) is not None

    @property
    def is_query(self) -> bool:
        """Whether the index is asked for it."""
        return self.is_statement or self.where is not None


def _plan(repository: "Repository", wanted: _Wanted, console: Console) -> tuple[str, "Plan"]:
    """Return what to restore, and the snapshot's key or the query that it comes from."""
    from s3bu.restore import plan_restore  # noqa: PLC0415 - start-up counts

    if wanted.is_statement and wanted.where is not None:
        raise UsageError("--where is a condition over a snapshot, and a statement has its own", hint="leave out one")
    searched = compile_regex(wanted.pattern) if wanted.pattern is not None else None
    if wanted.is_query:
        key, chosen = _chosen(repository, wanted, console)
        plan = plan_restore(chosen, searched)
        _tell_plan(plan, console)
    else:
        snapshot = _read_snapshot(repository, wanted, console)
        key, plan = str(snapshot.key), plan_restore(snapshot, searched)
    if plan.is_empty and (wanted.is_query or searched is not None):
        what = f"nothing in {key} matches '{wanted.pattern}'" if searched is not None else f"nothing comes of {key}"
        raise UsageError(what, hint="`s3bu ls` shows what a snapshot holds, `s3bu query` what a query yields")
    return key, plan


def _read_snapshot(repository: "Repository", wanted: _Wanted, console: Console) -> "Snapshot":
    from s3bu.repository.naming import find_snapshot  # noqa: PLC0415 - start-up counts

    console.phase("reading the snapshot")
    now = datetime.now().astimezone()
    key = find_snapshot(repository, wanted.what, now=now, allow_plain=wanted.allows_plain)
    snapshot = repository.read_snapshot(key, allow_plain=wanted.allows_plain)
    for warning in snapshot.warnings:
        console.warning(warning)
    return snapshot


def _chosen(repository: "Repository", wanted: _Wanted, console: Console) -> tuple[str, "Chosen"]:
    """Run the query over the index, and return what its rows choose."""
    from s3bu.query import Query, asked  # noqa: PLC0415 - start-up counts
    from s3bu.restore.chosen import choose  # noqa: PLC0415
    from s3bu.search import QUERY_SECONDS, entries_where, find_indexed  # noqa: PLC0415

    with index_for_reading(repository, console) as index:
        assert index.path is not None
        if wanted.where is None:
            key, query = "what the query yields", Query(wanted.what, seconds=QUERY_SECONDS)
        else:
            key = find_indexed(index, wanted.what, now=datetime.now().astimezone()).key
            query = entries_where(key, wanted.where)
        console.phase("asking the index")
        with asked(index.path, query) as answer:
            return key, choose(index, answer.columns, answer.rows, keeps_all=wanted.keeps_all)


def _tell_plan(plan: "Plan", console: Console) -> None:
    """Show what is about to be restored, before anything is."""
    console.finish()
    entries = [*plan.files, *plan.links]
    rows = [
        Row(
            {"path": entry.path, "type": entry.kind, "size": entry.nbytes, "hash": entry.hash or None},
            (format_nbytes(entry.nbytes), format_local(moment_of(entry.mtime_ns)), shown(entry.path)),
        )
        for entry in entries[:_SHOWN]
    ]
    if rows:
        console.table(Table("planned", ("size", "written", "path"), rows, right=frozenset({0})))
    if len(entries) > _SHOWN:
        console.note(f"and {len(entries) - _SHOWN:,} more")


def _leave_out_lost(repository: "Repository", plan: "Plan", console: Console) -> None:
    """Tell which contents are not in the repository any more, before anything is written, and go on without them."""
    from s3bu.restore.stored import check, leave_out  # noqa: PLC0415 - start-up counts

    console.phase("checking what is stored")
    leave_out(plan, check(repository, plan))


def _planned(key: str, plan: "Plan") -> dict[str, object]:
    return {
        "snapshot_id": key,
        "total_files": len(plan.files),
        "total_bytes": plan.nbytes,
        "total_dirs": len(plan.directories),
        "total_links": len(plan.links),
        "not_made": len(plan.special),
    }


def _facts(key: str, plan: "Plan", outcome: "Outcome") -> dict[str, object]:
    return {
        **_planned(key, plan),
        "files_restored": outcome.nfiles,
        "bytes_restored": outcome.nbytes,
        "files_skipped": outcome.nright,
        "dirs_restored": outcome.ndirectories,
        "links_restored": outcome.nlinks,
        "failed": len(outcome.failures),
        "dry_run": False,
    }


def _lines(plan: "Plan", outcome: "Outcome") -> Iterator[str]:
    files = f"restored {counted(outcome.nfiles, 'file')}, {format_nbytes(outcome.nbytes)}"
    yield f"{files}, {counted(outcome.nlinks, 'link')}, {counted(outcome.ndirectories, 'directory')}"
    if outcome.nright:
        yield f"{counted(outcome.nright, 'file')} {'was' if outcome.nright == 1 else 'were'} right already"
    if outcome.failures:
        yield f"incomplete: {counted(len(outcome.failures), 'path')} did not come back as they were"
    if plan.special:
        yield f"not made again: {counted(len(plan.special), 'special file')} (FIFOs, devices)"


def download(
    repository: Location,
    key: str,
    directory: Path,
    /,
    *,
    overwrite: Annotated[bool, Parameter(name=["--overwrite", "-o"], negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Fetch any object by its key, decrypted and decompressed.

    For example:

      s3bu download my-bucket jobs/home/home-001.yml .

    Parameters
    ----------
    key
        the object's key
    directory
        where to write it, under the last part of its key
    overwrite
        replace a file that is there
    """
    from s3bu.restore.download import download as run  # noqa: PLC0415 - start-up counts
    from s3bu.restore.target import Target  # noqa: PLC0415

    path = os.fsencode(directory)
    with (
        open_repository(repository, common) as opened,
        Target(path, is_filled_fine=True, overwrites=overwrite, mode_mask=0o777) as target,
    ):
        name = run(opened, key, target)
    written = os.path.join(path, name)
    with common.console() as console:
        console.summary({"key": key, "path": written}, shown(written))
    return 0
