"""Bringing the index up to the repository: whatever came, went or was altered, it says what the manifests say."""

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.crypto.passphrase import encrypt_with_passphrase
from s3bu.errors import IntegrityError, PassphraseNotFoundError, RepositoryNotFoundError
from s3bu.history import microseconds
from s3bu.index import Index, IndexedSnapshot, open_passing_index
from s3bu.manifest import DIRECTORY, FILE, SYMLINK, Entry, FailedPath, Owner, format_entry
from s3bu.progress import Silent
from s3bu.repository import Snapshot, layout
from s3bu.repository.layout import ManifestKey
from s3bu.storage.memory import StoredObject
from s3bu.sync import Outcome, sync
from tests.fakes import Listener, World, file_entry, manifest_key

_OWNER = Owner(1, 2, "me", "\udcff")
_VERSIONS: list[Callable[[bytes], Entry]] = [
    lambda path: Entry(path, FILE, 1, 5_000_000_000, 0o644, "a" * 64),
    lambda path: Entry(path, FILE, 1, 5_000_000_000, 0o600, "a" * 64),
    lambda path: Entry(path, FILE, 2, 0, 0o644, "b" * 64),
    lambda path: Entry(path, DIRECTORY, 0, 5_000_000_001, 0o755, owner=_OWNER),
    lambda path: Entry(path, SYMLINK, 0, -1, 0, target=b"x", owner=_OWNER),
]
_PATHS = [b"a", b"a/x", b"a b", b"a.txt", b"\xff\n"]
_VERSIONS_OF_PATHS = st.sampled_from([version(path) for path in _PATHS for version in _VERSIONS])
_TREES = st.dictionaries(st.sampled_from(_PATHS), st.sampled_from(_VERSIONS)).map(
    lambda tree: [version(path) for path, version in tree.items()]
)
_FAILED = st.lists(st.sampled_from([FailedPath(b"a", "denied", ""), FailedPath(b"\xff", "denied", "")]), max_size=2)
_KEYS = st.builds(
    lambda second, label: manifest_key("2024-01-01", second, label=label),
    st.integers(0, 9),
    st.sampled_from(["docs", "docs", "docs/x"]),
)
_KINDS = ("plain", "plain", "plain", "original", "original", "broken", "foreign", "cut", "gone")
_numbers = itertools.count()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def index(world: World) -> Iterator[Index]:
    opened = world.index()
    yield opened
    opened.close()


# --- making manifests


def original(*entries: Entry) -> bytes:
    """Return a manifest of the original's: what stands in it may come twice, in any order."""
    return b"".join(format_entry(entry) for entry in entries)


def put_foreign(world: World, key: ManifestKey) -> None:
    """Store a manifest whose passphrase this machine does not have."""
    body = encrypt_with_passphrase(b"", f"another one {next(_numbers)}", work_factor=1)
    world.storage.objects[str(key)] = StoredObject(body, {})


def put_broken(world: World, key: ManifestKey) -> None:
    """Store what is no manifest, or only at its beginning."""
    world.put_private(str(key), original(*(version(b"new") for version in _VERSIONS)) + b"rubbish\n1,2,3,4,5\n")


def put_drawn(world: World, key: ManifestKey, data: Any) -> None:
    """Store a manifest of any kind under a key, or take away what is there."""
    kind = data.draw(st.sampled_from(_KINDS), label=f"{key}")
    if kind == "plain":
        world.put_manifest(data.draw(_TREES), failed=data.draw(_FAILED), key=key)
    elif kind in {"original", "cut"}:
        text = original(*data.draw(st.lists(_VERSIONS_OF_PATHS, max_size=6)))
        world.put_original_manifest(text + (b"12,34" if kind == "cut" else b""), key)
    elif kind == "broken":
        put_broken(world, key)
    elif kind == "foreign":
        put_foreign(world, key)
    else:
        world.storage.objects.pop(str(key), None)


# --- what the index says, held to the manifests


