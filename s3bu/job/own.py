"""What stands below `s3bu:` in a job, which the original program passes over: the selection, and prices."""

import math
import re

from s3bu.errors import UsageError
from s3bu.job.nodes import Findings, Node, Scalar, is_nothing, keys_of, names_of, shown
from s3bu.prices import LIST_PRICES
from s3bu.selection import TOO_MUCH, Selection, check_pattern
from s3bu.selection.ignore import is_too_much
from s3bu.selection.presets import PRESETS
from s3bu.size import parse_size

OWN_KEYS = (
    "exclude",
    "ignore_files",
    "cachedir_tag",
    "max_file_size",
    "one_file_system",
    "presets",
    "prices",
    "retention",
)
_PRICE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")


def read_selection(keys: dict[str, Node], findings: Findings) -> Selection:
    """Return the selection of a job, having noted all that is wrong with it."""
    return Selection(
        exclude=_read_patterns(keys.get("exclude"), findings),
        ignore_files=_read_file_names(keys.get("ignore_files"), findings),
        has_cachedir_tag=_read_switch(keys, "cachedir_tag", findings),
        max_file_size=_read_size(keys, "max_file_size", findings),
        is_one_file_system=_read_switch(keys, "one_file_system", findings),
        presets=_read_presets(keys.get("presets"), findings),
    )


def read_prices(keys: dict[str, Node], findings: Findings) -> dict[str, float]:
    """Return the prices that a job names, in dollars."""
    prices = {}
    for key, node in keys_of(keys.get("prices"), "'prices'", tuple(LIST_PRICES), findings).items():
        if key not in LIST_PRICES or is_nothing(node):
            continue
        text = node.text or "" if isinstance(node, Scalar) else ""
        if _PRICE.fullmatch(text) and math.isfinite(float(text)):
            prices[key] = float(text)
        else:
            findings.problem(node.line, f"{key!r} must be a price in dollars, such as 0.005")
    return prices


def _read_patterns(node: Node | None, findings: Findings) -> tuple[bytes, ...]:
    patterns = []
    named = names_of(node, "exclude", findings)
    if node is not None and is_too_much(text.encode() for _, text in named):
        findings.problem(node.line, f"'exclude' has {TOO_MUCH}")
        return ()
    for line, text in named:
        fault = check_pattern(text.encode())
        if fault is None:
            patterns.append(text.encode())
        elif fault.is_harmless:
            findings.doubt(line, f"pattern {shown(text)} in 'exclude': {fault.text}")
        else:
            findings.problem(line, f"pattern {shown(text)} in 'exclude': {fault.text}")
    return tuple(patterns)


def _read_file_names(node: Node | None, findings: Findings) -> tuple[bytes, ...]:
    names = names_of(node, "ignore_files", findings)
    for line, text in names:
        if text in ("", ".", "..") or "/" in text:
            findings.doubt(line, f"{shown(text)} in 'ignore_files' is never there: it is not the bare name of a file")
    return tuple(dict.fromkeys(text.encode() for _, text in names))


def _read_presets(node: Node | None, findings: Findings) -> tuple[str, ...]:
    names = names_of(node, "presets", findings)
    for line, text in names:
        if text not in PRESETS:
            findings.problem(line, f"no preset {shown(text)}; there are {', '.join(PRESETS)}")
    return tuple(dict.fromkeys(text for _, text in names if text in PRESETS))


def _read_switch(keys: dict[str, Node], key: str, findings: Findings) -> bool:
    node = keys.get(key)
    if node is None or is_nothing(node):
        return False
    if not isinstance(node, Scalar) or node.text not in ("true", "false"):
        findings.problem(node.line, f"{key!r} must be true or false")
        return False
    return node.text == "true"


def _read_size(keys: dict[str, Node], key: str, findings: Findings) -> int | None:
    node = keys.get(key)
    if node is None or is_nothing(node):
        return None
    try:
        return parse_size((isinstance(node, Scalar) and node.text) or "")
    except UsageError:
        findings.problem(node.line, f"{key!r} must be a size, such as 500M or 2 GiB")
        return None
