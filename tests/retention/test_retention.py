"""Which snapshots the rules keep: as restic does, to the last one."""

import json
import random
import shutil
from datetime import UTC, datetime
from typing import Any

import pytest

from s3bu.errors import JobError, UsageError
from s3bu.job import parse_job
from s3bu.retention import Policy, Span, parse_count, parse_span, reasons_to_keep
from tests.retention.restic import KEPT, ask_restic
from tests.running import IS_CI, IS_LONG

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ASKED: dict[str, Any] = json.loads(KEPT.read_text())
JOB = "sources: [{path: /srv, label: srv}]\ns3bu:\n  retention:\n"


def policy_of(rules: dict[str, str]) -> Policy:
    counts = {rule: parse_count(text) for rule, text in rules.items() if rule != "within"}
    return Policy(**counts, within=parse_span(rules["within"]) if "within" in rules else None)


def kept(times: list[str], rules: dict[str, str]) -> list[int]:
    moments = [datetime.fromisoformat(one) for one in times]
    return [number for number, why in enumerate(reasons_to_keep(moments, policy_of(rules), now=NOW)) if why]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


# --- as restic


@pytest.mark.parametrize("number", range(len(ASKED["cases"])))
def test_of_two_hundred_times_those_are_kept_that_restic_keeps(number: int) -> None:
    case = ASKED["cases"][number]
    assert kept(ASKED["times"], case["rules"]) == case["kept"], case["rules"]


@pytest.mark.skipif(not IS_LONG, reason="restic takes minutes to make its snapshots, see S3BU_LONG")
def test_restic_says_the_same_of_other_times() -> None:
    seed = random.randrange(2**32)
    asked = ask_restic(seed, 200, 100)
    for case in asked["cases"]:
        assert kept(asked["times"], case["rules"]) == case["kept"], (seed, case["rules"])


@pytest.mark.skipif(not (IS_CI or shutil.which("restic")), reason="restic is not installed")
def test_restic_can_be_asked() -> None:
    asked = ask_restic(7, 2, 1)
    for case in asked["cases"]:
        assert kept(asked["times"], case["rules"]) == case["kept"], case["rules"]


# --- reasons


def test_each_rule_that_keeps_a_snapshot_is_named() -> None:
    times = [moment("2026-11-20 12:00"), moment("2026-11-20 11:30"), moment("2026-11-19 12:00")]
    policy = Policy(last=1, daily=2, within=parse_span("1h"))
    assert reasons_to_keep(times, policy, now=NOW) == [("within 1h", "last", "daily"), ("within 1h",), ("daily",)]


def test_a_snapshot_of_the_future_does_not_move_what_is_within() -> None:
    times = [moment("2030-01-01 12:00"), moment("2026-11-20 12:00"), moment("2026-11-18 12:00")]
    assert reasons_to_keep(times, Policy(within=parse_span("1d")), now=NOW) == [("within 1d",), ("within 1d",), ()]


def test_where_all_snapshots_are_of_the_future_all_are_within() -> None:
    times = [moment("2030-01-01 12:00"), moment("2029-01-01 12:00")]
    assert all(reasons_to_keep(times, Policy(within=parse_span("1d")), now=NOW))


def test_of_no_snapshots_none_is_kept() -> None:
    assert reasons_to_keep([], Policy(within=parse_span("1d")), now=NOW) == []


# --- stretches of time


@pytest.mark.parametrize(
    ("span", "since"),
    [
        ("1y", "2025-03-31 12:00"),
        ("1m", "2026-03-03 12:00"),
        ("1m1d", "2026-03-02 12:00"),
        ("36h", "2026-03-30 00:00"),
        ("1y13m", "2024-03-02 12:00"),
    ],
)
def test_a_stretch_goes_by_the_calendar(span: str, since: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert parse_span(span).before(moment("2026-03-31 12:00")) == moment(since)


@pytest.mark.parametrize("span", ["9999y", "99999m", "999999d"])
def test_before_the_calendar_there_is_no_moment(span: str) -> None:
    assert parse_span(span).before(NOW) is None
    assert reasons_to_keep([NOW], Policy(within=parse_span(span)), now=NOW) != [()]


@pytest.mark.parametrize("text", ["", "0d", "1", "d", "-1d", "1h1d", "1d1d", "1w", "1.5d", "1d ", "\u0661d", "99999y"])
def test_what_is_no_stretch_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no stretch of time"):
        parse_span(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "\u0661", "9" * 5000, "1 "])
def test_what_is_no_number_of_snapshots_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of snapshots"):
        parse_count(text)


# --- in a job


def test_a_job_says_what_to_keep() -> None:
    text = JOB + "    keep_daily: 7\n    keep_last: '3'\n    keep_within: 1y6m\n"
    job = parse_job(text.encode(), name="job", origin="job.yml", strict=True, directory=None)
    assert job.retention == Policy(last=3, daily=7, within=Span(1, 6, 0, 0))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("keep_dialy: 7", "unknown key 'keep_dialy' in 'retention', did you mean 'keep_daily'"),
        ("keep_daily: many", "'keep_daily': 'many' is no number of snapshots"),
        ("keep_daily: [7]", "'keep_daily' must be a single number or stretch of time"),
        ("keep_within: 1w", "'keep_within': '1w' is no stretch of time such as 1y5m7d2h"),
        ("keep_daily:", "'keep_daily' must be a single number or stretch of time"),
    ],
)
def test_what_is_not_understood_is_a_problem_and_to_a_backup_a_warning_without_any_rule(
    lines: str, problem: str
) -> None:
    text = f"{JOB}    keep_last: 1\n    {lines}\n".encode()
    with pytest.raises(JobError) as caught:
        parse_job(text, name="job", origin="job.yml", strict=True, directory=None)
    assert caught.value.problems == (f"job.yml:5: {problem}",)
    job = parse_job(text, name="job", origin="job.yml", strict=False, directory=None)
    assert (job.retention, job.warnings) == (None, (f"job.yml:5: {problem}",))


@pytest.mark.parametrize("value", ["[]", "{}", "7"])
def test_a_block_without_rules_is_a_problem(value: str) -> None:
    text = f"sources: [{{path: /srv, label: srv}}]\ns3bu: {{retention: {value}}}\n".encode()
    with pytest.raises(JobError) as caught:
        parse_job(text, name="job", origin="job.yml", strict=True, directory=None)
    assert "'retention'" in caught.value.problems[0]
    assert parse_job(text, name="job", origin="job.yml", strict=False, directory=None).retention is None
