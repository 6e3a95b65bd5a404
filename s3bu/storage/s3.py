"""A bucket of S3 as storage: libcurl moves the objects, boto3 does what is not bulk.

libcurl spends a thirtieth of boto3's processor time on a small object. boto3 lists, deletes, probes, and writes large
objects in parts.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from s3bu.errors import AccessDenied, ObjectExists, RepositoryNotFoundError, S3buError, StorageError, StorageStopped
from s3bu.storage import PART_BOUND, ObjectStat, Put, Unfinished
from s3bu.storage.calls import Calls
from s3bu.storage.place import Place, S3Options
from s3bu.storage.s3_connection import Connection, Keys, Patience, S3Client
from s3bu.storage.s3_download import S3Download, fetch_exchange, head_exchange
from s3bu.storage.s3_errors import FAULTS, Request, code_of, fault
from s3bu.storage.s3_exchange import Exchange, Fetch
from s3bu.storage.s3_put import CONFLICT, put_exchange
from s3bu.storage.s3_removal import Removal
from s3bu.storage.s3_transport import Terms
from s3bu.storage.s3_upload import S3Upload, Target

T = TypeVar("T")

_ARCHIVE_CLASSES = frozenset(("GLACIER", "DEEP_ARCHIVE"))
# What servers say that do not know the condition, as far as they do not just ignore it.
_CONDITION_UNKNOWN = frozenset(("NotImplemented", "InvalidArgument", "InvalidRequest"))
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class S3Storage:
    """A bucket, or what lies below a prefix of it; keys are relative to the prefix."""

    def __init__(self, place: Place, options: S3Options, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._connection = Connection(place.bucket, options, self._patience)
        self._calls = Calls()
        self._bucket = place.bucket
        self._root = f"{place.prefix}/" if place.prefix else ""
        suffix = f"/{place.prefix}" if place.prefix else ""
        self.url = f"s3://{place.bucket}{suffix}"
        self.identity = f"{self._connection.identity}{suffix}"
        self.has_conditional_writes: bool | None = None
        self._removal = Removal(self._ask, self._bucket, self._root, self._stat, self._look, self._senseless)

    def exists(self) -> bool:
        """Say whether the bucket is there; a listing asks, since a HEAD would not tell why it is refused."""
        try:
            self._ask("s3:ListBucket", "", lambda client: client.list_objects_v2(Bucket=self._bucket, MaxKeys=1))
        except RepositoryNotFoundError:
            return False
        return True

    def create(self) -> None:
        """Make the bucket, in the region of the connection, unless it is there."""
        if self.exists():
            return
        region = self._connection.region
        # The oldest region is the one that must not be named.
        where: dict[str, Any] = {}
        if region != "us-east-1":
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self._ask("s3:CreateBucket", "", lambda client: client.create_bucket(Bucket=self._bucket, **where))

    def probe(self, key: str) -> bool:
        """Find out whether a second create of `key` is refused; what may not be written is left unknown."""
        try:
            self.has_conditional_writes = self._refuses_create(key) or self._refuses_create(key)
        except AccessDenied:
            self.has_conditional_writes = None
        return self.has_conditional_writes is True

    def put(self, key: str, body: bytes, metadata: Mapping[str, str], *, create: bool = False) -> None:
        """Store a body that fits in memory; it is confirmed when this returns."""
        (error,) = self.put_all([Put(key, body, metadata, create)])
        if error is not None:
            raise error

    def put_all(self, puts: Sequence[Put]) -> list[StorageError | None]:
        """Store bodies, all under way at once; one hand-over to the loop serves them all."""
        errors = [self._refused(one) for one in puts]
        sent = [self._sending(one) for one, error in zip(puts, errors, strict=True) if error is None]
        if not sent:
            return errors
        keys = self._keys()
        common, has_checksum = self._common(keys), self._connection.has_checksums
        exchanges = [put_exchange(self._path(request), put, common, has_checksum=has_checksum) for request, put in sent]
        self._run(exchanges, keys)
        rest = iter(self._put_error(one, request) for one, (request, _) in zip(exchanges, sent, strict=True))
        return [next(rest) if error is None else error for error in errors]

    def _put_error(self, exchange: Exchange, request: Request) -> StorageError | None:
        """Return the storage's error for one body; raise what concerns them all, such as a missing bucket."""
        if exchange.fault is None:
            return None
        error = self._explained(exchange.fault, request)
        if isinstance(error, ObjectExists) and exchange.attempts > 1 and self._has_landed(request, exchange.body):
            return None
        if isinstance(error, StorageError) and not isinstance(error, StorageStopped):
            return error
        raise error from exchange.fault

    def _has_landed(self, request: Request, body: bytes) -> bool:
        """Say whether what is there is the very body: when an answer is lost, a repeated create meets its own object.

        No two bodies are alike, since each is encrypted anew; its ETag is its MD5 unless the bucket has keys of KMS.
        """
        stat = self._look(request.key)
        return stat is not None and stat.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()

    def writer(self, key: str, nbytes: int, metadata: Mapping[str, str], *, create: bool = False) -> S3Upload:
        """Return a writer of parts, three of which may be under way at once."""
        request = self._request("s3:PutObject", key)
        target = Target(
            request=request,
            metadata=metadata,
            is_conditional=create and self.has_conditional_writes is True,
            refuses_existing=create and not self.has_conditional_writes,
            look=lambda: self._look(request.key),
            put=lambda body: self.put(key, body, metadata, create=create),
        )
        return S3Upload(self._connection, self._calls, target, nbytes)

    def open(self, key: str, *, start: int = 0) -> S3Download:
        """Begin to read an object."""
        (found,) = self._open_each([self._request("s3:GetObject", key)], start=start, bound=PART_BOUND)
        if isinstance(found, StorageError):
            raise found
        return found

    def open_all(self, keys: Sequence[str], *, bound: int) -> "Sequence[S3Download | StorageError]":
        """Begin to read objects, all under way at once."""
        requests = [self._caught_request("s3:GetObject", key) for key in keys]
        asked = [request for request in requests if isinstance(request, Request)]
        opened = iter(self._open_each(asked, start=0, bound=bound) if asked else ())
        return [next(opened) if isinstance(request, Request) else request for request in requests]

    def _open_each(self, requests: Sequence[Request], *, start: int, bound: int) -> "list[S3Download | StorageError]":
        keys = self._keys()
        common = self._common(keys)
        fetches = [fetch_exchange(self._path(one), common, start=start, bound=bound) for one in requests]
        self._run(fetches, keys)
        return [self._opened(request, fetch, keys) for request, fetch in zip(requests, fetches, strict=True)]

    def _opened(self, request: Request, fetch: Fetch, keys: Keys) -> S3Download | StorageError:
        if fetch.fault is None or fetch.is_open:
            return self._caught(lambda: self._download(request, fetch))
        if fetch.start and code_of(fetch.fault) == "InvalidRange":
            return self._caught(lambda: self._head(request, keys))
        error = self._explained(fetch.fault, request)
        error.__cause__ = fetch.fault
        if isinstance(error, StorageError) and not isinstance(error, StorageStopped):
            return error
        raise error

    def _caught(self, open_it: Callable[[], S3Download]) -> S3Download | StorageError:
        try:
            return open_it()
        except StorageStopped:
            raise
        except StorageError as error:
            return error

    def _download(self, request: Request, fetch: Fetch) -> S3Download:
        return S3Download(request, fetch.first, fetch.nbytes, fetch, self._connection.transport, self._explained)

    def _head(self, request: Request, keys: Keys) -> S3Download:
        """Return the empty rest behind an object's end, which says what the object is."""
        head = head_exchange(self._path(request), self._common(keys))
        self._run([head], keys)
        if head.fault is not None:
            raise self._explained(head.fault, request) from head.fault
        nbytes = head.answer.length or 0
        return S3Download(request, head.answer, nbytes, None, self._connection.transport, self._explained)

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return an object's metadata, by one request for its head."""
        with self._head(self._request("s3:GetObject", key), self._keys()) as download:
            return download.metadata

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectStat]:
        """Yield what lies under a prefix, a page of a thousand at a time; a disordered listing is a `StorageError`."""
        last = after
        asked: dict[str, Any] = {"StartAfter": self._root + after} if after else {}
        while True:
            page = self._page(prefix, asked)
            for item in page.get("Contents", ()):
                stat = self._stat(item, prefix)
                if not stat.key:
                    # The prefix itself, an empty object by which consoles draw a folder.
                    continue
                if stat.key <= last:
                    raise StorageError(f"{self.url} lists its keys out of order: {stat.key!r} after {last!r}")
                last = stat.key
                yield stat
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or not isinstance(token, str):
                raise StorageError(f"{self.url} answers with a listing that breaks off")
            asked = {"ContinuationToken": token}

    def delete(self, key: str) -> None:
        """Remove an object (in a versioned bucket: hide it)."""
        name = self._root + key
        self._ask("s3:DeleteObject", name, lambda client: client.delete_object(Bucket=self._bucket, Key=name))

    def now(self) -> datetime:
        """Return what time it is at the server."""
        return self._removal.now()

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield all versions of what lies under a prefix."""
        return self._removal.versions(prefix) if self._removal.has_versions else self.list(prefix)

    def remove(self, stat: ObjectStat) -> bool:
        """Remove the very object, or version, of a listing."""
        return self._removal.remove(stat)

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the uploads in parts that nobody ended."""
        return self._removal.unfinished()

    def abandon(self, upload: Unfinished) -> None:
        """Abort an upload in parts."""
        self._removal.abandon(upload)

    def stop(self) -> None:
        """Let all callers go at once; what boto3 has under way ends by itself, unheard."""
        self._calls.stop()
        self._connection.stop()

    def close(self) -> None:
        """Stop, end the transport's thread and close the connections."""
        self._calls.stop()
        self._connection.close()

    def _refused(self, one: Put) -> StorageError | None:
        """Return why a body is not even sent: for its key, or since it would replace what it must not."""
        try:
            request = self._request("s3:PutObject", one.key)
            if one.create and not self.has_conditional_writes and self._look(request.key) is not None:
                raise ObjectExists(f"{request.url} is there already")
        except StorageStopped:
            raise
        except StorageError as error:
            return error
        return None

    def _sending(self, one: Put) -> tuple[Request, Put]:
        """Return what to send; without conditional writes the look just before has to do."""
        put = one if self.has_conditional_writes else replace(one, create=False)
        return self._request("s3:PutObject", one.key), put

    def _run(self, exchanges: Sequence[Exchange], keys: Keys) -> None:
        patience, has_answered = self._patience, self._connection.has_answered
        silence = patience.answer if has_answered else min(patience.first, patience.answer)
        most = patience.most if has_answered else patience.first
        terms = Terms(keys.access_key, keys.secret_key, silence, patience.retries, most)
        self._connection.transport.run(exchanges, terms)
        if any(exchange.fault is None for exchange in exchanges):
            self._connection.has_answered = True

    def _keys(self) -> Keys:
        keys = self._connection.fresh_keys
        if keys is None:
            keys = self._ask("s3:ListBucket", "", lambda _: self._connection.keys(), is_answer=False)
        return keys

    def _common(self, keys: Keys) -> Sequence[str]:
        return [f"x-amz-security-token: {keys.token}"] if keys.token else []

    def _path(self, request: Request) -> str:
        return self._connection.address.path(request.bucket, request.key)

    def _explained(self, error: Exception, request: Request) -> S3buError:
        return error if isinstance(error, S3buError) else fault(error, request)

    def _caught_request(self, action: str, key: str) -> Request | StorageError:
        try:
            return self._request(action, key)
        except StorageError as error:  # such a key is no name of an object
            return error

    def _ask(self, action: str, name: str, call: Callable[[S3Client], T], *, is_answer: bool = True) -> T:
        request = Request(action, self._bucket, name, self._connection.endpoint)

        def ask() -> T:
            try:
                return call(self._connection.client)
            except FAULTS as error:
                raise fault(error, request) from error

        answer = self._calls.call(ask)
        if is_answer:
            self._connection.has_answered = True
        return answer

    def _request(self, action: str, key: str) -> Request:
        """Refuse keys that are paths rather than names, or no text; s3bu makes none of them."""
        if any(segment in ("", ".", "..") for segment in key.split("/")) or _CONTROLS.search(key):
            raise StorageError(f"no key that can be stored or read here: {key!r}")
        return Request(action, self._bucket, self._root + key, self._connection.endpoint)

    def _page(self, prefix: str, asked: dict[str, Any]) -> dict[str, Any]:
        def list_page(client: S3Client) -> dict[str, Any]:
            return dict(client.list_objects_v2(Bucket=self._bucket, Prefix=self._root + prefix, **asked))

        try:
            return self._ask("s3:ListBucket", "", list_page)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:  # boto3 expects sensible answers
            raise self._senseless() from error

    def _senseless(self) -> StorageError:
        return StorageError(f"{self.url} answers with a listing that makes no sense")

    def _stat(self, item: Mapping[str, Any], prefix: str) -> ObjectStat:
        """Return what a listing says of an object; of what stands there twice boto3 makes a list."""
        match (item.get("Key"), item.get("Size"), item.get("LastModified"), item.get("ETag", "")):
            case (str(key), int(nbytes), datetime() as modified, str(etag)) if key.startswith(self._root + prefix):
                return ObjectStat(
                    key=key.removeprefix(self._root),
                    nbytes=nbytes,
                    modified=modified if modified.tzinfo else modified.replace(tzinfo=UTC),
                    etag=etag.strip('"'),
                    is_archived=str(item.get("StorageClass")) in _ARCHIVE_CLASSES,
                )
        raise self._senseless()

    def _look(self, name: str) -> ObjectStat | None:
        """Return what lies under just that key; by a listing, since a backup's credentials may not read."""
        first = next(self.list(name.removeprefix(self._root)), None)
        return first if first is not None and self._root + first.key == name else None

    def _refuses_create(self, key: str) -> bool:
        request = self._request("s3:PutObject", key)

        def put(client: S3Client) -> bool:
            try:
                client.put_object(Bucket=self._bucket, Key=request.key, Body=b"", IfNoneMatch="*")
            except FAULTS as error:
                code = code_of(error)
                if code in _CONDITION_UNKNOWN:
                    return False
                if code in ("PreconditionFailed", CONFLICT):
                    return True
                raise
            return False

        return self._ask("s3:PutObject", request.key, put)
