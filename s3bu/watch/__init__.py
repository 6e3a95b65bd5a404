"""Watch sources: record what changes in a journal, and start backups of it.

A `Watcher` joins the parts: `recorder` holds the watches and the journal, `backups` starts runs by the `schedule`,
`jobs` finds newer versions of jobs, and `events` is what all of them wait for.
"""

import signal
from contextlib import suppress
from dataclasses import dataclass

from s3bu.errors import S3buError
from s3bu.journal import BEAT_SECONDS, JournalError
from s3bu.scan.found import Excluded
from s3bu.watch.backups import Backups, Means
from s3bu.watch.children import Children
from s3bu.watch.events import TERMINATING, Events, Stopped, Timers, now
from s3bu.watch.jobs import Following, Jobs
from s3bu.watch.log import Log, Once
from s3bu.watch.notify import Notifier
from s3bu.watch.recorder import Place, Recorder
from s3bu.watch.runs import Commands
from s3bu.watch.schedule import NEVER, Pace
from s3bu.watch.scope import Scope

_LOOK_SECONDS = 10.0
_RELOAD_SECONDS = 600.0
_RECORD_SECONDS = 0.5
_COLLECT_SECONDS = 0.02
"""Between two looks at what was seen: in a storm of changes there is more to do."""
_RETRY_SECONDS = 5.0
_TERM_SECONDS = 8.0
_KILL_SECONDS = 1.0
_AGAIN_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants: how often, only to record what changes, or each source backed up once and then an end."""

    pace: Pace
    is_recording_only: bool = False
    is_once: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a watcher works: its journal, what it leaves out, how runs are called, and whom it tells."""

    place: Place
    excluded: Excluded
    commands: Commands
    log: Log
    notifier: Notifier


