"""`s3bu plan --explain`: why one path is in a backup, or is not."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from s3bu.cli.backup import chosen_sources
from s3bu.cli.opening import load_job
from s3bu.cli.plan import rule_facts
from s3bu.console import Console, Row, Table
from s3bu.console.text import format_nbytes, shown, shown_line
from s3bu.errors import UsageError
from s3bu.moment import format_local, moment_of

if TYPE_CHECKING:
    from s3bu.backup import Options
    from s3bu.index import Index, IndexedSnapshot
    from s3bu.job import Job, Source
    from s3bu.manifest import Entry
    from s3bu.repository import Repository
    from s3bu.scan.found import Followed

_SNAPSHOTS = 5
"""So many of the last snapshots are asked for a path."""


def tell_explained(
    repository: "Repository", text: str, label: str | None, path: str, options: "Options", console: Console
) -> int:
    """Say of a path, in each source that it may lie in, what decides about it, and what the last snapshots have."""
    from s3bu.backup.deciding import Ground, parents_of  # noqa: PLC0415 - start-up counts
    from s3bu.index import held, open_copied_index  # noqa: PLC0415
    from s3bu.keyring import default_home  # noqa: PLC0415

    with held(open_copied_index(default_home(os.environ), repository.storage.identity)) as index:
        job, warnings = load_job(repository, text, index)
        for warning in warnings:
            console.warning(warning)
        places = list(_places(chosen_sources(job, label), os.fsencode(path)))
        if not places:
            raise UsageError(
                f"'{path}' lies in no source of the job '{job.name}'",
                hint="write it as it is below the source, or from the root on",
            )
        ground = Ground(repository, index, job, options, console, is_writing=False)
        ground.begin()
        for source, below in places:
            parents_of(ground, source).newest()
            console.finish()
            _tell(console, index, job, source, below, options)
    return 0


def _places(sources: "tuple[Source, ...]", path: bytes) -> "Iterator[tuple[Source, bytes]]":
    """Yield each source in which a path may lie, and what it is called there."""
    for source in sources:
        if not path.startswith(b"/"):
            below = os.path.normpath(path)
        else:
            roots = (os.path.normpath(source.path), os.path.realpath(source.path))
            root = next((one for one in roots if (path + b"/").startswith(one.rstrip(b"/") + b"/")), None)
            if root is None:
                continue
            below = os.path.relpath(os.path.normpath(path), root)
        if below != b"." and below.split(b"/")[0] != b"..":
            yield source, below


def _tell(console: Console, index: "Index", job: "Job", source: "Source", path: bytes, options: "Options") -> None:
    from s3bu.scan import Scan  # noqa: PLC0415 - start-up counts

    followed = Scan(source.path, job.filters, excluded=options.excluded).follow(path)
    verdict, name = _verdict(path, followed), f"{job.name}/{source.label}"
    facts = {
        "job": job.name,
        "label": source.label,
        "path": path,
        "verdict": verdict.word,
        "at": followed.path,
        **rule_facts(followed.rule),
    }
    console.tell("explanation", facts, f"{shown_line(name)}: {shown(path)}: {verdict.text}")
    rows = [_row(job.name, source.label, path, one, entry) for one, entry in _last(index, job.name, source, path)]
    if rows:
        console.table(Table("explained_snapshot", ("snapshot of", "what", "size", "modified"), rows, frozenset({2})))
    else:
        console.note("there is no snapshot of this source yet")


class _Verdict(NamedTuple):
    """What decides about a path, in a word and as a sentence."""

    word: str
    text: str


def _verdict(path: bytes, followed: "Followed") -> _Verdict:
    from s3bu.manifest import SPECIAL, Entry  # noqa: PLC0415 - start-up counts
    from s3bu.progress import Failure  # noqa: PLC0415

    rule, at = followed.rule, followed.path
    where = "" if at == path else f" with the directory {shown(at)}/"
    if rule is not None and rule.is_excluding:
        return _Verdict("excluded", f"left out{where} by {shown(str(rule))}")
    if isinstance(followed.item, Failure):
        return _Verdict("failed", f"cannot be looked at: {shown(at)}: {followed.item.error}")
    if not followed.is_there:
        return _Verdict("absent", "not there now")
    if isinstance(followed.item, Entry) and followed.item.kind == SPECIAL:
        return _Verdict("recorded", "recorded, and not backed up: it is neither file, directory nor link")
    if rule is not None:
        return _Verdict("included", f"backed up, taken back in by {shown(str(rule))}")
    return _Verdict("included", "backed up, as no rule leaves it out")


def _last(index: "Index", job: str, source: "Source", path: bytes) -> "Iterator[tuple[IndexedSnapshot, Entry | None]]":
    """Yield the last snapshots of a source that the index knows, newest first, with what each has of a path."""
    taken = [one for one in index.snapshots(index.source(job, source.label)) if one.error is None]
    for snapshot in reversed(taken[-_SNAPSHOTS:]):
        yield snapshot, index.entry_at(snapshot, path)


def _row(job: str, label: str, path: bytes, snapshot: "IndexedSnapshot", entry: "Entry | None") -> Row:
    created = snapshot.created
    modified = moment_of(entry.mtime_ns) if entry else None
    facts = {
        "job": job,
        "label": label,
        "path": path,
        "snapshot_id": snapshot.key,
        "time": created,
        "type": entry.kind if entry else None,
        "size": entry.nbytes if entry else None,
        "mtime": modified,
        "hash": entry.hash or None if entry else None,
    }
    what = entry.kind if entry else "not there"
    size = format_nbytes(entry.nbytes) if entry and entry.hash else ""
    return Row(facts, (format_local(created), what, size, format_local(modified) if modified else ""))
