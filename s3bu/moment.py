"""Points in time as people write and read them."""

import re
from datetime import UTC, datetime, timedelta

from s3bu.errors import UsageError

_AGE = re.compile(r"([0-9]{1,6})(m|h|d|w|y)")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_DURATION = re.compile(r"([0-9]{1,6})(s|m|h|d|w)")
_WRITTEN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?P<minute>[T ][0-9]{2}:[0-9]{2}(?P<second>:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def parse_moment(text: str, *, now: datetime, is_first: bool = False) -> datetime:
    """Return the moment that a text names, in UTC: the last one of what it names, or the first.

    `2026-05-01` is the end of that day and `2026-05-01T12:00` the end of that minute, so that a snapshot made on a day
    is one "at or before" that day. Local time unless the text has a zone. `3d` (also m, h, w, y) is that long before
    `now`.
    """
    age, written = _AGE.fullmatch(text), _WRITTEN.fullmatch(text)
    try:
        if age:
            return now.astimezone(UTC) - int(age[1]) * _UNITS[age[2]]
        if written is None:
            raise ValueError("neither an age nor a date")
        moment = datetime.fromisoformat(text)
        if is_first:
            return moment.astimezone(UTC)
        if not written["minute"]:
            moment += timedelta(days=1, microseconds=-1)
        elif not written["second"]:
            moment += timedelta(minutes=1, microseconds=-1)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text}' is no time", hint="write 2026-05-01, 2026-05-01T12:00, or an age such as 3d or 12h"
        ) from error


def parse_duration(text: str) -> float:
    """Return the seconds that a text names, at least one: `10s`, `5m`, `24h`, `7d`, `1w`."""
    written = _DURATION.fullmatch(text.strip())
    if written is None:
        raise UsageError(f"'{text}' is no length of time", hint="write 10s, 5m, 24h or 7d")
    if int(written[1]) == 0:
        raise UsageError(f"'{text}' is too short", hint="1s is the shortest")
    unit = timedelta(seconds=1) if written[2] == "s" else _UNITS[written[2]]
    return int(written[1]) * unit.total_seconds()


def format_duration(seconds: float) -> str:
    """Return a length of time for a person, in its largest units: `0.4 s`, `12 s`, `5 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_local(moment: datetime) -> str:
    """Return a moment as local time to the second, for a person."""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return "out of range"


def instant(microseconds: int) -> datetime:
    """Return the moment so many microseconds after 1970."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


def moment_of(nanoseconds: int) -> datetime:
    """Return the moment so many nanoseconds after 1970, to the second; the nearest that can be said."""
    seconds = min(max(nanoseconds // 1_000_000_000, -62_135_000_000), 253_402_000_000)
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
