"""Jobs of YAML that is broken, or made to do harm: each ends at once, in problems with lines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.job import Job, parse_job

ONE_SOURCE = "sources: [{path: /srv, label: srv}]\n"


def parse(text: str | bytes, *, strict: bool = True) -> Job:
    encoded = text if isinstance(text, bytes) else text.encode()
    return parse_job(encoded, name="job", origin="job.yml", strict=strict, directory=None)


def outcome_of(text: str | bytes, *, strict: bool = True) -> Job | tuple[str, ...]:
    try:
        return parse(text, strict=strict)
    except JobError as error:
        return error.problems


def problems_of(text: str | bytes, *, strict: bool = True) -> tuple[str, ...]:
    with pytest.raises(JobError) as caught:
        parse(text, strict=strict)
    return caught.value.problems


def filters_of(text: str) -> Filters:
    return parse(ONE_SOURCE + text).filters


def source_of(path: str) -> str:
    return f"sources:\n- path: {path}\n  label: x\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a:\n\t- b\n", 2), ("a: [b\n", 2), ("a: b: c\n", 1), ("a: 'b\n", 2), ("%YAML 3.0\n---\na: b", 1)],
)
def test_broken_yaml_is_one_problem_with_its_line(text: str, line: int) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(f"job.yml:{line}: not valid YAML: ")


@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"\n', "%YAML 1." + "9" * 5000 + "\n---\na: b\n"])
def test_numbers_that_python_cannot_take_are_a_problem(text: str) -> None:
    assert problems_of(text) == ("job.yml:1: not valid YAML: a number out of range",)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    assert problems_of(b"sources:\n- \xff\n") == ("job.yml:2: not UTF-8",)


def test_another_encoding_is_refused() -> None:
    assert problems_of(ONE_SOURCE.encode("utf-16")) == ("job.yml:1: not UTF-8",)


@pytest.mark.parametrize("letter", ["\0", "\x1b", "\x7f"])
def test_control_characters_are_refused(letter: str) -> None:
    (problem,) = problems_of(f"sources:\n- path: /a{letter}\n")
    assert problem == f"job.yml:2: not valid YAML: U+{ord(letter):04X} is not allowed in it"


@pytest.mark.parametrize("escape", ["\\0", "\\ud800", "\\udcff"])
def test_escapes_for_what_no_name_can_hold_are_refused(escape: str) -> None:
    (problem,) = problems_of(source_of(f'"/a{escape}"'))
    assert problem.startswith("job.yml:2: ")
    assert "which no name can" in problem


def test_a_second_document_is_refused() -> None:
    assert problems_of(ONE_SOURCE + "---\n" + ONE_SOURCE) == (
        "job.yml:2: a second document begins, and a job is a single one",
    )


@pytest.mark.parametrize("tag", ["!x", "!!binary", "!!python/object:os.system", "!", "!!seq", "!<tag:a,1:b>"])
def test_tags_are_refused(tag: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"skip_dirs: [{tag} YQ==]\n")
    assert problem == f"job.yml:2: tag {tag.replace('!<', '').replace('>', '')!r} is not allowed"


def test_merge_keys_are_refused() -> None:
    text = "sources:\n- &first {path: /a, label: x}\n- <<: *first\n  label: y\n  path: /b\n"
    assert problems_of(text, strict=False) == ("job.yml:3: merge keys ('<<') are not allowed",)


def test_a_great_many_merge_keys_are_refused() -> None:
    lines = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 24)]
    assert any("more than 10,000" in problem for problem in problems_of("\n".join(lines), strict=False))


def test_aliases_that_expand_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (problem,) = problems_of("\n".join(lines), strict=False)
    assert problem.startswith("job.yml:5: more than 10,000 keys and items")


def test_the_bound_on_nodes_counts_what_an_alias_stands_for() -> None:
    names = ", ".join(["x"] * 4985)
    within = f"exclude_top_dirs: &n [{names}]\nskip_dirs: *n\n"
    assert len(filters_of(within).skip_dirs) == 4985
    (problem,) = problems_of(ONE_SOURCE + within + "s3bu: *n\n")
    assert "more than 10,000 keys and items" in problem


def test_an_anchor_that_holds_itself_is_refused() -> None:
    assert problems_of("skip_dirs: &a [*a]\n") == ("job.yml:1: anchor 'a' holds itself",)


def test_an_alias_without_an_anchor_is_refused() -> None:
    assert problems_of("skip_dirs: *a\n") == ("job.yml:1: no anchor 'a' stands above its alias",)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused(opening: str) -> None:
    assert problems_of(opening * 100_000) == ("job.yml:1: nested more than 20 deep",)


def test_a_nesting_of_twenty_is_read() -> None:
    assert parse(ONE_SOURCE + "other: " + "[" * 19 + "]" * 19 + "\n", strict=False).warnings
    assert problems_of(ONE_SOURCE + "other: " + "[" * 20 + "]" * 20 + "\n", strict=False)


def test_endless_items_are_refused() -> None:
    (problem,) = problems_of("- a\n" * 200_000)
    assert problem.startswith("job.yml:10000: more than 10,000 keys and items")


def test_a_huge_document_is_refused() -> None:
    assert problems_of(b"a" * 10_000_000) == ("job.yml:1: too large for a job, over 1,048,576 bytes",)


def test_a_huge_name_is_cut_in_messages() -> None:
    for text in ("*" + "a" * 100_000, "!" + "a" * 100_000 + "! x", "!" + "a" * 100_000 + " x", "a" * 100_000):
        assert all(len(problem) < 300 for problem in problems_of(text))


TOKENS = (
    [
        "sources:",
        "\n",
        "- path: /a\n  label: b\n",
        "skip_dirs:",
        "- ",
        "  ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
    ],
    [
        "!!str ",
        "! ",
        "!e!x ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        '"',
        "'",
        "|",
        ">",
        "\\x",
        "\\UFFFFFFFF",
        "? ",
        "#",
        "\t",
    ],
    ["~", "<<", "\0", "\x85", "\u2028", "\ufeff", "s3bu:", "\r", "a", "1", "\\"],
)


@settings(max_examples=400, deadline=None)
@given(
    text=st.lists(st.sampled_from([token for row in TOKENS for token in row]), max_size=25).map("".join),
    strict=st.booleans(),
)
def test_any_text_is_a_job_or_a_list_of_problems(text: str, strict: bool) -> None:
    outcome = outcome_of(text, strict=strict)
    if isinstance(outcome, Job):
        assert outcome.sources
    else:
        assert outcome
        assert all(len(problem.splitlines()) == 1 for problem in outcome)


@given(junk=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_without_surprise(junk: bytes) -> None:
    assert all(problem.startswith("job.yml:") for problem in problems_of(b"? " + junk))


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"], exclude_characters="/"), min_size=1)


@given(names=st.lists(NAMES))
def test_any_name_in_quotes_comes_out_as_its_bytes(names: list[str]) -> None:
    items = "".join("- '" + name.replace("'", "''") + "'\n" for name in names)
    assert filters_of("exclude_extensions:\n" + items).exclude_extensions == tuple(name.encode() for name in names)
