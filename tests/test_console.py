"""What is printed: readable, on one line each, and nothing in a name steers the terminal."""

import io
import sys
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.console import Row, Style, Table, make_console
from s3bu.console.person import PersonConsole
from s3bu.console.text import columns_of, counted, format_nbytes, format_table, shown, shown_line
from s3bu.errors import JobError, S3buError
from s3bu.progress import Change, Failure

EVIL = "a\x1b]0;title\x07\r\n\u202eb\x9b31m\udcff"
CHARACTERS = st.characters() | st.integers(0xD800, 0xDFFF).map(chr)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def is_safe(text: str) -> bool:
    return all(one.isprintable() for one in text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain name", "plain name"),
        ("é".encode(), "é"),
        (b"\xff", "\\xff"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"a\nb", "a\\x0ab"),
        (b"a\\x0ab", "a\\\\x0ab"),
        ("\u202e".encode(), "\\xe2\\x80\\xae"),
        ("\ufeff", "\\xef\\xbb\\xbf"),
        ("\x9b", "\\xc2\\x9b"),
    ],
)
def test_a_name_is_shown_readably(name: bytes | str, text: str) -> None:
    assert shown(name) == text


@settings(deadline=None)
@given(st.text(CHARACTERS))
def test_any_text_can_be_shown_and_encoded(text: str) -> None:
    assert is_safe(shown(text))
    assert is_safe(shown_line(text))
    (shown(text) + shown_line(text)).encode()


@settings(deadline=None)
@given(st.lists(st.binary(), min_size=2, max_size=2, unique=True))
def test_different_names_are_shown_differently(names: list[bytes]) -> None:
    assert shown(names[0]) != shown(names[1])


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (5000 * 1024**4, "5,000.0 TiB"),
    ],
)
def test_a_size_is_for_a_person(nbytes: int, text: str) -> None:
    assert format_nbytes(nbytes) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "file", "0 files"),
        (1, "file", "1 file"),
        (1234, "file", "1,234 files"),
        (2, "directory", "2 directories"),
        (1, "directory", "1 directory"),
        (3, "FIFO", "3 FIFOs"),
    ],
)
def test_a_number_comes_with_its_noun(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


def test_an_error_comes_with_its_problems_and_hint_each_on_one_line() -> None:
    stream = io.StringIO()
    PersonConsole(stream=stream).end(JobError("bad\njob", ["line 1", "li\x1bne 2"], hint="mend\rit"), 2)
    assert stream.getvalue().splitlines() == [
        "s3bu: error: bad\\x0ajob",
        "s3bu: error: line 1",
        "s3bu: error: li\\x1bne 2",
        "s3bu: hint: mend\\x0dit",
    ]


def test_an_error_without_a_hint_is_one_line() -> None:
    stream = io.StringIO()
    PersonConsole(stream=stream).end(S3buError("no"), 1)
    assert stream.getvalue() == "s3bu: error: no\n"


def test_a_table_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row({}, ("a", "1")), Row({}, ("longer", "1,000"))]
    PersonConsole().table(Table("row", ("name", "files"), rows, right=frozenset({1})))
    assert capsys.readouterr().out == "name    files\na           1\nlonger  1,000\n"


def test_a_table_without_rows_is_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    PersonConsole().table(Table("row", ("name", "files"), []))
    assert capsys.readouterr().out == "name  files\n"


def run_phases(stream: TextIO) -> None:
    with PersonConsole(stream=stream) as console:
        console.phase("listing")
        console.advance(files=5)
        console.phase("storing", files=2, nbytes=2048)
        console.advance(files=1, nbytes=1024)
        console.warning(f"warned {EVIL}")
        console.note(f"noted {EVIL}")
        console.failure(Failure(f"failed {EVIL}".encode("utf-8", "surrogateescape"), f"for {EVIL}"))
        console.advance(files=1, nbytes=1024)


def test_without_a_terminal_each_phase_is_a_line() -> None:
    stream = io.StringIO()
    run_phases(stream)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["listing", "storing: 2 files, 2.0 KiB"]
    assert [line.partition(" \\x1b")[0].split(" a")[0] for line in lines[2:]] == [
        "s3bu: warning: warned",
        "noted",
        "s3bu: error: failed",
    ]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_nothing_in_a_name_steers_the_terminal(kind: type[io.StringIO]) -> None:
    stream = kind()
    run_phases(stream)
    said = stream.getvalue()
    assert not {"\x07", "\u202e", "\x9b", "\udcff"} & set(said)
    assert "\x1b]" not in said


