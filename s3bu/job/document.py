"""Reads the YAML of a job into nodes with lines: strings only, and never more than the bounds allow.

The events of PyYAML's parser are composed here, since its own composer knows neither a bound on depth or aliases nor
duplicate keys. The parser in Python is used, not that of libyaml: the two disagree on lines and wording.
"""

from collections.abc import Callable, Iterator

import yaml

from s3bu.job.nodes import SIZE_BOUND, Findings, Listing, Mapping, Node, Scalar, shown

_DEPTH_BOUND = 20
_NODES_BOUND = 10_000

# What YAML takes for nothing when it stands without quotes.
_NOTHING = frozenset(("", "~", "null", "Null", "NULL"))
_CORE = "tag:yaml.org,2002:"
_STRING, _SEQUENCE, _MAP = (f"{_CORE}{kind}" for kind in ("str", "seq", "map"))


def read_document(text: bytes, findings: Findings) -> Node:
    """Return the root of the one document in `text`; a file with none has a root that is nothing.

    Faults that leave the rest readable (duplicate keys, merge keys, tags) are added to the findings. All others end
    in a `JobError`: over 1 MiB, 20 levels or 10,000 nodes with aliases expanded, not UTF-8, not YAML.
    """
    if len(text) > SIZE_BOUND:
        findings.stop(1, f"too large for a job, over {SIZE_BOUND:,} bytes")
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        findings.stop(text.count(b"\n", 0, error.start) + 1, "not UTF-8", error)
    return _Composer(decoded, findings).document()


def _events(text: str, findings: Findings) -> Iterator[yaml.Event]:
    line = 1
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            line = _line(event)
            yield event
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        findings.stop(line, f"not valid YAML: U+{ord(text[error.position]):04X} is not allowed in it", error)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "")[:200]
        findings.stop(mark.line + 1 if mark else line, f"not valid YAML: {problem}", error)
    except (ValueError, OverflowError) as error:
        # PyYAML converts the numbers in `"\UFFFFFFFF"` and `%YAML 1.999…` without a look at them.
        findings.stop(line, "not valid YAML: a number out of range", error)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None  # all events that were parsed have one
    return event.start_mark.line + 1


class _Composer:
    """Builds nodes from events, counting as it goes; an alias counts as all that it stands for."""

    def __init__(self, text: str, findings: Findings) -> None:
        self._findings = findings
        self._events = _events(text, findings)
        self._nodes = 0
        # The node of each anchor and how many nodes it holds; nothing yet while it is being built.
        self._anchors: dict[str, tuple[Node, int] | None] = {}

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._findings.stop(_line(event), "a second document begins, and a job is a single one")
                root = self._next(1)
        return root or Scalar(1, None)

    def _next(self, depth: int) -> Node | None:
        """Return the next node, or `None` where the list or mapping around it ends."""
        event = next(self._events)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._anchored(event, lambda: self._scalar(event))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._anchored(event, lambda: self._listing(event, depth))
        if isinstance(event, yaml.MappingStartEvent):
            return self._anchored(event, lambda: self._mapping(event, depth))
        return None

    def _anchored(self, event: yaml.NodeEvent, build: Callable[[], Node]) -> Node:
        before = self._nodes
        self._count(1, event)
        if event.anchor is None:
            return build()
        self._anchors[event.anchor] = None
        node = build()
        self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            self._findings.stop(_line(event), f"no anchor {shown(anchor)} stands above its alias")
        target = self._anchors[anchor]
        if target is None:
            self._findings.stop(_line(event), f"anchor {shown(anchor)} holds itself")
        node, nodes = target
        self._count(nodes, event)
        return node

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self._nodes += nodes
        if self._nodes > _NODES_BOUND:
            bound = f"more than {_NODES_BOUND:,} keys and items, an alias counted as all that it stands for"
            self._findings.stop(_line(event), bound)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        self._check_tag(event, _STRING)
        text: str = event.value
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            self._findings.stop(_line(event), f"{shown(text)} holds a NUL or half a surrogate pair, which no name can")
        is_plain = event.tag is None and not event.style
        return Scalar(_line(event), None if is_plain and text in _NOTHING else text)

    def _listing(self, event: yaml.SequenceStartEvent, depth: int) -> Listing:
        self._check_tag(event, _SEQUENCE)
        self._check_depth(event, depth)
        items = []
        while (item := self._next(depth + 1)) is not None:
            items.append(item)
        return Listing(_line(event), tuple(items))

    def _mapping(self, event: yaml.MappingStartEvent, depth: int) -> Mapping:
        self._check_tag(event, _MAP)
        self._check_depth(event, depth)
        mapping = Mapping(_line(event), {}, {})
        while (key := self._next(depth + 1)) is not None:
            value = self._next(depth + 1)
            assert value is not None  # the parser gives each key a value
            self._add(mapping, key, value)
        return mapping

    def _add(self, mapping: Mapping, key: Node, value: Node) -> None:
        if not isinstance(key, Scalar) or key.text is None:
            self._findings.problem(key.line, "a key must be a name")
        elif key.text == "<<":
            self._findings.problem(key.line, "merge keys ('<<') are not allowed")
        elif key.text in mapping.values:
            before = mapping.key_lines[key.text]
            self._findings.problem(key.line, f"key {shown(key.text)} stands on line {before} already")
        else:
            mapping.values[key.text] = value
            mapping.key_lines[key.text] = key.line

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, allowed: str) -> None:
        if event.tag is not None and event.tag != allowed:
            self._findings.problem(_line(event), f"tag {shown(event.tag.replace(_CORE, '!!'))} is not allowed")

    def _check_depth(self, event: yaml.Event, depth: int) -> None:
        if depth > _DEPTH_BOUND:
            self._findings.stop(_line(event), f"nested more than {_DEPTH_BOUND} deep")
