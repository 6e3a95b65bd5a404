"""What tests of the operations share: a quick repository in memory, manifests put there at will, and rough weather.

Everything is the real thing but for the storage, which is `MemoryStorage` or one of the misbehaving ones here, and the
work factor of scrypt, which is the least there is instead of the 0.7 seconds that each manifest would take.
"""

import ctypes
import gzip
import hashlib
import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3bu.compression import gzip_member
from s3bu.crypto import encrypt, passphrase
from s3bu.crypto.identities import new_identity
from s3bu.crypto.passphrase import PassphraseWriter, encrypt_with_passphrase
from s3bu.crypto.recipients import Recipient, parse_recipients
from s3bu.errors import StorageError
from s3bu.fetch import fetch
from s3bu.filters import Filters
from s3bu.index import Index, open_index
from s3bu.job import Job, Source
from s3bu.keyring import Keyring, new_secret, write_identities, write_secrets
from s3bu.lines import Stretch
from s3bu.manifest import FILE, Entry, FailedPath, Header, ManifestWriter, format_entry, format_failed, sort_key
from s3bu.progress import Change, Failure, Silent
from s3bu.remembered import Remembered
from s3bu.repository import Repository, Snapshot, layout
from s3bu.repository.layout import ManifestKey
from s3bu.storage import ObjectStat
from s3bu.storage.memory import MemoryStorage, MemoryUpload, StoredObject

SECOND = 1_000_000_000
OLD = 1_600_000_000
"""A time long past, in seconds: a file of it is never racy."""
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where a test of a great many small files keeps them, for `tempfile`."""
_stretch_elsewhere = passphrase._stretch
PACKED = {"s3bu-encrypt": "age", "s3bu-compress": "gzip"}
RAW = {"s3bu-encrypt": "age"}
OF_OTHERS = {"mtime": "1600000000.0"}
"""What an object has that another tool copied: nothing of ours."""


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key_of(content: bytes) -> str:
    return layout.content_key(hash_of(content))


def file_entry(path: bytes, content: bytes = b"", mtime: int = OLD, mode: int = 0o644) -> Entry:
    return Entry(path, FILE, len(content), mtime * SECOND, mode, hash_of(content))


def write(path: Path, content: bytes = b"", *, mtime: float = OLD, mode: int = 0o644) -> Path:
    """Write a file of that time and mode, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, (mtime, mtime))
    return path


@dataclass(slots=True)
class Listener:
    """A `Progress` that keeps what it was told; `on_phase` is called with the name of each phase that begins."""

    on_phase: Callable[[str], object] = lambda name: None
    wants_changes: bool = False
    changes: list[Change] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    nfiles: int = 0
    nbytes: int = 0

    def phase(self, name: str, *, files: int | None = None, nbytes: int | None = None, noun: str = "file") -> None:
        self.phases.append(name)
        self.on_phase(name)

    def advance(self, *, files: int = 0, nbytes: int = 0) -> None:
        self.nfiles += files
        self.nbytes += nbytes

    def change(self, change: Change) -> None:
        self.changes.append(change)

    def failure(self, failure: Failure) -> None:
        self.failures.append(failure)

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def note(self, message: str) -> None:
        pass


class RoughStorage(MemoryStorage):
    """A storage in memory that strikes: `before` is called with the key of each object about to be sent or read.

    What it raises is what the request raises. `puts` are the keys that were sent whole, `reads` those that were opened,
    `lists` the prefixes that were listed; `bounds` what each writer was
    told of its length.
    """

    def __init__(self) -> None:
        super().__init__("rough")
        self.puts: list[str] = []
        self.reads: list[str] = []
        self.lists: list[str] = []
        self.bounds: dict[str, int] = {}
        self.before_send: Callable[[str], None] = lambda key: None
        self.before_read: Callable[[str], None] = lambda key: None

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        if key not in self.bounds:
            self.before_send(key)
        super().put(key, body, metadata, create=create)
        self.puts.append(key)

    def writer(self, key: str, nbytes: int, metadata: Mapping[str, str], *, create: bool = False) -> MemoryUpload:
        self.bounds[key] = nbytes
        self.before_send(key)
        return super().writer(key, nbytes, metadata, create=create)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        self.lists.append(prefix)
        return super().list(prefix, after=after)

    def open(self, key: str, *, start: int = 0):  # type: ignore[no-untyped-def]
        self.reads.append(key)
        self.before_read(key)
        return super().open(key, start=start)


