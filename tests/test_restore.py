"""A restore: everything that can come back does, verified, and what cannot is named and harms nothing."""

import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3bu.crypto import encrypt
from s3bu.errors import (
    AccessDenied,
    IntegrityError,
    KeyringError,
    NoIdentityError,
    ObjectNotFound,
    S3buError,
    StorageError,
    UsageError,
)
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath
from s3bu.progress import Failure
from s3bu.repository import Snapshot
from s3bu.restore import Outcome, Plan, check, plan_restore
from s3bu.restore import run as run_restore
from s3bu.restore.download import download
from s3bu.restore.target import Target, TargetFull
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from tests.fakes import (
    OLD,
    PACKED,
    SECOND,
    Listener,
    World,
    another_recipient,
    file_entry,
    hash_of,
    key_of,
    manifest_key,
    refuse,
    write,
)

TEXT = b"some text"
LARGE = bytes(PART_BOUND) + b"!"
HOSTILE = (b"/etc/x", b"../x", b"a/../../x", b"", b"a//x", b"a/./x", b"a/", b"a\0x", b"..", b"/")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World.make(tmp_path, monkeypatch)


def snapshot(entries: Iterable[Entry], failed: Iterable[FailedPath] = ()) -> Snapshot:
    return Snapshot(manifest_key("2026-01-01", 1), datetime(2026, 1, 1, tzinfo=UTC), None, [*entries], [*failed], ())


def plan(*entries: Entry, pattern: bytes | None = None) -> Plan:
    return plan_restore(snapshot(entries), re.compile(pattern) if pattern is not None else None)


def target_of(world: World, *, overwrite: bool = False, mask: int = 0o777) -> Target:
    return Target(os.fsencode(world.root / "target"), is_filled_fine=True, overwrites=overwrite, mode_mask=mask)


def restore(world: World, *entries: Entry, pattern: bytes | None = None, overwrite: bool = False) -> Outcome:
    listener = Listener()
    with target_of(world, overwrite=overwrite) as target:
        outcome = run_restore(world.reopen(), plan(*entries, pattern=pattern), target, listener)
    assert outcome.failures == listener.failures
    assert not [path for path in (world.root / "target").rglob("*") if path.name.startswith(".s3bu-")]
    return outcome


def stored(world: World, path: bytes, content: bytes = TEXT, mode: int = 0o644) -> Entry:
    world.put_content(content)
    return file_entry(path, content, mode=mode)


def directory(path: bytes, mode: int = 0o755) -> Entry:
    return Entry(path, DIRECTORY, 0, OLD * SECOND, mode)


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, SYMLINK, 0, OLD * SECOND, 0, target=target)


def tree(world: World) -> dict[str, bytes]:
    """Return what was restored: each file's content, each link's target, and `/` for a directory."""
    root = world.root / "target"
    found = {}
    for path in root.rglob("*"):
        is_link, is_directory = path.is_symlink(), path.is_dir()
        content = os.fsencode(path.readlink()) if is_link else b"/" if is_directory else path.read_bytes()
        found[str(path.relative_to(root))] = content
    return found


def mode_of(world: World, name: str) -> int:
    return stat.S_IMODE((world.root / "target" / name).stat().st_mode)


# --- the plan


def test_a_plan_says_what_comes_back() -> None:
    fifo = Entry(b"fifo", SPECIAL, 0, 0, 0o644, target=b"fifo")
    entries = [directory(b"d"), file_entry(b"d/f", TEXT), fifo, link(b"l", b"x")]
    assert plan(*entries) == Plan([entries[0]], [entries[1]], [entries[3]], [fifo], [])
    assert plan(*entries).nbytes == len(TEXT)


@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK])
@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_leads_outside_is_a_failure_and_nothing_else(path: bytes, kind: str) -> None:
    entry = Entry(path, kind, 0, 0, 0o644, hash_of(b"") if kind == FILE else "")
    found = plan(entry)
    assert (found.directories, found.files, found.links) == ([], [], [])
    assert [failure.path for failure in found.failures] == [path]


