"""`s3bu restore -c`: what a restore would do."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3bu.cli.opening import load_job
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_dollars, format_nbytes, shown
from s3bu.errors import S3buError
from s3bu.repository.layout import parse_manifest_key

if TYPE_CHECKING:
    from s3bu.repository import Repository
    from s3bu.restore import Plan
    from s3bu.restore.outlook import Outlook

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Into:
    """Where a restore would go, and what it may do there."""

    path: bytes
    is_filled_fine: bool
    overwrites: bool


def tell_outlook(
    repository: "Repository", planned: Mapping[str, object], plan: "Plan", into: Into, console: Console
) -> int:
    """Look at repository and target, tell what a restore would do, and return the exit code."""
    from s3bu.restore.outlook import look_ahead  # noqa: PLC0415 - start-up counts
    from s3bu.restore.stored import look_up  # noqa: PLC0415

    console.phase("checking what is stored")
    failures, objects = look_up(repository, plan)
    console.phase("looking at the target")
    outlook = look_ahead(plan, into.path, overwrites=into.overwrites, objects=objects)
    costs = _costs(repository, str(planned["snapshot_id"]), outlook)
    console.finish()
    _tell_paths(console, outlook)
    failures = [*failures, *outlook.failures]
    for failure in failures:
        console.failure(failure)
    if not into.is_filled_fine and _is_filled(into.path):
        console.warning(f"{os.fsdecode(into.path)}: the target is not empty, so a restore wants -f or -o")
    if not outlook.has_room:
        need, free = format_nbytes(outlook.nbytes_written), format_nbytes(outlook.nbytes_free)
        console.warning(f"{os.fsdecode(into.path)}: there is no room for it: {need} are needed, {free} are free")
    facts = {**planned, **_facts(outlook, costs), "failed": len(failures), "dry_run": True}
    console.summary(facts, *_lines(plan, outlook, costs, len(failures)))
    return 3 if failures or not outlook.has_room else 0


def _is_filled(path: bytes) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


def _tell_paths(console: Console, outlook: "Outlook") -> None:
    if len(outlook.fates) > _SHOWN and not console.lists_all:
        console.note(f"{len(outlook.fates):,} paths; -v names each")
        return
    rows = (
        Row(
            {"action": action, "item": entry.path, "type": entry.kind, "size": entry.nbytes},
            (action, format_nbytes(entry.nbytes) if entry.hash else "", shown(entry.path)),
        )
        for action, entry in outlook.fates
    )
    if outlook.fates:
        console.table(Table("restore_plan", ("action", "size", "path"), rows, right=frozenset({1}), measured=1_000))


def _costs(repository: "Repository", key: str, outlook: "Outlook") -> tuple[float, float] | None:
    """Return what requests and traffic cost, in dollars, by the prices of the snapshot's job if it says any."""
    from s3bu.prices import price_of_requests, price_of_transfer  # noqa: PLC0415 - start-up counts

    if not repository.storage.url.startswith("s3://"):
        return None
    prices: Mapping[str, float] = {}
    parsed = parse_manifest_key(key)
    try:
        prices = load_job(repository, parsed.job)[0].prices if parsed else {}
    except S3buError:
        prices = {}  # the job is gone, or nothing that this machine may read
    return price_of_requests(outlook.requests, prices), price_of_transfer(outlook.nbytes_fetched, prices)


def _facts(outlook: "Outlook", costs: tuple[float, float] | None) -> dict[str, object]:
    return {
        "to_write": outlook.counts["write"],
        "to_overwrite": outlook.counts["overwrite"],
        "to_leave": outlook.counts["left"],
        "bytes_to_write": outlook.nbytes_written,
        "bytes_free": outlook.nbytes_free,
        "bytes_to_fetch": outlook.nbytes_fetched,
        "requests": outlook.requests.total,
        "cost_of_requests": costs and round(costs[0], 6),
        "cost_of_transfer": costs and round(costs[1], 6),
    }


def _lines(plan: "Plan", outlook: "Outlook", costs: tuple[float, float] | None, nfailures: int) -> Iterator[str]:
    counts = outlook.counts
    size = f"{counted(len(plan.files), 'file')}, {format_nbytes(plan.nbytes)}"
    links = f"{counted(len(plan.links), 'link')}, {counted(len(plan.directories), 'directory')}"
    yield f"would restore {size}, {links}; {counted(nfailures, 'path')} cannot come back"
    yield f"  {counts['write']:,} to write, {counts['overwrite']:,} to overwrite, {counts['left']:,} right already"
    room = f"{format_nbytes(outlook.nbytes_written)} of {format_nbytes(outlook.nbytes_free)} free"
    cost = "" if costs is None else f", {format_dollars(costs[0])}, and {format_dollars(costs[1])} for the traffic"
    fetched = f"{format_nbytes(outlook.nbytes_fetched)} in {counted(outlook.requests.total, 'request')}"
    yield f"  would fetch {fetched}{cost}, and take {room}"