def read(world: World, key: ManifestKey) -> Snapshot | None:
    try:
        return world.repository.read_snapshot(key)
    except (IntegrityError, PassphraseNotFoundError):
        return None


def check(world: World, index: Index) -> None:
    """Hold the index to every manifest of the repository, each read by the way that does not know of an index."""
    manifests = {str(stored.key): stored for stored in world.repository.manifests()}
    indexed = {snapshot.key: snapshot for snapshot in index.snapshots()}
    assert indexed.keys() == manifests.keys()
    for key, stored in manifests.items():
        assert indexed[key].etag == stored.etag
        check_snapshot(index, indexed[key], read(world, stored.key))


def check_snapshot(index: Index, indexed: IndexedSnapshot, snapshot: Snapshot | None) -> None:
    assert (indexed.error is None) == (snapshot is not None)
    if snapshot is None:
        return
    assert list(index.entries(indexed.source, indexed.number)) == snapshot.entries
    assert [one for one in index.failed(indexed) if one.path] == [one for one in snapshot.failed if one.path]
    assert any(not one.path for one in index.failed(indexed)) == snapshot.is_truncated
    assert indexed.created_us == microseconds(snapshot.created)
    assert indexed.host == (snapshot.header.host if snapshot.header else None)


def try_sync(world: World, index: Index) -> Outcome | None:
    """Sync as the next run would do it; nothing comes of it where no passphrase opens anything."""
    try:
        return sync(world.repository, index, Silent())
    except PassphraseNotFoundError:
        return None


def rows(index: Index) -> list[Any]:
    """Return all that the index knows of snapshots, without the numbers that it gave to them."""
    statement = (
        "SELECT job, label, sort_key, first, last, kind, nbytes, mtime, nanos, mode, hash, target, uid, gid, user "
        "FROM version JOIN source ON source = source.id LEFT JOIN owner ON owner = owner.id "
        "ORDER BY job, label, sort_key, first"
    )
    snapshots = "SELECT number, key, etag, created_us, host, parent, nfiles, nbytes, error FROM snapshot ORDER BY key"
    failed = "SELECT key, path, failed.error, since FROM failed JOIN snapshot ON snapshot = id ORDER BY 1, 2, 3, 4"
    return [index.connection.execute(one).fetchall() for one in (statement, snapshots, failed)]


def fresh_rows(world: World) -> list[Any]:
    """Return what an index says that takes in everything at once."""
    index = open_passing_index(world.storage.identity)
    try_sync(world, index)
    return rows(index)


# --- what holds for all


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_comes_and_goes_the_index_says_what_the_manifests_say(data: Any) -> None:
    with tempfile.TemporaryDirectory() as root:
        world = World.make(Path(root))
        index = open_passing_index(world.storage.identity)
        for _ in range(data.draw(st.integers(1, 12), label="steps")):
            put_drawn(world, data.draw(_KEYS), data)
            if data.draw(st.booleans(), label="sync"):
                try_sync(world, index)
                check(world, index)
        try_sync(world, index)
        check(world, index)
        assert rows(index) == fresh_rows(world)


# --- one thing each


def put_three(world: World) -> list[ManifestKey]:
    """Store three snapshots, each different from the one before in a new, a changed and a removed file."""
    trees = [[b"a", b"b", b"c"], [b"a", b"b", b"d"], [b"a", b"d", b"e"]]
    keys = [manifest_key("2024-01-01", second) for second in range(3)]
    for key, tree in zip(keys, trees, strict=True):
        entries = [file_entry(path, mtime=1_000 + (key.second if path == b"a" else 0)) for path in tree]
        world.put_manifest(entries, failed=[FailedPath(b"f", "denied", "")], key=key)
    return keys


def test_the_keys_that_were_taken_in_are_told_in_order(world: World, index: Index) -> None:
    keys = put_three(world)
    assert sync(world.repository, index, Silent()) == Outcome(taken=[str(key) for key in keys])


