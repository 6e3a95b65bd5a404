"""The comparison with the parent, held to a small model made of dictionaries."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.compare import (
    CARRIED,
    CHANGED,
    NEW,
    REMOVED,
    UNMODIFIED,
    Difference,
    Trust,
    carried,
    compare,
    is_same,
)
from s3bu.manifest import DIRECTORY, FILE, SYMLINK, Entry, Owner, sort_key
from s3bu.progress import Failure
from tests.fakes import OLD, SECOND, file_entry

TRUST = Trust(before_ns=(OLD + 100) * SECOND)
OWNER = Owner(1, 1, "a", "a")

NAMES = st.sampled_from([b"a", b"b", b"a b", b"a.b", b"\x01", b"\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
HASHES = st.sampled_from(["", "aa" * 32, "bb" * 32])
TIMES = st.sampled_from([0, 5, OLD * SECOND, OLD * SECOND + 1, (OLD + 99) * SECOND, (OLD + 100) * SECOND])
MODES = st.sampled_from([0o600, 0o644])
OWNERS = st.sampled_from([None, OWNER])


def entries(hashes: st.SearchStrategy[str]) -> st.SearchStrategy[Entry]:
    files = st.builds(Entry, PATHS, st.just(FILE), nbytes=st.integers(0, 1), mtime_ns=TIMES, mode=MODES, hash=hashes)
    directories = st.builds(Entry, PATHS, st.just(DIRECTORY), st.just(0), TIMES, MODES, owner=OWNERS)
    links = st.builds(
        Entry,
        PATHS,
        st.just(SYMLINK),
        st.just(0),
        TIMES,
        st.just(0),
        target=st.sampled_from([b"x", b"y"]),
        owner=OWNERS,
    )
    return files | directories | links


SCANS = st.lists(entries(st.just("")) | st.builds(Failure, PATHS, st.just("shut")), max_size=8)
PARENTS = st.lists(entries(HASHES), max_size=8)


class Side(NamedTuple):
    """What either side knows, by path; the scan has nothing below what it failed to look at."""

    scanned: Mapping[bytes, Entry | Failure]
    parent: Mapping[bytes, Entry]


def ordered(items: Iterable[Entry | Failure]) -> list[Entry | Failure]:
    return sorted(items, key=lambda item: sort_key(item.path))


def side(scanned: list[Entry | Failure], parent: list[Entry]) -> Side:
    by_path = {item.path: item for item in scanned}
    shut = [path for path, item in by_path.items() if isinstance(item, Failure)]
    reached = {path: item for path, item in by_path.items() if not any(path.startswith(top + b"/") for top in shut)}
    return Side(reached, {entry.path: entry for entry in parent})


def run(sides: Side, trust: Trust = TRUST) -> list[Difference | Failure]:
    parent = [entry for entry in ordered(sides.parent.values()) if isinstance(entry, Entry)]
    return list(compare(ordered(sides.scanned.values()), parent, trust))


def path_of(one: Difference | Failure) -> bytes:
    if isinstance(one, Failure):
        return one.path
    entry = one.entry or one.previous
    assert entry is not None
    return entry.path


def expected_status(path: bytes, sides: Side) -> str:
    """Say what should come of a path, apart from whether a file that is on both sides was modified."""
    if any(
        path == top or path.startswith(top + b"/") for top, one in sides.scanned.items() if isinstance(one, Failure)
    ):
        return CARRIED
    if path not in sides.parent:
        return NEW
    return "both" if path in sides.scanned else REMOVED


@settings(deadline=None)
@given(SCANS, PARENTS)
def test_every_path_of_either_side_comes_out_once_and_in_order(
    scanned: list[Entry | Failure], parent: list[Entry]
) -> None:
    sides = side(scanned, parent)
    found = run(sides)
    assert [one for one in found if isinstance(one, Failure)] == ordered(
        one for one in sides.scanned.values() if isinstance(one, Failure)
    )
    differences = [path_of(one) for one in found if isinstance(one, Difference)]
    known = {path for path, one in sides.scanned.items() if isinstance(one, Entry)} | sides.parent.keys()
    assert differences == sorted(known, key=sort_key)
    assert [path_of(one) for one in found] == sorted((path_of(one) for one in found), key=sort_key)


@settings(deadline=None)
@given(SCANS, PARENTS)
def test_what_comes_out_is_what_the_model_says(scanned: list[Entry | Failure], parent: list[Entry]) -> None:
    sides = side(scanned, parent)
    for one in run(sides):
        if isinstance(one, Failure):
            continue
        path = path_of(one)
        status = expected_status(path, sides)
        assert one.status == status or (status == "both" and one.status in {CHANGED, UNMODIFIED})
        assert one.previous == sides.parent.get(path)
        if status == CARRIED:
            assert one.entry == carried(sides.parent[path])
        elif status == REMOVED:
            assert one.entry is None


@settings(deadline=None)
@given(SCANS, PARENTS, st.booleans())
def test_a_hash_is_taken_over_only_where_everything_speaks_for_it(
    scanned: list[Entry | Failure], parent: list[Entry], is_rehash: bool
) -> None:
    trust = Trust(TRUST.before_ns, is_rehash)
    for one in run(side(scanned, parent), trust):
        if isinstance(one, Failure) or one.entry is None or one.status == CARRIED or one.entry.kind != FILE:
            continue
        if one.entry.hash:
            previous = one.previous
            assert previous is not None
            assert not is_rehash
            assert (one.entry.hash, one.entry.nbytes) == (previous.hash, previous.nbytes)
            assert previous.mtime_ns // SECOND == one.entry.mtime_ns // SECOND != 0
            assert one.entry.mtime_ns < TRUST.before_ns


@settings(deadline=None)
@given(SCANS, PARENTS)
def test_nothing_is_called_unmodified_that_a_reader_could_tell_apart(
    scanned: list[Entry | Failure], parent: list[Entry]
) -> None:
    for one in run(side(scanned, parent)):
        if isinstance(one, Difference) and one.status == UNMODIFIED:
            assert one.entry is not None
            assert one.previous is not None
            assert is_same(one.entry, one.previous)


def only(found: Entry, previous: Entry, trust: Trust = TRUST) -> Difference:
    (difference,) = compare([found], [previous], trust)
    assert isinstance(difference, Difference)
    return difference


FOUND = file_entry(b"x", b"content")._replace(hash="")
PREVIOUS = file_entry(b"x", b"content")


def test_a_file_of_the_same_size_and_time_is_unmodified() -> None:
    assert only(FOUND, PREVIOUS) == Difference(UNMODIFIED, PREVIOUS, PREVIOUS)


def test_a_fraction_of_a_second_is_no_change_as_manifests_have_none() -> None:
    assert only(FOUND._replace(mtime_ns=FOUND.mtime_ns + 999_999_999), PREVIOUS).status == UNMODIFIED


@pytest.mark.parametrize(
    "change",
    [
        {"nbytes": 8},
        {"mtime_ns": FOUND.mtime_ns + SECOND},
        {"mtime_ns": FOUND.mtime_ns - 1},
        {"mtime_ns": TRUST.before_ns},
    ],
    ids=["size", "later", "earlier", "racy"],
)
def test_a_file_that_may_have_changed_must_be_read(change: dict[str, int]) -> None:
    difference = only(FOUND._replace(**change), PREVIOUS)  # type: ignore[arg-type]
    assert (difference.status, difference.entry and difference.entry.hash) == (CHANGED, "")


def test_a_racy_file_is_read_again_though_nothing_shows() -> None:
    racy = Trust(before_ns=FOUND.mtime_ns)
    assert only(FOUND, PREVIOUS, racy).entry == FOUND


def test_an_mtime_of_zero_is_never_trusted() -> None:
    assert only(FOUND._replace(mtime_ns=0), PREVIOUS._replace(mtime_ns=0)).entry == FOUND._replace(mtime_ns=0)


def test_an_entry_that_the_original_could_not_read_is_read_again() -> None:
    unread = PREVIOUS._replace(hash="")
    assert only(FOUND, unread) == Difference(CHANGED, FOUND, unread, "never read")


def test_a_new_mode_alone_needs_no_reading() -> None:
    difference = only(FOUND._replace(mode=0o600), PREVIOUS)
    assert difference == Difference(CHANGED, FOUND._replace(mode=0o600, hash=PREVIOUS.hash), PREVIOUS, "mode")


def test_rehash_trusts_nothing() -> None:
    assert only(FOUND, PREVIOUS, Trust(TRUST.before_ns, is_rehash=True)).entry == FOUND


def test_a_time_before_1970_is_compared_like_any_other() -> None:
    early = FOUND._replace(mtime_ns=-1)
    assert only(early, PREVIOUS._replace(mtime_ns=-SECOND)).status == UNMODIFIED
    assert only(early, PREVIOUS._replace(mtime_ns=-2 * SECOND)).status == CHANGED


def test_a_file_that_became_a_directory_is_changed_and_what_is_below_new() -> None:
    directory = Entry(b"x", DIRECTORY, 0, 0, 0o755, owner=OWNER)
    found = list(compare([directory, FOUND._replace(path=b"x/y")], [PREVIOUS], TRUST))
    assert [one.status for one in found if isinstance(one, Difference)] == [CHANGED, NEW]


def test_a_directory_that_could_not_be_listed_carries_its_whole_subtree_and_no_neighbour() -> None:
    parent = [file_entry(path) for path in (b"d/a", b"d/b/c", b"d b", b"d.txt")]
    found = list(compare([Failure(b"d", "shut")], parent, TRUST))
    told = [(one.status, path_of(one)) for one in found if isinstance(one, Difference)]
    assert told == [(CARRIED, b"d/a"), (CARRIED, b"d/b/c"), (REMOVED, b"d b"), (REMOVED, b"d.txt")]


def test_carried_files_have_an_mtime_of_zero_and_directories_stay_as_they_were() -> None:
    directory = Entry(b"d", DIRECTORY, 0, 5, 0o755)
    assert carried(PREVIOUS) == PREVIOUS._replace(mtime_ns=0)
    assert carried(directory) == directory


def test_the_time_of_a_directory_alone_is_no_change() -> None:
    directory = Entry(b"d", DIRECTORY, 0, 5, 0o755, owner=OWNER)
    later = directory._replace(mtime_ns=6)
    assert only(later, directory) == Difference(UNMODIFIED, later, directory)


@pytest.mark.parametrize("change", [{"mode": 0o700}, {"owner": Owner(2, 2, "b", "b")}])
def test_mode_and_owner_of_a_directory_are_a_change(change: dict[str, object]) -> None:
    directory = Entry(b"d", DIRECTORY, 0, 5, 0o755, owner=OWNER)
    assert only(directory._replace(**change), directory).status == CHANGED  # type: ignore[arg-type]


def test_the_target_of_a_link_is_a_change() -> None:
    link = Entry(b"l", SYMLINK, 0, 5, 0, target=b"here", owner=OWNER)
    assert only(link._replace(target=b"there"), link).status == CHANGED
