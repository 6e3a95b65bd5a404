"""What a snapshot says, and when a file is trusted without being read."""

import os
import shutil
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from s3bu.compare import CHANGED, NEW, REMOVED, UNMODIFIED
from s3bu.errors import JobError, RecipientsChangedError
from s3bu.filters import Filters
from s3bu.job import Job
from s3bu.manifest import DIRECTORY, SPECIAL, format_entry
from s3bu.progress import Silent
from s3bu.repository import layout
from s3bu.scan.source import SourceMissingError
from s3bu.storage.memory import StoredObject
from s3bu.sync import sync
from tests.fakes import OLD, World, another_recipient, file_entry, hash_of, key_of, without_override
from tests.test_backup.runs import TEXT, back_up, counts, files, run, set_created


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


def test_a_new_mode_is_a_change_for_which_nothing_is_sent(world: World) -> None:
    path = world.write("file", TEXT)
    back_up(world)
    path.chmod(0o600)
    outcome = back_up(world)
    assert (counts(outcome), outcome.failures, outcome.nbytes_sent) == ({CHANGED: 1}, [], 0)
    assert files(world.newest())[b"file"].mode == 0o600


def test_without_an_index_a_new_mode_needs_no_reading(world: World) -> None:
    path = world.write("file", TEXT)
    back_up(world)
    path.chmod(0)
    with without_override():
        outcome = back_up(world, home="another machine")
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
    outcome = back_up(world, excluded={(status.st_dev, status.st_ino): "the repository itself"})
    assert (outcome.left.special, outcome.left.excluded) == ({"FIFO": 1}, [(b"repository", "the repository itself")])
    assert [(entry.path, entry.kind, entry.target) for entry in world.newest().entries] == [(b"fifo", SPECIAL, b"fifo")]


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


@pytest.mark.parametrize(("seconds", "status"), [(3, UNMODIFIED), (2, CHANGED), (1, CHANGED), (0, CHANGED)])
def test_a_file_written_within_two_seconds_of_the_last_scan_is_read_again(
    world: World, seconds: int, status: str
) -> None:
    created = int(time.time()) - 1000
    world.write("file", b"second", mtime=created - seconds)
    world.put_content(b"first!")
    entry = file_entry(b"file", b"first!", mtime=created - seconds)
    world.put_manifest([entry], created=datetime.fromtimestamp(created, UTC))
    assert counts(back_up(world)) == {status: 1}


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
    assert counts(back_up(world, home="another machine")) == {UNMODIFIED: 1}
    assert counts(back_up(world, home="another machine", rehash=True)) == {CHANGED: 1}


def test_a_file_of_the_same_size_and_time_is_known_to_be_another_by_its_ctime(world: World) -> None:
    path = world.write("file", b"first!")
    back_up(world)
    path.write_bytes(b"second")
    os.utime(path, (OLD, OLD))
    assert counts(back_up(world)) == {CHANGED: 1}


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
    outcome = back_up(world, is_full=True)
    assert (outcome.published, counts(outcome), world.hashes()) == (None, {UNMODIFIED: 1}, {hash_of(TEXT)})


def test_a_content_cut_to_nothing_in_the_repository_is_put_again(world: World) -> None:
    world.write("file", TEXT)
    back_up(world)
    stored = world.storage.objects[key_of(TEXT)]
    world.storage.objects[key_of(TEXT)] = StoredObject(stored.body[:100], stored.metadata)
    back_up(world, is_full=True)
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


def test_what_another_machine_stored_is_no_failure_after_the_index_took_in_its_snapshot(world: World) -> None:
    world.write("a", b"one")
    back_up(world)
    back_up(world, home="elsewhere")
    world.write("a", b"two", mtime=OLD + 1)
    back_up(world, home="elsewhere")
    with closing(world.index()) as index:
        sync(world.reopen(), index, Silent())
    outcome = back_up(world)
    assert (outcome.failures, outcome.published) == ([], None)
