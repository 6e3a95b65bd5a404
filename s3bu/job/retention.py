"""The part of a job that says which of its snapshots `forget` keeps.

A word that is not understood would keep less than was meant, so with one of them the block counts as absent: it is a
problem of a job that is being written, a warning to a backup, and `forget` refuses to go by it.
"""

from difflib import get_close_matches

from s3bu.errors import UsageError
from s3bu.job.nodes import Findings, Mapping, Node, Scalar, is_nothing, shown
from s3bu.retention import COUNTS, Policy, Span, parse_count, parse_span

_KEYS = {f"keep_{name}": name for name in (*COUNTS, "within")}


def read_retention(node: Node | None, findings: Findings) -> Policy | None:
    """Return the policy of a job, having noted what is wrong with it; `None` when there is none, or any doubt."""
    if node is None or is_nothing(node):
        return None
    if not isinstance(node, Mapping):
        findings.doubt(node.line, "'retention' must be a mapping, lines such as 'keep_daily: 7'")
        return None
    rules: dict[str, int | Span] = {}
    for key, value in node.values.items():
        rule = _read_rule(key, value, node.key_lines[key], findings)
        if rule is not None:
            rules[_KEYS[key]] = rule
    if not node.values:
        findings.doubt(node.line, "'retention' has no rule, so nothing would be kept")
    return Policy(**rules) if rules and len(rules) == len(node.values) else None  # type: ignore[arg-type]


def _read_rule(key: str, value: Node, line: int, findings: Findings) -> int | Span | None:
    if key not in _KEYS:
        close = get_close_matches(key[:64].lower(), _KEYS, 1)
        advice = f", did you mean {close[0]!r}" if close else ""
        findings.doubt(line, f"unknown key {shown(key)} in 'retention'{advice}")
        return None
    if not isinstance(value, Scalar) or value.text is None:
        findings.doubt(value.line, f"{key!r} must be a single number or stretch of time")
        return None
    try:
        return parse_span(value.text) if key == "keep_within" else parse_count(value.text)
    except UsageError:
        meaning = "stretch of time such as 1y5m7d2h" if key == "keep_within" else "number of snapshots"
        findings.doubt(value.line, f"{key!r}: {shown(value.text)} is no {meaning}")
        return None
