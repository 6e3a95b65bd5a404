"""Which key holds what, and how keys go on whatever the clock does."""

import re
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import S3buError
from s3bu.repository import layout
from s3bu.repository.layout import ManifestKey, next_manifest_key, parse_manifest_key
from tests.fakes import manifest_key

HASH = "0123456789abcdef" * 4
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}", fullmatch=True)
MANIFEST_KEYS = st.builds(ManifestKey, NAMES, NAMES, st.dates(date(1, 1, 1), date(9999, 12, 30)), st.integers(0, 99999))
CLOCKS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 30))
NOON = datetime(2026, 5, 1, 12, 0, 0)


@settings(deadline=None)
@given(MANIFEST_KEYS)
def test_a_manifests_key_is_read_back(key: ManifestKey) -> None:
    assert parse_manifest_key(str(key)) == key


@settings(deadline=None)
@given(MANIFEST_KEYS, MANIFEST_KEYS)
def test_keys_of_one_label_order_as_their_texts_do(first: ManifestKey, second: ManifestKey) -> None:
    second = ManifestKey(first.job, first.label, second.day, second.second)
    assert (first < second) == (str(first) < str(second))


@settings(deadline=None)
@given(MANIFEST_KEYS, CLOCKS)
def test_the_next_key_always_sorts_after_the_newest(newest: ManifestKey, now: datetime) -> None:
    key = next_manifest_key(newest.job, newest.label, newest, now)
    assert str(key) > str(newest)
    assert parse_manifest_key(str(key)) == key


@settings(deadline=None)
@given(st.lists(CLOCKS, min_size=1, max_size=20))
def test_a_history_made_by_any_clocks_never_goes_back(clocks: list[datetime]) -> None:
    history: list[ManifestKey] = []
    for now in clocks:
        history.append(next_manifest_key("home", "docs", history[-1] if history else None, now))
    texts = [str(key) for key in history]
    assert texts == sorted(set(texts))


def test_the_first_key_says_the_local_time() -> None:
    key = next_manifest_key("home", "docs", None, datetime(2026, 5, 1, 23, 59, 59))
    assert str(key) == "manifests/home/docs/home-docs-2026-05-01-86399.csv.gz"


def test_a_clock_that_is_ahead_of_the_newest_decides() -> None:
    newest = manifest_key("2026-05-01", 43_199)
    assert next_manifest_key("home", "docs", newest, NOON) == manifest_key("2026-05-01", 43_200)


@pytest.mark.parametrize("second", [43_200, 43_201, 86_399])
def test_a_clock_that_was_set_back_adds_one_to_the_newest(second: int) -> None:
    newest = manifest_key("2026-05-01", second)
    assert next_manifest_key("home", "docs", newest, NOON) == manifest_key("2026-05-01", second + 1)


def test_a_newest_of_next_year_is_counted_on() -> None:
    newest = manifest_key("2027-01-01", 5)
    assert next_manifest_key("home", "docs", newest, NOON) == manifest_key("2027-01-01", 6)


def test_seconds_count_beyond_those_of_a_day() -> None:
    newest = manifest_key("2026-05-01", 86_399)
    assert next_manifest_key("home", "docs", newest, NOON) == manifest_key("2026-05-01", 86_400)


def test_after_the_last_number_comes_the_next_date() -> None:
    newest = manifest_key("2026-12-31", 99_999)
    assert next_manifest_key("home", "docs", newest, NOON) == manifest_key("2027-01-01", 0)


def test_two_machines_of_the_same_second_get_different_keys() -> None:
    first = next_manifest_key("home", "docs", None, NOON)
    assert next_manifest_key("home", "docs", first, NOON) == manifest_key("2026-05-01", 43_201)


def test_a_key_at_the_end_of_time_is_an_error_that_names_it() -> None:
    last = manifest_key("9999-12-31", 99_999)
    with pytest.raises(S3buError, match=re.escape(str(last))) as caught:
        next_manifest_key("home", "docs", last, NOON)
    assert caught.value.hint


