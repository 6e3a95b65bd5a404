"""The backups that a watcher starts: when, one a job at a time, and what came of each.

Failed ones are tried again without end. After a backup the snapshots of a job that says which to keep are thinned, once
a day. What fails in the same way again is said once an hour.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from s3bu.job import Job
from s3bu.journal import JournalError
from s3bu.moment import format_duration
from s3bu.watch.children import Children
from s3bu.watch.events import now
from s3bu.watch.limits import hint_of_queue, read_limits
from s3bu.watch.log import Log, Once
from s3bu.watch.recorder import Key, Recorder
from s3bu.watch.runs import KEPT, Commands, Ended, Message
from s3bu.watch.schedule import NEVER, Pace, Schedule

_DAY = 86_400.0
_AGAIN_SECONDS = 3600.0
_INCOMPLETE = 3
_FIRST_AGAIN_SECONDS = 30.0
_REST = 9.0
"""So many times as long as a run took nothing but a change is a reason for the next one."""
_FAILURE_LENGTH = 500
_PLAN_STEP_US = 1_000_000
"""So much a planned run has to move before it is written down again."""


@dataclass(frozen=True, slots=True)
class Means:
    """What backups need: how to start runs, where what changes is recorded, where to say what came of runs, a clock."""

    commands: Commands
    children: Children
    recorder: Recorder
    log: Log
    clock: Callable[[], float] = now


class Backups:
    """The backups of all sources. With `is_once` each is made once; `worst` is then the exit code of all together.

    `job_of` returns the version of a job that holds, `doubt_job` is called when a run saw another one.
    """

    def __init__(
        self, pace: Pace, means: Means, job_of: Callable[[str], Job], doubt_job: Callable[[], object], *, is_once: bool
    ) -> None:
        self._schedule: Schedule[Key] = Schedule(pace)
        self._means = means
        self._now = means.clock
        self._job_of = job_of
        self._doubt_job = doubt_job
        self._is_once = is_once
        self._named: dict[Key, str] = {}
        self._rested: dict[Key, float] = {}
        self._walked: dict[Key, float] = {}
        self._unwatched: set[Key] = set()
        self._incomplete: dict[Key, int] = {}
        self._deferred: dict[Key, dict[bytes, int]] = {}
        self._planned: dict[Key, int | None] = {}
        self._running: dict[Key, int] = {}
        self._began: dict[str, float] = {}
        self._nruns = 0
        self._forgot: dict[str, float] = {}
        self._failed: dict[Key, tuple[str, ...]] = {}
        self._once = Once(means.log, _AGAIN_SECONDS)
        self._daily = Once(means.log, _DAY)
        self.worst = 0

    # --- sources

    def add(self, key: Key, named: str) -> None:
        """Back up a source too, by the name that the user gave its job; it is due at once."""
        self._schedule.add(key, self._now())
        self._named[key] = named

    def remove(self, key: Key) -> None:
        """Back up a source no more; a run that is under way goes on."""
        self._schedule.remove(key)
        known = (self._named, self._rested, self._walked, self._deferred, self._planned, self._failed, self._running)
        for one in known:
            one.pop(key, None)
        self._unwatched.discard(key)
        self._incomplete.pop(key, None)

    def changed(self, key: Key, paths: Iterable[bytes]) -> None:
        """Take note of paths that changed; those that are put off make no run due before their time."""
        put_off, now_us = self._deferred.get(key, {}), _now_us()
        if key in self._named and any(put_off.get(path, 0) <= now_us for path in paths):
            self._schedule.changed(key, self._now())

    def doubt(self, key: Key) -> None:
        """Let a source be due as soon as the interval allows it: it may have changed without a word.

        No more than a tenth of the time goes into such runs.
        """
        if key in self._named:
            self._schedule.want(key, max(self._now(), self._rested.get(key, 0.0)))

    @property
    def are_over(self) -> bool:
        """Whether each source was backed up once, where that is all that is wanted."""
        return self._is_once and not self._named

    # --- when

    def next(self) -> float:
        """Return when the next run is to be started."""
        return min((self._schedule.due(key) for key in self._named if not self._is_busy(key)), default=NEVER)

    def _is_busy(self, key: Key) -> bool:
        return self._means.children.is_busy(key[0])

    def start_due(self) -> None:
        """Start the runs that are due, one a job."""
        for key in self._schedule.all_due(self._now()):
            if not self._is_busy(key):
                self._start(key)

    def tell_plans(self) -> None:
        """Write down when each source is to be backed up; where that is not possible nobody needs to know."""
        for key in self._named:
            due = self._schedule.due(key)
            when_us = None if due == NEVER else _now_us() + round((due - self._now()) * 1e6)
            before = self._planned.get(key)
            if when_us is None and before is None:
                continue
            if when_us is None or before is None or abs(when_us - before) >= _PLAN_STEP_US:
                self._planned[key] = when_us
                try:
                    self._means.recorder.plan_run(key, when_us)
                except JournalError:
                    self._planned.pop(key)

    def tell_long(self) -> None:
        """Say once an hour of a run that it has not ended: it may hang, and its job waits for it."""
        for job, began in self._began.items():
            lasted = self._now() - began
            if lasted >= _AGAIN_SECONDS:
                more = f"; it began {format_duration(lasted)} ago"
                self._once.say(
                    "running", "a run has not ended, and the job waits for it", self._now(), source=job, more=more
                )

    # --- runs

    def _over(self, job: str) -> None:
        """Note that the run of a job has ended."""
        self._began.pop(job, None)
        self._once.over("running", source=job)

    def _start(self, key: Key) -> None:
        job, label = key
        self._schedule.begin(key, self._now())
        self._nruns += 1
        self._running[key] = number = self._nruns
        self._began[job] = self._now()
        if self._schedule.failures(key) == 0:
            self._means.log.say("began", "backup began", source=f"{job}/{label}")
        words = self._means.commands.backup(self._named[key], label)
        self._means.children.start(words, lambda ended: self._end(key, number, ended), job=job)
        self.tell_plans()

    def _end(self, key: Key, number: int, ended: Ended) -> None:
        """Say what came of a run, and what is to be done next."""
        self._over(key[0])
        if self._running.get(key) != number:
            return  # the source went meanwhile, and may be back
        del self._running[key]
        with suppress(JournalError):  # `status` says less then, and nothing else goes by it
            self._means.recorder.note_failure(key, _failure_of(ended))
        if ended.code in (0, _INCOMPLETE):
            self._succeed(key, ended)
        else:
            self._fail(key, ended)
        if self._is_once:
            self.worst = max(self.worst, ended.code, key=_badness)
            self.remove(key)
        self.tell_plans()

    def _succeed(self, key: Key, ended: Ended) -> None:
        source, summary = "/".join(key), ended.summary
        size, why_full = summary.get("manifest_size"), summary.get("full_scan")
        nbytes = size if isinstance(size, int) else None
        self._schedule.succeed(key, manifest_nbytes=nbytes, was_full=why_full is not None)
        self._once.over("failed", source=source)
        self._put_off(key)
        if summary:
            self._means.log.ended(source, ended.code, summary)
        self._tell_failures(key, ended)
        for warning in ended.warnings:
            self._daily.say("warning", warning, self._now(), source=source)
        if why_full is not None:
            self._doubt_job()  # it may be that the run had a newer version of the job
        self._try_incomplete_again(key, is_incomplete=ended.code == _INCOMPLETE)
        if isinstance(why_full, str) and "queue" in why_full:
            self._daily.say("limit", hint_of_queue(read_limits()), self._now(), source=source)
        seconds = summary.get("total_duration")
        self._rested[key] = self._now() + _REST * (seconds if isinstance(seconds, int | float) else 0.0)
        self._see_unwatched(key, bool(summary.get("unwatched_directories")))
        self._forget(key[0])

    def _try_incomplete_again(self, key: Key, *, is_incomplete: bool) -> None:
        """Let a source be due again in which something failed, for nothing may tell that it would not fail any more."""
        if not is_incomplete:
            self._incomplete.pop(key, None)
            return
        ntimes = self._incomplete[key] = self._incomplete.get(key, 0) + 1
        self._schedule.want(key, self._now() + min(_FIRST_AGAIN_SECONDS * 2 ** min(ntimes - 1, 16), _AGAIN_SECONDS))

    def _see_unwatched(self, key: Key, has_any: bool) -> None:
        """Have a source walked anew of which two runs met directories that should be watched, and are not.

        After the first one they may just have come, and be watched by now.
        """
        was_seen = key in self._unwatched
        self._unwatched.discard(key)
        if not has_any or self._means.recorder.counts(key).nunwatched:
            return
        if not was_seen:
            self._unwatched.add(key)
            self._schedule.want(key, self._now())
        elif self._now() - self._walked.get(key, -_DAY) >= _AGAIN_SECONDS:
            self._walked[key] = self._now()
            self._means.recorder.walk_again(key)

    def _put_off(self, key: Key) -> None:
        """Let large files that wait be due in their time."""
        try:
            self._deferred[key] = self._means.recorder.deferred(key)
        except JournalError:
            self._deferred[key] = {}
        if self._deferred[key]:
            delay_us = min(self._deferred[key].values()) - _now_us()
            self._schedule.want(key, self._now() + max(delay_us, 0) / 1e6)

    def _tell_failures(self, key: Key, ended: Ended) -> None:
        """Name the paths that failed, unless they are those that failed the last time."""
        failures = tuple(ended.errors)
        if failures and failures != self._failed.get(key):
            for failure in failures:
                self._means.log.say("error", failure, source="/".join(key))
            if ended.nerrors > KEPT:
                self._means.log.say("error", f"and {ended.nerrors - KEPT:,} more", source="/".join(key))
        self._failed[key] = failures

    def _fail(self, key: Key, ended: Ended) -> None:
        self._schedule.fail(key, self._now())
        source, message = "/".join(key), f"backup failed: {ended.why or ''}"
        if not self._is_once:
            wait = format_duration(self._schedule.due(key) - self._now())
            if self._schedule.failures(key) > 1:
                wait += " and then at most every 10 min"
            self._once.say("failed", message, self._now(), source=source, more=f"; next try in {wait}")
        else:
            self._means.log.say("failed", message, source=source)

    # --- what goes

    def _forget(self, job: str) -> None:
        """Let old snapshots of a job go that says which to keep, once a day."""
        if self._is_once or self._job_of(job).retention is None:
            return
        last = self._forgot.get(job)
        if last is not None and self._now() - last < _DAY:
            return
        self._forgot[job] = self._began[job] = self._now()
        named = next(named for (one, _), named in self._named.items() if one == job)
        words = self._means.commands.forget(named)
        self._means.children.start(words, lambda ended: self._forgotten(job, ended), job=job)

    def _forgotten(self, job: str, ended: Ended) -> None:
        self._over(job)
        if ended.code in (0, _INCOMPLETE):
            gone = ended.summary.get("forgotten")
            self._daily.over("failed", source=job)
            if gone:
                self._means.log.say("forgot", _told_forgotten(ended.summary), source=job)
        else:
            self._forgot[job] = self._now() + _AGAIN_SECONDS - _DAY  # another backup may just have used the index
            self._daily.say("failed", f"old snapshots could not be forgotten: {ended.why}", self._now(), source=job)


def _told_forgotten(summary: Message) -> str:
    return f"forgot {summary.get('forgotten'):,} old snapshots, kept {summary.get('kept'):,}"


def _failure_of(ended: Ended) -> str | None:
    """Return what was wrong with a run, in a line, if anything was."""
    if ended.code == 0:
        return None
    if ended.code == _INCOMPLETE and ended.errors:
        more = f" (and {ended.nerrors - 1:,} more)" if ended.nerrors > 1 else ""
        return f"{ended.errors[0][:_FAILURE_LENGTH]}{more}"
    return (ended.why or f"ended with {ended.code}")[:_FAILURE_LENGTH]


def _badness(code: int) -> int:
    """Return a number by which exit codes are ordered: incomplete is better than failed."""
    return (0, _INCOMPLETE).index(code) if code in (0, _INCOMPLETE) else 2


def _now_us() -> int:
    return time.time_ns() // 1000
