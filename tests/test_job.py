"""Jobs: what each key means, and every problem at once with its line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.job import Job, Source, parse_job

ONE_SOURCE = "sources: [{path: /srv, label: srv}]\n"
INTEROP = Path(__file__).parent / "interop"


def parse(text: str | bytes, *, strict: bool = True, directory: Path | None = None) -> Job:
    encoded = text if isinstance(text, bytes) else text.encode()
    return parse_job(encoded, name="job", origin="job.yml", strict=strict, directory=directory)


def problems_of(text: str | bytes, *, strict: bool = True, directory: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(JobError) as caught:
        parse(text, strict=strict, directory=directory)
    return caught.value.problems


def filters_of(text: str, *, strict: bool = True) -> Filters:
    return parse(ONE_SOURCE + text, strict=strict).filters


def source_of(path: str, label: str = "x") -> str:
    return f"sources:\n- path: {path}\n  label: {label}\n"


# What the keys mean


def test_a_whole_job_is_read() -> None:
    job = parse(
        """\
sources:
- path: /home/me
  label: home
- label: srv.old_2-x
  path: /srv/50%20off/
include_extensions: [txt]
exclude_extensions: [.bak, tar.gz]
include_top_dirs: [a b]
exclude_top_dirs: [Downloads]
skip_dirs: [node_modules]
skip_dir_items: [.nobackup]
s3bu: {}
"""
    )
    sources = (Source("home", b"/home/me"), Source("srv.old_2-x", b"/srv/50%20off/"))
    filters = Filters((b"txt",), (b".bak", b"tar.gz"), (b"a b",), (b"Downloads",), (b"node_modules",), (b".nobackup",))
    assert job == Job("job", sources, filters, ())


@pytest.mark.parametrize("word", ["no", "0123", "2024-01-01", "1e3", "true", "0x10", "1_000", ".inf", "12:30:45"])
def test_every_scalar_is_a_string_as_it_stands(word: str) -> None:
    assert filters_of(f"skip_dirs: [{word}]").skip_dirs == (word.encode(),)


@pytest.mark.parametrize("nothing", ["", "~", "null", "Null", "NULL", "[]", "\n# - commented out"])
def test_a_list_without_items_is_empty(nothing: str) -> None:
    assert filters_of(f"skip_dirs: {nothing}\n") == Filters()


@pytest.mark.parametrize("item", ["~", "null", "''"])
def test_an_empty_item_is_a_problem_of_a_new_job(item: str) -> None:
    assert [problem[:10] for problem in problems_of(ONE_SOURCE + f"skip_dirs:\n- a\n- {item}\n")] == ["job.yml:4:"]


def test_an_item_without_a_value_is_no_item_in_an_old_job() -> None:
    job = parse(ONE_SOURCE + "include_extensions:\n-\n- ~\n", strict=False)
    assert job.filters == Filters()
    assert len(job.warnings) == 2


@pytest.mark.parametrize("word", ["'~'", '"null"', "!!str null", "|-\n  null"])
def test_a_name_that_looks_like_nothing_can_be_quoted(word: str) -> None:
    assert filters_of(f"skip_dirs:\n- {word}\n").skip_dirs[0] in {b"~", b"null"}


def test_names_are_the_bytes_of_utf8_in_the_form_they_have() -> None:
    filters = filters_of("skip_dirs: [caf\u00e9, cafe\u0301, \U0001f4be]\n")
    assert filters.skip_dirs == (b"caf\xc3\xa9", b"cafe\xcc\x81", b"\xf0\x9f\x92\xbe")


def test_a_job_means_the_same_bytes_in_every_locale(tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_bytes(source_of("/caf\u00e9").encode())
    program = (
        "import pathlib, sys; from s3bu.job import parse_job\n"
        "text = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "job = parse_job(text, name='x', origin='x', strict=True, directory=None)\n"
        "sys.stdout.write(job.sources[0].path.hex())"
    )
    command = [sys.executable, "-X", "utf8=0", "-c", program, str(tmp_path / "job.yml")]
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert bytes.fromhex(done.stdout) == "/caf\u00e9".encode()


def test_an_anchor_may_be_used_again() -> None:
    filters = filters_of("skip_dirs: &caches [a, b]\nexclude_top_dirs: *caches\n")
    assert filters.exclude_top_dirs == filters.skip_dirs == (b"a", b"b")


def test_a_byte_order_mark_is_no_part_of_the_job() -> None:
    assert parse("\ufeff" + ONE_SOURCE).sources == (Source("srv", b"/srv"),)


def test_windows_line_ends_are_no_part_of_names() -> None:
    assert parse(source_of("/srv").replace("\n", "\r\n")).sources == (Source("x", b"/srv"),)


# Sources


@pytest.mark.parametrize("text", ["", "# nothing\n", "~", "sources:", "sources: []", "sources: ~", "skip_dirs: [a]"])
def test_a_job_without_sources_is_refused(text: str) -> None:
    assert problems_of(text) == ("job.yml:1: no sources; a job names at least one below 'sources'",)


def test_two_sources_may_not_share_a_label() -> None:
    text = "sources:\n- {path: /a, label: x}\n- {path: /b, label: y}\n- {path: /c, label: x}\n"
    assert problems_of(text, strict=False) == ("job.yml:4: label 'x' stands on line 2 already",)


def test_a_label_that_comes_thrice_is_told_with_the_line_of_the_first() -> None:
    text = "sources:\n" + "- {path: /a, label: x}\n" * 3
    assert problems_of(text) == (
        "job.yml:3: label 'x' stands on line 2 already",
        "job.yml:4: label 'x' stands on line 2 already",
    )


def test_a_source_needs_path_and_label() -> None:
    text = "sources:\n- path: /a\n- label: x\n"
    assert problems_of(text) == ("job.yml:2: a source without 'label'", "job.yml:3: a source without 'path'")


@pytest.mark.parametrize("value", ["", "~", "''"])
def test_an_empty_path_is_refused(value: str, tmp_path: Path) -> None:
    assert problems_of(source_of(value), directory=tmp_path) == ("job.yml:2: 'path' is empty",)


@pytest.mark.parametrize("value", ["[a]", "{a: b}"])
def test_a_label_must_be_one_text(value: str) -> None:
    assert problems_of(source_of("/a", value)) == ("job.yml:3: 'label' must be a single text",)


@pytest.mark.parametrize("value", ["/srv", "{path: /srv, label: x}"])
def test_sources_must_be_a_list(value: str) -> None:
    (problem,) = problems_of(f"sources: {value}")
    assert problem.startswith("job.yml:1: 'sources' must be a list")


def test_a_source_must_be_a_mapping() -> None:
    (problem,) = problems_of("sources:\n- /srv\n")
    assert problem.startswith("job.yml:2: a source must be a mapping")


@pytest.mark.parametrize("label", ["a", "_", "0", "A.b-c_d", "a" * 64])
def test_a_label_that_keeps_to_the_rule_is_taken(label: str) -> None:
    assert parse(source_of("/a", label)).sources[0].label == label


ODD_LABELS = ["-a", "a b", "\u00e9", "a:b", "a" * 65, "a%2F", '"a\\n"']
HARMFUL_LABELS = ["src/x", "/", ".", "..", ".s3bu", ".a"]


@pytest.mark.parametrize("label", ODD_LABELS + HARMFUL_LABELS)
def test_a_new_label_must_keep_to_the_rule(label: str) -> None:
    (problem,) = problems_of(source_of("/a", label))
    assert problem.startswith("job.yml:3: label ")


@pytest.mark.parametrize("label", ODD_LABELS)
def test_an_odd_label_of_an_old_job_is_only_warned_of(label: str) -> None:
    (warning,) = parse(source_of("/a", label), strict=False).warnings
    assert warning.startswith("job.yml:3: label ")
    assert "\n" not in warning


@pytest.mark.parametrize("label", HARMFUL_LABELS)
def test_a_label_that_mixes_snapshots_is_refused_in_an_old_job_too(label: str) -> None:
    (problem,) = problems_of(source_of("/a", label), strict=False)
    assert problem.startswith("job.yml:3: label ")


def test_a_relative_path_is_refused_in_a_job_of_the_repository() -> None:
    assert problems_of(source_of("src"), strict=False) == (
        "job.yml:2: source path 'src' is relative, write the whole path",
    )


def test_a_relative_path_starts_at_the_local_files_directory(tmp_path: Path) -> None:
    job = parse(source_of("../a/./b"), directory=tmp_path / "jobs")
    assert job.sources[0].path == os.fsencode(tmp_path / "a" / "b")


def test_a_relative_directory_of_the_file_yields_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(source_of("a"), directory=Path()).sources[0].path == os.fsencode(tmp_path / "a")


def test_a_vanished_working_directory_is_a_problem_of_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (problem,) = problems_of(source_of("a"), directory=Path())
    assert problem.startswith("job.yml:2: source path 'a': the working directory is gone")


def test_a_directory_that_is_not_text_is_kept_byte_for_byte() -> None:
    assert parse(source_of("a"), directory=Path(os.fsdecode(b"/\xff"))).sources[0].path == b"/\xff/a"


def test_an_absolute_path_stays_as_written(tmp_path: Path) -> None:
    assert parse(source_of("/a/../b//c/"), directory=tmp_path).sources[0].path == b"/a/../b//c/"


@pytest.mark.parametrize("path", ["~/docs", "~me", "'~'"])
def test_a_tilde_is_not_expanded_and_that_is_said(path: str, tmp_path: Path) -> None:
    (problem,) = problems_of(source_of(path), directory=tmp_path)
    assert problem.endswith("'~' is not expanded, write the whole path")


# Filters that could never do what they seem to


@pytest.mark.parametrize("item", ["''", "a/b", "/"])
def test_an_extension_that_cannot_match_is_told(item: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"exclude_extensions: [{item}]\n")
    assert "in 'exclude_extensions' never matches" in problem


@pytest.mark.parametrize("key", ["include_top_dirs", "exclude_top_dirs", "skip_dirs"])
@pytest.mark.parametrize("item", ["''", ".", "..", "a/", "a/b", "/a"])
def test_a_directory_that_cannot_match_is_told(key: str, item: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"{key}: [{item}]\n")
    assert f"in {key!r} never matches" in problem
    assert len(parse(ONE_SOURCE + f"{key}: [{item}]\n", strict=False).warnings) == 1


def test_an_include_list_that_lets_no_file_through_is_refused_in_an_old_job_too() -> None:
    assert problems_of(ONE_SOURCE + "include_extensions: ['', a/b]\n", strict=False) == (
        "job.yml:2: no file can match 'include_extensions', so none would be backed up",
    )


def test_an_include_list_with_an_extension_that_matches_is_taken_from_an_old_job() -> None:
    job = parse(ONE_SOURCE + "include_extensions: ['', txt]\n", strict=False)
    assert job.filters.file_rule(b"a.txt") is None
    assert len(job.warnings) == 1


@pytest.mark.parametrize("item", ["''", ".", "..", "/", "./"])
def test_a_skip_item_of_every_directory_is_refused_in_an_old_job_too(item: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"skip_dir_items: [{item}]\n", strict=False)
    assert problem.endswith("in 'skip_dir_items' is in every directory, so all would be skipped")


@pytest.mark.parametrize("item", [".nobackup/", "./.nobackup", "/.nobackup", "x/../.nobackup"])
def test_a_skip_item_is_cleaned_as_the_original_cleans_it(item: str) -> None:
    assert filters_of(f"skip_dir_items: [{item}]\n").skip_dir_items == (b".nobackup",)


@pytest.mark.parametrize("item", [".git/config", "../x"])
def test_a_skip_item_that_is_a_path_is_told(item: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"skip_dir_items: [{item}]\n")
    assert problem.endswith("in 'skip_dir_items' never matches: it is not a bare name")


# Problems


def test_all_problems_are_told_at_once_in_order_of_line() -> None:
    text = """\