def test_a_file_that_was_never_backed_up_is_a_failure() -> None:
    found = plan(file_entry(b"x", TEXT)._replace(hash=""))
    assert [failure.path for failure in found.failures] == [b"x"]
    assert found.files == []


def test_what_failed_to_be_backed_up_is_told_whether_an_older_state_is_there_or_not() -> None:
    failed = [FailedPath(b"old", "permission denied", ""), FailedPath(b"new", "input/output error", "")]
    found = plan_restore(snapshot([file_entry(b"old", TEXT, mtime=0)], failed))
    assert [failure.error.split(",")[0] for failure in found.failures] == ["an older state", "not in the snapshot"]
    assert ["permission denied" in found.failures[0].error, "input/output" in found.failures[1].error] == [True, True]
    assert [entry.path for entry in found.files] == [b"old"]


def test_a_pattern_is_searched_in_the_path_and_takes_failures_along() -> None:
    failed = [FailedPath(b"letters/y", "no", ""), FailedPath(b"other", "no", "")]
    entries = [file_entry(b"letters/x", TEXT), file_entry(b"other/x", TEXT), file_entry(b"../letters/x", TEXT)]
    found = plan_restore(snapshot(entries, failed), re.compile(b"letters/"))
    assert [entry.path for entry in found.files] == [b"letters/x"]
    assert [failure.path for failure in found.failures] == [b"../letters/x", b"letters/y"]


# --- restoring


def test_files_directories_and_links_come_back(world: World) -> None:
    entries = [
        directory(b"d", 0o750),
        directory(b"d/empty", 0o500),
        stored(world, b"d/file", TEXT, 0o640),
        stored(world, b"d/large", LARGE),
        stored(world, b"nothing", b""),
        link(b"link", b"/nowhere"),
    ]
    outcome = restore(world, *entries)
    assert (outcome.nfiles, outcome.nlinks, outcome.ndirectories, outcome.failures) == (3, 1, 2, [])
    assert outcome.nbytes == len(TEXT) + len(LARGE)
    assert tree(world) == {
        "d": b"/",
        "d/empty": b"/",
        "d/file": TEXT,
        "d/large": LARGE,
        "nothing": b"",
        "link": b"/nowhere",
    }
    assert [mode_of(world, name) for name in ("d", "d/empty", "d/file")] == [0o750, 0o500, 0o640]
    for name in ("d", "d/empty", "d/file", "link"):
        assert (world.root / "target" / name).lstat().st_mtime_ns == OLD * SECOND


def test_a_content_that_many_files_share_is_fetched_once(world: World) -> None:
    reads: list[str] = []
    world.storage.before_read = reads.append
    for content in (TEXT, LARGE[:100]):
        entries = [stored(world, b"%d-%d" % (len(content), number), content) for number in range(50)]
        assert restore(world, *entries).nfiles == 50
    assert sorted(reads) == sorted([key_of(TEXT), key_of(LARGE[:100])])


def test_a_restore_that_was_killed_is_finished_by_running_it_again(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(20)]
    restore(world, *entries[:12])
    reads: list[str] = []
    world.storage.before_read = reads.append
    outcome = restore(world, *entries)
    assert (outcome.nfiles, outcome.nright, outcome.failures) == (8, 12, [])
    assert sorted(reads) == sorted(key_of(b"%d" % number) for number in range(12, 20))


def test_what_is_there_and_differs_stays_unless_it_may_be_overwritten(world: World) -> None:
    write(world.root / "target" / "file", b"mine")
    write(world.root / "target" / "link", b"mine")
    entries = [stored(world, b"file"), link(b"link", b"x"), stored(world, b"other", b"other")]
    outcome = restore(world, *entries)
    assert [failure.path for failure in outcome.failures] == [b"file", b"link"]
    assert tree(world) == {"file": b"mine", "link": b"mine", "other": b"other"}
    assert restore(world, *entries, overwrite=True).failures == []
    assert tree(world) == {"file": TEXT, "link": b"x", "other": b"other"}


