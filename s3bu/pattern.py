"""Patterns over paths: globs as people write them in a shell, or regular expressions; over bytes, since paths are."""

import os
import re

from s3bu.errors import UsageError


def compile_regex(text: str) -> re.Pattern[bytes]:
    """Return the regular expression that `restore` searches in paths; `UsageError` when it is none."""
    try:
        return re.compile(os.fsencode(text))
    except re.error as error:
        raise UsageError(f"'{text}' is no regular expression: {error}") from error


def compile_pattern(text: str) -> re.Pattern[bytes]:
    """Return a glob, or with `re:` before it a regular expression, to be searched in paths.

    A glob without a slash is matched with the last name of a path, else with the whole path. `*` and `?` stop at a
    slash, `**` does not.
    """
    if text.startswith("re:"):
        return compile_regex(text.removeprefix("re:"))
    start = b"\\A" if "/" in text else b"(?:\\A|/)"
    return re.compile(start + _translate(os.fsencode(text.removeprefix("/"))) + b"\\Z", re.DOTALL)


def _translate(glob: bytes) -> bytes:
    """Return the regular expression of a glob."""
    pieces = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}

    def piece(match: re.Match[bytes]) -> bytes:
        found = match[0]
        if found in pieces:
            return pieces[found]
        if found.startswith(b"[") and len(found) > 1:
            body = found[1:-1].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            return b"[^" + body[1:] + b"]" if body.startswith(b"!") else b"[" + body + b"]"
        return re.escape(found)

    return re.sub(rb"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", piece, glob, flags=re.DOTALL)
