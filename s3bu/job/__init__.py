"""Jobs: the YAML documents that name sources and filters, and all that can be wrong with them.

The meaning is that of the original Go program: each scalar is a string as it stands, whatever YAML would make of it,
and an item without a value (nothing, or `~` or `null` without quotes) is no item. A job may come from a bucket that
others write to, so nothing of it is believed before it is checked.
"""

import os
import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s3bu.errors import JobError, UsageError
from s3bu.filters import Filters
from s3bu.job import nodes
from s3bu.job.nodes import SIZE_BOUND, Findings, Listing, Node, Scalar, is_nothing, items_of, keys_of, names_of, shown
from s3bu.job.own import OWN_KEYS, read_prices, read_selection
from s3bu.job.retention import read_retention
from s3bu.retention import Policy
from s3bu.selection import Selection

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_NAME_RULE = "1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-', and neither '.' nor '-' first"

_EXTENSIONS = ("include_extensions", "exclude_extensions")
_DIRECTORIES = ("include_top_dirs", "exclude_top_dirs", "skip_dirs")
_JOB_KEYS = ("sources", *_EXTENSIONS, *_DIRECTORIES, "skip_dir_items", "s3bu")
_SOURCE_KEYS = ("path", "label")
_OWN_KEYS = ("retention",)


@dataclass(frozen=True, slots=True)
class Source:
    """A directory to back up, by its absolute path, and the label under which its snapshots lie."""

    label: str
    path: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A job that can be run; `warnings` holds a line for each thing in it that has no effect or looks odd.

    `prices` are those that take the place of the list's, in dollars.
    `retention` is what `forget` keeps of its snapshots, absent where the job does not say, or not so that it is clear.
    It `is_trusted` unless it lay in the repository unencrypted, where anybody may have written it.
    """

    name: str
    sources: tuple[Source, ...]
    filters: Filters
    warnings: tuple[str, ...]
    prices: Mapping[str, float] = field(default_factory=dict)
    retention: Policy | None = None
    is_trusted: bool = True


def check_job_name(name: str) -> None:
    """Refuse, with `UsageError`, a name that no new job may have."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"no name for a job: {shown(name)}", hint=f"a job's name is {_NAME_RULE}")


def is_job_file(text: str) -> bool:
    """Say whether an argument names a local job file rather than a job of the repository."""
    return text.endswith((".yml", ".yaml"))