def test_on_a_terminal_the_bars_are_gone_in_the_end() -> None:
    stream = Terminal()
    run_phases(stream)
    assert stream.getvalue().endswith(("\r", "\x1b[A"))
    assert "storing" in stream.getvalue()


def test_after_a_hundred_failures_the_rest_is_only_counted() -> None:
    stream = io.StringIO()
    console = PersonConsole(stream=stream)
    for number in range(150):
        console.failure(Failure(b"%d" % number, "no"))
    lines = stream.getvalue().splitlines()
    assert (lines[99], lines[100:]) == (
        "s3bu: error: 99: no",
        ["s3bu: error: further failures are counted, not named; -v names them all"],
    )


def test_a_console_may_be_finished_twice() -> None:
    console = PersonConsole(stream=Terminal())
    console.phase("storing", files=1)
    console.finish()
    console.finish()


def test_facts_are_not_mixed_with_progress(capsys: pytest.CaptureFixture[str]) -> None:
    run_phases(sys.stderr)
    assert capsys.readouterr().out == ""


# --- quiet, verbose, tables


def test_quiet_leaves_errors_warnings_and_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with make_console(Style(is_quiet=True)) as console:
        console.phase("storing", files=1)
        console.note("noted")
        console.summary({}, "came of it")
        console.tell("node", {}, "asked for")
        console.warning("warned")
        console.failure(Failure(b"path", "no"))
        console.error(S3buError("source gone"), during="home/docs")
    said = capsys.readouterr()
    assert said.out == "asked for\n"
    assert said.err.splitlines() == ["s3bu: warning: warned", "s3bu: error: path: no", "s3bu: error: source gone"]


def test_without_progress_the_summary_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with make_console(Style(has_progress=False)) as console:
        console.phase("storing", files=1)
        console.note("noted")
        console.summary({}, "came of it")
    assert tuple(capsys.readouterr()) == ("came of it\n", "noted\n")


def test_verbose_names_paths_and_every_failure() -> None:
    stream = io.StringIO()
    console = PersonConsole(Style(is_verbose=True), stream)
    console.change(Change("new", b"a\x1b", "file", 3))
    for number in range(150):
        console.failure(Failure(b"%d" % number, "no"))
    lines = stream.getvalue().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("new        a\\x1b", "s3bu: error: 149: no", 151)


WIDE_ROWS = [("a", "1", "manifests/a-long-key"), ("\u4e2d\u6587", "1,000", "manifests/another-key")]


def test_a_table_too_wide_for_the_terminal_has_its_keys_on_lines_of_their_own() -> None:
    lines = list(format_table(("name", "files", "key"), WIDE_ROWS, right=frozenset({1}), width=30))
    assert lines == [
        "name  files",
        "    key",
        "a         1",
        "    manifests/a-long-key",
        "\u4e2d\u6587  1,000",
        "    manifests/another-key",
    ]


def test_in_a_narrow_terminal_no_column_breaks_in_a_word() -> None:
    rows = [("home", "2026-05-01 10:00:00", "12", "manifests/a-long-key")]
    lines = list(format_table(("source", "newest", "whole", "key"), rows, right=frozenset({2}), width=20))
    assert lines == [
        "source",
        "    newest",
        "    whole",
        "    key",
        "home",
        "    2026-05-01 10:00:00",
        "    12",
        "    manifests/a-long-key",
    ]
    folded = list(format_table(("source", "newest", "whole", "key"), rows, right=frozenset({2}), width=32))
    assert folded[2:] == ["home    2026-05-01 10:00:00", "       12  manifests/a-long-key"]


def test_a_table_that_fits_is_not_folded() -> None:
    lines = list(format_table(("name", "files", "key"), WIDE_ROWS, right=frozenset({1}), width=34))
    assert lines == [
        "name  files  key",
        "a         1  manifests/a-long-key",
        "\u4e2d\u6587  1,000  manifests/another-key",
    ]


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("\u4e2d", 2), ("e\u0301", 1), ("", 0)])
def test_letters_take_the_columns_that_a_terminal_gives_them(text: str, columns: int) -> None:
    assert columns_of(text) == columns
