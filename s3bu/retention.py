"""Which snapshots of a source to keep: restic's rules, over times alone.

The snapshots are looked at from the newest to the oldest. A rule keeps the newest one of each of so many hours, days,
ISO weeks, months or years, counted are those in which there is one; what no rule keeps is let go. Days begin at local
midnight. This is what restic 0.14 does, against which it is tested.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from s3bu.errors import UsageError

_SPAN = re.compile(r"(?=[0-9])(?:([0-9]{1,4})y)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})d)?(?:([0-9]{1,7})h)?")
_MOST = 1_000_000
COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
"""The rules that take a number."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time; its years and months are those of the calendar."""

    years: int
    months: int
    days: int
    hours: int

    def before(self, moment: datetime) -> datetime | None:
        """Return the moment so long before another one, `None` where there is none.

        A day that the month does not have is one of the next month, as in restic.
        """
        local = moment.astimezone().replace(tzinfo=None)
        month = (local.year - self.years) * 12 + local.month - 1 - self.months
        try:
            first = local.replace(year=month // 12, month=month % 12 + 1, day=1)
            day = first + timedelta(days=local.day - 1 - self.days)
            return day.astimezone() - timedelta(hours=self.hours)
        except (OverflowError, ValueError):
            return None

    def __str__(self) -> str:
        """Return it as people write it."""
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)


def parse_span(text: str) -> Span:
    """Return the span that a text names, such as `1y5m7d2h`: years, months, days, hours."""
    found = _SPAN.fullmatch(text)
    span = Span(*(int(number or 0) for number in found.groups())) if found else None
    if span is None or not str(span):
        raise UsageError(f"'{text}' is no stretch of time", hint="write years, months, days, hours, such as 1y5m7d2h")
    return span


def parse_count(text: str) -> int:
    """Return the number of snapshots that a text names, from 1 on."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 7 and 0 < int(text) <= _MOST):
        raise UsageError(f"'{text}' is no number of snapshots to keep", hint=f"write a number from 1 to {_MOST:,}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep: of each rule how many, and everything `within` a stretch before the newest snapshot."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no rule at all, and so would keep nothing."""
        return self == Policy()


def reasons_to_keep(times: Sequence[datetime], policy: Policy, *, now: datetime) -> list[tuple[str, ...]]:
    """Return for each snapshot, newest first, the rules that keep it: `daily`, `within 7d`, …; none for one to let go.

    The newest snapshot from which `within` counts is not one of the future.
    """
    left = {name: getattr(policy, name) for name in COUNTS}
    seen: dict[str, object] = {}
    latest = max((moment for moment in times if moment < now), default=None)
    since = policy.within.before(latest) if policy.within and latest else None
    kept = []
    for number, moment in enumerate(times):
        reasons = []
        if policy.within and (since is None or moment > since):
            reasons.append(f"within {policy.within}")
        for name in COUNTS:
            bucket = _BUCKETS[name](moment.astimezone(), number)
            if left[name] and seen.get(name) != bucket:
                seen[name], left[name] = bucket, left[name] - 1
                reasons.append(name)
        kept.append(tuple(reasons))
    return kept


_BUCKETS: dict[str, Callable[[datetime, int], object]] = {
    "last": lambda _, number: number,
    "hourly": lambda moment, _: (moment.date(), moment.hour),
    "daily": lambda moment, _: moment.date(),
    "weekly": lambda moment, _: moment.isocalendar()[:2],
    "monthly": lambda moment, _: (moment.year, moment.month),
    "yearly": lambda moment, _: moment.year,
}
