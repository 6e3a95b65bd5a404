"""A watcher that sees nothing by itself: it writes into the journal what a test says, and answers cookies."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from s3bu.filters import Filters
from s3bu.journal import Journal, open_for_watching, rules_of
from s3bu.journal.batch import Batch
from s3bu.scan import Scan
from tests.fakes import World
from tests.test_watch.oracle import JOURNAL


@dataclass(slots=True)
class Recorder:
    """The watcher of one source; `number` is the source's in the journal."""

    journal: Journal
    session: int
    number: int
    world: World
    filters: Filters

    def see(self, *paths: str, tree: bool = False, reason: str | None = None) -> None:
        """Write down that paths changed."""
        batch = Batch()
        for path in paths:
            batch.dirty(self.number, os.fsencode(path), is_tree=tree, reason=reason)
        self.journal.record(self.session, batch)

    def watch_all(self) -> None:
        """Write down that every directory is watched."""
        batch = Batch()
        batch.unwatch(self.number, b"")
        Scan(os.fsencode(self.world.source), self.filters, witness=_Watches(batch, self.number)).directories(b"")
        self.journal.record(self.session, batch)


@dataclass(frozen=True, slots=True)
class _Watches:
    batch: Batch
    number: int

    def directory(self, path: bytes, _descriptor: int, status: os.stat_result, /) -> None:
        self.batch.watch(self.number, path, status.st_ino, status.st_dev)

    def linked(self, path: bytes, /) -> None:
        pass


@contextmanager
def recording(world: World, filters: Filters | None = None, *, full_seconds: int = 86_400) -> Iterator[Recorder]:
    """Watch the source of a world, all of it, for a block."""
    journal = open_for_watching(world.root / JOURNAL, world.storage.identity)
    session = journal.begin_session()
    number = journal.watch_source(session, "home", "docs", full_seconds, rules_of(filters or Filters()))
    recorder = Recorder(journal, session, number, world, filters or Filters())
    recorder.watch_all()
    recorder.see("", tree=True, reason="the watcher started after the last full scan")
    with answering(world, session):
        yield recorder
    journal.end_session(session)
    journal.close()


@contextmanager
def answering(world: World, session: int) -> Iterator[None]:
    """Answer the cookies that runs lay."""
    ended = threading.Event()
    thread = threading.Thread(target=_answer, args=(world, session, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _answer(world: World, session: int, ended: threading.Event) -> None:
    journal = open_for_watching(world.root / JOURNAL, world.storage.identity)
    answered: set[str] = set()
    while not ended.wait(0.005):
        batch = Batch()
        for name in set(os.listdir(journal.cookies)) - answered:
            batch.cookie(name)
            answered.add(name)
        if not batch.is_empty:
            journal.record(session, batch)
    journal.close()