@pytest.mark.parametrize(
    "key",
    [
        "",
        "manifests/home/docs/home-docs-2026-05-01-00001.csv",
        "manifests/home/docs/home-docs-2026-05-01-00001.csv.gz.tmp",
        "manifests/home/docs/home-docs-2026-05-01-0001.csv.gz",
        "manifests/home/docs/home-docs-2026-05-01-000001.csv.gz",
        "manifests/home/docs/home-docs-2026-02-30-00001.csv.gz",
        "manifests/home/docs/home-docs-0000-01-01-00001.csv.gz",
        "manifests/home/docs/home-docs-2026-5-1-00001.csv.gz",
        "manifests/home/docs/home-docs-\u0662\u0660\u0662\u0666-05-01-00001.csv.gz",
        "manifests/home/docs/home-docs-2026-05-01-\u0660\u0660\u0660\u0660\u0661.csv.gz",
        "manifests/home/docs/work-docs-2026-05-01-00001.csv.gz",
        "manifests/home/docs/home-pics-2026-05-01-00001.csv.gz",
        "manifests/home/home-docs-2026-05-01-00001.csv.gz",
        "manifests/home/docs/home-docs-2026-05-01-00001.csv.gz\n",
        "x/manifests/home/docs/home-docs-2026-05-01-00001.csv.gz",
        "manifests/home/.s3bu/probe",
    ],
)
def test_what_is_no_manifests_key_is_none(key: str) -> None:
    assert parse_manifest_key(key) is None


def test_a_label_of_the_original_may_have_a_slash() -> None:
    key = "manifests/home/src/x/home-src/x-2026-05-01-00001.csv.gz"
    assert parse_manifest_key(key) == manifest_key("2026-05-01", 1, label="src/x")


@settings(deadline=None)
@given(
    st.text(max_size=80) | MANIFEST_KEYS.map(str).flatmap(lambda key: st.text(max_size=2).map(lambda more: key + more))
)
def test_a_key_that_is_parsed_is_the_one_that_was_listed(key: str) -> None:
    parsed = parse_manifest_key(key)
    assert parsed is None or str(parsed) == key


def test_the_stamp_is_the_time_of_the_key() -> None:
    assert manifest_key("2026-05-01", 43_200).stamp == NOON
    assert manifest_key("2026-05-01", 99_999).stamp == datetime(2026, 5, 1) + timedelta(seconds=99_999)


@settings(deadline=None)
@given(NAMES, st.integers(0, 999_999_999))
def test_a_jobs_key_is_read_back(name: str, version: int) -> None:
    assert layout.parse_job_key(layout.job_key(name, version)) == (name, version)


@pytest.mark.parametrize(
    "key",
    [
        "jobs/home/home-01.yml",
        "jobs/home/home-0001.yml",
        "jobs/home/home-\u0660\u0660\u0661.yml",
        "jobs/home/work-001.yml",
        "jobs/home/home-001.yaml",
        "jobs/home/x/home-001.yml",
        "jobs/home/home-1234567890.yml",
        "jobs/home/home-001.yml\n",
    ],
)
def test_what_is_no_jobs_key_is_none(key: str) -> None:
    assert layout.parse_job_key(key) is None


def test_a_contents_key_is_read_back() -> None:
    assert layout.content_key(HASH) == f"data/0123/{HASH}"
    assert layout.parse_content_key(layout.content_key(HASH)) == HASH


@pytest.mark.parametrize(
    "key",
    [
        f"data/0123/{HASH[:-1]}",
        f"data/0123/{HASH}0",
        f"data/0124/{HASH}",
        f"data/ABCD/ABCD{HASH[4:]}",
        f"data//{HASH}",
        f"data/0123/{HASH}\n",
        f"data/0123/{HASH}.tmp",
    ],
)
def test_what_is_no_contents_key_is_none(key: str) -> None:
    assert layout.parse_content_key(key) is None


@pytest.mark.parametrize(("nbytes", "least"), [(0, 200), (1, 201), (65_536, 65_736), (65_537, 65_753)])
def test_the_smallest_object_is_the_one_of_the_format(nbytes: int, least: int) -> None:
    assert layout.smallest_object(nbytes) == least


def test_private_state_cannot_clash_with_a_label() -> None:
    assert layout.private_key("home", "probe") == "manifests/home/.s3bu/probe"
