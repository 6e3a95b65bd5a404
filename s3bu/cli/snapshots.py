"""`s3bu snapshots` and `s3bu ls`."""

import os
import stat
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository
from s3bu.console import Row, Table
from s3bu.console.text import counted, format_nbytes, shown
from s3bu.moment import format_local
from s3bu.pattern import compile_pattern

if TYPE_CHECKING:
    from s3bu.manifest import Entry
    from s3bu.snapshots import Line

_KINDS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}


def snapshots(
    repository: Location, job: str | None = None, label: str | None = None, /, *, common: Common = NOTHING_COMMON
) -> int:
    """List snapshots: when, what they hold, and what changed.

    Each manifest is opened for it, which takes about a second each.

    For example:

      s3bu snapshots my-bucket
      s3bu snapshots my-bucket home documents

    Parameters
    ----------
    job
        only those of this job
    label
        only those of this label
    """
    from s3bu.snapshots import summarise  # noqa: PLC0415 - start-up counts

    with open_repository(repository, common) as opened, common.console() as console:
        lines = summarise(opened, job, label, console)
        console.finish()
        titles = ("time", "files", "size", "new", "changed", "removed", "failed", "host", "snapshot")
        console.table(Table("snapshot", titles, [_row(line) for line in lines], right=frozenset(range(1, 7))))
        broken = [line for line in lines if line.error is not None]
        for line in broken:
            console.warning(f"{line.key}: {line.error}")
    return 3 if broken else 0


def _row(line: "Line") -> Row:
    when = format_local(line.created)
    numbers = (line.new, line.changed, line.removed, line.failed)
    facts = {
        "id": str(line.key),
        "job": line.key.job,
        "label": line.key.label,
        "time": line.created,
        "hostname": line.host,
        "total_files_processed": line.nfiles,
        "total_bytes_processed": line.nbytes,
        **dict(zip(("new", "changed", "removed", "failed"), numbers, strict=True)),
    }
    if line.error is not None:
        facts = {name: facts[name] for name in ("id", "job", "label", "time")} | {"error": line.error}
        return Row(facts, (when, *["?"] * 6, "", str(line.key)))
    counts = (f"{number:,}" for number in numbers)
    size = format_nbytes(line.nbytes)
    return Row(facts, (when, f"{line.nfiles:,}", size, *counts, shown(line.host), shown(str(line.key))))


def ls(
    repository: Location,
    snapshot: str,
    pattern: str | None = None,
    /,
    *,
    allow_plain: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """List what a snapshot holds.

    For example:

      s3bu ls my-bucket home/documents
      s3bu ls my-bucket home/documents@3d '*.odt'
      s3bu ls my-bucket home/documents 're:^letters/'

    Parameters
    ----------
    snapshot
        JOB/LABEL (the newest), JOB/LABEL@TIME (the newest at or before), or a key
    pattern
        a glob (matched with the last name, or with the whole path if it has a slash), or re: and a regular expression
    allow_plain
        accept a manifest that is not encrypted
    """
    from s3bu.repository.naming import find_snapshot  # noqa: PLC0415 - start-up counts

    wanted = compile_pattern(pattern) if pattern is not None else None
    with open_repository(repository, common) as opened, common.console() as console:
        key = find_snapshot(opened, snapshot, now=datetime.now().astimezone(), allow_plain=allow_plain)
        read = opened.read_snapshot(key, allow_plain=allow_plain)
        for entry in read.entries:
            if wanted is None or wanted.search(entry.path):
                console.tell("node", _node(entry), _line(entry))
        sys.stdout.flush()
        for failed in read.failed:
            if wanted is None or wanted.search(failed.path):
                console.warning(f"{shown(failed.path)}: failed to be backed up since {failed.since}: {failed.error}")
        unread = sum(entry.kind == "file" and not entry.hash for entry in read.entries)
        if unread:
            console.warning(
                f"{counted(unread, 'file')} could not be read when the snapshot was made, and are not in it"
            )
    return 0


def _node(entry: "Entry") -> dict[str, object]:
    """Return the facts of an entry, with the names that restic gives them where they mean the same."""
    seconds, nanos = divmod(entry.mtime_ns, 1_000_000_000)
    facts: dict[str, object] = {
        "path": entry.path,
        "type": entry.kind,
        "size": entry.nbytes,
        "mode": entry.mode,
        "permissions": _permissions(entry),
        "mtime_seconds": seconds,
        "mtime_nanos": nanos,
        "hash": entry.hash or None,
    }
    if entry.kind != "file":
        facts["target"] = entry.target
    if entry.owner:
        facts |= {"uid": entry.owner.uid, "gid": entry.owner.gid, "user": entry.owner.user, "group": entry.owner.group}
    return facts


def _permissions(entry: "Entry") -> str:
    kind = os.fsdecode(entry.target.partition(b" ")[0]) if entry.kind == "special" else entry.kind
    return stat.filemode(_KINDS[kind] | (entry.mode if kind != "symlink" else 0o777))


def _line(entry: "Entry") -> str:
    try:
        when = format_local(datetime.fromtimestamp(entry.mtime_ns // 1_000_000_000).astimezone())
    except (OverflowError, ValueError, OSError):
        when = "out of range"
    arrow = f" -> {shown(entry.target)}" if entry.kind == "symlink" else ""
    missing = "  (not backed up)" if entry.kind == "file" and not entry.hash else ""
    return f"{_permissions(entry)}  {entry.nbytes:>14,}  {when:19}  {shown(entry.path)}{arrow}{missing}"