def refuse(keys: Iterable[str], error: type[StorageError] = StorageError) -> Callable[[str], None]:
    """Return a strike that fails each request for one of these keys."""
    refused = frozenset(keys)

    def strike(key: str) -> None:
        if key in refused:
            raise error(f"{key}: the server is unwell")

    return strike


@dataclass(frozen=True, slots=True)
class World:
    """A machine with keys, a repository in memory, a source, and a job `home` that backs it up as `docs`."""

    root: Path
    storage: RoughStorage
    repository: Repository

    @classmethod
    def make(cls, root: Path) -> "World":
        storage = RoughStorage()
        identity, recipient = new_identity()
        write_secrets(root / "keys" / "secrets.yml", [new_secret()])
        write_identities(root / "keys" / "identities.txt", [(identity, recipient)])
        storage.put(layout.RECIPIENTS, f"{recipient}\n".encode(), {})
        (root / "source").mkdir()
        world = cls(root, storage, open_repository(root, storage))
        storage.puts.clear()
        return world

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def passphrase(self) -> str:
        return self.repository.keyring.newest_secret.passphrase

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        return parse_recipients(self.storage.objects[layout.RECIPIENTS].body.decode(), "here")

    def reopen(self, home: str = "state") -> Repository:
        """Open the repository once more, as another run does, or with another `home` another machine."""
        return open_repository(self.root, self.storage, home)

    def index(self, home: str = "state") -> Index:
        """Open the index that a machine has in its `home`."""
        return open_index(self.root / home, self.storage.identity, Silent())

    def job(self, filters: Filters | None = None, labels: Iterable[str] = ("docs",)) -> Job:
        sources = tuple(Source(label, os.fsencode(self.source)) for label in labels)
        return Job("home", sources, filters or Filters(), ())

    def write(self, name: str, content: bytes = b"", *, mtime: float = OLD, mode: int = 0o644) -> Path:
        return write(self.source / name, content, mtime=mtime, mode=mode)

    def put_content(
        self, plain: bytes, metadata: Mapping[str, str] = RAW, *, at: bytes | None = None, packed: bool = False
    ) -> str:
        """Store a content as anyone can who knows the recipients, under the name of another with `at`."""
        body = encrypt(gzip.compress(plain, 1) if packed else plain, self.recipients)
        self.storage.objects[key_of(plain if at is None else at)] = StoredObject(body, metadata)
        return hash_of(plain if at is None else at)

    def put_private(self, key: str, plain: bytes, *, packed: bool = True, encrypted: bool = True) -> None:
        body = gzip.compress(plain) if packed else plain
        if encrypted:
            body = encrypt_with_passphrase(body, self.passphrase, work_factor=1)
        self.storage.objects[key] = StoredObject(body, {})

    def put_manifest(
        self,
        entries: Iterable[Entry],
        *,
        failed: Iterable[FailedPath] = (),
        key: ManifestKey | None = None,
        created: datetime | None = None,
        host: str = "here",
        encrypted: bool = True,
    ) -> ManifestKey:
        """Store a manifest with these entries; of yesterday and under a key of 2024 unless told otherwise."""
        key = key or manifest_key("2024-01-01", 0)
        created = created or datetime.fromtimestamp(int(datetime.now(UTC).timestamp()) - 86_400, UTC)
        plain = manifest_text(Header(str(key), key.job, key.label, host, created, ""), entries, failed)
        self.put_private(str(key), plain, encrypted=encrypted)
        return key

    def put_original_manifest(self, lines: bytes, key: ManifestKey | None = None) -> ManifestKey:
        """Store a manifest as the original program writes it: entry lines and nothing else."""
        key = key or manifest_key("2024-01-01", 0)
        self.put_private(str(key), lines)
        return key

    def manifest_keys(self, label: str = "docs") -> list[ManifestKey]:
        return [stored.key for stored in self.repository.manifests("home", label)]

    def newest(self, label: str = "docs") -> Snapshot:
        return self.repository.read_snapshot(self.manifest_keys(label)[-1])

    def manifest_lines(self, key: ManifestKey) -> list[bytes]:
        """Return the lines between header and trailer as they stand there."""
        with self.repository.open_private(str(key)) as private:
            return private.reader.read().splitlines(keepends=True)[1:-1]

    def hashes(self) -> set[str]:
        """Return the hashes of the contents that are stored."""
        return {found for found, _ in self.repository.objects()}

    def check_contents(self) -> None:
        """Hold every object below `data/` to its name: it opens, and its plain bytes have that hash."""
        for found in self.hashes():
            check_content(self.repository, found)

    def check_newest(self, label: str = "docs") -> None:
        """Hold the newest snapshot to what it names: each content is there and right."""
        self.check_contents()
        assert {entry.hash for entry in self.newest(label).entries if entry.kind == FILE} <= self.hashes()


