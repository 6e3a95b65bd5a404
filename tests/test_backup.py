"""One run: what it publishes, what it carries forward, and when it would rather publish nothing."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3bu.backup import DeletionsRefusedError, Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.compare import CARRIED, CHANGED, NEW, REMOVED, UNMODIFIED
from s3bu.errors import AccessDenied, JobError, RecipientsChangedError, StorageError, StorageStopped
from s3bu.filters import Filters
from s3bu.job import Job
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, Entry, FailedPath, format_entry
from s3bu.progress import Failure
from s3bu.repository import Snapshot, layout
from s3bu.scan import SourceMissingError
from s3bu.storage.memory import StoredObject
from tests.fakes import (
    OLD,
    Listener,
    World,
    another_recipient,
    file_entry,
    hash_of,
    key_of,
    manifest_key,
    refuse,
    without_override,
)

TEXT = b"some text"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path, monkeypatch)


def run(
    world: World,
    *,
    host: str = "here",
    job: Job | None = None,
    on_phase: Callable[[str], object] = lambda name: None,
    rehash: bool = False,
    accepts_deletions: bool = False,
    compress: bool = False,
    excluded: frozenset[tuple[int, int]] = frozenset(),
) -> tuple[list[Outcome], Listener]:
    """Back up as another run of the program would, and hold all that is stored to its names."""
    listener, job = Listener(on_phase), job or world.job()
    options = Options(host, compress, rehash, accepts_deletions, excluded)
    outcomes = run_backup(world.reopen(), job, job.sources, options, listener)
    world.check_contents()
    assert [failure for outcome in outcomes for failure in outcome.failures] == listener.failures
    return outcomes, listener


def back_up(world: World, **options: object) -> Outcome:
    (outcome,), _ = run(world, **options)  # type: ignore[arg-type]
    assert outcome.error is None
    paths = [failure.path for failure in outcome.failures]
    assert len(paths) == len(set(paths))
    return outcome


def counts(outcome: Outcome) -> dict[str, int]:
    return {status: number for status, number in outcome.counts.items() if number}


def files(snapshot: Snapshot) -> dict[bytes, Entry]:
    return {entry.path: entry for entry in snapshot.entries if entry.kind == FILE}


def set_created(world: World, ago: timedelta, entries: Iterable[Entry]) -> None:
    world.put_manifest(entries, created=datetime.fromtimestamp(int(time.time()), UTC) - ago)


def numbered(count: int) -> list[Entry]:
    return [file_entry(b"%03d" % number, b"%d" % number) for number in range(count)]


def plant(world: World, entries: Iterable[Entry]) -> None:
    """Write files that a manifest of `numbered` entries describes, and store their contents."""
    for entry in entries:
        content = b"%d" % int(entry.path)
        world.write(os.fsdecode(entry.path), content)
        world.put_content(content)


# --- what a snapshot says


def test_a_first_snapshot_holds_all_that_is_there(world: World) -> None:
    world.write("a/file", TEXT, mode=0o640)
    (world.source / "link").symlink_to("a")
    before = datetime.fromtimestamp(int(time.time()), UTC)
    outcome = back_up(world)
    snapshot = world.newest()
    assert [(entry.path, entry.kind) for entry in snapshot.entries] == [
        (b"a", "dir"),
        (b"a/file", "file"),
        (b"link", "symlink"),
    ]
    assert files(snapshot) == {b"a/file": file_entry(b"a/file", TEXT, mode=0o640)}
    header = snapshot.header
    assert header is not None
    assert (header.key, header.job, header.label) == (str(outcome.published), "home", "docs")
    assert (header.host, header.parent) == ("here", "")
    assert before <= header.created <= datetime.now(UTC)
    assert (counts(outcome), outcome.nfiles, outcome.nbytes) == ({NEW: 3}, 1, len(TEXT))
    world.check_newest()


def test_an_empty_source_has_a_snapshot(world: World) -> None:
    assert back_up(world).published
    assert world.newest().entries == []


def test_a_manifest_is_put_last(world: World) -> None:
    for number in range(50):
        world.write(f"{number}", b"%d" % number)
    outcome = back_up(world)
    assert world.storage.puts[-1] == str(outcome.published)
    assert len(world.storage.puts) == 52  # the contents, the manifest, and the probe


def test_without_a_change_nothing_is_put(world: World) -> None:
    world.write("a/file", TEXT)
    back_up(world)
    before = dict(world.storage.objects)
    outcome = back_up(world)
    assert (outcome.published, counts(outcome), outcome.nbytes_sent) == (None, {UNMODIFIED: 2}, 0)
    assert world.storage.objects == before


def test_lines_of_what_is_unmodified_are_the_same_bytes(world: World) -> None:
    for name in ("a/one", "a/two", "b,c %2F\n", "zero"):
        world.write(name, name.encode(), mtime=0 if name == "zero" else OLD + 0.75)
    (world.source / "link").symlink_to("x")
    first = back_up(world)
    world.write("new", b"new")
    second = back_up(world)
    assert first.published
    assert second.published
    before, after = world.manifest_lines(first.published), world.manifest_lines(second.published)
    assert [line for line in after if line in before] == before
    assert len(after) == len(before) + 1


def test_each_snapshot_names_its_parent(world: World) -> None:
    first = back_up(world)
    world.write("new")
    back_up(world)
    header = world.newest().header
    assert header is not None
    assert header.parent == str(first.published)


def test_changes_of_every_kind_are_told(world: World) -> None:
    for name in ("kept", "rewritten", "removed", "moded", "becomes a directory", "was/inner"):
        world.write(name, name.encode())
    back_up(world)
    world.write("rewritten", b"again", mtime=OLD + 5)
    (world.source / "removed").unlink()
    (world.source / "moded").chmod(0o600)
    (world.source / "becomes a directory").unlink()
    (world.source / "becomes a directory").mkdir()
    shutil.rmtree(world.source / "was")
    world.write("was", b"a file now")
    outcome = back_up(world)
    assert counts(outcome) == {UNMODIFIED: 1, CHANGED: 4, REMOVED: 2}
    assert set(files(world.newest())) == {b"kept", b"rewritten", b"moded", b"was"}
    world.check_newest()


def test_a_new_mode_needs_no_reading(world: World) -> None:
    path = world.write("file", TEXT)
    back_up(world)
    path.chmod(0)
    with without_override():
        outcome = back_up(world)
    assert (counts(outcome), outcome.failures) == ({CHANGED: 1}, [])
    assert files(world.newest())[b"file"].mode == 0


def test_sources_share_contents_and_one_that_is_missing_leaves_the_others_alone(world: World) -> None:
    world.write("file", TEXT)
    job = world.job(labels=("a", "b", "c"))
    missing = job.sources[1].__class__("b", os.fsencode(world.root / "nowhere"))
    job = Job("home", (job.sources[0], missing, job.sources[2]), Filters(), ())
    outcomes, _ = run(world, job=job)
    assert [outcome.published is not None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, SourceMissingError)
    assert world.storage.puts.count(key_of(TEXT)) == 1
    assert world.manifest_keys("b") == []


def test_a_missing_source_takes_nothing_from_the_last_snapshot(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    shutil.rmtree(world.source)
    (outcome,), _ = run(world)
    assert (outcome.published, len(world.manifest_keys())) == (None, 1)


def test_a_source_that_would_be_skipped_whole_is_an_error_of_its_own(world: World) -> None:
    world.write(".nobackup")
    (outcome,), _ = run(world, job=world.job(Filters(skip_dir_items=(b".nobackup",))))
    assert isinstance(outcome.error, JobError)
    assert world.manifest_keys() == []


def test_what_is_left_out_is_told(world: World) -> None:
    os.mkfifo(world.source / "fifo", 0o600)
    world.write("repository/data/x")
    status = (world.source / "repository").stat()
    outcome = back_up(world, excluded=frozenset({(status.st_dev, status.st_ino)}))
    assert (outcome.left.special, outcome.left.excluded) == ({"FIFO": 1}, [b"repository"])
    assert [(entry.path, entry.kind, entry.target) for entry in world.newest().entries] == [(b"fifo", SPECIAL, b"fifo")]


# --- when a file is trusted


def test_a_snapshot_without_changes_is_made_once_a_week(world: World) -> None:
    world.put_content(TEXT)
    world.write("file", TEXT)
    set_created(world, timedelta(days=7, seconds=-60), [file_entry(b"file", TEXT)])
    assert back_up(world).published is None
    set_created(world, timedelta(days=7), [file_entry(b"file", TEXT)])
    assert back_up(world).published


def test_a_second_write_within_the_clocks_tick_is_seen(world: World) -> None:
    now = time.time()
    path = world.write("file", b"first!", mtime=now)
    back_up(world)
    path.write_bytes(b"second")
    os.utime(path, (now, now))
    assert counts(back_up(world)) == {CHANGED: 1}
    assert files(world.newest())[b"file"].hash == hash_of(b"second")


def test_a_time_in_the_future_is_never_trusted(world: World) -> None:
    later = time.time() + 100_000
    path = world.write("file", b"first!", mtime=later)
    back_up(world)
    path.write_bytes(b"second")
    os.utime(path, (later, later))
    assert counts(back_up(world)) == {CHANGED: 1}


def test_rehash_reads_what_looks_unmodified(world: World) -> None:
    path = world.write("file", b"first!")
    back_up(world)
    path.write_bytes(b"second")
    os.utime(path, (OLD, OLD))
    assert counts(back_up(world)) == {UNMODIFIED: 1}
    assert counts(back_up(world, rehash=True)) == {CHANGED: 1}


@pytest.mark.parametrize("mtime", [0, 0.5])
def test_a_file_of_1970_is_read_each_time_and_makes_no_snapshot(world: World, mtime: float) -> None:
    path = world.write("file", b"first!", mtime=mtime)
    back_up(world)
    assert back_up(world).published is None
    path.write_bytes(b"second")
    os.utime(path, (mtime, mtime))
    assert counts(back_up(world)) == {CHANGED: 1}


def test_a_content_that_vanished_from_the_repository_is_put_again(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    del world.storage.objects[key_of(TEXT)]
    outcome = back_up(world)
    assert (outcome.published, counts(outcome), world.hashes()) == (None, {UNMODIFIED: 1}, {hash_of(TEXT)})


def test_a_content_cut_to_nothing_in_the_repository_is_put_again(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    stored = world.storage.objects[key_of(TEXT)]
    world.storage.objects[key_of(TEXT)] = StoredObject(stored.body[:100], stored.metadata)
    back_up(world)
    assert world.hashes() == {hash_of(TEXT)}
    assert len(world.storage.objects[key_of(TEXT)].body) > 200


def test_a_snapshot_of_the_original_is_a_parent_like_any_other(world: World) -> None:
    world.write("known", TEXT)
    world.write("unread", b"unread")
    world.put_content(TEXT)
    unread = b"6,%d,0644,,unread\n" % OLD
    parent = world.put_original_manifest(format_entry(file_entry(b"known", TEXT)) + unread)
    outcome = back_up(world)
    assert (counts(outcome), world.storage.puts.count(key_of(TEXT))) == ({UNMODIFIED: 1, CHANGED: 1}, 0)
    snapshot = world.newest()
    assert snapshot.header is not None
    assert snapshot.header.parent == str(parent)
    world.check_newest()


# --- failures


def shut(world: World, *names: str) -> None:
    for name in names:
        (world.source / name).chmod(0)


def test_a_file_that_cannot_be_read_keeps_its_last_good_entry_with_a_time_of_zero(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    world.write("file", b"new and unreadable", mtime=OLD + 5)
    shut(world, "file")
    with without_override():
        outcome = back_up(world)
    assert outcome.failures == [Failure(b"file", "permission denied")]
    snapshot = world.newest()
    assert files(snapshot)[b"file"] == file_entry(b"file", TEXT, mtime=0)
    assert [(failed.path, failed.error) for failed in snapshot.failed] == [(b"file", "permission denied")]
    assert not [line for line in world.manifest_lines(snapshot.key) if line.startswith(b"@meta")]
    world.check_newest()


def test_a_new_file_that_cannot_be_read_has_no_entry(world: World) -> None:
    world.write("shut", b"secret")
    world.write("open", b"open")
    shut(world, "shut")
    with without_override():
        outcome = back_up(world)
    assert (list(files(world.newest())), outcome.nfiles) == ([b"open"], 1)
    assert [failed.path for failed in world.newest().failed] == [b"shut"]


def test_a_failure_that_repeats_is_no_change_and_says_since_when(world: World) -> None:
    since = "2026-01-01T00:00:00+00:00"
    world.put_content(TEXT)
    world.write("file", b"new and unreadable")
    shut(world, "file")
    entry = file_entry(b"file", TEXT, mtime=0)
    world.put_manifest([entry], failed=[FailedPath(b"file", "permission denied", since)])
    with without_override():
        outcome = back_up(world)
        assert (outcome.published, len(outcome.failures)) == (None, 1)
        world.write("new")
        assert back_up(world).published
    snapshot = world.newest()
    assert [failed.since for failed in snapshot.failed] == [since]
    assert files(snapshot)[b"file"] == entry


def test_a_failure_that_ends_makes_a_snapshot(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    world.write("file", b"new", mtime=OLD + 5, mode=0)
    with without_override():
        back_up(world)
    (world.source / "file").chmod(0o644)
    outcome = back_up(world)
    assert (counts(outcome), world.newest().failed) == ({CHANGED: 1}, [])
    assert files(world.newest())[b"file"] == file_entry(b"file", b"new", OLD + 5)


def test_below_a_directory_that_cannot_be_listed_all_is_carried_forward(world: World) -> None:
    for name in ("d/a", "d/deep/b", "d b", "other"):
        world.write(name, name.encode())
    (world.source / "d" / "link").symlink_to("x")
    back_up(world)
    before = {entry.path: entry for entry in world.newest().entries}
    shut(world, "d")
    with without_override():
        outcome = back_up(world)
        assert counts(outcome) == {CARRIED: 5, UNMODIFIED: 2}
        assert back_up(world).published is None
    after = {entry.path: entry for entry in world.newest().entries}
    assert after.keys() == before.keys()
    for path, entry in after.items():
        is_carried_file = path.startswith(b"d/") and entry.kind == FILE
        assert entry == (before[path]._replace(mtime_ns=0) if is_carried_file else before[path])
    assert outcome.failures == [Failure(b"d", "permission denied")]


def test_what_cannot_be_looked_at_and_is_not_stored_any_more_is_one_failure_without_an_entry(world: World) -> None:
    for name in ("d/gone", "d/kept"):
        world.write(name, name.encode())
    back_up(world)
    del world.storage.objects[key_of(b"d/gone")]
    (world.source / "d").chmod(0o400)
    with without_override():
        outcome = back_up(world)
    assert [failure.path for failure in outcome.failures] == [b"d/gone", b"d/kept"]
    assert set(files(world.newest())) == {b"d/kept"}
    world.check_newest()


def test_an_upload_that_fails_fails_every_entry_that_relied_on_it(world: World) -> None:
    world.write("old", b"old")
    back_up(world)
    for name in ("old", "new", "another"):
        world.write(name, b"unlucky", mtime=OLD + 5)
    world.write("lucky", b"lucky")
    world.storage.before_send = refuse([key_of(b"unlucky")])
    outcome = back_up(world)
    assert sorted(failure.path for failure in outcome.failures) == [b"another", b"new", b"old"]
    assert {failure.error for failure in outcome.failures} == {f"{key_of(b'unlucky')}: the server is unwell"}
    found = files(world.newest())
    assert found == {b"lucky": file_entry(b"lucky", b"lucky"), b"old": file_entry(b"old", b"old", mtime=0)}
    world.check_newest()


def test_the_next_clean_run_makes_good_what_failed(world: World) -> None:
    world.write("file", TEXT)
    world.storage.before_send = refuse([key_of(TEXT)])
    assert len(back_up(world).failures) == 1
    world.storage.before_send = lambda key: None
    assert counts(back_up(world)) == {NEW: 1}
    assert world.newest().failed == []


@pytest.mark.parametrize("kind", [AccessDenied, StorageStopped])
def test_what_no_file_can_escape_ends_the_run_without_a_manifest(world: World, kind: type[StorageError]) -> None:
    world.write("file", TEXT)
    world.storage.before_send = refuse([key_of(TEXT)], kind)
    with pytest.raises(kind):
        run(world)
    assert not [key for key in world.storage.objects if key.endswith(".csv.gz")]


def deepen(world: World) -> bytes:
    """Make directories of which the last has too long a path for a manifest, and return its path."""
    name, parent = b"\x01" * 250, os.open(world.source, os.O_RDONLY)
    for _ in range(80):
        os.mkdir(name, dir_fd=parent)
        child = os.open(name, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = child
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=parent))
    os.close(parent)
    return b"/".join([name] * 80)


def test_a_name_too_long_for_a_manifest_is_a_failure_and_only_once_news(world: World) -> None:
    longest = deepen(world)
    outcome = back_up(world)
    reason = "its name is too long for a manifest"
    assert {failure.error for failure in outcome.failures} == {reason}
    assert Failure(longest + b"/file", reason) in outcome.failures
    since = {failed.since for failed in world.newest().failed}
    assert back_up(world).published is None
    world.write("new")
    back_up(world)
    assert {failed.since for failed in world.newest().failed} == since


def test_a_hostile_parent_is_carried_forward_or_dropped_but_never_trips_the_run(world: World) -> None:
    world.put_content(TEXT)
    world.write("d/file", TEXT)
    shut(world, "d")
    odd = [b"d/../../x", b"d//x", b"d/\x01\n", b"d/" + b"\x01" * 20_500]
    lines = b"".join(b"9,1,0644,%b,%b\n" % (hash_of(TEXT).encode(), quote(path)) for path in (*odd, b"/abs", b".."))
    world.put_original_manifest(lines)
    with without_override():
        outcome = back_up(world)
    assert set(files(world.newest())) == set(odd[:3])
    assert [failure.path for failure in outcome.failures] == [b"d", odd[3]]


def quote(path: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in path)


# --- files that go in mid-run


def when_storing(action: Callable[[], object]) -> Callable[[str], object]:
    return lambda phase: action() if phase == "storing" else None


def test_a_file_that_goes_between_scan_and_read_is_gone_and_no_failure(world: World) -> None:
    world.write("was", b"was")
    world.write("kept", b"kept")
    back_up(world)
    world.write("was", b"was written again", mtime=OLD + 5)
    world.write("new", b"new")

    def remove() -> None:
        (world.source / "was").unlink()
        (world.source / "new").unlink()

    outcome = back_up(world, on_phase=when_storing(remove))
    assert (counts(outcome), outcome.failures) == ({UNMODIFIED: 1, REMOVED: 1}, [])
    assert set(files(world.newest())) == {b"kept"}


def test_a_disk_unmounted_between_scan_and_read_removes_nothing(world: World) -> None:
    entries = numbered(120)
    plant(world, entries)
    world.put_manifest(entries)

    def unmount() -> None:
        world.source.rename(world.root / "disk")
        world.source.mkdir()

    (outcome,), _ = run(world, rehash=True, on_phase=when_storing(unmount))
    assert isinstance(outcome.error, DeletionsRefusedError)
    assert len(world.manifest_keys()) == 1


def test_a_source_that_goes_between_scan_and_read_is_missing(world: World) -> None:
    world.write("file", TEXT)
    (outcome,), _ = run(world, on_phase=when_storing(lambda: shutil.rmtree(world.source)))
    assert isinstance(outcome.error, SourceMissingError)
    assert world.manifest_keys() == []


# --- the guard against an unmounted disk


@pytest.mark.parametrize(
    ("total", "kept", "is_refused"),
    [(100, 49, True), (100, 50, False), (99, 0, False), (100, 0, True), (101, 50, True)],
)
def test_a_snapshot_from_which_more_than_half_vanished_is_refused(
    world: World, total: int, kept: int, is_refused: bool
) -> None:
    entries = numbered(total)
    plant(world, entries[:kept])
    world.put_manifest(entries)
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError) == is_refused
    assert len(world.manifest_keys()) == (1 if is_refused else 2)


def test_deletions_that_are_meant_are_accepted(world: World) -> None:
    world.put_manifest(numbered(100))
    assert counts(back_up(world, accepts_deletions=True)) == {REMOVED: 100}


def test_what_failed_has_not_vanished(world: World) -> None:
    entries = [entry._replace(path=b"d/" + entry.path) for entry in numbered(100)]
    for number in range(100):
        world.put_content(b"%d" % number)
    (world.source / "d").mkdir(mode=0)
    world.put_manifest(entries)
    with without_override():
        assert counts(back_up(world)) == {CARRIED: 100}


def put_two_machines(world: World, own: list[Entry]) -> None:
    """Let this machine have made a snapshot, and another one, with a tree of its own, the newest of the label."""
    world.put_manifest(own, key=manifest_key("2024-01-01", 1), host="here")
    world.put_manifest(numbered(200)[100:], key=manifest_key("2024-01-02", 1), host="there")


def test_two_machines_under_one_label_compare_with_their_own_last(world: World) -> None:
    own = numbered(100)
    plant(world, own)
    put_two_machines(world, own)
    assert counts(back_up(world)) == {NEW: 100, REMOVED: 100}


def test_a_machine_whose_own_files_vanished_is_refused_beside_another(world: World) -> None:
    put_two_machines(world, numbered(100))
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError)


def test_a_machine_that_never_made_a_snapshot_may_not_empty_anothers(world: World) -> None:
    world.put_manifest(numbered(100), host="there")
    (outcome,), _ = run(world)
    assert isinstance(outcome.error, DeletionsRefusedError)


def test_a_broken_snapshot_on_the_way_back_to_ones_own_is_passed_over(world: World) -> None:
    own = numbered(100)
    plant(world, own)
    put_two_machines(world, own)
    world.put_private(str(manifest_key("2024-01-01", 2)), b"rubbish\n")
    moved = str(manifest_key("2024-01-01", 3))
    world.storage.objects[moved] = world.storage.objects[str(manifest_key("2024-01-01", 1))]
    assert back_up(world).published


# --- parents


def test_a_broken_parent_is_told_and_the_one_before_is_compared_with(world: World) -> None:
    world.write("file", TEXT)
    world.put_content(TEXT)
    good = world.put_manifest([file_entry(b"file", TEXT)])
    broken = manifest_key("2024-01-02", 1)
    world.put_private(str(broken), b"#s3bu 1 rubbish\n")
    world.write("new")
    (outcome,), listener = run(world)
    assert counts(outcome) == {UNMODIFIED: 1, NEW: 1}
    assert [str(broken) in warning for warning in listener.warnings] == [True]
    snapshot = world.newest()
    assert snapshot.header is not None
    assert snapshot.header.parent == str(good)


@pytest.mark.parametrize("how", ["moved", "plain", "truncated", "not age"])
def test_a_parent_that_cannot_be_trusted_is_passed_over(world: World, how: str) -> None:
    world.write("file", TEXT)
    key = manifest_key("2024-01-02", 1)
    source = world.put_manifest([file_entry(b"file", TEXT)], encrypted=how != "plain")
    body = world.storage.objects.pop(str(source)).body
    world.storage.put(str(key), {"truncated": body[:-30], "not age": b"rubbish"}.get(how, body), {})
    if how == "plain":
        world.storage.objects.pop(str(key))
        world.put_manifest([file_entry(b"file", TEXT)], key=key, encrypted=False)
    (outcome,), listener = run(world)
    assert (counts(outcome), len(listener.warnings)) == ({NEW: 1}, 1)
    snapshot = world.newest()
    assert snapshot.key > key
    assert snapshot.header is not None
    assert snapshot.header.parent == ""


# --- keys


def test_a_clock_set_back_adds_one_to_the_newest_key(world: World) -> None:
    world.put_manifest([], key=manifest_key("2999-12-31", 99_999))
    world.write("new")
    assert back_up(world).published == manifest_key("3000-01-01", 0)


def test_another_machine_that_takes_the_key_in_the_same_second_makes_no_loss(world: World) -> None:
    world.write("file", TEXT)

    def strike(key: str) -> None:
        if key.endswith(".csv.gz"):
            world.storage.before_send = lambda key: None
            assert back_up(world, host="there").published

    world.storage.before_send = strike
    mine = back_up(world).published
    theirs, newest = world.manifest_keys()
    assert mine == newest
    hosts = [
        snapshot.header.host for key in (theirs, newest) if (snapshot := world.repository.read_snapshot(key)).header
    ]
    assert hosts == ["there", "here"]


def test_a_key_that_is_taken_again_and_again_is_an_error(world: World) -> None:
    def strike(key: str) -> None:
        if key.endswith(".csv.gz"):
            world.storage.objects[key] = world.storage.objects[layout.RECIPIENTS]

    world.storage.before_send = strike
    with pytest.raises(StorageError, match="other runs keep taking"):
        run(world)


# --- what concerns the whole run


def test_changed_recipients_end_the_run_before_anything_is_written(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    world.write("new", b"new")
    world.storage.put(layout.RECIPIENTS, f"{another_recipient().text}\n".encode(), {})
    before = dict(world.storage.objects)
    with pytest.raises(RecipientsChangedError):
        run(world)
    assert world.storage.objects == before


def test_a_directory_that_changed_only_in_time_makes_no_snapshot(world: World) -> None:
    world.write("d/file", TEXT)
    back_up(world)
    world.write("d/passing").unlink()
    assert back_up(world).published is None


def test_a_directory_that_changed_its_mode_makes_one(world: World) -> None:
    world.write("d/file", TEXT)
    back_up(world)
    (world.source / "d").chmod(0o700)
    assert counts(back_up(world)) == {CHANGED: 1, UNMODIFIED: 1}
    assert [entry.mode for entry in world.newest().entries if entry.kind == DIRECTORY] == [0o700]