def damage(world: World, how: str, content: bytes) -> None:
    key = key_of(content)
    body = world.storage.objects[key].body
    if how == "missing":
        del world.storage.objects[key]
    elif how == "archived":
        world.storage.archived.add(key)
    else:
        wrong = {"cut": body[:-1], "poisoned": encrypt(content[:-1] + b"?", world.recipients), "plain": content}
        world.storage.objects[key] = StoredObject(wrong[how], {})


@pytest.mark.parametrize("how", ["missing", "archived", "cut", "poisoned", "plain"])
@pytest.mark.parametrize("content", [TEXT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_content_that_cannot_come_back_leaves_what_was_there_and_the_rest_comes(
    world: World, how: str, content: bytes, overwrite: bool
) -> None:
    if overwrite:
        write(world.root / "target" / "bad", b"mine")
    entries = [stored(world, b"bad", content), stored(world, b"bad too", content), stored(world, b"good", b"good")]
    damage(world, how, content)
    outcome = restore(world, *entries, overwrite=overwrite)
    assert sorted(failure.path for failure in outcome.failures) == [b"bad", b"bad too"]
    assert tree(world) == {"good": b"good"} | ({"bad": b"mine"} if overwrite else {})


@pytest.mark.parametrize("nbytes", [0, 5, 10**6, 10**15])
def test_an_entry_that_lies_about_its_length_fails_alone(world: World, nbytes: int) -> None:
    entry = stored(world, b"right")
    outcome = restore(world, entry._replace(path=b"liar", nbytes=nbytes), entry)
    assert [failure.path for failure in outcome.failures] == [b"liar"]
    assert tree(world) == {"right": TEXT}


def test_a_file_for_another_identity_fails_alone(world: World) -> None:
    entries = [stored(world, name, name) for name in (b"a", b"lost", b"z")]
    world.storage.objects[key_of(b"lost")] = StoredObject(encrypt(b"lost", [another_recipient()]), {})
    outcome = restore(world, *entries)
    assert [failure.path for failure in outcome.failures] == [b"lost"]
    assert tree(world) == {"a": b"a", "z": b"z"}


def test_identities_that_open_nothing_end_the_run(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(3)]
    for entry in entries:
        body = encrypt(entry.path, [another_recipient()])
        world.storage.objects[key_of(entry.path)] = StoredObject(body, {})
    with pytest.raises(NoIdentityError):
        restore(world, *entries)
    assert tree(world) == {}


def test_without_identities_nothing_is_begun(world: World) -> None:
    entry = stored(world, b"file")
    (world.root / "keys" / "identities.txt").unlink()
    with pytest.raises(KeyringError):
        restore(world, entry)
    assert tree(world) == {}


def test_a_target_that_is_full_ends_the_run_with_a_hint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(100)]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TargetFull) as caught:
        restore(world, *entries)
    assert caught.value.hint
    assert tree(world) == {}


@pytest.mark.parametrize("kind", [AccessDenied])
def test_an_error_that_no_file_can_escape_ends_the_run(world: World, kind: type[StorageError]) -> None:
    entry = stored(world, b"file")
    world.storage.before_read = refuse([key_of(TEXT)], kind)
    with pytest.raises(kind):
        restore(world, entry)


# --- staying inside


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_hostile_snapshot_writes_nothing_outside(world: World, overwrite: bool) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    entries = [
        link(b"a", os.fsencode(outside)),
        stored(world, b"a/planted"),
        link(b"a/link", b"x"),
        directory(b"a/made"),
        link(b"b", b"a"),
        stored(world, b"b/planted"),
        link(b"c", b".."),
        link(b"c/outside/link", b"x"),
        *(stored(world, path) for path in HOSTILE),
    ]
    outcome = restore(world, *entries, overwrite=overwrite)
    assert outcome.failures
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in world.root.iterdir()) == [
        "home",
        "keys",
        "outside",
        "source",
        "state",
        "target",
    ]


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_that_were_planted_in_the_target_are_not_followed(world: World, overwrite: bool) -> None:
    outside = world.root / "outside"
    (outside / "d").mkdir(parents=True)
    (world.root / "target").mkdir()
    (world.root / "target" / "d").symlink_to(outside / "d")
    (world.root / "target" / "file").symlink_to(outside / "file")
    before = (outside / "d").stat()
    entries = [directory(b"d", 0o700), stored(world, b"d/file"), link(b"d/link", b"x"), stored(world, b"file")]
    outcome = restore(world, *entries, overwrite=overwrite)
    assert {failure.path for failure in outcome.failures} >= {b"d", b"d/file", b"d/link"}
    assert (outside / "d").stat() == before
    assert list(outside.rglob("*")) == [outside / "d"]


