"""Which sources are watched, each by one watcher alone, and how they come and go with the versions of their jobs."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.job import Source
from s3bu.lock import hold_watch
from s3bu.progress import Silent
from s3bu.watch.backups import Backups
from s3bu.watch.events import now
from s3bu.watch.jobs import Following
from s3bu.watch.limits import read_limits, warning_of_watches
from s3bu.watch.log import Log, Once
from s3bu.watch.recorder import CHANGED_JOB, Key, Place, Recorder
from s3bu.watch.source import NOT_THERE, Counts

_AGAIN_SECONDS = 86_400.0


class _Warnings(Silent):
    """Takes warnings about locks, and nothing else."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def warning(self, message: str) -> None:
        """Say a warning."""
        self._log.say("warning", message)


class _Followed(NamedTuple):
    source: Source
    filters: Filters
    of: Following


class Scope:
    """The sources that are watched."""

    def __init__(self, place: Place, recorder: Recorder, backups: Backups | None, log: Log) -> None:
        self._place = place
        self._recorder = recorder
        self._backups = backups
        self._log = log
        self._locks: dict[Key, ExitStack] = {}
        self._followed: dict[Key, _Followed] = {}
        self._once = Once(log, _AGAIN_SECONDS)
        self._stood: dict[Key, tuple[bool, bool, str | None, str | None]] = {}

    def close(self) -> None:
        """Let others watch them."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def begin(self, one: Following) -> None:
        """Watch the sources of a job; `LockedError` when somebody else does."""
        for source in one.sources:
            self._add(one, source)

    def follow(self, one: Following) -> None:
        """Watch what the version of a job has that holds now; what cannot be watched is said, and tried again later."""
        wanted = {(one.job.name, source.label): source for source in one.sources}
        for key in [key for key, known in self._followed.items() if known.of is one and key not in wanted]:
            self._remove(key)
        for key, source in wanted.items():
            try:
                if key not in self._followed:
                    self._add(one, source)
                else:
                    self._renew(key, one, source)
            except S3buError as error:
                self._once.say("unwatched", f"not watched: {error.message}", now(), source="/".join(key))

    def _add(self, one: Following, source: Source) -> None:
        key = (one.job.name, source.label)
        with ExitStack() as lock:
            lock.enter_context(hold_watch(self._place.home, self._place.identity, *key, _Warnings(self._log)))
            self._recorder.add(one.job.name, source, one.job.filters)
            self._locks[key] = lock.pop_all()
        self._followed[key] = _Followed(source, one.job.filters, one)
        if self._backups is not None:
            self._backups.add(key, one.named)

    def _remove(self, key: Key) -> None:
        self._log.say("unwatched", "not in the job any more, and not watched any more", source="/".join(key))
        self._recorder.remove(key)
        del self._followed[key]
        self._let_go(key)

    def _let_go(self, key: Key) -> None:
        self._stood.pop(key, None)
        if self._backups is not None:
            self._backups.remove(key)
        self._locks.pop(key).close()

    def _renew(self, key: Key, one: Following, source: Source) -> None:
        """Watch a source anew that another version of its job has otherwise."""
        known = self._followed[key]
        if (known.source, known.filters) == (source, one.job.filters):
            return
        self._recorder.remove(key)
        del self._followed[key]
        try:
            self._recorder.add(one.job.name, source, one.job.filters, reason=CHANGED_JOB)
        except S3buError:
            self._let_go(key)
            raise
        self._followed[key] = _Followed(source, one.job.filters, one)
        if self._backups is not None:
            self._backups.changed(key, [b""])

    # --- what there is to say of them

    def standing(self) -> Iterator[tuple[str, str]]:
        """Yield each source of which it is news whether all of it is watched, and what to say."""
        for key in self._followed:
            counts, obstacle = self._recorder.counts(key), self._recorder.obstacle(key)
            if not counts.is_walked and counts.fault is None and obstacle is None:
                continue  # it is just being walked, and will be told when that is over
            standing = (counts.nwatched > 0, counts.nunwatched > 0, counts.fault, obstacle)
            if self._stood.get(key) != standing:
                self._stood[key] = standing
                yield "/".join(key), _told(counts, obstacle)

    def unseen(self) -> Iterator[Key]:
        """Yield the sources in which something may change that nobody sees, so that they are to be scanned instead."""
        for key in self._followed:
            if self._recorder.counts(key).nunwatched or self._recorder.obstacle(key) is not None:
                yield key

    def warning(self) -> str | None:
        """Return what to say when the kernel does not watch as much as there is."""
        counts = [self._recorder.counts(key) for key in self._followed]
        nunwatched = sum(one.nunwatched for one in counts)
        return warning_of_watches(sum(one.nwatched for one in counts) + nunwatched, nunwatched, read_limits())

    def status(self) -> str:
        """Return in one line how much is watched."""
        ndirectories = sum(self._recorder.counts(key).nwatched for key in self._followed)
        names = ", ".join("/".join(key) for key in list(self._followed)[:5])
        more = f" and {len(self._followed) - 5} more" if len(self._followed) > 5 else ""
        return f"watching {_directories(ndirectories)} of {names}{more}"


def _told(counts: Counts, obstacle: str | None) -> str:
    """Say how much of a source is watched."""
    if counts.fault is not None:
        return f"{counts.fault}; watched as soon as it {'is' if counts.fault == NOT_THERE else 'can be'}"
    message = f"watching {_directories(counts.nwatched)}"
    if counts.nunwatched:
        message += f"; {counts.nunwatched:,} cannot be watched ({counts.why_unwatched}), and are scanned each time"
    return message if obstacle is None else f"{message}; all is scanned each time, since {obstacle}"


def _directories(number: int) -> str:
    return f"{number:,} {'directory' if number == 1 else 'directories'}"