class Watcher:
    """Watches the sources of jobs until a signal ends it, or all was done that was wanted.

    Takes the signals of the process while it lives: a block, in which it is run once.
    """

    def __init__(self, wanted: Wanted, setting: Setting, following: list[Following]) -> None:
        self._wanted = wanted
        self._log, self._notifier = setting.log, setting.notifier
        self._once = Once(setting.log, _AGAIN_SECONDS)
        self._events = Events()
        self._timers = Timers()
        self._children = Children(self._events.selector)
        self._is_woken = False
        self._collect_due = self._record_due = NEVER
        self._collected = self._retry_at = 0.0
        self._recorder = Recorder(setting.place, setting.excluded, self._wake)
        self._jobs = Jobs(following, setting.commands, self._children, self._renewed, self._not_reloaded)
        means = Means(setting.commands, self._children, self._recorder, setting.log)
        self._backups = None
        if not wanted.is_recording_only:
            self._backups = Backups(wanted.pace, means, self._jobs.of, self._doubt_jobs, is_once=wanted.is_once)
        self._scope = Scope(setting.place, self._recorder, self._backups, setting.log)

    def _wake(self) -> None:
        """Note that something was seen; called by another thread."""
        self._is_woken = True
        self._events.wake()

    def run(self) -> int:
        """Watch until the end, and return the exit code; `LockedError` when somebody else watches a source."""
        with self._events:
            try:
                return self._end(self._watch())
            except Stopped:
                came, self._events.came = self._events.came, []
                return self._end(self._code_of(came))
            except BaseException:
                self._end(1)
                raise

    def _watch(self) -> int:
        self._begin()
        while True:
            self._events.wait(self._next())
            code = self._take_signals()
            if code is not None:
                return code
            self._work()
            if self._backups is not None:
                if self._backups.are_over and not self._children.are_there:
                    return self._backups.worst
                self._backups.start_due()

    # --- beginning

    def _begin(self) -> None:
        with self._events.interruptible():
            for one in self._jobs.following:
                self._scope.begin(one)
        self._collect()
        self._record()
        self._tell_standing()
        self._notifier.ready()
        self._timers.every(BEAT_SECONDS, self._beat)
        self._timers.every(_LOOK_SECONDS, self._look)
        self._timers.every(_RELOAD_SECONDS, self._doubt_jobs)
        if self._notifier.watchdog is not None:
            self._timers.every(self._notifier.watchdog, self._notifier.alive, first=0.0)

    def _tell_standing(self) -> None:
        """Say how much is watched, and what is not, when that is another thing than before."""
        with self._events.interruptible():  # a walk that is under way holds this up
            standing, warning, status = list(self._scope.standing()), self._scope.warning(), self._scope.status()
            unseen = list(self._scope.unseen())
        for source, message in standing:
            self._log.say("watching", message, source=source)
        if warning is not None:
            self._once.say("limit", warning, now())
        self._notifier.status(status)
        if self._backups is not None:
            for key in unseen:
                self._backups.doubt(key)

    # --- the loop

    def _next(self) -> float:
        due = min(self._timers.next(), self._collect_due, self._record_due)
        return due if self._backups is None else min(due, self._backups.next())

    def _take_signals(self) -> int | None:
        """Return the exit code with which a signal ends the watcher, if one came."""
        came, self._events.came = self._events.came, []  # what comes from here on is looked at the next time
        if any(number in TERMINATING for number in came):
            return self._code_of(came)
        if signal.SIGHUP in came:
            self._notifier.reloading()
            self._jobs.reload(self._reloaded)
        return None

    def _code_of(self, came: list[int]) -> int:
        """Return the exit code of the first signal that ends the watcher."""
        self._log.say("stopping", "stopping")
        return next(TERMINATING[number] for number in came if number in TERMINATING)

    def _work(self) -> None:
        self._children.reap()
        if self._is_woken:
            self._is_woken = False
            self._collect_due = min(self._collect_due, self._collected + _COLLECT_SECONDS)
        if self._collect_due <= now():
            self._collect()
        if self._record_due <= now():
            self._record()
        self._timers.run_due()

    def _collect(self) -> None:
        """Take what was seen; who waits for an answer gets it at once."""
        self._collected, self._collect_due = now(), NEVER
        changed, is_asked = self._recorder.collect()
        if self._backups is not None:
            for key, paths in changed.items():
                self._backups.changed(key, paths)
        if is_asked or self._recorder.has_more:
            soon = now() + (0.0 if is_asked else _RECORD_SECONDS)
            self._record_due = min(self._record_due, max(soon, self._retry_at))

    def _record(self) -> None:
        """Write down what was seen; if that fails, again a little later."""
        self._record_due = NEVER
        try:
            with self._events.interruptible():
                self._recorder.record()
        except S3buError as error:
            message = f"{error.message}; until it can be, runs look at everything"
            self._once.say("journal", message, now())
            self._record_due = self._retry_at = now() + _RETRY_SECONDS
        else:
            self._retry_at = 0.0
            if self._once.over("journal"):
                self._log.say("journal", "the journal is written again")

    # --- now and then

    def _beat(self) -> None:
        with suppress(JournalError):  # the next record says it
            self._recorder.beat()
        if self._backups is not None:
            self._backups.tell_plans()
            self._backups.tell_long()

    def _look(self) -> None:
        """See whether all is still where it was: the sources, the journal, and local job files."""
        with self._events.interruptible():
            try:
                if not self._recorder.is_in_place:
                    self._once.say("journal", "the journal was taken away; beginning a new one", now())
                    self._recorder.renew()
                self._recorder.look_again()
                for one in self._jobs.following:
                    self._scope.follow(one)  # what could not be watched the last time
            except S3buError as error:
                self._once.say("journal", f"{error.message}; beginning anew", now())
                self._try_anew()
            self._tell_standing()
        self._jobs.look_at_files()
        self._record_due = min(self._record_due, now() + _RECORD_SECONDS)

    def _try_anew(self) -> None:
        try:
            self._recorder.renew()
        except S3buError as error:
            self._once.say("journal", error.message, now())

    # --- jobs

    def _doubt_jobs(self) -> None:
        """See whether there are newer versions of the jobs, and try again what could not be watched."""
        self._jobs.reload(self._follow_all)

    def _follow_all(self) -> None:
        for one in self._jobs.following:
            self._renewed(one, is_new=False)

    def _reloaded(self) -> None:
        self._follow_all()
        self._log.say("reloaded", "the jobs were read again")
        self._notifier.ready()

    def _renewed(self, one: Following, *, is_new: bool = True) -> None:
        """Watch what the version of a job has that holds now, in the place of what an older one had."""
        if is_new:
            self._once.over("failed", source=one.job.name)
            self._tell_job(one)
        with self._events.interruptible():
            self._scope.follow(one)
        self._collect()
        self._record_due = now()
        self._tell_standing()

    def _tell_job(self, one: Following) -> None:
        """Say which job holds from now on, and what is odd about it; where there are runs, these say that."""
        message = f"version {one.version} of the job holds now" if one.version else "the job was read again"
        self._log.say("reloaded", message, source=one.job.name)
        for warning in one.job.warnings if self._backups is None else ():
            self._log.say("warning", warning, source=one.job.name)

    def _not_reloaded(self, one: Following, why: str) -> None:
        message = f"the job cannot be read again, and stands as it was: {why}"
        self._once.say("failed", message, now(), source=one.job.name)

    # --- the end

    def _end(self, code: int) -> int:
        """End all runs and watches; a second signal ends the runs at once."""
        self._notifier.stopping()
        self._children.stop()
        self._await_children(now() + _TERM_SECONDS)
        self._children.kill()
        self._events.came.clear()
        self._await_children(now() + _KILL_SECONDS)
        self._recorder.close()
        self._scope.close()
        self._notifier.close()
        return code

    def _await_children(self, until: float) -> None:
        while self._children.are_there and now() < until and not self._events.is_ending:
            self._events.wait(until)
            self._children.reap()
