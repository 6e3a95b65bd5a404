"""`s3bu index`."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cyclopts import App

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, format_nbytes, shown
from s3bu.moment import format_local

if TYPE_CHECKING:
    from s3bu.index import Index
    from s3bu.repository import Repository
    from s3bu.sync import Outcome

index = App(name="index", help="The local database of all snapshots: see it, renew it.")


@contextmanager
def _open(repository: str, common: Common, console: Console) -> Iterator[tuple["Repository", "Index"]]:
    """Hold a repository and its index open."""
    from s3bu.index import held, open_index  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415

    with (
        open_repository(repository, common, "index") as opened,
        held(open_index(default_home(os.environ), opened.storage.identity, console)) as local,
    ):
        yield opened, local


@contextmanager
def _alone(local: "Index", console: Console) -> Iterator[None]:
    """Have an index alone while its snapshots come and go."""
    from s3bu.lock import alone  # noqa: PLC0415 - start-up counts

    assert local.path is not None
    with alone(local.path, console):
        yield


@index.command
def sync(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """Take in all snapshots that are not in the index yet.

    Of all jobs, and of other machines too.

    A snapshot that is gone from the repository, or was altered there, is said. Each new one takes about a second, for
    its passphrase. Exit codes: 0 done, 3 some snapshots could not be opened or were altered, 11 a backup uses the
    index just now.

    For example:

      s3bu index sync my-bucket
    """
    from s3bu.sync import sync as run  # noqa: PLC0415 - start-up counts

    with common.console() as console, _open(repository, common, console) as (opened, local), _alone(local, console):
        outcome = run(opened, local, console)
        console.finish()
        return _report(outcome, local, console)


@index.command
def rebuild(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """Empty the index and take in all snapshots again.

    Nothing is lost by it but time: the index holds nothing that is not in the repository, besides what lets a backup
    pass over unmodified files more surely; the first backup afterwards goes by size and time alone.

    For example:

      s3bu index rebuild my-bucket
    """
    from s3bu.sync import sync as run  # noqa: PLC0415 - start-up counts

    with common.console() as console, _open(repository, common, console) as (opened, local), _alone(local, console):
        local.clear()
        outcome = run(opened, local, console)
        console.finish()
        return _report(outcome, local, console)


def _report(outcome: "Outcome", local: "Index", console: Console) -> int:
    total = sum(snapshot.error is None for snapshot in local.snapshots())
    lost = ((outcome.vanished, "gone from the repository"), (outcome.altered, "altered in the repository"))
    lines = [f"{counted(len(outcome.taken), 'snapshot')} taken in, {total:,} in the index"]
    for keys, what in (*lost, (list(outcome.failed), "could not be opened")):
        if keys:
            lines.append(f"  {counted(len(keys), 'snapshot')} {what}")
    facts = {
        "taken_in": [str(key) for key in outcome.taken],
        "vanished": [str(key) for key in outcome.vanished],
        "altered": [str(key) for key in outcome.altered],
        "unopened": [str(key) for key in outcome.failed],
        "total_snapshots": total,
    }
    console.summary(facts, *lines)
    return 3 if outcome.failed or outcome.altered else 0


@index.command
def path(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """Print where the index of a repository lies, whether it is there or not.

    For example:

      sqlite3 "$(s3bu index path my-bucket)" .tables
    """
    from s3bu.index import index_path  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415

    with open_repository(repository, common) as opened, common.console() as console:
        found = index_path(default_home(os.environ), opened.storage.identity)
        console.tell("index", {"path": os.fsencode(found)}, str(found))
    return 0


@index.command
def status(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """Show what the index holds, without asking the repository.

    For example:

      s3bu index status my-bucket
    """
    with common.console() as console, _open(repository, common, console) as (_, local):
        assert local.path is not None
        facts = {"path": os.fsencode(local.path), "size": _size(local)}
        rows = [_row(local, *source) for source in _sources(local.connection)]
        advice = () if rows else ("no snapshots; `s3bu index sync` takes them in",)
        console.tell("index", facts, f"{shown(str(local.path))}: {format_nbytes(_size(local))}", *advice)
        titles = ("job", "label", "snapshots", "unopened", "versions", "newest")
        if rows:
            console.table(Table("source", titles, rows, right=frozenset({2, 3, 4})))
    return 0


def _size(local: "Index") -> int:
    return sum(os.path.getsize(name) for name in (f"{local.path}", f"{local.path}-wal") if os.path.exists(name))


def _sources(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    return connection.execute("SELECT id, job, label FROM source ORDER BY job, label").fetchall()


def _row(local: "Index", source: int, job: str, label: str) -> Row:
    snapshots = local.snapshots(source)
    taken = [snapshot for snapshot in snapshots if snapshot.error is None]
    newest = format_local(taken[-1].created) if taken else "none"
    versions = local.connection.execute("SELECT count(*) FROM version WHERE source = ?", (source,)).fetchone()[0]
    unopened = len(snapshots) - len(taken)
    facts = {
        "job": job,
        "label": label,
        "snapshots": len(taken),
        "unopened": unopened,
        "versions": versions,
        "newest": taken[-1].created if taken else None,
        "snapshot_id": taken[-1].key if taken else None,
    }
    return Row(facts, (shown(job), shown(label), f"{len(taken):,}", f"{unopened:,}", f"{versions:,}", newest))
