"""A bucket of S3 as storage: obstore moves the objects, boto3 does what is not bulk.

obstore spends a tenth of boto3's processor time on a small object. boto3 lists (obstore fails on a single odd key and
knows no storage classes), deletes, probes, and writes large objects in parts.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from obstore.store import S3Store

from s3bu.errors import AccessDenied, ObjectExists, RepositoryNotFoundError, S3buError, StorageError, StorageStopped
from s3bu.storage import PART_BOUND, ObjectStat, Put
from s3bu.storage.calls import Calls
from s3bu.storage.place import Place, S3Options
from s3bu.storage.s3_connection import Connection, Patience, S3Client, Stores
from s3bu.storage.s3_download import Opened, S3Download, open_object
from s3bu.storage.s3_errors import FAULTS, Request, code_of, fault
from s3bu.storage.s3_put import CONFLICT, Sender
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
        self._stores: Stores | None = None
        self._sender = Sender(self._patience, self._fault)
        suffix = f"/{place.prefix}" if place.prefix else ""
        self.url = f"s3://{place.bucket}{suffix}"
        self.identity = f"{self._connection.identity}{suffix}"
        self.has_conditional_writes: bool | None = None

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
        store = self._made_stores().writing

        answers = self._calls.run(lambda: self._sender.send(store, sent))
        if None in answers:
            self._connection.has_answered = True
        rest = iter(answers)
        return [next(rest) if error is None else error for error in errors]

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
        request = self._request("s3:GetObject", key)
        store = self._made_stores().reading
        opened = self._calls.run(lambda: self._open(store, request, start, PART_BOUND))
        self._connection.has_answered = True
        return self._download(request, opened)

    def open_all(self, keys: Sequence[str], *, bound: int) -> list[S3Download | StorageError]:
        """Begin to read objects, all under way at once; one hand-over to the loop serves them all."""
        store = self._made_stores().reading

        async def open_all() -> list[S3Download | StorageError]:
            return await asyncio.gather(*(self._open_caught(store, key, bound) for key in keys))

        answers = self._calls.run(open_all)
        if any(isinstance(answer, S3Download) for answer in answers):
            self._connection.has_answered = True
        return answers

    def _download(self, request: Request, opened: Opened) -> S3Download:
        return S3Download(self._calls, request, opened, self._patience.put_most)

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
            if not token:
                raise StorageError(f"{self.url} answers with a listing that breaks off")
            asked = {"ContinuationToken": token}

    def delete(self, key: str) -> None:
        """Remove an object (in a versioned bucket: hide it)."""
        name = self._root + key
        self._ask("s3:DeleteObject", name, lambda client: client.delete_object(Bucket=self._bucket, Key=name))

    def stop(self) -> None:
        """Let all callers go at once; what boto3 has under way ends by itself, unheard."""
        self._calls.stop()

    def close(self) -> None:
        """Stop, end the threads and close the connections."""
        self._calls.close()
        self._stores = None
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

    async def _open_caught(self, store: S3Store, key: str, bound: int) -> S3Download | StorageError:
        try:
            request = self._request("s3:GetObject", key)
            return self._download(request, await self._open(store, request, 0, bound))
        except StorageError as error:
            return error

    async def _open(self, store: S3Store, request: Request, start: int, bound: int) -> Opened:
        seconds = self._patience.put_most if self._connection.has_answered else self._patience.first
        try:
            async with asyncio.timeout(seconds):
                return await open_object(store, request, start, bound)
        except FAULTS as error:
            raise self._fault(error, request) from error

    def _fault(self, error: Exception, request: Request) -> S3buError:
        return fault(self._connection.cause(error), request)

    def _made_stores(self) -> Stores:
        if self._stores is None:
            # It may ask a single sign-on or a role for credentials, so it must be stoppable.
            self._stores = self._ask("s3:ListBucket", "", lambda _: self._connection.stores(), is_answer=False)
        return self._stores

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
        """Refuse keys that obstore would take for another one or for a path; s3bu makes none of them."""
        if any(segment in ("", ".", "..") for segment in key.split("/")) or _CONTROLS.search(key):
            raise StorageError(f"no key that can be stored or read here: {key!r}")
        return Request(action, self._bucket, self._root + key, self._connection.endpoint)

    def _page(self, prefix: str, asked: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = self._ask(
            "s3:ListBucket",
            "",
            lambda client: client.list_objects_v2(Bucket=self._bucket, Prefix=self._root + prefix, **asked),
        )
        return page

    def _stat(self, item: Mapping[str, Any], prefix: str) -> ObjectStat:
        key = item.get("Key", "")
        if not key.startswith(self._root + prefix) or not {"Size", "LastModified"} <= item.keys():
            raise StorageError(f"{self.url} answers with a listing that makes no sense")
        return ObjectStat(
            key=key.removeprefix(self._root),
            nbytes=item["Size"],
            modified=item["LastModified"],
            etag=item.get("ETag", "").strip('"'),
            is_archived=item.get("StorageClass") in _ARCHIVE_CLASSES,
        )

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
                code = code_of(error, request.key)
                if code in _CONDITION_UNKNOWN:
                    return False
                if code in ("PreconditionFailed", CONFLICT):
                    return True
                raise
            return False

        return self._ask("s3:PutObject", request.key, put)