def check_content(repository: Repository, content_hash: str) -> None:
    """Hold the object of a content to its name: it opens, and its plain bytes have that hash."""
    plain = io.BytesIO()
    fetch(repository, content_hash, None, plain)
    assert hash_of(plain.getvalue()) == content_hash


def quicken_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what this process encrypts take the least work there is for scrypt, and do it here: a process takes 0.1 s."""
    for function in (PassphraseWriter.__init__, encrypt_with_passphrase):
        defaults = function.__kwdefaults__
        assert defaults is not None
        assert "work_factor" in defaults
        monkeypatch.setitem(defaults, "work_factor", 1)
    monkeypatch.setattr(passphrase, "_stretch", _stretch_here)


def _stretch_here(phrase: str, salt: bytes, work_factor: int) -> bytes:
    if work_factor > 10:
        return _stretch_elsewhere(phrase, salt, work_factor)
    secret = b"age-encryption.org/v1/scrypt" + salt
    return hashlib.scrypt(phrase.encode(), salt=secret, n=1 << work_factor, r=8, p=1, dklen=32)


def open_repository(root: Path, storage: MemoryStorage, home: str = "state") -> Repository:
    keyring = Keyring(root / "keys" / "secrets.yml", root / "keys" / "identities.txt")
    return Repository(storage, keyring, Remembered(root / home, storage.identity), max_work_factor=20)


def manifest_key(day: str, second: int, *, job: str = "home", label: str = "docs") -> ManifestKey:
    return ManifestKey(job, label, datetime.fromisoformat(day).date(), second)


def manifest_text(header: Header, entries: Iterable[Entry], failed: Iterable[FailedPath] = ()) -> bytes:
    sink = io.BytesIO()
    manifest = ManifestWriter(sink, header)
    for one in failed:
        manifest.write(format_failed(one))
    for entry in sorted(entries, key=lambda entry: sort_key(entry.path)):
        manifest.write(format_entry(entry, is_carried_forward=entry.mtime_ns == 0))
    manifest.finish()
    return sink.getvalue()


def stretches(entries: Iterable[Entry]) -> list[Stretch]:
    """Return the lines of entries as a backup hands them over, a stretch each."""
    return [Stretch(lines, gzip_member(lines)) for lines in map(format_entry, entries)]


def another_recipient() -> Recipient:
    """Return a recipient whose identity is lost."""
    (recipient,) = parse_recipients(new_identity()[1], "here")
    return recipient


def strike_while_reading(
    monkeypatch: pytest.MonkeyPatch, path: Path, action: Callable[[], object], *, is_once: bool = False
) -> None:
    """Do something each time that a piece of the file was just read, as another process could in that moment.

    A `pread` that asks for nothing, or gets nothing, is no reading.
    """
    real_pread, identity = os.pread, (path.stat().st_dev, path.stat().st_ino)
    actions = iter([action]) if is_once else itertools.repeat(action)
    lock = threading.Lock()

    def pread(descriptor: int, length: int, offset: int, /) -> bytes:
        chunk = real_pread(descriptor, length, offset)
        status = os.fstat(descriptor)
        if chunk and (status.st_dev, status.st_ino) == identity:
            with lock:
                next(actions, int)()
        return chunk

    monkeypatch.setattr(os, "pread", pread)


def strike_before_open(monkeypatch: pytest.MonkeyPatch, name: bytes, action: Callable[[], object]) -> None:
    """Do something, once, just before a file of that name is opened, after it was looked at."""
    real_open, actions = os.open, iter([action])

    def struck_open(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == name:
            next(actions, int)()
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", struck_open)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds that another thread is about to bring about."""
    for _ in range(30_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it did not come about within 30 seconds")


@contextmanager
def without_override() -> Iterator[None]:
    """Take from this thread, and those that it starts, root's right to go past the modes of files, for a block."""
    if os.geteuid() != 0:
        yield
        return
    before = _capabilities()
    override_and_search = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, linux/capability.h
    _set_capabilities([before[0] & ~override_and_search, *before[1:]])
    try:
        yield
    finally:
        _set_capabilities(before)


_CAPABILITY_VERSION_3 = 0x20080522


def _capabilities() -> list[int]:
    sets = (ctypes.c_uint32 * 6)()
    _call_libc("capget", (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), sets)
    return list(sets)


def _set_capabilities(sets: list[int]) -> None:
    _call_libc("capset", (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)(*sets))


def _call_libc(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")
