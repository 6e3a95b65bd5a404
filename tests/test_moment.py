"""Points in time as people write them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import UsageError
from s3bu.moment import format_duration, format_local, parse_duration, parse_moment

NOW = datetime(2026, 5, 10, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def is_moment_or_refused(text: str) -> bool:
    try:
        return parse_moment(text, now=NOW).tzinfo is UTC
    except UsageError as error:
        return error.hint is not None


def local(*parts: int) -> datetime:
    return datetime(*parts).astimezone()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("0m", timedelta()),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(days=14)),
        ("1y", timedelta(days=365)),
    ],
)
def test_an_age_counts_back_from_now(text: str, ago: timedelta) -> None:
    assert parse_moment(text, now=NOW) == NOW - ago


def test_a_day_is_its_end_in_local_time(zone: str) -> None:
    assert parse_moment("2026-05-01", now=NOW) == local(2026, 5, 1, 23, 59, 59, 999_999)


@pytest.mark.parametrize("text", ["2026-05-01T12:00", "2026-05-01 12:00"])
def test_a_minute_is_its_end(zone: str, text: str) -> None:
    assert parse_moment(text, now=NOW) == local(2026, 5, 1, 12, 0, 59, 999_999)


def test_a_minute_with_a_zone_is_its_end_there() -> None:
    expected = datetime(2026, 5, 1, 10, 0, 59, 999_999, tzinfo=UTC)
    assert parse_moment("2026-05-01T12:00+02:00", now=NOW) == expected
    assert parse_moment("2026-05-01T10:00Z", now=NOW) == expected


def test_a_second_is_that_second(zone: str) -> None:
    assert parse_moment("2026-05-01T12:00:05", now=NOW) == local(2026, 5, 1, 12, 0, 5)


def test_a_moment_is_in_utc(zone: str) -> None:
    for text in ("2026-05-01", "2026-05-01T12:00", "1d"):
        assert parse_moment(text, now=datetime.now().astimezone()).utcoffset() == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "d",
        "-3d",
        "3 d",
        "3D",
        "1.5h",
        "9999999d",
        "999999y",
        "2026",
        "2026-05",
        "2026-02-30",
        "2026-05-01T",
        "2026-05-01T25:00",
        "2026-05-01T12",
        "20260501",
        "2026-W18-5",
        "2026-05-01x12:00",
        "0000-01-01",
        "\u0663d",
        "2026-05-01\n",
        " 2026-05-01",
        "x" * 100_000,
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        parse_moment(text, now=NOW)


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "9999-12-31T23:59", "0001-01-01T00:00+14:00"])
def test_the_ends_of_time_are_a_moment_or_refused(zone: str, text: str) -> None:
    assert is_moment_or_refused(text)


@settings(deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9T:. +Z-]{0,24}", fullmatch=True))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    assert is_moment_or_refused(text)


@settings(deadline=None)
@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)))
def test_what_is_printed_is_at_or_before_itself_when_typed_in(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_moment(format_local(whole), now=NOW) >= whole
    assert parse_moment(format_local(whole)[:16], now=NOW) >= whole
    assert parse_moment(format_local(whole)[:10], now=NOW) >= whole


def test_a_moment_is_shown_in_local_time(zone: str) -> None:
    assert format_local(local(2026, 5, 1, 12, 30, 5).astimezone(UTC)) == "2026-05-01 12:30:05"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01T12:00Z", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01T12:00:07+02:00", datetime(2026, 5, 1, 10, 0, 7, tzinfo=UTC)),
        ("2026-05-01", datetime(2026, 5, 1).astimezone(UTC)),
        ("1d", datetime(2026, 4, 30, tzinfo=UTC)),
    ],
)
def test_the_first_moment_of_what_is_named_may_be_meant(text: str, moment: datetime) -> None:
    assert parse_moment(text, now=datetime(2026, 5, 1, tzinfo=UTC), is_first=True) == moment


def test_lengths_of_time_are_seconds() -> None:
    said = {"1s": 1, "10s": 10, "5m": 300, "24h": 86400, "7d": 604800, "1w": 604800, " 2h ": 7200}
    assert {text: parse_duration(text) for text in said} == said


@pytest.mark.parametrize("text", ["", "5", "-5m", "1.5h", "5 m", "1y", "m", "5mm", "9999999s", "٣s"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no length of time"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0h"])
def test_no_time_at_all_is_too_short(text: str) -> None:
    with pytest.raises(UsageError, match="is too short"):
        parse_duration(text)


def test_lengths_of_time_are_said_in_two_units_at_most() -> None:
    said = {0.04: "0.0 s", 3.14159: "3.1 s", 9.96: "10 s", 59: "59 s", 99: "99 s", 100: "2 min", 3599: "1 h"}
    said |= {3600: "1 h", 5400: "1 h 30 min", 86400: "24 h", 172800: "2 d", 190000: "2 d 4 h"}
    assert {seconds: format_duration(seconds) for seconds in said} == said
