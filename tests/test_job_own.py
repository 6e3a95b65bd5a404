"""What a job may say below `s3bu:`, and each fault in it with its line."""

import pytest

from s3bu.selection import Selection
from tests.test_job import ONE_SOURCE, filters_of, parse, problems_of


def test_a_whole_selection_is_read() -> None:
    text = """\
s3bu:
  exclude: ['*.tmp', '!keep.tmp', /build/]
  ignore_files: [.s3buignore]
  cachedir_tag: true
  max_file_size: 1.5G
  one_file_system: true
  presets: [os-junk, caches]
"""
    assert filters_of(text).selection == Selection(
        exclude=(b"*.tmp", b"!keep.tmp", b"/build/"),
        ignore_files=(b".s3buignore",),
        has_cachedir_tag=True,
        max_file_size=1_610_612_736,
        is_one_file_system=True,
        presets=("os-junk", "caches"),
    )


def test_keys_without_a_value_select_nothing() -> None:
    text = "s3bu: {exclude: , ignore_files: [], cachedir_tag: false, max_file_size: , one_file_system: ~}\n"
    assert filters_of(text).selection == Selection()


def test_prices_are_read() -> None:
    assert parse(ONE_SOURCE + "s3bu: {prices: {put: 0.004, transfer: 0}}\n").prices == {"put": 0.004, "transfer": 0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exclude: '*.tmp'", "'exclude' must be a list"),
        ("exclude: [[a]]", "an item of 'exclude' must be a single text"),
        ("exclude: ['a[']", "pattern 'a[' in 'exclude': it matches nothing"),
        ("exclude: ['#a']", "pattern '#a' in 'exclude': it matches nothing"),
        (
            f"exclude: [{', '.join(['a*aaaaaaaa'] * 2_001)}]",
            "'exclude' has more than 20,000 bytes of lines with '*', '?' or '['",
        ),
        ("ignore_files: [a/b]", "'a/b' in 'ignore_files' is never there"),
        ("cachedir_tag: yes", "'cachedir_tag' must be true or false"),
        ("one_file_system: [true]", "'one_file_system' must be true or false"),
        ("max_file_size: large", "'max_file_size' must be a size"),
        ("max_file_size: [1]", "'max_file_size' must be a size"),
        ("presets: [cache]", "no preset 'cache'; there are os-junk, caches, build-output"),
        ("prices: {put: -1}", "'put' must be a price in dollars"),
        ("prices: {put: nan}", "'put' must be a price in dollars"),
        ("prices: {lists: 1}", "unknown key 'lists', did you mean 'list'"),
        ("prices: 3", "'prices' must be a mapping"),
        ("excludes: []", "unknown key 'excludes', did you mean 'exclude'"),
    ],
)
def test_a_fault_is_told_with_its_line(text: str, problem: str) -> None:
    (said,) = problems_of(f"{ONE_SOURCE}s3bu:\n  {text}\n")
    assert said.startswith(f"job.yml:3: {problem}")


def test_a_pattern_that_matches_nothing_is_only_warned_of_in_a_job_in_use() -> None:
    job = parse(ONE_SOURCE + "s3bu: {exclude: ['a[', b]}\n", strict=False)
    assert job.filters.selection.exclude == (b"b",)
    assert len(job.warnings) == 1


def test_a_key_that_stands_one_level_too_high_is_told_where_it_belongs() -> None:
    (problem,) = problems_of(ONE_SOURCE + "retention: {keep_daily: 7}\n")
    assert problem.endswith("unknown key 'retention', which belongs below 's3bu'")
