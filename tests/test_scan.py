"""What a walk of a source yields: everything, in the manifest's order, and never anything from outside."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, sort_key
from s3bu.progress import Failure
from s3bu.scan import Scan
from s3bu.scan.found import Left, entries, owner_of, seen_of
from s3bu.scan.source import SourceMissingError
from tests.fakes import OLD, SECOND, strike_before_open, without_override, write

ODD_NAMES = (
    b"\x01\x02\x7f",
    b"\xff\xfe invalid",
    "é".encode(),
    "é".encode(),
    b"new\nline",
    b"-rf",
    b"...",
    b" ",
    b"\x1b[31m",
    b"%2F",
    b"a,b",
    b"\\",
    b"n" * 255,
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=3).map(str.encode)
NAMES |= st.sampled_from([b"a", b"a b", b"a-b", b"a.txt", b"b", b"\x01", b"\xff", b"A"])
TREES = st.recursive(
    st.none(), lambda below: st.dictionaries(NAMES.filter(lambda name: name not in {b".", b".."}), below, max_size=5)
).filter(lambda tree: tree is not None)


def scan(root: Path, filters: Filters | None = None) -> list[Entry | Failure]:
    return list(entries(Scan(os.fsencode(root), filters or Filters())))


def paths(root: Path, filters: Filters | None = None) -> list[bytes]:
    return [found.path for found in scan(root, filters)]


def plant(root: bytes, tree: dict[bytes, object]) -> set[bytes]:
    """Make a tree of empty files (`None`) and directories (dictionaries), and return its paths."""
    os.mkdir(root)
    planted = set()
    for name, below in tree.items():
        path = root + b"/" + name
        planted.add(name)
        if isinstance(below, dict):
            planted |= {name + b"/" + deeper for deeper in plant(path, below)}
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    return planted


@contextmanager
def count_descriptors() -> Iterator[None]:
    """Hold a block to leaving no descriptor open."""
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == before


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_every_path_comes_once_and_in_the_order_of_a_manifest(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, object]
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("tree")) + b"/root"
    planted = plant(root, tree)
    found = [item.path for item in Scan(root, Filters())]
    shutil.rmtree(root)
    assert found == sorted(planted, key=sort_key)


def test_a_directory_stands_before_what_only_begins_like_it(tmp_path: Path) -> None:
    for name in ("a/x", "a b", "a-b", "a.txt", "a0"):
        write(tmp_path / "source" / name)
    assert paths(tmp_path / "source") == [b"a", b"a/x", b"a b", b"a-b", b"a.txt", b"a0"]


def test_a_file_is_told_by_its_status(tmp_path: Path) -> None:
    write(tmp_path / "source" / "file", b"four", mode=0o4751)
    (found,) = scan(tmp_path / "source")
    seen = seen_of((tmp_path / "source" / "file").stat())
    assert found == Entry(b"file", FILE, 4, OLD * SECOND, 0o751, seen=seen)


def test_a_directory_keeps_its_special_bits_and_nanoseconds(tmp_path: Path) -> None:
    inner = tmp_path / "source" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o1777)
    os.utime(inner, ns=(0, 123_456_789_987_654_321))
    (found,) = scan(tmp_path / "source")
    owner = owner_of(os.getuid(), inner.stat().st_gid)
    assert found == Entry(b"inner", DIRECTORY, 0, 123_456_789_987_654_321, 0o1777, owner=owner)


@pytest.mark.parametrize("target", ["nowhere", "/", "..", "."])
def test_a_link_is_told_and_never_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(target)
    (found,) = scan(tmp_path / "source")
    assert (found.path, found.kind, found.target) == (b"link", SYMLINK, os.fsencode(target))  # type: ignore[union-attr]


def test_a_source_that_is_a_link_is_resolved(tmp_path: Path) -> None:
    write(tmp_path / "real" / "file")
    (tmp_path / "link").symlink_to("real")
    assert paths(tmp_path / "link") == [b"file"]


def test_names_of_every_kind_come_as_they_are(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "source")
    planted = plant(root, dict.fromkeys(ODD_NAMES))
    assert set(paths(tmp_path / "source")) == planted


def test_every_byte_may_stand_in_a_name(tmp_path: Path) -> None:
    names = [b"x" + bytes([one]) for one in range(1, 256) if one != ord("/")]
    root = os.fsencode(tmp_path / "source")
    plant(root, dict.fromkeys(names))
    assert paths(tmp_path / "source") == names


def test_paths_longer_than_the_system_takes_are_walked(tmp_path: Path) -> None:
    depth, name = 40, "d" * 200
    parent = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=parent)
        child = os.open(name, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = child
    os.close(parent)
    found = [path for path in paths(tmp_path) if path.startswith(b"d")]
    assert found[-1] == b"/".join([name.encode()] * depth)


def test_a_fifo_is_told_and_counted_and_a_socket_only_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o620)
    os.utime(source / "fifo", (OLD, OLD))
    monkeypatch.chdir(source)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        walk = Scan(os.fsencode(source), Filters())
        (found,) = entries(walk)
    owner = owner_of(os.getuid(), (source / "fifo").stat().st_gid)
    assert found == Entry(b"fifo", SPECIAL, 0, OLD * SECOND, 0o620, target=b"fifo", owner=owner)
    assert walk.left.special == {"FIFO": 1, "socket": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_are_told_with_their_numbers(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(7, 130))
    os.mknod(source / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    walk = Scan(os.fsencode(source), Filters())
    found = [(item.path, item.kind, item.target) for item in walk if isinstance(item, Entry)]
    assert found == [(b"block", SPECIAL, b"block 7:130"), (b"character", SPECIAL, b"char 1:3")]
    assert walk.left.special == {"block device": 1, "character device": 1}


def test_rules_for_files_hold_for_special_files_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "fifo.tmp")
    walk = Scan(os.fsencode(tmp_path / "source"), Filters(exclude_extensions=(b"tmp",)))
    assert list(walk) == []
    assert walk.left.special == {}


def test_filters_decide_by_name(tmp_path: Path) -> None:
    for name in (
        "top.tmp",
        "in/a.txt",
        "in/a.tmp",
        "in/cache/x.txt",
        "out/x.txt",
        "in/marked/.nobackup",
        "in/marked/x",
    ):
        write(tmp_path / name)
    filters = Filters(
        exclude_extensions=(b"tmp",),
        include_top_dirs=(b"in",),
        skip_dirs=(b"cache",),
        skip_dir_items=(b".nobackup",),
    )
    assert paths(tmp_path, filters) == [b"in", b"in/a.txt"]


def test_links_obey_the_rules_of_files(tmp_path: Path) -> None:
    (tmp_path / "link.tmp").symlink_to("x")
    (tmp_path / "link").symlink_to("x")
    assert paths(tmp_path, Filters(exclude_extensions=(b"tmp",), include_top_dirs=(b"none",))) == [b"link"]


def test_a_source_that_would_be_skipped_whole_is_an_error_that_names_the_item(tmp_path: Path) -> None:
    write(tmp_path / "source" / ".nobackup")
    with count_descriptors(), pytest.raises(JobError, match=r"'\.nobackup'"):
        scan(tmp_path / "source", Filters(skip_dir_items=(b".nobackup",)))


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_source_that_is_no_directory_is_missing(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        write(tmp_path / "source")
    with pytest.raises(SourceMissingError, match="source cannot be opened"):
        scan(tmp_path / "source")


def test_a_source_that_cannot_be_listed_is_missing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir(mode=0)
    with without_override(), pytest.raises(SourceMissingError, match="permission denied"):
        scan(tmp_path / "source")


def test_a_directory_that_cannot_be_listed_is_a_failure_in_its_place(tmp_path: Path) -> None:
    for name in ("a", "b/inner", "c"):
        write(tmp_path / "source" / name)
    (tmp_path / "source" / "b").chmod(0)
    with without_override():
        found = scan(tmp_path / "source")
    assert [item.path for item in found] == [b"a", b"b", b"c"]
    assert found[1] == Failure(b"b", "permission denied")


def test_what_cannot_be_looked_at_fails_each_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "source" / "shut" / "file")
    (tmp_path / "source" / "shut").chmod(0o400)
    with without_override():
        found = scan(tmp_path / "source")
    assert found[1:] == [Failure(b"shut/file", "permission denied")]


def test_what_a_rule_leaves_out_cannot_fail(tmp_path: Path) -> None:
    write(tmp_path / "source" / "shut" / "file.tmp")
    (tmp_path / "source" / "shut" / "cache").mkdir()
    (tmp_path / "source" / "shut").chmod(0o400)
    with without_override():
        found = scan(tmp_path / "source", Filters(exclude_extensions=(b"tmp",), skip_dirs=(b"cache",)))
    assert [item.path for item in found] == [b"shut"]


def test_what_vanishes_in_mid_walk_is_not_there(tmp_path: Path) -> None:
    for name in ("a", "b", "c/inner", "d"):
        write(tmp_path / "source" / name)
    walk = iter(Scan(os.fsencode(tmp_path / "source"), Filters()))
    assert next(walk).path == b"a"
    (tmp_path / "source" / "b").unlink()
    shutil.rmtree(tmp_path / "source" / "c")
    assert [item.path for item in walk] == [b"d"]


def test_a_directory_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret", b"secret")
    for name in ("a", "b/inner"):
        write(tmp_path / "source" / name)
    walk = iter(Scan(os.fsencode(tmp_path / "source"), Filters()))
    next(walk)
    shutil.rmtree(tmp_path / "source" / "b")
    (tmp_path / "source" / "b").symlink_to(tmp_path / "outside")
    (found,) = walk
    assert isinstance(found, Failure) or (isinstance(found, Entry) and found.kind == SYMLINK)


def test_a_directory_swapped_for_a_link_just_before_it_is_entered_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "outside" / "secret", b"secret")
    inner = tmp_path / "source" / "inner"
    inner.mkdir(parents=True)

    def swap() -> None:
        inner.rmdir()
        inner.symlink_to(tmp_path / "outside")

    strike_before_open(monkeypatch, b"inner", swap)
    assert scan(tmp_path / "source") == [Failure(b"inner", "not a directory")]


def test_a_directory_moved_away_in_mid_walk_is_walked_where_it_went(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "1" / "secret", b"secret")
    for name in ("b/1/x", "b/2/x"):
        write(tmp_path / "source" / name)
    walk = iter(Scan(os.fsencode(tmp_path / "source"), Filters()))
    assert next(walk).path == b"b"
    (tmp_path / "source" / "b").rename(tmp_path / "elsewhere")
    (tmp_path / "source" / "b").symlink_to(tmp_path / "outside")
    assert [item.path for item in walk] == [b"b/1", b"b/1/x", b"b/2", b"b/2/x"]


def test_the_repository_inside_the_source_is_left_out_and_told(tmp_path: Path) -> None:
    for name in ("a", "deep/repository/data/x", "z"):
        write(tmp_path / name)
    status = (tmp_path / "deep" / "repository").stat()
    walk = Scan(
        os.fsencode(tmp_path),
        Filters(exclude_top_dirs=(b"home",)),
        excluded={(status.st_dev, status.st_ino): "the repository itself"},
    )
    assert [item.path for item in walk] == [b"a", b"deep", b"z"]
    assert walk.left == Left(excluded=[(b"deep/repository", "the repository itself")])


def test_a_walk_that_ends_early_leaves_no_descriptor_open(tmp_path: Path) -> None:
    for name in ("a/b/c/d", "e"):
        write(tmp_path / "source" / name)
    with count_descriptors():
        walk = iter(Scan(os.fsencode(tmp_path / "source"), Filters()))
        for _ in range(3):
            next(walk)
        walk.close()  # type: ignore[attr-defined]


def test_a_walk_to_the_end_leaves_no_descriptor_open(tmp_path: Path) -> None:
    for name in ("a/b/c/d", "a/skipped/item", "e"):
        write(tmp_path / "source" / name)
    (tmp_path / "source" / "a" / "shut").mkdir(mode=0)
    with count_descriptors(), without_override():
        scan(tmp_path / "source", Filters(skip_dir_items=(b"item",)))


def test_numbers_without_names_have_empty_ones() -> None:
    owner = owner_of(3_999_999_999, 3_999_999_998)
    assert owner == (3_999_999_999, 3_999_999_998, "", "")


def test_the_scan_reads_no_content(tmp_path: Path) -> None:
    write(tmp_path / "source" / "file", b"content", mode=0)
    with without_override():
        (found,) = scan(tmp_path / "source")
    assert found == Entry(b"file", FILE, 7, OLD * SECOND, 0, seen=seen_of((tmp_path / "source" / "file").stat()))
