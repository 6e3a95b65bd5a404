"""Rewriting: a path goes from old snapshots, and nothing else of them changes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from s3bu.errors import IntegrityError, StorageError, UsageError
from s3bu.index import Index
from s3bu.manifest import DIRECTORY, SYMLINK, Entry, FailedPath, Owner
from s3bu.pattern import compile_pattern
from s3bu.repository.layout import ManifestKey
from s3bu.rewrite import Outcome, Removal, run
from s3bu.storage import ObjectStat
from s3bu.storage.s3 import S3Storage
from s3bu.sync import sync
from tests.fakes import OLD, SECOND, Listener, World, file_entry, manifest_key
from tests.running import Scene, backed_up, check_refusal, succeed, write_job
from tests.running import run as run_program
from tests.test_backup.runs import back_up, files

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
CREATED = datetime(2026, 4, 1, 12, tzinfo=UTC)
ENTRIES = [
    file_entry(b"a", b"one", mtime=0),
    Entry(b"private", DIRECTORY, 0, OLD * SECOND + 5, 0o4700, owner=Owner(1, 2, "me", "\udcff,")),
    file_entry(b"private/letters/x,y", b"two"),
    file_entry(b"private.txt", b"three", mtime=-7),
    Entry(b"z\xff", SYMLINK, 0, OLD * SECOND, 0, target=b"private/letters"),
]
TAKE_OUT = ("--remove", "directory", "-n", "-v")
FAILED = [FailedPath(b"private/shut", "permission denied", "2026"), FailedPath(b"b", "no", "2026")]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World.make(tmp_path)
    monkeypatch.setattr(world.storage, "stop", lambda: None)
    return world


@pytest.fixture
def index(world: World) -> Iterator[Index]:
    with closing(world.index()) as index:
        yield index


def put(world: World, second: int = 0, entries: list[Entry] = ENTRIES) -> ManifestKey:
    return world.put_manifest(entries, failed=FAILED, key=manifest_key("2026-04-01", second), created=CREATED)


def rewrite(
    world: World, index: Index, *keys: ManifestKey, remove: str = "private", is_dry: bool = False
) -> list[Outcome]:
    removal = Removal(remove, compile_pattern(remove).search, "here", AT, is_dry)
    sync(world.repository, index, Listener())
    return list(run(world.repository, index, keys, removal, Listener()))


def rows(index: Index) -> list[Any]:
    """Return all that the index says of snapshots, but for what differs from one making of it to the next."""
    statements = (
        "SELECT number, key, etag, created_us, host, parent, nfiles, nbytes, error FROM snapshot ORDER BY key",
        "SELECT sort_key, first, last, kind, nbytes, mtime, nanos, mode, hash, target FROM version ORDER BY 1, 2",
        "SELECT path, error, since FROM failed ORDER BY 1, 2",
    )
    return [index.connection.execute(statement).fetchall() for statement in statements]


# --- what changes


def test_all_lines_but_those_of_the_path_stay_as_they_are(world: World, index: Index) -> None:
    key = put(world)
    before = world.manifest_lines(key)
    assert rewrite(world, index, key) == [Outcome(key, 3, 3)]
    audit, *after = world.manifest_lines(key)
    assert audit == b"@rewrite at=2026-05-01T12:00:00Z host=here removed=3 pattern=private\n"
    gone = [line for line in before if b"private%2F" in line.split(b"target=")[0] or b"path=private " in line]
    assert len(gone) == 3
    assert after == [line for line in before if line not in gone]


def test_time_host_parent_and_place_of_the_snapshot_stay(world: World, index: Index) -> None:
    keys = [put(world, second) for second in (1, 2, 3)]
    before = world.repository.read_snapshot(keys[1])
    rewrite(world, index, keys[1])
    after = world.repository.read_snapshot(keys[1])
    assert (after.created, after.header) == (before.created, before.header)
    assert world.manifest_keys() == keys
    assert after.warnings == ()


def test_a_snapshot_of_the_original_keeps_its_time_and_gets_a_header(world: World, index: Index) -> None:
    lines = b"".join(b"1,%d,0644,%b,%b\n" % (OLD, b"a" * 64, path) for path in (b"a", b"b"))
    key = world.put_original_manifest(lines)
    modified = world.storage.objects[str(key)].modified
    rewrite(world, index, key, remove="a")
    after = world.repository.read_snapshot(key)
    assert after.created == modified
    assert after.header is not None
    assert [entry.path for entry in after.entries] == [b"b"]


def test_a_second_time_leaves_a_second_line(world: World, index: Index) -> None:
    key = put(world)
    rewrite(world, index, key)
    rewrite(world, index, key, remove="a")
    assert [line[:9] for line in world.manifest_lines(key)[:2]] == [b"@rewrite "] * 2


def test_a_path_of_thousands_of_names_is_looked_up(world: World, index: Index) -> None:
    deep = b"/".join([b"d"] * 5_000)
    key = put(world, entries=[*ENTRIES, file_entry(deep, b"deep")])
    assert rewrite(world, index, key) == [Outcome(key, 3, 4)]
    assert rewrite(world, index, key, remove="d") == [Outcome(key, 1, 3)]


def test_what_matches_nothing_is_left_as_it_is(world: World, index: Index) -> None:
    key = put(world)
    before = dict(world.storage.objects)
    assert rewrite(world, index, key, remove="nothing") == [Outcome(key, 0, 5)]
    assert rewrite(world, index, key, is_dry=True) == [Outcome(key, 3, 3)]
    assert world.storage.objects == before


def test_a_manifest_of_many_lines_is_rewritten_stretch_by_stretch(
    world: World, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3bu.rewrite._STRETCH", 100)
    many = [file_entry(b"%04d/x" % number, b"%d" % number) for number in range(500)]
    key = put(world, entries=many)
    rewrite(world, index, key, remove="re:^...7/")
    paths = [entry.path for entry in world.repository.read_snapshot(key).entries]
    assert paths == [entry.path for entry in many if entry.path[3:4] != b"7"]


# --- the index, here and elsewhere


def test_the_index_says_what_a_new_one_would(world: World, index: Index) -> None:
    keys = [put(world, second) for second in (1, 2, 3)]
    rewrite(world, index, *keys[1:])
    with closing(world.index("another state")) as anew:
        sync(world.repository, anew, Listener())
        assert rows(index) == rows(anew)
    outcome = sync(world.repository, index, Listener())
    assert (outcome.taken, outcome.vanished, outcome.altered) == ([], [], [])


def test_another_machine_takes_it_in_and_is_not_alarmed(world: World, index: Index) -> None:
    key = put(world)
    with closing(world.index("another state")) as other:
        sync(world.repository, other, Listener())
        rewrite(world, index, key)
        listener = Listener()
        outcome = sync(world.repository, other, listener)
        assert (outcome.taken, outcome.altered, listener.warnings) == ([str(key)], [], [])
        assert rows(other) == rows(index)


def test_one_that_was_altered_otherwise_still_alarms(world: World, index: Index) -> None:
    key = put(world)
    sync(world.repository, index, Listener())
    put(world, entries=ENTRIES[:1])
    listener = Listener()
    outcome = sync(world.repository, index, listener)
    assert outcome.altered == [str(key)]
    assert "ALTERED" in listener.warnings[0]


def test_a_backup_after_it_goes_on(world: World, index: Index) -> None:
    world.write("private/x", b"two")
    world.write("a", b"one")
    key = back_up(world).published
    assert key is not None
    rewrite(world, index, key)
    (world.source / "private" / "x").unlink()
    (world.source / "private").rmdir()
    assert back_up(world).published is None
    world.write("private/x", b"two")
    assert back_up(world).published
    assert list(files(world.newest())) == [b"a", b"private/x"]


# --- doubt


def test_to_take_out_everything_is_refused(world: World, index: Index) -> None:
    key = put(world)
    before = dict(world.storage.objects)
    with pytest.raises(UsageError, match="takes out all that"):
        rewrite(world, index, key, remove="**")
    assert world.storage.objects == before


@pytest.mark.parametrize(
    "lines", [b"@newer path=a x=1\n1,1,0644," + b"a" * 64 + b",a\n", b"1,1,0644," + b"a" * 64 + b",a\n1,2,06"]
)
def test_what_would_be_lost_by_it_is_no_candidate(world: World, index: Index, lines: bytes) -> None:
    key = world.put_original_manifest(lines)
    before = dict(world.storage.objects)
    with pytest.raises(IntegrityError, match="not rewritten, since what it says there would be lost"):
        rewrite(world, index, key, remove="a")
    assert world.storage.objects == before


def test_a_manifest_that_is_not_encrypted_is_not_made_an_encrypted_one(world: World, index: Index) -> None:
    key = world.put_manifest(ENTRIES, encrypted=False)
    with pytest.raises(IntegrityError, match="not encrypted"):
        rewrite(world, index, key)


def test_a_manifest_that_is_replaced_meanwhile_is_not_overwritten(world: World, index: Index) -> None:
    key = put(world)
    sync(world.repository, index, Listener())
    reads = iter([True])

    def strike(read: str) -> None:
        if read == str(key) and next(reads, False):
            put(world, entries=ENTRIES)

    world.storage.before_read = strike
    with pytest.raises(StorageError, match="was replaced while it was read"):
        rewrite(world, index, key)
    assert len(world.repository.read_snapshot(key).entries) == len(ENTRIES)


def test_where_it_cannot_be_put_all_stays_as_it_was(world: World, index: Index) -> None:
    key = put(world)
    sync(world.repository, index, Listener())
    before, said = dict(world.storage.objects), rows(index)

    def strike(sent: str) -> None:
        raise StorageError("the server is unwell")

    world.storage.before_send = strike
    with pytest.raises(StorageError, match="unwell"):
        rewrite(world, index, key)
    assert (world.storage.objects, rows(index)) == (before, said)


# --- the command, and a bucket that keeps versions


@pytest.fixture
def versioned(
    tmp_path: Path,
    moto_url: str,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Any]:
    """A bucket that keeps versions, in which a job was backed up, and a client."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    bucket, client = make_bucket(moto_url), make_client(moto_url)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    (tmp_path / "source").mkdir()
    for name in ("stays", "secret"):
        (tmp_path / "source" / name).write_text(name)
    succeed("init", bucket)
    succeed("backup", bucket, write_job(tmp_path / "home.yml", {"src": tmp_path / "source"}))
    return bucket, client