def test_a_link_planted_while_the_restore_runs_is_not_followed_and_ends_nothing(world: World) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    entry = stored(world, b"made/on/the/way")

    def plant(key: str) -> None:
        (world.root / "target" / "made").mkdir()
        (world.root / "target" / "made" / "on").symlink_to(outside)

    world.storage.before_read = plant
    outcome = restore(world, entry, stored(world, b"other", b"other"))
    assert b"made/on/the/way" in {failure.path for failure in outcome.failures}
    assert list(outside.iterdir()) == []


def test_a_directory_that_is_swapped_after_its_files_were_written_is_a_failure_and_no_crash(world: World) -> None:
    entries = [stored(world, b"made/file"), link(b"link", b"x")]

    class Swapping(Target):
        def write_link(self, entry: Entry) -> None:
            (world.root / "target" / "made").rename(world.root / "target" / "moved")
            (world.root / "target" / "made").symlink_to(world.root)

    before = stat.S_IMODE(world.root.stat().st_mode)
    with Swapping(os.fsencode(world.root / "target"), is_filled_fine=True, overwrites=False, mode_mask=0o777) as target:
        outcome = run_restore(world.repository, plan(*entries), target, Listener())
    assert [failure.path for failure in outcome.failures] == [b"made"]
    assert stat.S_IMODE(world.root.stat().st_mode) == before


# --- directories of which the snapshot says nothing, or the pattern


def test_directories_that_a_snapshot_of_the_original_does_not_name_are_ordinary_ones(world: World) -> None:
    restore(world, stored(world, b"a/b/file"))
    assert [mode_of(world, name) for name in ("a", "a/b")] == [0o755, 0o755]


def test_a_private_directory_stays_private_when_a_pattern_takes_only_what_is_in_it(world: World) -> None:
    entries = [
        directory(b"private", 0o700),
        directory(b"private/in"),
        stored(world, b"private/in/file"),
        directory(b"x"),
    ]
    restore(world, *entries, pattern=b"file$")
    assert tree(world) == {"private": b"/", "private/in": b"/", "private/in/file": TEXT}
    assert (mode_of(world, "private"), mode_of(world, "private/in")) == (0o700, 0o755)


# --- looking only


def test_a_check_finds_what_could_not_come_back(world: World) -> None:
    world.put_content(b"text that packs " * 100, PACKED, packed=True)
    names = ("missing", "archived", "cut")
    entries = [stored(world, name.encode(), name.encode() * 100) for name in names]
    good = [stored(world, b"good"), stored(world, b"twin"), file_entry(b"packed", b"text that packs " * 100)]
    for name in names:
        damage(world, name, name.encode() * 100)
        if name == "cut":
            stored_object = world.storage.objects[key_of(b"cut" * 100)]
            world.storage.objects[key_of(b"cut" * 100)] = StoredObject(
                stored_object.body[:300], {"s3bu-encrypt": "age"}
            )
    found = check(world.repository, plan(*entries, *good, file_entry(b"../x", TEXT)))
    assert [failure.path for failure in found] == [b"../x", b"missing", b"archived", b"cut"]


def test_a_check_judges_each_length_by_itself(world: World) -> None:
    entry = stored(world, b"right")
    world.storage.objects[key_of(TEXT)] = StoredObject(
        world.storage.objects[key_of(TEXT)].body, {"s3bu-encrypt": "age"}
    )
    found = check(world.repository, plan(entry._replace(path=b"liar", nbytes=10**6), entry))
    assert [failure.path for failure in found] == [b"liar"]


