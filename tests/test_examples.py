"""The example jobs and the job documentation hold what they promise."""

import os
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.job import Job, check_job_name, load_job_file, parse_job
from s3bu.retention import reasons_to_keep

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "jobs").glob("*.yml"))
DOCUMENT = (ROOT / "docs" / "jobs.md").read_text()
FILTER_KEYS = [field.name for field in fields(Filters) if field.init and field.name != "selection"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


def load(path: Path) -> Job:
    name, text = load_job_file(path)
    return parse_job(text, name=name, origin=path.name, strict=True, directory=path.parent)


def test_the_examples_are_there() -> None:
    assert {"quickstart.yml", "home.yml", "server.yml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_the_strict_check(path: Path) -> None:
    job = load(path)
    check_job_name(job.name)
    assert job.warnings == ()


@pytest.mark.parametrize("key", FILTER_KEYS)
def test_every_filter_is_used_in_an_example(key: str) -> None:
    assert any(getattr(load(path).filters, key) for path in EXAMPLES)


def test_the_quickstart_backs_up_directories_of_the_project() -> None:
    sources = {source.label: source.path for source in load(ROOT / "examples" / "jobs" / "quickstart.yml").sources}
    assert sources == {"docs": os.fsencode(ROOT / "docs"), "examples": os.fsencode(ROOT / "examples")}


def test_the_quickstart_filters_keep_what_it_is_about() -> None:
    filters = load(ROOT / "examples" / "jobs" / "quickstart.yml").filters
    assert filters.file_rule(b"jobs.md") is None
    assert filters.directory_rule(b"jobs", is_top=True) is None
    assert filters.file_rule(b"home.yml") is None


@pytest.mark.parametrize("name", ["home.yml", "server.yml"])
def test_the_other_examples_could_be_uploaded(name: str) -> None:
    _, text = load_job_file(ROOT / "examples" / "jobs" / name)
    assert parse_job(text, name="x", origin=name, strict=True, directory=None).sources


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_job_in_the_documentation_passes_the_strict_check(block: str) -> None:
    assert parse_job(block.encode(), name="x", origin="jobs.md", strict=True, directory=None).warnings == ()


def test_the_rules_for_a_watched_source_keep_all_of_two_days_and_then_ever_fewer() -> None:
    (block,) = [one for one in blocks("yaml") if "watched" in one]
    policy = parse_job(block.encode(), name="x", origin="jobs.md", strict=True, directory=None).retention
    assert policy is not None
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    times = [now - timedelta(minutes=5 * number) for number in range(1, 12 * 24 * 10)]
    kept = [moment for moment, why in zip(times, reasons_to_keep(times, policy, now=now), strict=True) if why]

    def gaps(first_day: float, last_day: float) -> set[timedelta]:
        of = [one for one in kept if timedelta(first_day) <= now - one < timedelta(last_day)]
        return {later - earlier for later, earlier in pairwise(of)}

    assert gaps(0, 2) == {timedelta(minutes=5)}
    assert gaps(2.1, 3.9) == {timedelta(hours=1)}
    assert gaps(5, 10) == {timedelta(days=1)}


@pytest.mark.parametrize("key", FILTER_KEYS)
def test_every_filter_is_documented(key: str) -> None:
    assert re.search(rf"^### .*`{key}`", DOCUMENT, flags=re.MULTILINE)


def test_the_documentation_shows_what_a_check_says() -> None:
    (broken,) = blocks("text")
    (said,) = blocks("console")
    with pytest.raises(JobError) as caught:
        parse_job(broken.encode(), name="home", origin="home.yml", strict=True, directory=Path("/jobs"))
    problems = ["home.yml: 7 problems", *caught.value.problems]
    assert said.splitlines() == ["$ s3bu job check home.yml", *(f"s3bu: error: {problem}" for problem in problems)]