skip_dirs: .cache
sources:
- path: src
  label: a b
  lable: c
exclude_extension: [bak]
skip_dirs: []
s3bu:
  colour: red
"""
    rule = "1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-', and neither '.' nor '-' first"
    assert problems_of(text) == (
        "job.yml:1: 'skip_dirs' must be a list, each item on a line of its own after '- '",
        "job.yml:3: source path 'src' is relative, write the whole path",
        f"job.yml:4: label 'a b' does not keep to the rule: {rule}",
        "job.yml:5: unknown key 'lable', did you mean 'label'",
        "job.yml:6: unknown key 'exclude_extension', did you mean 'exclude_extensions'",
        "job.yml:7: key 'skip_dirs' stands on line 1 already",
        "job.yml:9: unknown key 'colour'",
    )


def test_the_error_counts_its_problems() -> None:
    with pytest.raises(JobError, match=r"^job\.yml: 1 problem$"):
        parse("sources: []")
    with pytest.raises(JobError, match=r"^job\.yml: 2 problems$"):
        parse("sources: []\nx: y\n")


def test_unknown_keys_of_an_old_job_are_only_warned_of() -> None:
    job = parse("name: x\n" + ONE_SOURCE + "s3bu: {colour: red}\n", strict=False)
    assert job.warnings == ("job.yml:1: unknown key 'name'", "job.yml:3: unknown key 'colour'")


@pytest.mark.parametrize(
    ("key", "meant"), [("Sources", "sources"), ("SKIP_DIRS", "skip_dirs"), ("skip-dirs", "skip_dirs")]
)
def test_a_key_in_other_letters_is_recognised(key: str, meant: str) -> None:
    assert f"job.yml:2: unknown key {key!r}, did you mean {meant!r}" in problems_of(ONE_SOURCE + f"{key}: []\n")


@pytest.mark.parametrize("value", ["a", "[a]"])
def test_what_stands_below_s3bu_must_be_a_mapping(value: str) -> None:
    (problem,) = problems_of(ONE_SOURCE + f"s3bu: {value}\n", strict=False)
    assert problem.startswith("job.yml:2: 's3bu' must be a mapping")


@pytest.mark.parametrize("text", ["- a\n", "a\n", "'~'\n"])
def test_a_job_must_be_a_mapping(text: str) -> None:
    assert problems_of(text) == ("job.yml:1: a job must be a mapping, lines of 'key: value'",)


@pytest.mark.parametrize("item", ["[a]", "{a: b}"])
def test_an_item_of_a_filter_must_be_one_text(item: str) -> None:
    assert problems_of(ONE_SOURCE + f"skip_dirs:\n- {item}\n") == (
        "job.yml:3: an item of 'skip_dirs' must be a single text",
    )


def test_duplicate_keys_are_refused_at_every_depth() -> None:
    assert problems_of("sources:\n- path: /a\n  label: x\n  path: /b\n", strict=False) == (
        "job.yml:4: key 'path' stands on line 2 already",
    )


def test_a_key_must_be_a_name() -> None:
    assert problems_of(ONE_SOURCE + "? [a]\n: b\n~: c\n", strict=False) == (
        "job.yml:2: a key must be a name",
        "job.yml:4: a key must be a name",
    )


def test_text_of_the_job_stays_on_one_short_line_of_a_problem() -> None:
    (problem,) = problems_of(ONE_SOURCE + '"\\e[2J\\n' + "x" * 900 + '": a\n')
    assert problem.startswith("job.yml:2: unknown key '\\x1b[2J\\nxxx")
    assert len(problem) < 120


# Jobs that the original wrote, and start-up


def test_the_originals_job_is_read() -> None:
    text = (INTEROP / "original-bucket/objects/jobs/nimbus/nimbus-000.yml").read_bytes()
    job = parse(text)
    assert [source.label for source in job.sources] == ["home", "projects"]
    assert job.filters == Filters(
        exclude_extensions=(b".DS_Store", b"tfstate"),
        exclude_top_dirs=(b"Downloads",),
        skip_dirs=(b"pyenv",),
        skip_dir_items=(b".nobackup", b".git"),
    )


def test_the_originals_label_with_a_slash_is_refused() -> None:
    text = (INTEROP / "leftovers-bucket/objects/jobs/left/left-1000.yml").read_bytes()
    (problem,) = problems_of(text, strict=False)
    assert problem.startswith("job.yml:5: label 'src/x' ")


def test_importing_jobs_imports_no_yaml() -> None:
    program = "import sys, s3bu.job; sys.exit('yaml' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
