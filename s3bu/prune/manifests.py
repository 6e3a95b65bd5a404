"""Which contents the snapshots of a repository name: all of them are read, or nothing is said at all."""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from s3bu.errors import IntegrityError, ObjectNotFound, S3buError, StorageError
from s3bu.manifest import Entry
from s3bu.parallel import each
from s3bu.progress import Progress
from s3bu.repository import Repository
from s3bu.repository.layout import ManifestKey, parse_manifest_key
from s3bu.storage import ObjectStat

_PRIVATE = re.compile(r"manifests/[^/]+/\.s3bu/[^/]+")
_READERS = 2
_LISTINGS = 5
_BATCH = 10_000
_IN_USE = timedelta(days=90)
"""Where the original made a snapshot so lately it is taken to be in use."""


@dataclass(frozen=True, slots=True)
class Named:
    """The contents that are named, by their hashes in 32 bytes, and the manifests by key, with their ETags."""

    hashes: set[bytes]
    manifests: dict[str, str]


def list_manifests(repository: Repository) -> dict[ManifestKey, ObjectStat]:
    """Return all manifests of all jobs; `IntegrityError` when something else stands among them.

    Whoever cannot tell what an object is cannot tell either what it names.
    """
    found, unknown = {}, []
    for stat in repository.storage.list("manifests/"):
        key = parse_manifest_key(stat.key)
        if key is not None:
            found[key] = stat
        elif not (_PRIVATE.fullmatch(stat.key) or (stat.key.endswith("/") and not stat.nbytes)):
            unknown.append(stat.key)
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise IntegrityError(
            f"{unknown[0]}{more}: no manifest, and nobody knows which contents it may need; nothing was deleted",
            hint="find out who wrote it, and move it out of manifests/",
        )
    return found


class Reading:
    """Reads manifests for the contents that they name."""

    def __init__(self, repository: Repository, progress: Progress, now: datetime, *, is_original_stopped: bool) -> None:
        self._repository = repository
        self._progress = progress
        self._now = now
        self._is_original_stopped = is_original_stopped
        self._lock = threading.Lock()
        self._hashes: set[bytes] = set()

    def read(self) -> Named:
        """Read all manifests, also those that appear meanwhile; one that vanishes meanwhile ends it."""
        self._progress.phase("listing snapshots")
        listed = list_manifests(self._repository)
        read: dict[ManifestKey, str] = {}
        for _ in range(_LISTINGS):
            self._read_all([key for key, stat in listed.items() if read.get(key) != stat.etag])
            read = {key: stat.etag for key, stat in listed.items()}
            listed = list_manifests(self._repository)
            if read.keys() - listed.keys():
                raise _moving(next(iter(read.keys() - listed.keys())))
            if all(read.get(key) == stat.etag for key, stat in listed.items()):
                return Named(self._hashes, {str(key): etag for key, etag in read.items()})
        raise _moving(next(iter(listed)))

    def _read_all(self, keys: Iterable[ManifestKey]) -> None:
        wanted = list(keys)
        self._progress.phase("reading what snapshots name", files=len(wanted), noun="snapshot")
        for _ in each(self._read_one, wanted, workers=_READERS, give_up=self._repository.storage.stop):
            self._progress.advance(files=1)

    def _read_one(self, key: ManifestKey) -> None:
        try:
            self._take(key)
        except ObjectNotFound as error:
            raise _moving(key) from error
        except IntegrityError as error:
            raise _unread(key, error) from error
        except S3buError as error:
            error.message = f"{error.message}; nothing was deleted"
            error.args = (error.message,)
            raise

    def _take(self, key: ManifestKey) -> None:
        with self._repository.open_manifest(key) as (reader, created):
            if reader.header is None:
                self._check_original(key, created)
            batch: list[bytes] = []
            for item in reader:
                if isinstance(item, Entry) and item.hash:
                    batch.append(bytes.fromhex(item.hash))
                if len(batch) >= _BATCH:
                    self._add(batch)
            self._add(batch)
            if reader.is_rewritten and reader.header is not None and not reader.header.host:
                self._check_original(key, created)  # a rewrite gave it a header, without a host
            if reader.is_truncated or reader.warnings:
                raise IntegrityError(next(iter(reader.warnings), f"{key}: it is cut"))

    def _add(self, batch: list[bytes]) -> None:
        with self._lock:
            self._hashes.update(batch)
        batch.clear()

    def _check_original(self, key: ManifestKey, created: datetime) -> None:
        """Refuse to go on where the original program is in use: it deduplicates against what is about to go."""
        if not self._is_original_stopped and self._now - created < _IN_USE:
            raise StorageError(
                f"{key}: made by the original s3backup not long ago, and that program knows nothing of prunes; "
                "a snapshot that it makes from now on could lack contents",
                hint="when it backs up nothing into this repository any more, on no machine, say --original-stopped",
            )


def _moving(key: ManifestKey) -> StorageError:
    return StorageError(
        f"{key}: snapshots come and go while they are read; nothing was deleted", hint="run again later"
    )


def _unread(key: ManifestKey, error: IntegrityError) -> IntegrityError:
    message = error.message if str(key) in error.message else f"{key}: {error.message}"
    return IntegrityError(
        f"{message}; nothing was deleted, since nobody knows which contents it needs",
        hint="find out what became of it; if nobody wants that snapshot, delete the object",
    )
