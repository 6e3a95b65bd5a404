"""The index file: private, its own, and replaced when it is of no use."""

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3bu.compression import gunzip_member
from s3bu.errors import S3buError
from s3bu.history import number_of
from s3bu.index import Index, IndexDamagedError, held, index_path, open_index
from s3bu.index.file import SCHEMA
from s3bu.manifest import DIRECTORY, FILE, SYMLINK, Entry, FailedPath, Owner, format_entry
from s3bu.repository.layout import parse_manifest_key
from s3bu.spans import kept_lines, spans
from tests.fakes import Listener
from tests.running import backed_up, succeed, tree, write_file

_INDEXES = Path(__file__).parent / "indexes"


def opened(home: Path, identity: str = "there", listener: Listener | None = None) -> Index:
    return open_index(home, identity, listener or Listener())


def made(home: Path) -> Path:
    """Make an index that knows a fact, and return its file."""
    index = opened(home)
    index.keep_fact("known", "yes")
    index.close()
    return index_path(home, "there")


def test_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        path = made(tmp_path / "home")
        index = opened(tmp_path / "home")
        modes = {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
        index.close()
    finally:
        os.umask(mask)
    assert (modes, stat.S_IMODE(path.parent.stat().st_mode)) == ({0o600}, 0o700)


def test_it_is_there_again_when_it_is_opened_again(tmp_path: Path) -> None:
    made(tmp_path)
    listener = Listener()
    index = opened(tmp_path, listener=listener)
    assert (index.fact("known"), listener.warnings) == ("yes", [])


def spoil_start(path: Path) -> None:
    path.write_bytes(b"spoilt" * 1000 + path.read_bytes()[6000:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def make_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")


def make_another_program_s(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")


def make_another_repository_s(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE fact SET value = 'elsewhere' WHERE name = 'repository'")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_start, "damaged"),
        (cut, "damaged"),
        (make_newer, "newer version"),
        (make_another_program_s, "not an index"),
        (make_another_repository_s, "another repository"),
    ],
)
def test_one_that_is_of_no_use_is_moved_aside(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    path = made(tmp_path)
    spoil(path)
    before = path.read_bytes()
    listener = Listener()
    index = opened(tmp_path, listener=listener)
    assert index.fact("known") is None
    (aside,) = path.parent.glob("*.aside")
    assert aside.read_bytes() == before
    (warning,) = listener.warnings
    assert why in warning
    assert f"moved to {aside.name}" in warning
    index.close()
    listener = Listener()
    opened(tmp_path, listener=listener).close()
    assert listener.warnings == []


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path = made(tmp_path)
    victim = tmp_path / "victim"
    path.rename(victim)
    path.symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(S3buError, match="cannot be opened"):
        opened(tmp_path)
    assert victim.read_bytes() == before


def test_a_home_where_none_can_be_kept_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("")
    with pytest.raises(S3buError, match=str(tmp_path / "index")):
        opened(tmp_path)


def test_one_that_a_disk_does_not_give_is_told_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real_stat = made(tmp_path), os.stat

    def stat_of_a_broken_disk(found: Any, **more: Any) -> os.stat_result:
        if found == path:
            raise OSError(errno.EIO, "input/output error")
        return real_stat(found, **more)

    monkeypatch.setattr(os, "stat", stat_of_a_broken_disk)
    with pytest.raises(S3buError, match=f"{path}: the index cannot be opened .*input/output error"):
        opened(tmp_path)


def test_damage_that_shows_while_it_is_used_moves_it_aside(tmp_path: Path) -> None:
    path = made(tmp_path)
    index = opened(tmp_path)
    with pytest.raises(IndexDamagedError, match="moved to"), held(index):
        raise sqlite3.DatabaseError("database disk image is malformed")
    assert not path.exists()


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    path = made(tmp_path)
    with pytest.raises(S3buError, match="disk is full") as caught, held(opened(tmp_path)):
        raise sqlite3.OperationalError("database or disk is full")
    assert caught.value.hint
    assert path.exists()


def test_two_may_write_at_the_same_time(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    with one.transaction():
        one.keep_fact("a", "1")
    with other.transaction():
        other.keep_fact("b", "2")
    assert (one.fact("b"), other.fact("a")) == ("2", "1")


OPENING = """
import sys
from pathlib import Path
from s3bu.index import held, open_index
from s3bu.progress import Silent
sys.stdin.readline()
with held(open_index(Path(sys.argv[1]), "there", Silent())) as index:
    index.source("job", sys.argv[2])
"""


def test_many_may_make_it_at_the_same_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENING, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE) for number in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 6
    with held(opened(tmp_path)) as index:
        assert index.connection.execute("SELECT count(*) FROM source").fetchone() == (6,)
    assert not list(index_path(tmp_path, "there").parent.glob("*.aside"))


def spoil_middle(path: Path) -> None:
    """Overwrite every page but the first few, which makes the tables unreadable and the file still look like one."""
    content = path.read_bytes()
    path.write_bytes(content[:16384] + b"\xff" * (len(content) - 16384))


@pytest.mark.parametrize("spoil", [spoil_start, spoil_middle, cut, make_newer])
def test_a_backup_goes_on_with_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    for number in range(500):
        write_file(scene.source / f"{number}", f"{number}")
    assert scene.backup().code == 0
    (path,) = (scene.keys / "index").glob("*.db")
    spoil(path)
    write_file(scene.source / "new", "new")
    result = scene.backup()
    assert (result.code, result.errors) == (0, []), result
    assert "moved to" in result.err
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_where_none_can_be_kept_the_backup_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    shutil.rmtree(scene.keys / "index")
    (scene.keys / "index").write_text("")
    write_file(scene.source / "new", "new")
    result = scene.backup()
    assert (result.code, result.errors) == (0, []), result
    assert "without an index" in result.err
    assert "1 path new, 0 changed, 0 removed" in result.out


# --- schemas


def test_there_is_a_file_of_each_schema() -> None:
    assert {path.name for path in _INDEXES.iterdir()} == {f"schema-{number}.db" for number in range(1, SCHEMA + 1)}


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_an_index_of_each_schema_so_far_is_read(tmp_path: Path, schema: int) -> None:
    path = index_path(tmp_path, "there")
    path.parent.mkdir()
    shutil.copy(_INDEXES / f"schema-{schema}.db", path)
    listener = Listener()
    index = opened(tmp_path, listener=listener)
    assert listener.warnings == []
    (older, newer) = index.snapshots()
    assert [parse_manifest_key(one.key) is not None for one in (older, newer)] == [True, True]
    owner = Owner(1000, 100, "me", "users")
    common = [
        Entry(b"d", DIRECTORY, 0, 1_600_000_000_000_000_005, 0o755, owner=owner),
        Entry(b"d/link", SYMLINK, 0, 5, 0, target=b"../a", owner=owner),
    ]
    file = Entry(b"a", FILE, 3, 1_600_000_000_000_000_000, 0o644, "ab" * 32)
    assert list(index.entries(older.source, older.number)) == [file, *common]
    assert list(index.entries(newer.source, newer.number)) == [file._replace(nbytes=4, hash="cd" * 32), *common]
    assert index.failed(newer) == [FailedPath(b"\xff", "permission denied", "2026-05-01T00:00:00+00:00")]
    assert index.connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    if schema >= 3:
        (span,) = spans(index, newer.source)
        packed = kept_lines(index, newer.source, span) or b""
        assert gunzip_member(packed) == b"".join(map(format_entry, index.currents(newer.source)))
    assert {number_of(key) for key in map(parse_manifest_key, (older.key, newer.key)) if key} == {
        older.number,
        newer.number,
    }
