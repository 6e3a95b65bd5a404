"""Snapshots as interval rows: whatever comes in whichever order, the index says of each what its manifest says."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import IntegrityError
from s3bu.history import Facts, let_go, number_of, record, take_in, take_in_changes
from s3bu.index import Index, open_passing_index
from s3bu.manifest import DIRECTORY, FILE, SYMLINK, Entry, FailedPath, Owner, Seen, sort_key
from s3bu.repository.layout import ManifestKey

_OWNER = Owner(1, 2, "me", "\udcff")
_VERSIONS = [
    lambda path: Entry(path, FILE, 1, 5_000_000_000, 0o644, "a" * 64),
    lambda path: Entry(path, FILE, 1, 5_000_000_000, 0o600, "a" * 64),
    lambda path: Entry(path, FILE, 2, 0, 0o644, "b" * 64),
    lambda path: Entry(path, FILE, 2, 1_000_000_000, 0o644, ""),
    lambda path: Entry(path, DIRECTORY, 0, 5_000_000_001, 0o755, owner=_OWNER),
    lambda path: Entry(path, SYMLINK, 0, -1, 0, target=b"x", owner=_OWNER._replace(uid=3)),
]
_PATHS = [b"a", b"a/x", b"a b", b"a.txt", b"\xff\n"]
_TREES = st.dictionaries(st.sampled_from(_PATHS), st.integers(0, len(_VERSIONS) - 1))


def _key(second: int) -> ManifestKey:
    return ManifestKey("job", "label", date(2026, 5, 1), second)


def _facts(second: int) -> Facts:
    return Facts(_key(second), f"etag{second}", datetime(2026, 5, 1, 0, 0, second, 7, tzinfo=UTC))


def _entries(tree: dict[bytes, int]) -> list[Entry]:
    return sorted((_VERSIONS[version](path) for path, version in tree.items()), key=lambda one: sort_key(one.path))


def _check(index: Index, model: dict[int, list[Entry]]) -> None:
    source = index.source("job", "label")
    snapshots = index.snapshots(source)
    assert [one.number for one in snapshots] == [number_of(_key(second)) for second in sorted(model)]
    for snapshot, second in zip(snapshots, sorted(model), strict=True):
        assert list(index.entries(source, snapshot.number)) == model[second]
        files = [entry for entry in model[second] if entry.kind == FILE and entry.hash]
        assert (snapshot.nfiles, snapshot.nbytes) == (len(files), sum(entry.nbytes for entry in files))
    _check_rows(index, [number_of(_key(second)) for second in sorted(model)])


def _check_rows(index: Index, numbers: list[int]) -> None:
    """No version is told twice in a row, none belongs to a snapshot that is not there."""
    rows = index.connection.execute(
        "SELECT sort_key, first, last, kind, nbytes, mtime, nanos, mode, hash, target, owner FROM version "
        "ORDER BY sort_key, first"
    ).fetchall()
    for key, first, last, *_ in rows:
        assert first in numbers, key
        assert last in (*numbers, None), key
    for (key, _, last, *one), (other_key, first, _, *other) in pairwise(rows):
        if key == other_key and last is not None and numbers.index(last) + 1 == numbers.index(first):
            assert one != other


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_order_of_coming_and_going_leaves_the_history_right(data: Any) -> None:
    index = open_passing_index("x")
    model: dict[int, list[Entry]] = {}
    for _ in range(data.draw(st.integers(1, 8))):
        if model and data.draw(st.sampled_from([0, 1]), label="goes"):
            second = data.draw(st.sampled_from(sorted(model)))
            gone = next(one for one in index.snapshots() if one.number == number_of(_key(second)))
            let_go(index, gone)
            del model[second]
        else:
            second = data.draw(st.sampled_from([one for one in range(12) if one not in model]))
            model[second] = _entries(data.draw(_TREES))
            _take(index, data.draw(st.integers(0, 2)), second, model)
        _check(index, model)


def _take(index: Index, way: int, second: int, model: dict[int, list[Entry]]) -> None:
    before = [one for one in sorted(model) if one < second]
    earlier = model[before[-1]] if before else []
    changed = [entry for entry in model[second] if entry not in earlier]
    removed = {entry.path for entry in earlier} - {entry.path for entry in model[second]}
    if way == 0:
        take_in(index, _facts(second), model[second])
    elif way == 1:
        take_in_changes(index, _facts(second), changed, removed)
    else:
        record(index, _facts(second), changed, removed, ())


def test_entries_out_of_order_are_sorted_and_of_equal_paths_the_last_counts() -> None:
    index = open_passing_index("x")
    one, other = _VERSIONS[0](b"b"), _VERSIONS[1](b"a")
    take_in(index, _facts(1), [one, other, one._replace(nbytes=9)])
    source = index.source("job", "label")
    assert list(index.entries(source, number_of(_key(1)))) == [other, one._replace(nbytes=9)]


def test_a_manifest_that_turns_out_broken_leaves_no_trace() -> None:
    index = open_passing_index("x")

    def broken() -> Iterator[Entry]:
        yield _VERSIONS[0](b"a")
        raise IntegrityError("cut")

    with pytest.raises(IntegrityError):
        take_in(index, _facts(1), broken())
    assert index.snapshots() == []
    assert index.connection.execute("SELECT count(*) FROM version").fetchone() == (0,)


def test_failures_are_kept_with_their_snapshot() -> None:
    index = open_passing_index("x")
    failed = FailedPath(b"\xff", "permission denied", "2026-05-01T00:00:00+00:00")
    take_in(index, _facts(1), [failed, _VERSIONS[0](b"a")])
    assert index.failed(index.snapshots()[0]) == [failed]


def test_what_this_machine_saw_goes_with_the_version_it_saw() -> None:
    index = open_passing_index("x")
    entry = _VERSIONS[0](b"a")._replace(mtime_ns=5_123_456_789, seen=Seen(7, 8, 9))
    record(index, _facts(1), [entry], (), [entry])
    source = index.source("job", "label")
    assert list(index.currents(source)) == [entry]
    assert list(index.entries(source, number_of(_key(1)))) == [_VERSIONS[0](b"a")]
    other = _VERSIONS[1](b"a")
    record(index, _facts(2), [other], (), ())
    assert list(index.currents(source)) == [other]
    assert list(index.entries(source, number_of(_key(1)))) == [_VERSIONS[0](b"a")]


def test_the_same_path_of_two_sources_has_two_histories() -> None:
    index = open_passing_index("x")
    other = dataclasses.replace(_facts(1), key=ManifestKey("job", "other", date(2026, 5, 1), 1))
    take_in(index, _facts(1), [_VERSIONS[0](b"a")])
    take_in(index, other, [_VERSIONS[1](b"a")])
    assert list(index.entries(index.source("job", "label"), number_of(_key(1)))) == [_VERSIONS[0](b"a")]
    assert list(index.entries(index.source("job", "other"), number_of(_key(1)))) == [_VERSIONS[1](b"a")]
