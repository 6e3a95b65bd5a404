"""Hash, encrypt, put: how the content of a file gets into the repository, on a pool of threads.

Invariant: only bytes that were hashed are stored under that hash. A file of up to `PART_BOUND` bytes is read once, and
hash and object come from that one buffer. A larger one is hashed in a first pass and hashed again while the second
pass encrypts it; the upload is dropped when the two differ. Plain and encrypted bytes in flight are budgeted.
"""

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from s3bu.compression import CHUNK, GzipReader, is_worth_compressing
from s3bu.crypto import encrypt, encrypt_stream
from s3bu.errors import AccessDenied, ObjectExists, OverwriteDenied, SourceChanged, StorageError, StorageStopped
from s3bu.manifest import Entry
from s3bu.parallel import Budget, batches, each
from s3bu.patience import Patience
from s3bu.progress import Failure, Progress, Silent
from s3bu.repository import Contents, Repository, layout
from s3bu.repository.recipients import RecipientSet
from s3bu.rooted import Files, Root
from s3bu.scan.found import reason, seen_of
from s3bu.storage import PART_BOUND, Put, Upload, memory_of_writer

T = TypeVar("T")

_SILENT = Silent()

BYTES_IN_FLIGHT = 128 * 1024 * 1024
WORKERS = 8
_HEADER_BOUND = 4096
"""What age writes at most for one recipient."""
_METADATA = {"s3bu-encrypt": "age", "s3bu-encrypt-version": "001"}
_COMPRESSED = _METADATA | {"s3bu-compress": "gzip", "s3bu-compress-version": "001"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A file whose content is in the repository: its entry as it was read, and the bytes that were sent for it.

    `nbytes_sent` is 0 when the content was there already, or another file of the run brought it.
    """

    entry: Entry
    nbytes_sent: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that was removed since the scan saw it: no failure, and no entry either."""

    path: bytes


Result = Stored | Failure | Gone


class Store:
    """Puts the contents of files that the repository does not have yet; with `only`, those of these hashes alone.

    `failed` are the hashes of contents whose upload failed, with the reason: each entry that relied on one of them
    failed too, also one that was told `Stored` while the upload was under way. `progress` is told of bytes as they are
    dealt with, those of a large file while it is sent.
    """

    def __init__(
        self,
        repository: Repository,
        recipients: RecipientSet,
        contents: Contents,
        *,
        is_compressing: bool,
        progress: Progress = _SILENT,
        only: AbstractSet[bytes] | None = None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self._progress = progress
        self._storage = repository.storage
        self._recipients = recipients.recipients
        self._contents = contents
        self._is_compressing = is_compressing
        self._only = only
        self._budget = Budget(BYTES_IN_FLIGHT)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._patience = Patience()

    def store(self, root: Root, entries: Iterable[Entry]) -> Iterator[Result]:
        """Yield what came of each file, in no order; an error that no further file can escape ends it all."""
        together = batches(entries, lambda entry: entry.nbytes)
        results = each(lambda batch: self._store(root, batch), together, workers=WORKERS, give_up=self._give_up)
        return chain.from_iterable(results)

    def _give_up(self) -> None:
        self._stopping.set()
        self._storage.stop()

    def _store(self, root: Root, batch: list[Entry]) -> list[Result]:
        with Files(root) as files:
            if batch[0].nbytes > PART_BOUND:
                return [self._read(files, batch[0], self._store_large)]
            settled, grown = self._store_small(files, batch)
            return settled + [self._read(files, entry, self._store_large) for entry in grown]

    def _store_small(self, files: Files, batch: list[Entry]) -> tuple[list[Result], list[Entry]]:
        """Store files that fit in memory, and return what came of them, and those that do not fit any more."""
        nbytes = sum(entry.nbytes for entry in batch)
        with self._budget.claim(2 * nbytes + CHUNK):
            read = [self._read(files, entry, self._read_small) for entry in batch]
            settled = self._put([one for one in read if not isinstance(one, _Grown)])
            self._progress.advance(nbytes=sum(one.entry.nbytes for one in settled if isinstance(one, Stored)))
        return settled, [one.entry for one in read if isinstance(one, _Grown)]

    def _read(self, files: Files, entry: Entry, take: "Callable[[_Source], T]") -> T | Failure | Gone:
        """Open a file and do something with it; one that changes meanwhile is tried three times."""
        try:
            for is_last_try in (False, False, True):
                try:
                    with _Source(files, entry, self._stopping, takes_growth=is_last_try) as source:
                        return take(source)
                except SourceChanged as error:
                    failure = Failure(entry.path, error.message)
        except FileNotFoundError:
            return Gone(entry.path)
        except OSError as error:
            return Failure(entry.path, reason(error))
        except StorageError as error:
            self._patience.judge(error)
            return Failure(entry.path, error.message)
        return failure

    # --- which content is whose

    def _claim(self, content_hash: str) -> bool:
        """Say whether this thread is to send a content: it is not stored, and no other thread is at it."""
        digest = bytes.fromhex(content_hash)
        with self._lock:
            if digest in self._contents.stored or (self._only is not None and digest not in self._only):
                return False
            self._contents.stored.add(digest)
            return True

    def _settle(self, content_hash: str, error: StorageError | None) -> None:
        """Note what came of sending a content."""
        with self._lock:
            if error is None:
                self.failed.pop(content_hash, None)
            else:
                self._contents.stored.discard(bytes.fromhex(content_hash))
                self.failed[content_hash] = error.message
        if error is None:
            self._patience.reward()
        else:
            self._patience.judge(error)

    # --- files that fit in memory

    def _read_small(self, source: "_Source") -> "_Read | _Grown":
        """Read and hash a file, and encrypt it if it is to be sent; one that outgrew what was claimed is put off."""
        if source.has_grown:
            return _Grown(source.scanned)
        plain = source.read()
        entry = source.entry(hashlib.sha256(plain).hexdigest())
        if not self._claim(entry.hash):
            return _Read(entry, None)
        is_packed = self._is_compressing and is_worth_compressing(plain)
        body = encrypt(GzipReader(io.BytesIO(plain)).read() if is_packed else plain, self._recipients)
        metadata = _COMPRESSED if is_packed else _METADATA
        create = self._wants_create(entry.hash)
        return _Read(entry, Put(layout.content_key(entry.hash), body, metadata, create=create))

    def _put(self, read: "list[_Read | Failure | Gone]") -> list[Result]:
        """Send what is to be sent, all at once, and say what came of each file."""
        puts = [one.put for one in read if isinstance(one, _Read) and one.put]
        errors = iter(self._storage.put_all(puts))
        return [self._put_one(one, errors) if isinstance(one, _Read) else one for one in read]

    def _put_one(self, read: "_Read", errors: Iterator[StorageError | None]) -> Stored | Failure:
        if read.put is None:
            return Stored(read.entry, 0)
        error = next(errors)
        if isinstance(error, ObjectExists):
            error = None  # another run was quicker, with the same content
        elif isinstance(error, AccessDenied):
            error = self._explained(read.entry.hash, error)
        self._settle(read.entry.hash, error)
        return Failure(read.entry.path, error.message) if error else Stored(read.entry, len(read.put.body))

    # --- large files

    def _store_large(self, source: "_Source") -> Stored:
        """Hash a file in a first pass, and send it in a second one if it is to be sent."""
        entry = source.entry(source.hash())
        if not self._claim(entry.hash):
            self._progress.advance(nbytes=entry.nbytes)
            return Stored(entry, 0)
        try:
            nbytes = self._upload(source, entry)
        except BaseException as error:
            why = error if isinstance(error, StorageError) else StorageError(str(error))
            if isinstance(error, AccessDenied):
                why = self._explained(entry.hash, error)
            with self._lock:
                self._contents.stored.discard(bytes.fromhex(entry.hash))
                self.failed[entry.hash] = why.message
            if isinstance(why, OverwriteDenied):
                raise why from error
            raise
        self._settle(entry.hash, None)
        return Stored(entry, nbytes)

    def _wants_create(self, content_hash: str) -> bool:
        """Say whether to refuse overwriting: wherever the storage can, so that a bucket may forbid all overwriting."""
        is_damaged = bytes.fromhex(content_hash) in self._contents.damaged
        return self._storage.has_conditional_writes is True and not is_damaged

    def _explained(self, content_hash: str, error: AccessDenied) -> AccessDenied:
        """Tell credentials that may add, and not replace what is bad, from those that may do nothing."""
        if bytes.fromhex(content_hash) not in self._contents.damaged:
            return error
        return OverwriteDenied(
            f"{layout.content_key(content_hash)} is bad and cannot be replaced: {error.message}",
            hint="delete the object with credentials that may, and run again",
        )

    def _upload(self, source: "_Source", entry: Entry) -> int:
        is_packed = self._is_compressing and is_worth_compressing(source.sample())
        plain = source.again(self._progress)
        bound = object_bound(source.nbytes, _HEADER_BOUND * (len(self._recipients) + 1))
        create = self._wants_create(entry.hash)
        metadata = _COMPRESSED if is_packed else _METADATA
        with (
            self._budget.claim(memory_of_writer(bound) + 4 * CHUNK),
            self._storage.writer(layout.content_key(entry.hash), bound, metadata, create=create) as upload,
        ):
            counted = _Counted(upload)
            encrypt_stream(GzipReader(plain) if is_packed else plain, counted, self._recipients)
            if plain.hexdigest() != entry.hash:
                raise SourceChanged("kept changing while it was read")
            source.check()
            with contextlib.suppress(ObjectExists):
                upload.commit()
        return counted.nbytes


@dataclass(frozen=True, slots=True)
class _Read:
    """A small file that was read: its entry, and what is to be sent for it."""

    entry: Entry
    put: Put | None


@dataclass(frozen=True, slots=True)
class _Grown:
    """A small file that is longer than the scan said: nobody knows how long it will be when it is read."""

    entry: Entry


class _Source:
    """One file open for reading: as long as it was when it was opened, whatever is written to it meanwhile.

    A file that differs afterwards (size, mtime, ctime) raises `SourceChanged`; with `takes_growth` one that only grew
    is taken with the length it had, or a log that is always written to would never be backed up.
    """

    def __init__(self, files: Files, entry: Entry, stopping: threading.Event, *, takes_growth: bool) -> None:
        self._descriptor, self._status = files.open(entry.path)
        self.scanned = entry
        self._stopping = stopping
        self._takes_growth = takes_growth
        self.nbytes = self._status.st_size
        self.has_grown = self.nbytes > entry.nbytes

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Nothing was written to it, and what was read is checked: some file systems fail here all the same, and the
        # error would take the place of what was read.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def entry(self, content_hash: str) -> Entry:
        """Return the entry of what was opened, which may be younger than what the scan saw."""
        status = self._status
        return self.scanned._replace(
            nbytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            mode=status.st_mode & 0o777,
            hash=content_hash,
            seen=seen_of(status),
        )

    def read(self) -> bytes:
        """Return the whole content."""
        plain = os.pread(self._descriptor, self.nbytes, 0)
        while len(plain) < self.nbytes:
            more = os.pread(self._descriptor, self.nbytes - len(plain), len(plain))
            if not more:
                break
            plain += more
        if len(plain) < self.nbytes:
            raise SourceChanged("shrank while it was read")
        self.check()
        return plain

    def sample(self) -> bytes:
        """Return the first MiB, from which compression is judged."""
        return os.pread(self._descriptor, 1024 * 1024, 0)

    def hash(self) -> str:
        """Read all of it and return its hash."""
        reader = self.again(_SILENT)
        while reader.read(CHUNK):
            pass
        self.check()
        return reader.hexdigest()

    def again(self, progress: Progress) -> "_HashedReader":
        """Return a reader from the start on that hashes what it hands out."""
        return _HashedReader(self._descriptor, self.nbytes, self._stopping, progress)

    def check(self) -> None:
        """Raise `SourceChanged` if the file is not the one that was opened."""
        before, now = self._status, os.fstat(self._descriptor)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (now.st_size, now.st_mtime_ns, now.st_ctime_ns):
            return
        if not (self._takes_growth and now.st_size > before.st_size):
            raise SourceChanged("kept changing while it was read")


class _HashedReader:
    """Hands out the first `nbytes` of a descriptor, hashing them; ends early only by an error."""

    def __init__(self, descriptor: int, nbytes: int, stopping: threading.Event, progress: Progress) -> None:
        self._progress = progress
        self._descriptor = descriptor
        self._nbytes = nbytes
        self._position = 0
        self._stopping = stopping
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        if self._stopping.is_set():
            raise StorageStopped("the run is being stopped")
        left = self._nbytes - self._position
        chunk = os.pread(self._descriptor, min(CHUNK if size < 0 else size, left), self._position)
        if left and size and not chunk:
            raise SourceChanged("shrank while it was read")
        self._position += len(chunk)
        self._hash.update(chunk)
        self._progress.advance(nbytes=len(chunk))
        return chunk

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Counted:
    """Passes bytes on to an upload and counts them."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self.nbytes = 0

    def write(self, chunk: bytes, /) -> int:
        self.nbytes += len(chunk)
        return self._upload.write(chunk)

    def flush(self) -> None:
        self._upload.flush()


def object_bound(nbytes: int, header: int) -> int:
    """Return an upper bound for the object of a content: age's header and chunks, and gzip that fails to pack."""
    return nbytes + nbytes // 1000 + 16 * (nbytes // 65536 + 2) + header