def test_in_a_bucket_with_versions_the_old_manifest_is_gone(versioned: tuple[str, Any]) -> None:
    bucket, client = versioned
    result = succeed("rewrite", bucket, "home/src", "--remove", "secret")
    assert "1 path taken out, 1 kept" in result.out
    versions = client.list_object_versions(Bucket=bucket, Prefix="manifests/home/src/")
    assert len(versions["Versions"]) == 1
    assert "DeleteMarkers" not in versions
    assert "secret" not in succeed("ls", bucket, "home/src").out


def test_older_versions_that_a_run_left_which_broke_off_go_with_the_next(
    versioned: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, client = versioned
    with monkeypatch.context() as patch:
        patch.setattr(S3Storage, "versions", broken)
        assert run_program("rewrite", bucket, "home/src", "--remove", "secret").code == 1
    assert len(client.list_object_versions(Bucket=bucket, Prefix="manifests/home/src/")["Versions"]) == 2
    result = run_program("rewrite", bucket, "home/src", "--remove", "secret/")
    assert (result.code, "no path of 1 snapshot matches 'secret/'" in result.err) == (3, True)
    assert len(client.list_object_versions(Bucket=bucket, Prefix="manifests/home/src/")["Versions"]) == 1


def broken(_storage: S3Storage, _prefix: str) -> Iterator[ObjectStat]:
    raise StorageError("the server is unwell")


def test_the_command_needs_a_pattern_and_names_what_it_would_take_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene: Scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    check_refusal(run_program("rewrite", scene.repository, "home/src"), 2, "nothing to take out")
    result = succeed("rewrite", scene.repository, "home/src", scene.manifests()[0], *TAKE_OUT)
    assert "removed    directory/c" in result.err
    assert "2 paths would be taken out, 3 kept" in result.out


def test_times_of_a_line_of_rewriting_are_checked(world: World, index: Index) -> None:
    key = world.put_original_manifest(b"@rewrite at=yesterday host=x removed=1 pattern=x\n")
    outcome = sync(world.repository, index, Listener())
    assert "line 1 is malformed" in outcome.failed[str(key)]
