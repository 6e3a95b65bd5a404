"""`s3bu prune`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_nbytes, shown
from s3bu.errors import UsageError
from s3bu.moment import format_local

if TYPE_CHECKING:
    from s3bu.prune import Amount, Outcome, Standing


def prune(
    repository: Location,
    /,
    *,
    dry_run: Annotated[bool, Parameter(name=["--dry-run", "-n"], negative="")] = False,
    status: Annotated[bool, Parameter(negative="")] = False,
    original_stopped: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Delete the contents that no snapshot names, in two steps.

    Run it now and then, every day at the most. What no snapshot of any job names, and was not stored within the last
    7 days, is marked first. 72 hours later, or whenever it is run after that, what is marked and still not named by
    any snapshot is deleted. Backups may run meanwhile, on any machine. It needs every passphrase, and credentials
    that may delete. Exit codes: 0 done or nothing to do, 1 failed, and then nothing was deleted that anybody needs,
    11 another prune deletes just now, 12 a passphrase is missing.

    For example:

      s3bu prune my-bucket --dry-run
      s3bu prune my-bucket -p admin
      s3bu prune my-bucket --status

    Parameters
    ----------
    dry_run
        delete and mark nothing, only tell how much it would be, and in how many requests
    status
        only tell what is marked, since when, and when it may be deleted
    original_stopped
        go on although the original s3backup made a snapshot within 90 days: it backs up nothing here any more
    """
    from s3bu.prune import Options, run, standing  # noqa: PLC0415 - start-up counts

    if status and dry_run:
        raise UsageError("--status and --dry-run are two questions", hint="ask one after the other")
    with open_repository(repository, common) as opened, common.console() as console:
        if status:
            found = standing(opened, console)
            console.finish()
            _tell(console, found)
            return 0
        outcome = run(opened, Options(dry_run, original_stopped), console)
        console.finish()
        console.summary(_facts(outcome, is_dry=dry_run), *_lines(outcome, is_dry=dry_run))
    return 0


def _tell(console: Console, found: "list[Standing]") -> None:
    titles = ("marked", "may be deleted from", "contents", "size", "mark")
    if not found:
        console.note("nothing is marked")
        return
    console.table(Table("mark", titles, [_row(one) for one in found], right=frozenset({2, 3})))


def _row(one: "Standing") -> Row:
    facts = {
        "id": one.key,
        "time": one.since,
        "due": one.due,
        "contents": one.left.contents,
        "size": one.left.nbytes,
    }
    times = (format_local(one.since), format_local(one.due))
    return Row(facts, (*times, f"{one.left.contents:,}", format_nbytes(one.left.nbytes), shown(one.key)))


_AMOUNTS = ("deleted", "marked", "waiting", "young", "kept", "needed", "older")


def _facts(outcome: "Outcome", *, is_dry: bool) -> dict[str, object]:
    amounts: dict[str, Amount] = {name: getattr(outcome, name) for name in _AMOUNTS}
    return {
        **{name: amount.contents for name, amount in amounts.items()},
        **{f"bytes_{name}": amount.nbytes for name, amount in amounts.items()},
        "due": outcome.due,
        "uploads_aborted": outcome.uploads,
        "requests": outcome.requests,
        "dry_run": is_dry,
    }


def _lines(outcome: "Outcome", *, is_dry: bool) -> Iterator[str]:
    would = "would be " if is_dry else ""
    yield f"{_amount(outcome.deleted, 'object')} {would}deleted"
    yield f"{_amount(outcome.marked)} {would}marked, to be deleted by a prune after 72 hours"
    if outcome.waiting.contents:
        yield f"{_amount(outcome.waiting)} marked before, not due yet"
    if outcome.due is not None:
        yield f"  the next may be deleted from {format_local(outcome.due)} on"
    if outcome.young.contents:
        yield f"{_amount(outcome.young)} younger than 7 days, not marked: a backup may be about to name them"
    if outcome.kept.contents:
        yield f"{_amount(outcome.kept)} marked before, but needed or stored again since"
    yield f"{_amount(outcome.needed)} needed by snapshots"
    if outcome.older.contents:
        yield f"{_amount(outcome.older, 'older version')} not touched: a lifecycle rule of the bucket removes them"
    if outcome.uploads:
        yield f"{counted(outcome.uploads, 'unfinished upload')} {would}aborted"
    if is_dry:
        requests = ", ".join(f"{number:,} {kind}" for kind, number in outcome.requests.items())
        yield f"in about so many requests: {requests}"


def _amount(amount: "Amount", noun: str = "content") -> str:
    return f"{counted(amount.contents, noun)} ({format_nbytes(amount.nbytes)})"
