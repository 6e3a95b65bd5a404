"""Globs and regular expressions over paths, whatever a user types."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import UsageError
from s3bu.pattern import compile_pattern, compile_regex


def matches(pattern: str, path: bytes) -> bool:
    return compile_pattern(pattern).search(path) is not None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.odt", b"a.odt"),
        ("*.odt", b"deep/er/a.odt"),
        ("*.odt", b".odt"),
        ("a", b"a"),
        ("a", b"b/a"),
        ("a?c", b"abc"),
        ("letters/*", b"letters/a"),
        ("/letters/*", b"letters/a"),
        ("/a", b"a"),
        ("a/", b"b/a"),
        ("a/b/", b"a/b"),
        ("**/a/", b"b/a"),
        ("./a", b"a"),
        ("./a/b", b"a/b"),
        ("**/a", b"a"),
        ("**/a", b"x/y/a"),
        ("a/**", b"a/b/c"),
        ("a/**/d", b"a/d"),
        ("a/**/d", b"a/b/c/d"),
        ("**", b"a/b"),
        ("[ab]x", b"bx"),
        ("[a-c]x", b"bx"),
        ("[!a]x", b"bx"),
        ("[]]x", b"]x"),
        ("[!]]x", b"ax"),
        ("[[]x", b"[x"),
        ("[\\]x", b"\\x"),
        ("[a&&b]", b"&"),
        ("[a||b]", b"|"),
        ("[a~~b]", b"~"),
        ("[]", b"[]"),
        ("[!]", b"[!]"),
        ("[", b"["),
        ("[a", b"[a"),
        ("a.b", b"a.b"),
        ("a+(b)$", b"a+(b)$"),
        ("*\n*", b"a\nb"),
        ("ä", "ä".encode()),
        ("*", b"\xff\xfe"),
        ("\udcff", b"\xff"),
    ],
)
def test_a_glob_matches(pattern: str, path: bytes) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.odt", b"a.odt/x"),
        ("*.odt", b"a.odt~"),
        ("a", b"ab"),
        ("a", b"ba"),
        ("a", b"a/b"),
        ("a?c", b"a/c"),
        ("a*c", b"a/c"),
        ("letters/*", b"letters/a/b"),
        ("letters/*", b"my/letters/a"),
        ("/a", b"b/a"),
        ("./a", b"b/a"),
        ("a/b/", b"x/a/b"),
        ("a/", b"a/b"),
        ("a.b", b"axb"),
        ("[!a]x", b"ax"),
        ("a[!b]c", b"a/c"),
        ("a[.-0]c", b"a/c"),
        ("a", b"a\n"),
        ("A", b"a"),
        ("", b"a"),
    ],
)
def test_a_glob_does_not_match(pattern: str, path: bytes) -> None:
    assert not matches(pattern, path)


@pytest.mark.parametrize("pattern", ["[z-a]", "re:(", "re:*", "re:a{99999999999}", "re:" + "(" * 5000, "re:[[:x"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        compile_pattern(pattern)


def test_a_regular_expression_is_searched_anywhere() -> None:
    assert matches("re:^a.*c$", b"abc")
    assert matches("re:b", b"abc")
    assert compile_regex("b").search(b"abc")


def test_the_message_says_what_is_wrong_in_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        compile_regex("(")
    assert "unterminated subpattern" in caught.value.message
    assert "\n" not in caught.value.message


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text("[]!^-\\*?/.a&~|", max_size=12))
def test_any_glob_is_a_pattern_or_refused(pattern: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except UsageError:
        return
    assert isinstance(compiled, re.Pattern)


@settings(deadline=None)
@given(st.binary(max_size=20).filter(lambda name: not set(name) & set(b"*?[/") and not name.startswith(b"re:")))
def test_a_name_without_signs_matches_itself(name: bytes) -> None:
    pattern = name.decode("utf-8", "surrogateescape")
    assert matches(pattern, name)
    assert matches(pattern, b"above/" + name)
    assert not matches(pattern, name + b"x")


def test_an_expression_that_python_will_refuse_one_day_is_taken_without_a_word() -> None:
    assert compile_regex("(?P<\udce1>x)").search(b"x")
