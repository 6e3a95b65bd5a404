"""What a directory does beyond the contract: durability, permissions, symbolic links, odd files and full disks."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3bu.errors import AccessDenied, ObjectExists, ObjectNotFound, StorageError
from s3bu.storage.directory import DirectoryStorage

TEMPORARY = ".s3bu-tmp"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def storage(root: Path) -> DirectoryStorage:
    return DirectoryStorage(str(root))


def keys(storage: DirectoryStorage, prefix: str = "", after: str = "") -> list[str]:
    return [found.key for found in storage.list(prefix, after=after)]


def test_a_key_is_a_file_of_that_name(storage: DirectoryStorage, root: Path) -> None:
    storage.put("data/ab/x", b"hello", {})
    assert (root / "data" / "ab" / "x").read_bytes() == b"hello"


def test_files_and_directories_are_their_owners_alone(storage: DirectoryStorage, root: Path) -> None:
    storage.put("data/x", b"hello", {})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    assert modes == {"data": 0o700, "x": 0o600, TEMPORARY: 0o700}


def test_a_directory_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    storage = DirectoryStorage(str(tmp_path / "a" / "b"))
    storage.create()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_file_in_the_root_s_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = DirectoryStorage(str(tmp_path / "file"))
    assert not storage.exists()
    with pytest.raises(StorageError, match="not a directory"):
        storage.create()


def test_no_temporary_file_is_left_or_listed(storage: DirectoryStorage, root: Path) -> None:
    storage.put("x", b"hello", {})
    with storage.writer("y", 5, {}) as upload:
        upload.write(b"hello")
        assert len(list((root / TEMPORARY).iterdir())) == 1
        assert keys(storage) == ["x"]
    assert list((root / TEMPORARY).iterdir()) == []
    assert keys(storage) == ["x"]


def test_the_temporary_directory_is_no_place_for_keys(storage: DirectoryStorage) -> None:
    with pytest.raises(StorageError, match="no key that a directory can hold"):
        storage.put(f"{TEMPORARY}/x", b"", {})
    with pytest.raises(StorageError, match="no key that a directory can hold"):
        storage.open(f"{TEMPORARY}/x")


def test_a_file_of_that_name_elsewhere_is_listed(storage: DirectoryStorage) -> None:
    storage.put(f"a/{TEMPORARY}/x", b"", {})
    assert keys(storage) == [f"a/{TEMPORARY}/x"]


def test_leftovers_of_a_killed_run_are_removed_after_a_day(storage: DirectoryStorage, root: Path) -> None:
    directory = root / TEMPORARY
    directory.mkdir()
    for name, hours in (("old", 25), ("young", 23)):
        (directory / name).write_bytes(b"")
        os.utime(directory / name, (time.time() - hours * 3600,) * 2)
    storage.put("x", b"", {})
    assert [path.name for path in directory.iterdir()] == ["young"]


KILLED = """
import os, signal, sys
from s3bu.storage.directory import DirectoryStorage
upload = DirectoryStorage(sys.argv[1]).writer("x", 5, {})
upload.write(b"hello")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_object(storage: DirectoryStorage, root: Path) -> None:
    storage.put("x", b"before", {})
    command = [sys.executable, "-c", KILLED, str(root)]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode == -signal.SIGKILL
    assert keys(storage) == ["x"]
    assert storage.open("x").read() == b"before"


def link_to(root: Path, outside: Path) -> None:
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "data").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")


def test_nothing_is_read_through_a_symbolic_link(storage: DirectoryStorage, root: Path, tmp_path: Path) -> None:
    link_to(root, tmp_path / "outside")
    for key in ("data/secret", "file"):
        with pytest.raises(StorageError, match="symbolic link") as raised:
            storage.open(key)
        assert not isinstance(raised.value, ObjectNotFound)


def test_nothing_is_written_or_removed_through_a_symbolic_link(
    storage: DirectoryStorage, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    link_to(root, outside)
    with pytest.raises(StorageError, match="symbolic link"):
        storage.put("data/new", b"", {})
    with pytest.raises(StorageError, match="symbolic link"):
        storage.delete("data/secret")
    storage.put("file", b"replaces the link itself", {})
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}


def test_symbolic_links_are_not_listed(storage: DirectoryStorage, root: Path, tmp_path: Path) -> None:
    storage.put("x", b"", {})
    link_to(root, tmp_path / "outside")
    assert keys(storage) == ["x"]
    with pytest.raises(StorageError, match="symbolic link"):
        keys(storage, "data/")


def test_a_link_in_the_temporary_directorys_place_is_refused(
    storage: DirectoryStorage, root: Path, tmp_path: Path
) -> None:
    (root / TEMPORARY).symlink_to(tmp_path)
    with pytest.raises(StorageError, match="symbolic link"):
        storage.put("x", b"", {})


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    linked, direct = DirectoryStorage(str(tmp_path / "link")), DirectoryStorage(str(root))
    linked.put("x", b"hello", {})
    assert direct.open("x").read() == b"hello"
    assert linked.identity == direct.identity


def test_a_fifo_in_an_objects_place_does_not_block(storage: DirectoryStorage, root: Path) -> None:
    os.mkfifo(root / "x")
    assert keys(storage) == []
    with pytest.raises(StorageError, match="not a regular file"):
        storage.open("x")


def test_a_directory_in_an_objects_place_is_told(storage: DirectoryStorage) -> None:
    storage.put("a/b", b"", {})
    with pytest.raises(StorageError, match="not a regular file"):
        storage.open("a")
    with pytest.raises(StorageError, match="a directory stands"):
        storage.put("a", b"", {})
    storage.delete("a")
    assert keys(storage) == ["a/b"]


