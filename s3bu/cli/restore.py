"""`s3bu restore` and `s3bu download`."""

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, open_repository
from s3bu.console import Console, counted, format_nbytes, shown
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
    with open_repository(repository, common) as opened, Console() as console:
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
            return _check(opened, plan, console)
        target = Target(
            os.fsencode(destination),
            is_filled_fine=force,
            overwrites=overwrite,
            mode_mask=0o7777 if special_bits else 0o777,
        )
        with target:
            outcome = run(opened, plan, target, console)
        console.finish()
        _print_outcome(outcome)
        if plan.special:
            print(f"not made again: {counted(len(plan.special), 'special file')} (FIFOs, devices)")
    return 3 if outcome.failures else 0


def _check(repository: "Repository", plan: "Plan", console: Console) -> int:
    from s3bu.restore import check  # noqa: PLC0415 - start-up counts

    console.phase("checking what is stored")
    failures = check(repository, plan)
    console.finish()
    for failure in failures:
        console.failure(failure)
    size = f"{counted(len(plan.files), 'file')}, {format_nbytes(plan.nbytes)}"
    links = f"{counted(len(plan.links), 'link')}, {counted(len(plan.directories), 'directory')}"
    print(f"would restore {size}, {links}; {counted(len(failures), 'path')} cannot come back")
    return 3 if failures else 0


def _print_outcome(outcome: "Outcome") -> None:
    print(f"restored {counted(outcome.nfiles, 'file')}, {format_nbytes(outcome.nbytes)}", end="")
    print(f", {counted(outcome.nlinks, 'link')}, {counted(outcome.ndirectories, 'directory')}")
    if outcome.nright:
        print(f"{counted(outcome.nright, 'file')} were right already")
    if outcome.failures:
        print(f"incomplete: {counted(len(outcome.failures), 'path')} did not come back as they were")


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
    print(shown(os.path.join(path, name)))
    return 0