def load_job_file(path: Path) -> tuple[str, bytes]:
    """Return the stem of a local job file, which names the job, and its bytes.

    The stem is not held to the rule for names: whoever makes a job of it calls `check_job_name`. What is absent,
    unreadable or no regular file is a `UsageError`, too large a file a `JobError`.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"not a regular file: {path}")
            text = file.read(SIZE_BOUND + 1)
    except FileNotFoundError as error:
        hint = "a name that ends in .yml or .yaml is a local file; a job of the repository is named without the ending"
        raise UsageError(f"no such file: {path}", hint=hint) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if len(text) > SIZE_BOUND:
        raise JobError(f"{path}: too large for a job, over {SIZE_BOUND:,} bytes")
    return path.stem, text


def parse_job(text: bytes, *, name: str, origin: str, strict: bool, directory: Path | None) -> Job:
    """Return the job that a YAML document describes, or raise a `JobError` with all its problems in order of line.

    `origin` is the file or key that the problems name. What does no harm (unknown keys, items without effect, odd
    letters in a label) is a problem when `strict`, else one of the job's warnings. `directory` is where relative
    source paths start; without it they are a problem. The name is taken as it is.
    """
    from s3bu.job.document import read_document  # noqa: PLC0415 - PyYAML is slow to import

    findings = Findings(origin, strict)
    root = read_document(text, findings)
    keys = keys_of(root, "a job", _JOB_KEYS, findings, below_s3bu=OWN_KEYS)
    if not (is_nothing(root) or isinstance(root, nodes.Mapping)):
        raise findings.error()
    sources = _read_sources(keys.get("sources"), findings, directory)
    own = keys_of(keys.get("s3bu"), "'s3bu'", OWN_KEYS, findings)
    filters = _read_filters(keys, read_selection(own, findings), findings)
    prices = read_prices(own, findings)
    retention = read_retention(own.get("retention"), findings)
    if findings.problems:
        raise findings.error()
    return Job(name, sources, filters, findings.lines(findings.warnings), prices, retention)


def _open_without_waiting(path: str, flags: int) -> int:
    # A FIFO would otherwise keep the program waiting for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def _read_sources(node: Node | None, findings: Findings, directory: Path | None) -> tuple[Source, ...]:
    items = items_of(node, "sources", findings)
    if is_nothing(node) or (isinstance(node, Listing) and not items):
        findings.problem(node.line if node else 1, "no sources; a job names at least one below 'sources'")
    sources = []
    label_lines: dict[str, int] = {}
    for item in items:
        keys = keys_of(item, "a source", _SOURCE_KEYS, findings)
        if isinstance(item, nodes.Mapping):
            label = _required(keys, "label", item.line, findings)
            path = _required(keys, "path", item.line, findings)
            _check_label(label, label_lines, findings)
            sources.append(Source(label.text or "", _absolute(path, findings, directory)))
    return tuple(sources)


def _required(keys: dict[str, Node], key: str, line: int, findings: Findings) -> Scalar:
    """Return the text under a key; where there is none, a scalar without text, and a problem noted."""
    node = keys.get(key)
    if node is None:
        findings.problem(line, f"a source without {key!r}")
    elif not isinstance(node, Scalar):
        findings.problem(node.line, f"{key!r} must be a single text")
    elif not node.text:
        findings.problem(node.line, f"{key!r} is empty")
    else:
        return node
    return Scalar(line, None)


def _check_label(label: Scalar, lines: dict[str, int], findings: Findings) -> None:
    """Note a label that cannot be, or that an earlier source of the job has."""
    if label.text is None:
        return
    if label.text in lines:
        findings.problem(label.line, f"label {shown(label.text)} stands on line {lines[label.text]} already")
    lines.setdefault(label.text, label.line)
    if not _NAME.fullmatch(label.text):
        # A slash or a leading dot would mix its snapshots with those of another label, or with private state.
        is_harmful = "/" in label.text or label.text.startswith(".")
        note = findings.problem if is_harmful else findings.doubt
        note(label.line, f"label {shown(label.text)} does not keep to the rule: {_NAME_RULE}")


def _absolute(path: Scalar, findings: Findings, directory: Path | None) -> bytes:
    """Return a source's path from the root on; an absolute one stays as it was written."""
    text = path.text or ""
    # Not the locale's encoding: a job means the same bytes wherever it is read.
    encoded = text.encode()
    if not text or text.startswith("/"):
        return encoded
    if text.startswith("~"):
        findings.problem(path.line, f"source path {shown(text)}: '~' is not expanded, write the whole path")
    elif directory is None:
        findings.problem(path.line, f"source path {shown(text)} is relative, write the whole path")
    else:
        return _joined(directory, encoded, path.line, findings)
    return encoded


def _joined(directory: Path, relative: bytes, line: int, findings: Findings) -> bytes:
    try:
        return os.path.abspath(os.path.join(os.fsencode(directory), relative))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        findings.problem(line, f"source path {shown(os.fsdecode(relative))}: the working directory is gone: {reason}")
        return relative


def _read_filters(keys: dict[str, Node], selection: Selection, findings: Findings) -> Filters:
    names = {key: names_of(keys.get(key), key, findings) for key in _JOB_KEYS[1:-1]}
    for key in _EXTENSIONS:
        _check_extensions(names[key], key, findings)
    for key in _DIRECTORIES:
        _check_directories(names[key], key, findings)
    names["skip_dir_items"] = [_checked_skip_item(item, findings) for item in names["skip_dir_items"]]
    lists = {key: tuple(text.encode() for _, text in items) for key, items in names.items()}
    return Filters(**lists, selection=selection)


def _check_extensions(items: list[tuple[int, str]], key: str, findings: Findings) -> None:
    unfit = [(line, text) for line, text in items if not text or "/" in text]
    for line, text in unfit:
        findings.doubt(line, f"{shown(text)} in {key!r} never matches: it is not the end of a file's name")
    if key == "include_extensions" and unfit and len(unfit) == len(items):
        findings.problem(unfit[0][0], f"no file can match {key!r}, so none would be backed up")


def _check_directories(items: list[tuple[int, str]], key: str, findings: Findings) -> None:
    for line, text in items:
        if text in ("", ".", "..") or "/" in text:
            findings.doubt(line, f"{shown(text)} in {key!r} never matches: it is not the bare name of a directory")


def _checked_skip_item(item: tuple[int, str], findings: Findings) -> tuple[int, str]:
    """Return the item as the name that it stands for: the original cleans it, as a path below the directory."""
    line, text = item
    name = posixpath.normpath(text.lstrip("/"))
    if name in (".", ".."):
        findings.problem(line, f"{shown(text)} in 'skip_dir_items' is in every directory, so all would be skipped")
    elif "/" in name:
        findings.doubt(line, f"{shown(text)} in 'skip_dir_items' never matches: it is not a bare name")
    return line, name
