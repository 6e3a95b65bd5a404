"""`s3bu rewrite`."""

import platform
import re
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository, open_synced_index
from s3bu.console.text import counted, shown, shown_line
from s3bu.errors import UsageError
from s3bu.pattern import compile_pattern

_NOTHING = 3
"""The exit code where nothing was taken out: whoever wants a secret gone shall not take a misspelt name for done."""


def rewrite(
    repository: Location,
    snapshot: str,
    /,
    *snapshots: str,
    remove: Annotated[str | None, Parameter(name="--remove")] = None,
    dry_run: Annotated[bool, Parameter(name=["--dry-run", "-n"], negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Take paths, and all below them, out of old snapshots.

    Each manifest is replaced; a line in it says that paths were taken out. What only they held goes with the next
    `s3bu prune`. A path that is still in the source comes back with the next backup, unless the job leaves it out.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing matches, 10 no repository, 11 a backup uses the index just
    now, 12 key missing or wrong.

    For example:

      s3bu rewrite my-bucket home/docs home/docs@3d --remove 'secret.odt' --dry-run
      s3bu rewrite my-bucket home/documents --remove 'private/letters'

    Parameters
    ----------
    snapshot
        JOB/LABEL (the newest), JOB/LABEL@TIME (the newest at or before), or a key
    snapshots
        further ones
    remove
        a glob (matched with the last name, or with the whole path if it has a slash), or re: and a regular expression
    dry_run
        change nothing, only tell how many paths it would be; -v names them
    """
    from s3bu.repository.naming import find_snapshot  # noqa: PLC0415 - start-up counts
    from s3bu.rewrite import Removal, run  # noqa: PLC0415

    if not remove:
        raise UsageError("nothing to take out", hint="say which paths, with --remove")
    pattern: re.Pattern[bytes] = compile_pattern(remove)
    now = datetime.now(UTC)
    removal = Removal(remove, pattern.search, platform.node(), now, dry_run)
    with open_repository(repository, common) as opened, common.console() as console:
        texts = (snapshot, *snapshots)
        keys = list(dict.fromkeys(find_snapshot(opened, text, now=now.astimezone()) for text in texts))
        with open_synced_index(opened, console) as index:
            nremoved = 0
            for outcome in run(opened, index, keys, removal, console):
                nremoved += outcome.removed
                facts = {
                    "snapshot_id": str(outcome.key),
                    "removed": outcome.removed,
                    "kept": outcome.kept,
                    "dry_run": dry_run,
                }
                would = "would be " if dry_run else ""
                removed = f"{counted(outcome.removed, 'path')} {would}taken out, {outcome.kept:,} kept"
                console.summary(facts, f"{shown_line(str(outcome.key))}: {removed}")
        console.finish()
        if not nremoved:
            console.warning(f"no path of {counted(len(keys), 'snapshot')} matches '{shown(remove)}'")
    return 0 if nremoved else _NOTHING
