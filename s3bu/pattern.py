"""Patterns over paths: globs as people write them in a shell, or regular expressions; over bytes, since paths are."""

import os
import re
import warnings

from s3bu.errors import UsageError


def compile_regex(text: str) -> re.Pattern[bytes]:
    """Return the regular expression that `restore` searches in paths; `UsageError` when it is none."""
    return _compile(os.fsencode(text), f"'{text}' is no regular expression (for names that end in .md: '[.]md$')")


def compile_pattern(text: str) -> re.Pattern[bytes]:
    """Return a glob, or with `re:` before it a regular expression, to be searched in paths.

    A glob without a slash is matched with the last name of a path, else with the whole path. `*` and `?` stop at a
    slash, `**` does not, and a set in brackets never matches one. `./` before it is the source, as `/` is; a slash at
    its end, by which people mean a directory, makes no difference.
    """
    if text.startswith("re:"):
        return compile_regex(text.removeprefix("re:"))
    name = re.sub(r"\A\./", "/", text)
    name = name.rstrip("/") or name
    start = b"\\A" if "/" in name else b"(?:\\A|/)"
    glob = _translate(os.fsencode(name.removeprefix("/")))
    return _compile(b"(?s:" + start + glob + b"\\Z)", f"'{text}' is no pattern")


def _compile(expression: bytes, refusal: str) -> re.Pattern[bytes]:
    try:
        with warnings.catch_warnings():
            # What Python may one day make of `[[a]`, or refuse as the name of a group, is no news for whoever typed it.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{refusal}: {error}") from error


def _translate(glob: bytes) -> bytes:
    """Return the regular expression of a glob."""
    pieces = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}

    def piece(match: re.Match[bytes]) -> bytes:
        found = match[0]
        if found in pieces:
            return pieces[found]
        return _translate_set(found[1:-1]) if len(found) > 1 and found not in {b"[]", b"[!]"} else re.escape(found)

    return re.sub(rb"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", piece, glob, flags=re.DOTALL)


def _translate_set(members: bytes) -> bytes:
    """Return the regular expression of what stands between brackets."""
    negation = b"^" if members.startswith(b"!") else b""
    return b"(?!/)[" + negation + re.sub(rb"[\\\[&|~]", rb"\\\g<0>", members.removeprefix(b"!")) + b"]"