def test_a_file_in_a_directorys_place_is_told(storage: DirectoryStorage) -> None:
    storage.put("a", b"", {})
    with pytest.raises(StorageError, match="stands where a directory should"):
        storage.put("a/b", b"", {})


def test_a_name_that_is_too_long_is_told(storage: DirectoryStorage) -> None:
    with pytest.raises(StorageError, match="too long"):
        storage.put("x" * 256, b"", {})


def test_a_file_that_is_cut_while_it_is_read_is_an_error(storage: DirectoryStorage, root: Path) -> None:
    storage.put("x", b"hello", {})
    with storage.open("x") as download:
        assert download.read(2) == b"he"
        os.truncate(root / "x", 3)
        with pytest.raises(StorageError, match="shorter"):
            download.read()


def test_a_file_that_grows_is_read_to_the_length_it_had(storage: DirectoryStorage, root: Path) -> None:
    storage.put("x", b"hello", {})
    with storage.open("x") as download:
        with (root / "x").open("ab") as file:
            file.write(b" and more")
        assert download.read() == b"hello"


def test_a_reader_keeps_what_it_opened(storage: DirectoryStorage) -> None:
    storage.put("x", b"hello", {})
    with storage.open("x") as download:
        storage.put("x", b"other", {})
        assert download.read() == b"hello"


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Take root's power to pass over permissions from the thread that runs the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_what_is_denied_is_told(root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    # From inside, since the directories above are not for others either.
    monkeypatch.chdir(root)
    storage = DirectoryStorage(".")
    storage.put("data/x", b"", {})
    root.chmod(0o555)
    (root / "data").chmod(0)
    request.getfixturevalue("unprivileged")
    for call in (
        lambda: storage.open("data/x"),
        lambda: storage.put("y", b"", {}),
        lambda: storage.delete("data/x"),
        lambda: keys(storage),
    ):
        with pytest.raises(AccessDenied, match="access to"):
            call()
    assert storage.probe("probe") is False
    assert storage.has_conditional_writes is None


def limited(nbytes: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return limit


FILLING = """
import sys
from s3bu.errors import StorageError
from s3bu.storage.directory import DirectoryStorage
try:
    DirectoryStorage(sys.argv[1]).put("x", bytes(100_000), {})
except StorageError as error:
    sys.exit(f"{type(error).__name__} {error}")
"""


def test_a_write_that_the_system_refuses_is_told_and_leaves_nothing(storage: DirectoryStorage, root: Path) -> None:
    command = [sys.executable, "-c", FILLING, str(root)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=limited(50_000),
    )
    assert done.stderr.startswith(f"StorageError cannot use {root}/x: {os.strerror(errno.EFBIG).lower()}")
    assert keys(storage) == []
    assert list((root / TEMPORARY).iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told(storage: DirectoryStorage) -> None:
    with pytest.raises(OSError, match="No space") as raised, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert isinstance(raised.value, OSError)
    assert "no space is left" in str(storage.fault(raised.value, "x"))


def test_a_file_system_without_hard_links_is_found_out(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    assert storage.probe("probe") is False
    storage.put("x", b"first", {}, create=True)
    with pytest.raises(ObjectExists):
        storage.put("x", b"second", {}, create=True)
    assert storage.open("x").read() == b"first"


def test_a_probe_finds_hard_links(storage: DirectoryStorage) -> None:
    assert storage.probe("repo/probe") is True
    assert storage.has_conditional_writes is True


def test_a_listing_bears_files_that_come_and_go(storage: DirectoryStorage, root: Path) -> None:
    for number in range(100):
        storage.put(f"{number % 10}/{number:03}", b"", {})
    listing = storage.list("")
    first = next(listing)
    for number in range(1, 10):
        for path in (root / str(number)).iterdir():
            path.unlink()
        (root / str(number)).rmdir()
    assert [first.key, *(found.key for found in listing)] == [f"0/{number:03}" for number in range(0, 100, 10)]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="only Linux shows open files there")
def test_a_listing_that_is_left_closes_what_it_opened(storage: DirectoryStorage) -> None:
    for key in ("a/x", "b/x", "c/x"):
        storage.put(key, b"", {})
    before = len(os.listdir("/proc/self/fd"))
    listing = storage.list("")
    assert next(listing).key == "a/x"
    assert len(os.listdir("/proc/self/fd")) > before
    del listing
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.lists(st.from_regex(r"\A[ab.-]{1,2}(/[ab.0-]{1,2}){0,3}\Z"), max_size=12), st.text("ab/.-0", max_size=6))
def test_listings_come_in_the_byte_order_of_whole_keys(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[str], after: str
) -> None:
    storage = DirectoryStorage(str(tmp_path_factory.mktemp("listing")))
    stored = []
    for key in wanted:
        try:
            storage.put(key, b"", {})
        except StorageError:
            continue
        stored.append(key)
    assert keys(storage) == sorted(set(stored), key=str.encode)
    assert keys(storage, after=after) == sorted({key for key in stored if key > after}, key=str.encode)
    prefix = after[:2]
    assert keys(storage, prefix) == sorted({key for key in stored if key.startswith(prefix)}, key=str.encode)


def test_names_that_are_no_unicode_are_listed_and_read(storage: DirectoryStorage, root: Path) -> None:
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"latin")
    (key,) = keys(storage)
    assert key.encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert storage.open(key).read() == b"latin"


def test_threads_make_directories_together(storage: DirectoryStorage) -> None:
    gate = threading.Barrier(8)

    def put(number: int) -> None:
        gate.wait()
        storage.put(f"deep/er/still/{number}", b"", {})

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(storage) == [f"deep/er/still/{number}" for number in range(8)]


def test_a_root_that_is_not_absolute_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    DirectoryStorage("a/b").create()
    assert (tmp_path / "a" / "b").is_dir()
