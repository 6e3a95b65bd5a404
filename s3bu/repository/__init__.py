"""What the keys of a storage mean: recipients, jobs, manifests and contents, and who may open each.

Jobs and manifests are *private*: gzipped, then encrypted to a passphrase. Metadata is a hint and never needed, since
copies through other tools lose it: an object shows by its first bytes what it is (docs/format.md).
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from s3bu.compression import MAGIC, GunzipReader, Readable, gzip_member
from s3bu.crypto.header import age_kind
from s3bu.crypto.passphrase import PassphraseWriter, open_passphrase
from s3bu.errors import IntegrityError, ObjectNotFound, RepositoryNotFoundError, StorageError
from s3bu.keyring import Keyring
from s3bu.manifest import Entry, FailedPath, Header, ManifestWriter, Writable, load_entries
from s3bu.manifest.reader import ManifestReader, read_manifest
from s3bu.remembered import Remembered
from s3bu.repository import layout
from s3bu.repository.layout import ManifestKey
from s3bu.repository.recipients import RecipientSet
from s3bu.repository.state import Contents, State, read_marks
from s3bu.storage import PART_BOUND, Download, ObjectStat, Storage

_PRIVATE_METADATA = {
    "s3bu-scrypt": "age",
    "s3bu-scrypt-version": "001",
    "s3bu-compress": "gzip",
    "s3bu-compress-version": "001",
}
_HEAD = 200
_SMALLEST_CONTENT = 200
"""No age file for a recipient is shorter (docs/format.md, "age"); what is, was cut, and counts as absent."""
_JOB_BOUND = 1024 * 1024
"""More than this is no job."""
_MARKS_ATTEMPTS = 5

__all__ = [
    "Contents",
    "PrivateObject",
    "Repository",
    "Snapshot",
    "State",
    "StoredJob",
    "StoredManifest",
]


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as a listing shows it."""

    key: ManifestKey
    modified: datetime
    nbytes: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """One version of a job; one that is not encrypted may have been written by anyone with access to the bucket."""

    name: str
    version: int
    text: bytes
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A manifest that was read whole: its entries in order, the paths that failed, and what was odd about it.

    `created` is the header's time, else that of the object. `is_truncated` is one of the original's that lost its end.
    """

    key: ManifestKey
    created: datetime
    header: Header | None
    entries: list[Entry]
    failed: list[FailedPath]
    warnings: tuple[str, ...]
    is_truncated: bool = False


class Repository:
    """The repository in a storage, opened with a keyring whose files are read only when something needs them."""

    def __init__(self, storage: Storage, keyring: Keyring, remembered: Remembered, *, max_work_factor: int) -> None:
        self.storage = storage
        self.keyring = keyring
        self.remembered = remembered
        self._max_work_factor = max_work_factor
        if storage.has_conditional_writes is None:
            storage.has_conditional_writes = remembered.facts.has_conditional_writes

    # --- recipients

    def recipients(self) -> RecipientSet:
        """Return the recipients that stand in the repository; without any it is no repository."""
        try:
            texts = {layout.RECIPIENTS: self._read_public(layout.RECIPIENTS)}
        except ObjectNotFound as error:
            raise RepositoryNotFoundError(
                f"{self.storage.url}: not a repository, since it has no {layout.RECIPIENTS}",
                hint=f"make it one with `s3bu init {self.storage.url}`",
            ) from error
        try:
            texts[layout.FURTHER_RECIPIENTS] = self._read_public(layout.FURTHER_RECIPIENTS)
        except ObjectNotFound:
            return RecipientSet.parse(texts)  # most repositories have none
        return RecipientSet.parse(texts)

    def _read_public(self, key: str) -> str:
        with self.storage.open(key) as download:
            text = download.read(_JOB_BOUND)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{key}: not text") from error

    def pinned_recipients(self, *, pins: bool = True) -> RecipientSet:
        """Return the recipients if they are those that this machine accepted; the first ones it sees it pins."""
        recipients = self.recipients()
        recipients.check_pin(self.remembered.facts.recipients, self.storage.url)
        if pins and self.remembered.facts.recipients is None:
            self.remembered.pin_recipients(recipients.fingerprint)
        return recipients

    # --- private objects

    @contextmanager
    def open_private(self, key: str) -> Iterator["PrivateObject"]:
        """Hold a job or manifest open for reading: decrypted and decompressed, as far as it is either."""
        with self.storage.open(key) as download:
            head = download.read(_HEAD)
            reader: Readable = _Prefixed(head, download)
            is_encrypted = age_kind(head) is not None
            if is_encrypted:
                passphrases = self.keyring.passphrases(download.metadata.get("s3bu-scrypt-id"))
                reader = open_passphrase(reader, passphrases, self._max_work_factor, name=key)
            start = reader.read(len(MAGIC))
            reader = _Prefixed(start, reader)
            if start != MAGIC:
                yield PrivateObject(reader, download, is_encrypted, None)
                return
            unpacked = GunzipReader(reader, origin=key)
            yield PrivateObject(unpacked, download, is_encrypted, lambda: unpacked.nbytes_taken)

    def _put_private(
        self,
        key: str,
        write: Callable[[Writable], object],
        before_put: Callable[[], object] = lambda: None,
        *,
        create: bool = True,
    ) -> None:
        """Encrypt and store what `write` writes, gzipped; with `create`, `ObjectExists` when the key is taken."""
        secret = self.keyring.newest_secret
        sink = io.BytesIO()
        with PassphraseWriter(sink, secret.passphrase) as age:
            write(age)
        body = sink.getvalue()
        metadata = _PRIVATE_METADATA | {"s3bu-scrypt-id": secret.id}
        before_put()
        if len(body) <= PART_BOUND:
            self.storage.put(key, body, metadata, create=create)
            return
        with self.storage.writer(key, len(body), metadata, create=create) as upload:
            upload.write(body)
            upload.commit()

    def probe(self, job: str) -> None:
        """Find out, once a machine, whether the storage refuses to create what is there."""
        if self.storage.has_conditional_writes is None:
            self.storage.probe(layout.private_key(job, "probe"))
            self._keep_probed()

    def _keep_probed(self) -> None:
        has = self.storage.has_conditional_writes
        if has is not None:
            self.remembered.keep_conditional_writes(has=has)

    # --- jobs

    def jobs(self) -> dict[str, list[int]]:
        """Return the versions of each job, in rising order."""
        found: dict[str, list[int]] = {}
        for status in self.storage.list("jobs/"):
            parsed = layout.parse_job_key(status.key)
            if parsed:
                found.setdefault(parsed[0], []).append(parsed[1])
        return {name: sorted(versions) for name, versions in found.items()}

    def job_versions(self, name: str) -> dict[int, str]:
        """Return the versions of one job with their ETags, in rising order; by number, so that 1000 comes after 999."""
        found = {}
        for status in self.storage.list(f"jobs/{name}/"):
            parsed = layout.parse_job_key(status.key)
            if parsed:
                found[parsed[1]] = status.etag
        return dict(sorted(found.items()))

    def read_job(self, name: str, version: int) -> StoredJob:
        """Return one version of a job."""
        key = layout.job_key(name, version)
        with self.open_private(key) as private:
            text = bytearray()
            while piece := private.reader.read(_JOB_BOUND + 1):
                text += piece
                if len(text) > _JOB_BOUND:
                    raise IntegrityError(f"{key}: longer than any job")
            return StoredJob(name, version, bytes(text), private.is_encrypted)

    def add_job(self, name: str, text: bytes) -> int:
        """Store a new version of a job and return its number."""
        self.probe(name)
        versions = self.job_versions(name)
        version = max(versions, default=0) + 1
        self._put_private(layout.job_key(name, version), lambda sink: sink.write(gzip_member(text)))
        return version

    # --- manifests

    def manifests(
        self, job: str | None = None, label: str | None = None, *, since: ManifestKey | None = None
    ) -> list[StoredManifest]:
        """Return the manifests of all jobs, of one, or of one label, each label's in order.

        With `since`, only those of its label from this key on, the key itself among them.
        """
        prefix = "manifests/" if job is None else f"manifests/{job}/"
        if job is not None and label is not None:
            prefix = layout.manifests_of(job, label)
        after = str(since)[:-1] if since else ""  # a listing begins behind a key, and this is just before it
        found = []
        for status in self.storage.list(prefix, after=after):
            key = layout.parse_manifest_key(status.key)
            if key and job in (None, key.job) and label in (None, key.label):
                found.append(StoredManifest(key, status.modified, status.nbytes, status.etag))
        return sorted(found, key=lambda manifest: manifest.key)

    @contextmanager
    def open_manifest(
        self, key: ManifestKey, *, allow_plain: bool = False
    ) -> Iterator[tuple[ManifestReader, datetime]]:
        """Hold a manifest open for reading, with the time of its snapshot; a plain one is refused unless allowed.

        Whoever can write to the bucket could otherwise choose what a restore writes.
        """
        with self.open_private(str(key)) as private:
            if not private.is_encrypted and not allow_plain:
                raise IntegrityError(
                    f"{key}: the manifest is not encrypted, so anybody with access to the bucket may have written it",
                    hint="if you know where it comes from, say --allow-plain",
                )
            manifest = read_manifest(private.reader, key=str(key), job=key.job, label=key.label, packed=private.packed)
            yield manifest, manifest.header.created if manifest.header else private.modified

    def read_snapshot(self, key: ManifestKey, *, allow_plain: bool = False) -> Snapshot:
        """Read a manifest whole."""
        with self.open_manifest(key, allow_plain=allow_plain) as (manifest, created):
            items = list(manifest)
            failed = [item for item in items if isinstance(item, FailedPath)]
            entries, warnings = load_entries(items), tuple(manifest.warnings)
            return Snapshot(key, created, manifest.header, entries, failed, warnings, manifest.is_truncated)

    def put_manifest(
        self,
        header: Header,
        stretches: Iterable[tuple[bytes, bytes]],
        before_put: Callable[[], object] = lambda: None,
        *,
        create: bool = True,
    ) -> None:
        """Create the manifest that the header names; `ObjectExists` when another run took the key.

        Each stretch is lines and the same as a gzip member. `before_put` is called at the last moment, and may raise.
        Without `create` it takes the place of the one that is there.
        """

        def write(sink: Writable) -> None:
            manifest = ManifestWriter(sink, header, gzip_member)
            for lines, packed in stretches:
                manifest.write_packed(lines, packed)
            manifest.finish()

        self._put_private(header.key, write, before_put, create=create)

    # --- contents

    def objects(self) -> Iterator[tuple[str, ObjectStat]]:
        """Yield each content's hash and object, by one listing of `data/`."""
        for status in self.storage.list("data/"):
            found = layout.parse_content_key(status.key)
            if found:
                yield found, status

    def contents(self, marked: Mapping[bytes, datetime] = MappingProxyType({})) -> Iterator[tuple[bytes, int, bool]]:
        """Yield each content's hash in 32 bytes, the bytes of its object, and whether that must be overwritten.

        It must where it is too short to be any, or is `marked` and not younger than its mark. The marks must have been
        read before: what a prune marks after this listing shows in a later state.
        """
        for found, status in self.objects():
            digest = bytes.fromhex(found)
            is_doomed = digest in marked and status.modified <= marked[digest]
            yield digest, status.nbytes, status.nbytes < _SMALLEST_CONTENT or is_doomed

    # --- what a prune is about to do

    def state(self) -> State:
        """Return the state of the repository, by one listing of `repo/`."""
        return State({status.key: status.etag for status in self.storage.list("repo/")})

    def marked(self, state: State) -> dict[bytes, datetime]:
        """Return the hashes, 32 bytes each, that the marks of a state name, and when each was last marked.

        Where one of them vanished meanwhile, all marks of the state there is now are read instead; a caller sees by
        comparing states that it moved. `IntegrityError` when one cannot be understood.
        """
        for _ in range(_MARKS_ATTEMPTS):
            try:
                return self._marked(state)
            except ObjectNotFound:
                state = self.state()
        raise StorageError(f"{self.storage.url}: marks keep vanishing while they are read", hint="run again later")

    def _marked(self, state: State) -> dict[bytes, datetime]:
        found: dict[bytes, datetime] = {}
        for key in state.marks:
            # The storage's own time, as that of the contents is: no other clock takes part.
            with self.storage.open(key) as download:
                for digest in read_marks(download, key):
                    found[digest] = max(download.modified, found.get(digest, download.modified))
        return found


@dataclass(frozen=True, slots=True)
class PrivateObject:
    """A job or manifest that is open for reading; `packed` tells from how many bytes it was unpacked so far."""

    reader: Readable
    download: Download
    is_encrypted: bool
    packed: Callable[[], int] | None

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return self.packed is not None

    @property
    def modified(self) -> datetime:
        """When the object was written, as the storage says."""
        return self.download.modified.astimezone(UTC)


class _Prefixed:
    """A reader that first gives back what was read to find out what it is."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            head, self._head = self._head, b""
            return head + self._rest.read()
        taken, self._head = self._head[:size], self._head[size:]
        return taken
