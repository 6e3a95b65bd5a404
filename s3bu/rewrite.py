"""Take paths out of snapshots that were made long ago: each manifest is replaced by one that lacks their lines.

The new manifest lies under the key of the old one, put there in one step, so that at no time either both or none is
there, its place among the others stays, and its header still names it. It has one line more, which says that paths were
taken out, when and where; all other lines are what they were, byte for byte. Where the bucket keeps versions, the old
one is removed after that, since it still has the paths. Contents go with the next prune.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from s3bu.compression import Readable, gzip_member
from s3bu.errors import IntegrityError, StorageError, UsageError
from s3bu.history import Facts, let_go, take_in, whole
from s3bu.index import Index
from s3bu.known import Known
from s3bu.manifest import Header, format_rewrite
from s3bu.manifest.reader import path_of, read_manifest
from s3bu.progress import Change, Progress
from s3bu.repository import Repository, StoredManifest
from s3bu.repository.layout import ManifestKey

_STRETCH = 256 * 1024


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be taken out: the pattern as it was given, and whether it holds for a path.

    `host` and `at` stand in the line that tells of it. With `is_dry` nothing is written.
    """

    pattern: str
    matches: Callable[[bytes], object]
    host: str
    at: datetime
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one snapshot: how many paths were taken out of it, and how many stay."""

    key: ManifestKey
    removed: int
    kept: int


def run(
    repository: Repository, index: Index, keys: Sequence[ManifestKey], removal: Removal, progress: Progress
) -> Iterator[Outcome]:
    """Rewrite these snapshots one after the other, and yield what came of each; the index follows each of them."""
    for key in keys:
        progress.phase(f"rewriting {key}")
        yield _Rewriting(repository, index, key, removal, progress).run()


class _Rewriting:
    """One snapshot being rewritten."""

    def __init__(
        self, repository: Repository, index: Index, key: ManifestKey, removal: Removal, progress: Progress
    ) -> None:
        self._repository = repository
        self._index = index
        self._key = key
        self._removal = removal
        self._progress = progress
        self._directories: dict[bytes, bool] = {}
        self._removed = self._kept = 0
        self._is_rewritten = False

    def run(self) -> Outcome:
        before = self._listed()
        header, pieces = self._read()
        stretches = list(self._stretches(pieces))
        if self._removed and not self._kept:
            raise UsageError(
                f"'{self._removal.pattern}' takes out all that {self._key} holds",
                hint="a snapshot that nobody wants is forgotten, with `s3bu forget`",
            )
        if not self._removal.is_dry:
            if self._removed:
                self._replace(header, stretches, before)
            if self._removed or self._is_rewritten:  # one that broke off may have left them
                self._remove_older()
        return Outcome(self._key, self._removed, self._kept)

    def _listed(self) -> StoredManifest:
        listed = self._repository.manifests(self._key.job, self._key.label, since=self._key)
        if not listed or listed[0].key != self._key:
            raise StorageError(f"{self._key}: gone since it was listed", hint="`s3bu snapshots` lists what there is")
        return listed[0]

    # --- reading

    def _read(self) -> tuple[Header, list[bytes]]:
        """Read the whole manifest, to its end; return its header, and its plain bytes in packed pieces."""
        key = self._key
        with self._repository.open_private(str(key)) as private:
            if not private.is_encrypted:
                raise IntegrityError(f"{key}: the manifest is not encrypted, so it is not rewritten")
            kept = _Kept(private.reader)
            reader = read_manifest(kept, key=str(key), job=key.job, label=key.label, packed=private.packed)
            for _ in reader:
                pass
            self._is_rewritten = reader.is_rewritten
            if reader.is_truncated or reader.warnings:
                why = next(iter(reader.warnings), f"{key}: it is cut")
                raise IntegrityError(f"{why}; it is not rewritten, since what it says there would be lost")
            # One of the original has the time of its object, which the new object would not have any more.
            header = reader.header or Header(str(key), key.job, key.label, "", private.modified, "")
            return header, kept.pieces

    def _stretches(self, pieces: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the lines that stay, packed; those of the header and the end are written anew."""
        pending: list[bytes] = []
        size = 0
        for line in _lines(pieces):
            if line.startswith(b"#") or not self._stays(line):
                continue
            pending.append(line + b"\n")
            size += len(line)
            if size >= _STRETCH:
                yield _packed(pending)
                pending, size = [], 0
        if pending:
            yield _packed(pending)

    def _stays(self, line: bytes) -> bool:
        path = path_of(line)
        if path is None:
            return True
        is_entry = not line.startswith((b"@meta", b"@fail"))
        if not self._is_removed(path):
            self._kept += is_entry
            return True
        self._removed += is_entry or line.startswith(b"@fail")
        if self._progress.wants_changes and is_entry:
            kind = {b"@dir": "dir", b"@symlink": "symlink", b"@special": "special"}.get(line.partition(b" ")[0], "file")
            nbytes = int(line.partition(b",")[0]) if kind == "file" else 0
            self._progress.change(Change("removed", path, kind, nbytes))
        return False

    def _is_removed(self, path: bytes) -> bool:
        """Say whether a path matches, or a directory above it does."""
        if self._removal.matches(path):
            return True
        unknown = []
        while (path := path.rpartition(b"/")[0]) and path not in self._directories:
            unknown.append(path)
        is_removed = bool(path) and self._directories[path]
        for above in reversed(unknown):
            is_removed = is_removed or bool(self._removal.matches(above))
            self._directories[above] = is_removed
        return is_removed

    # --- writing

    def _replace(self, header: Header, stretches: list[tuple[bytes, bytes]], before: StoredManifest) -> None:
        removal = self._removal
        line = format_rewrite(removal.at, removal.host, self._removed, removal.pattern)

        def check() -> None:
            if self._listed().etag != before.etag:
                raise StorageError(f"{self._key}: was replaced while it was read", hint="run again")

        self._repository.put_manifest(header, [(line, gzip_member(line)), *stretches], check, create=False)
        self._record()

    def _record(self) -> None:
        """Let the index follow, in one transaction, by what stands in the repository now."""
        index, listed = self._index, self._listed()
        with self._repository.open_manifest(self._key) as (reader, created), index.transaction():
            Known(self._repository, index, self._progress).doubt(index.source(self._key.job, self._key.label))
            for snapshot in [one for one in index.snapshots() if one.key == str(self._key)]:
                let_go(index, snapshot)
            take_in(index, Facts(self._key, listed.etag, created, reader.header), whole(reader))

    def _remove_older(self) -> None:
        """Remove the older versions of the manifest, which still have what was taken out."""
        versions = [stat for stat in self._repository.storage.versions(str(self._key)) if stat.key == str(self._key)]
        for stat in versions[1:]:
            self._repository.storage.remove(stat)


class _Kept:
    """A reader that keeps what it hands out, packed."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.pieces: list[bytes] = []

    def read(self, size: int = -1, /) -> bytes:
        piece = self._reader.read(size)
        self.pieces.append(zlib.compress(piece, 1))
        return piece


def _lines(pieces: list[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + zlib.decompress(piece)).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _packed(lines: list[bytes]) -> tuple[bytes, bytes]:
    joined = b"".join(lines)
    return joined, gzip_member(joined)
