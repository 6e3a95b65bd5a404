"""`s3bu restore` and `s3bu download`."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, open_repository
from s3bu.console import Console
from s3bu.console.text import counted, format_nbytes, shown
from s3bu.errors import UsageError
from s3bu.pattern import compile_regex

if TYPE_CHECKING:
    from s3bu.repository import Repository
    from s3bu.restore import Outcome, Plan


def restore(
    repository: str,
    what: str,
    destination: Path,
    pattern: str | None = None,
    /,
    *,
    force: Annotated[bool, Parameter(name=["--force", "-f"], negative="")] = False,
    overwrite: Annotated[bool, Parameter(name=["--overwrite", "-o"], negative="")] = False,
    check: Annotated[bool, Parameter(name=["--check", "-c"], negative="")] = False,
    special_bits: Annotated[bool, Parameter(negative="")] = False,
    allow_plain: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Bring a snapshot back into a directory.

    Every file is verified before it takes its name. A restore that was interrupted is finished by running it again
    with -f: what is right already is not fetched again. Exit codes: 0 all came back, 1 failed, 2 wrong usage,
    3 some paths did not come back, 10 no repository or job, 12 key missing or wrong.

    Examples:

      s3bu restore my-bucket home/documents ./restored
      s3bu restore my-bucket home/documents@2026-05-01 ./restored
      s3bu restore my-bucket home/documents ./restored '^letters/.*[.]odt$'

    Parameters
    ----------
    what
        a snapshot: JOB/LABEL (the newest), JOB/LABEL@TIME (the newest at or before), or a key
    destination
        the directory to restore into
    pattern
        only paths in which this regular expression is found
    force
        restore into a directory that is not empty, keeping what is there
    overwrite
        replace files and links that differ
    check
        write nothing, only check that all could be restored
    special_bits
        also restore setuid, setgid and sticky bits of directories
    allow_plain
        accept a manifest that is not encrypted
    """
    from s3bu.repository.naming import find_snapshot  # noqa: PLC0415 - start-up counts
    from s3bu.restore import plan_restore, run  # noqa: PLC0415
    from s3bu.restore.target import Target  # noqa: PLC0415

    searched = compile_regex(pattern) if pattern is not None else None
    with open_repository(repository, common) as opened, common.console() as console:
        console.phase("reading the snapshot")
        key = find_snapshot(opened, what, now=datetime.now().astimezone(), allow_plain=allow_plain)
        snapshot = opened.read_snapshot(key, allow_plain=allow_plain)
        for warning in snapshot.warnings:
            console.warning(warning)
        plan = plan_restore(snapshot, searched)
        if searched is not None and plan.is_empty:
            raise UsageError(f"nothing in {key} matches '{pattern}'", hint="`s3bu ls` shows what it holds")
        console.note(f"restoring {key}")
        if check:
            return _check(opened, str(key), plan, console)
        target = Target(
            os.fsencode(destination),
            is_filled_fine=force,
            overwrites=overwrite,
            mode_mask=0o7777 if special_bits else 0o777,
        )
        with target:
            outcome = run(opened, plan, target, console)
        console.finish()
        console.summary(_facts(str(key), plan, outcome), *_lines(plan, outcome))
    return 3 if outcome.failures else 0


def _check(repository: "Repository", key: str, plan: "Plan", console: Console) -> int:
    from s3bu.restore import check  # noqa: PLC0415 - start-up counts

    console.phase("checking what is stored")
    failures = check(repository, plan)
    console.finish()
    for failure in failures:
        console.failure(failure)
    size = f"{counted(len(plan.files), 'file')}, {format_nbytes(plan.nbytes)}"
    links = f"{counted(len(plan.links), 'link')}, {counted(len(plan.directories), 'directory')}"
    line = f"would restore {size}, {links}; {counted(len(failures), 'path')} cannot come back"
    console.summary({**_planned(key, plan), "failed": len(failures), "dry_run": True}, line)
    return 3 if failures else 0


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
        yield f"{counted(outcome.nright, 'file')} were right already"
    if outcome.failures:
        yield f"incomplete: {counted(len(outcome.failures), 'path')} did not come back as they were"
    if plan.special:
        yield f"not made again: {counted(len(plan.special), 'special file')} (FIFOs, devices)"


def download(
    repository: str,
    key: str,
    directory: Path,
    /,
    *,
    overwrite: Annotated[bool, Parameter(name=["--overwrite", "-o"], negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Fetch any object by its key, decrypted and decompressed, into a directory.

    Examples:

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