def test_a_sync_after_a_sync_reads_nothing(world: World, index: Index) -> None:
    put_three(world)
    sync(world.repository, index, Silent())
    reads: list[str] = []
    world.storage.before_read = reads.append
    assert sync(world.repository, index, Silent()) == Outcome()
    assert reads == []


def test_only_what_is_new_is_read(world: World, index: Index) -> None:
    put_three(world)
    sync(world.repository, index, Silent())
    late = str(world.put_manifest([file_entry(b"z")], key=manifest_key("2023-01-01", 7)))
    reads: list[str] = []
    world.storage.before_read = reads.append
    assert sync(world.repository, index, Silent()).taken == [late]
    assert reads == [late]
    check(world, index)


def test_what_follows_another_is_read_once_and_line_by_line(
    world: World, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_three(world)
    whole: list[object] = []
    monkeypatch.setattr("s3bu.sync.take_in", noting(whole))
    reads: list[str] = []
    world.storage.before_read = reads.append
    sync(world.repository, index, Silent())
    assert len(whole) == 1
    assert len(reads) == 3


def noting(calls: list[object]) -> Callable[..., int]:
    """Return the way in that takes a whole manifest, which notes that it was taken."""
    from s3bu.history import take_in

    def noted(*arguments: Any) -> int:
        calls.append(arguments)
        return take_in(*arguments)

    return noted


def test_line_by_line_and_whole_give_the_same_rows(world: World, index: Index) -> None:
    keys = put_three(world)
    bodies = {str(key): world.storage.objects.pop(str(key)) for key in keys}
    for key in reversed(keys):  # nothing stands before any of them, so that each is taken in whole
        world.storage.objects[str(key)] = bodies[str(key)]
        sync(world.repository, index, Silent())
    check(world, index)
    assert rows(index) == fresh_rows(world)


def test_a_path_that_comes_twice_is_found_though_only_changes_are_looked_at(world: World, index: Index) -> None:
    one, other = file_entry(b"a", b"1"), file_entry(b"a", b"2")
    world.put_original_manifest(original(one), manifest_key("2024-01-01", 1))
    world.put_original_manifest(original(one, other), manifest_key("2024-01-01", 2))
    world.put_original_manifest(original(other, one), manifest_key("2024-01-01", 3))
    world.put_original_manifest(original(one, one), manifest_key("2024-01-01", 4))
    world.put_original_manifest(original(other), manifest_key("2024-01-01", 5))
    sync(world.repository, index, Silent())
    check(world, index)


def test_a_manifest_that_is_cut_has_a_failure_of_the_source_itself(world: World, index: Index) -> None:
    world.put_original_manifest(original(file_entry(b"a")) + b"12,34")
    listener = Listener()
    sync(world.repository, index, listener)
    (snapshot,) = index.snapshots()
    assert [one.path for one in index.failed(snapshot)] == [b""]
    assert ["dropped the last line" in warning for warning in listener.warnings] == [True]


def test_what_is_gone_from_the_repository_is_said_and_goes_from_the_index(world: World, index: Index) -> None:
    keys = put_three(world)
    sync(world.repository, index, Silent())
    del world.storage.objects[str(keys[1])]
    listener = Listener()
    assert sync(world.repository, index, listener) == Outcome(vanished=[str(keys[1])])
    assert listener.warnings == [f"{keys[1]}: gone from the repository since it was read; was it meant to be?"]
    check(world, index)


def test_what_was_altered_is_said_and_taken_in_anew(world: World, index: Index) -> None:
    keys = put_three(world)
    sync(world.repository, index, Silent())
    world.put_manifest([file_entry(b"other")], key=keys[1])
    listener = Listener()
    outcome = sync(world.repository, index, listener)
    assert outcome == Outcome(taken=[str(keys[1])], altered=[str(keys[1])])
    assert listener.warnings == [f"{keys[1]}: ALTERED in the repository since it was read; a snapshot never changes"]
    check(world, index)


def test_what_cannot_be_opened_is_tried_again_until_it_can(world: World, index: Index) -> None:
    key = put_three(world)[1]
    right = world.storage.objects[str(key)]
    put_foreign(world, key)
    assert list(sync(world.repository, index, Silent()).failed) == [str(key)]
    assert list(sync(world.repository, index, Silent()).failed) == [str(key)]
    world.storage.objects[str(key)] = right
    assert sync(world.repository, index, Silent()).taken == [str(key)]
    check(world, index)


def test_one_that_cannot_be_opened_does_not_hold_up_the_others(world: World, index: Index) -> None:
    keys = put_three(world)
    put_broken(world, keys[0])
    listener = Listener()
    assert sync(world.repository, index, listener).taken == [str(key) for key in keys[1:]]
    assert ["is left out of the index" in warning for warning in listener.warnings] == [True]
    check(world, index)


def test_when_no_passphrase_opens_anything_it_is_an_error(world: World, index: Index) -> None:
    for key in put_three(world):
        put_foreign(world, key)
    with pytest.raises(PassphraseNotFoundError, match="none of its snapshots can be opened") as caught:
        sync(world.repository, index, Silent())
    assert caught.value.hint
    check(world, index)


def test_that_all_are_broken_is_no_matter_of_passphrases(world: World, index: Index) -> None:
    put_broken(world, manifest_key("2024-01-01", 0))
    assert len(sync(world.repository, index, Silent()).failed) == 1


def test_what_is_plain_is_refused(world: World, index: Index) -> None:
    key = world.put_manifest([], encrypted=False)
    assert "not encrypted" in sync(world.repository, index, Silent()).failed[str(key)]


def test_a_repository_without_snapshots_has_nothing_to_take_in(world: World, index: Index) -> None:
    assert sync(world.repository, index, Silent()) == Outcome()


def test_what_is_no_repository_is_said(world: World, index: Index) -> None:
    del world.storage.objects[layout.RECIPIENTS]
    with pytest.raises(RepositoryNotFoundError):
        sync(world.repository, index, Silent())


def test_what_goes_away_between_listing_and_reading_is_passed_over(world: World, index: Index) -> None:
    keys = put_three(world)

    def strike(_key: str) -> None:
        world.storage.objects.pop(str(keys[1]), None)

    world.storage.before_read = strike
    assert sync(world.repository, index, Silent()).taken == [str(keys[0]), str(keys[2])]
    check(world, index)


def test_sources_of_all_jobs_are_taken_in(world: World, index: Index) -> None:
    world.put_manifest([file_entry(b"a")], key=manifest_key("2024-01-01", 1, job="home", label="docs"))
    world.put_manifest([file_entry(b"b")], key=manifest_key("2024-01-01", 1, job="home", label="docs/x"))
    world.put_manifest([file_entry(b"c")], key=manifest_key("2024-01-01", 1, job="work", label="docs"))
    sync(world.repository, index, Silent())
    check(world, index)


# --- ended early


class Ending(Silent):
    """A `Progress` that is interrupted when so many snapshots are done."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        self._left -= files
        if self._left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 4, 8])
def test_an_interruption_leaves_a_sound_index_and_no_thread(world: World, index: Index, after: int) -> None:
    for second in range(8):
        world.put_manifest([file_entry(b"%d" % second)], key=manifest_key("2024-01-01", second))
    with pytest.raises(KeyboardInterrupt) as caught:
        sync(world.repository, index, Ending(after))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("open")], caught
    assert len(index.snapshots()) == after


def test_after_an_interruption_the_rest_is_taken_in(world: World, index: Index) -> None:
    put_three(world)
    with pytest.raises(KeyboardInterrupt):
        sync(world.repository, index, Ending(1))
    reopened = world.reopen()
    world.storage._is_stopped = False  # the storage of the next run is another one, with the same objects
    assert len(sync(reopened, index, Silent()).taken) == 2
    check(world, index)
