"""A backup before it happens: each path that it would touch and why, what it would take, and what is alarming.

A plan reads no content, asks the repository only for listings and manifests, and is made on an index that it may
write into since it ends with it: nothing is left behind.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from s3bu.backup import Options
from s3bu.backup.deciding import Decision, Ground, decide
from s3bu.backup.estimate import Estimate, estimate
from s3bu.compare import CARRIED, CHANGED, UNMODIFIED, difference
from s3bu.draft import FAILED, Settled
from s3bu.errors import JobError, S3buError
from s3bu.guard import VANISHED, Alarm
from s3bu.index import Index
from s3bu.job import Job, Source
from s3bu.manifest import DIRECTORY, FILE, Entry, is_representable, sort_key
from s3bu.progress import Failure, Progress
from s3bu.repository import Repository
from s3bu.scan.found import Left
from s3bu.scan.source import SourceMissingError
from s3bu.selection import Rule, Skipped

CHECK, SKIPPED = "check", "skipped"
"""A file that is read to find out whether it changed; a path that a rule leaves out, with all below it."""


class Planned(NamedTuple):
    """One path: what becomes of it, and why.

    `nbytes` is the size of a file; `is_read`: its content is read. `rule` is what leaves a skipped one out.
    """

    action: str
    path: bytes
    kind: str
    nbytes: int
    reason: str | None = None
    is_read: bool = False
    rule: Rule | None = None


@dataclass(slots=True)
class Plan:
    """What a backup of one source would do; `error` says why it would not be backed up at all.

    `counts` counts paths by action, `news` is why there would be a snapshot, or `None`; `may_publish` when only reading
    tells. `why_full` says why all of the source was looked at, `why_listed` why all that is stored was listed.
    """

    label: str
    error: S3buError | None = None
    decision: Decision | None = None
    counts: Counter[str] = field(default_factory=Counter)
    news: str | None = None
    alarm: Alarm | None = None
    estimate: Estimate | None = None
    failures: list[Failure] = field(default_factory=list)
    left: Left = field(default_factory=Left)
    why_full: str | None = None
    why_listed: str = ""

    @property
    def is_something(self) -> bool:
        """Whether a backup would read a content, or publish a snapshot."""
        return self.news is not None or self.counts[CHECK] > 0

    @property
    def publishes(self) -> bool | None:
        """Whether there would be a snapshot; `None` where only reading contents tells."""
        if self.alarm is not None:
            return False if self.alarm.what == VANISHED else None
        return True if self.news else None if self.is_something else False

    def paths(self) -> Iterator[Planned]:
        """Yield what becomes of each path that is not simply unmodified, in order."""
        if self.decision is not None:
            yield from planned(self.decision)


def plan(
    repository: Repository, index: Index, job: Job, sources: Iterable[Source], options: Options, progress: Progress
) -> Iterator[Plan]:
    """Yield the plan of each of these sources; each holds until the next one is asked for.

    `index` is one that ends with the plan: what is found out on the way is written into it.
    """
    ground = Ground(repository, index, job, options, progress, is_writing=False)
    ground.begin()
    for source in sources:
        yield _plan(ground, source)


def _plan(ground: Ground, source: Source) -> Plan:
    made = Plan(source.label)
    known = len(ground.index.snapshots())
    try:
        decision = decide(ground, source)
    except (SourceMissingError, JobError) as error:
        made.error = error
        return made
    made.decision, made.left = decision, decision.scan.left
    _count(made, decision)
    made.news = decision.news(made.counts)
    if decision.guard is not None and not ground.options.accepts_deletions:
        made.alarm = decision.guard.alarm()
    nread = len(ground.index.snapshots()) - known + decision.parent.has_broken
    made.estimate = estimate(decision, is_publishing=made.is_something, nread_manifests=nread)
    made.why_full = decision.view.why_full
    made.why_listed = ground.known.why_listed
    return made


def planned(decision: Decision) -> Iterator[Planned]:
    """Yield what becomes of each path, those that are skipped among them, in order.

    One that is removed because it is skipped now is only told to be removed, and why.
    """
    drafted = (one for one in map(_of_settled, decision.draft.settled()) if one is not None)
    skipped = map(_of_skipped, decision.draft.skips)
    last = b""
    for one in heapq.merge(drafted, skipped, key=lambda one: sort_key(one.path)):
        if one.path != last:
            yield one
        last = one.path


def _of_skipped(skipped: Skipped) -> Planned:
    kind = DIRECTORY if skipped.is_directory else FILE
    return Planned(SKIPPED, skipped.path, kind, 0, str(skipped.rule), rule=skipped.rule)


def _of_settled(one: Settled) -> Planned | None:
    """Return what becomes of a path of the draft, as far as that is known before its content is read."""
    entry = one.entry or one.previous
    kind, nbytes = (entry.kind, entry.nbytes) if entry is not None else (FILE, 0)
    if one.status == FAILED:
        return Planned(FAILED, one.path, kind, nbytes, one.error)
    if one.entry is not None and not is_representable(one.entry):
        return Planned(FAILED, one.path, kind, nbytes, "its name is too long for a manifest")
    if one.status == UNMODIFIED and not one.is_wanted:
        return None
    is_read = one.is_wanted
    if is_read and one.status in (CHANGED, UNMODIFIED) and not _shows_change(one.entry, one.previous):
        return Planned(CHECK, one.path, kind, nbytes, one.reason, is_read)
    reason = one.error if one.status == CARRIED else one.reason
    return Planned(one.status, one.path, kind, nbytes, reason, is_read)


def _shows_change(entry: Entry | None, previous: Entry | None) -> bool:
    """Say whether a file differs from the last snapshot whatever its content is."""
    if entry is None or previous is None:
        return True
    return bool(difference(entry._replace(hash=previous.hash), previous))


def _count(made: Plan, decision: Decision) -> None:
    """Count the paths by action, and note those of which it is known already that they fail."""
    made.failures = list(decision.draft.failures())
    known = {failure.path for failure in made.failures}
    for one in planned(decision):
        made.counts[one.action] += 1
        if one.action == FAILED and one.path not in known:
            made.failures.append(Failure(one.path, one.reason or ""))
    made.counts[UNMODIFIED] = decision.draft.tally.unmodified + decision.draft.nsettled(UNMODIFIED)