def test_a_check_writes_and_fetches_nothing(world: World) -> None:
    reads: list[str] = []
    world.storage.before_read = reads.append
    assert check(world.repository, plan(stored(world, b"x"))) == []
    assert (reads, world.storage.puts) == ([], [])


# --- one object


def fetch_one(world: World, key: str, *, overwrite: bool = False) -> bytes:
    with target_of(world, overwrite=overwrite) as target:
        return download(world.repository, key, target)


def test_any_object_can_be_fetched_in_the_clear(world: World) -> None:
    world.put_content(TEXT, packed=True)
    world.put_private("jobs/home/home-001.yml", b"sources: []\n")
    key = world.put_manifest([file_entry(b"x", TEXT)])
    names = [fetch_one(world, one) for one in (key_of(TEXT), "jobs/home/home-001.yml", str(key), "repo/recipients.txt")]
    assert names == [hash_of(TEXT).encode(), b"home-001.yml", b"home-docs-2024-01-01-00000.csv", b"recipients.txt"]
    found = tree(world)
    assert (found[hash_of(TEXT)], found["home-001.yml"]) == (TEXT, b"sources: []\n")
    assert b",x\n" in found["home-docs-2024-01-01-00000.csv"]
    assert {mode_of(world, os.fsdecode(name)) for name in names} == {0o600}


def test_a_file_that_is_there_is_not_overwritten_unasked(world: World) -> None:
    write(world.root / "target" / "home-001.yml", b"mine")
    world.put_private("jobs/home/home-001.yml", b"theirs")
    with pytest.raises(S3buError, match=r"home-001\.yml: something is there"):
        fetch_one(world, "jobs/home/home-001.yml")
    assert tree(world) == {"home-001.yml": b"mine"}
    fetch_one(world, "jobs/home/home-001.yml", overwrite=True)
    assert tree(world) == {"home-001.yml": b"theirs"}


def test_an_object_that_is_broken_leaves_nothing(world: World) -> None:
    world.put_content(b"poison", at=TEXT)
    world.put_private("jobs/home/home-001.yml", b"x" * 1000)
    stored_object = world.storage.objects["jobs/home/home-001.yml"]
    world.storage.objects["jobs/home/home-001.yml"] = StoredObject(stored_object.body[:-1], {})
    for key in (key_of(TEXT), "jobs/home/home-001.yml"):
        with pytest.raises(IntegrityError):
            fetch_one(world, key)
    assert tree(world) == {}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("", UsageError),
        ("jobs/", UsageError),
        ("jobs/home/absent.yml", ObjectNotFound),
        ("..", S3buError),
        ("a/..", S3buError),
    ],
)
def test_what_is_no_key_is_refused(world: World, key: str, kind: type[S3buError]) -> None:
    with pytest.raises(kind):
        fetch_one(world, key, overwrite=True)
    assert tree(world) == {}


@pytest.mark.parametrize("key", ["x/..", "x/."])
def test_a_key_never_names_a_place_outside(world: World, key: str) -> None:
    world.storage.put(key, b"planted", {})
    with pytest.raises(S3buError):
        fetch_one(world, key, overwrite=True)
    assert tree(world) == {}


Strike = Callable[[str], None]


def test_a_storage_that_only_refuses_ends_the_run_soon(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(300)]
    world.storage.before_read = refuse([key_of(entry.path) for entry in entries])
    with pytest.raises(StorageError, match="the server is unwell"):
        restore(world, *entries)
    assert tree(world) == {}


def test_a_hiccup_of_the_storage_costs_its_file_alone(world: World) -> None:
    entries = [stored(world, b"%d" % number, b"%d" % number) for number in range(20)]
    world.storage.before_read = refuse([key_of(b"7")])
    outcome = restore(world, *entries)
    assert outcome.failures == [Failure(b"7", f"{key_of(b'7')}: the server is unwell")]
    assert len(tree(world)) == 19
