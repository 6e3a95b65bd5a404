"""Removing from a bucket for good: the very version that was listed, what time it is there, and abandoned uploads.

Where a bucket keeps versions, one is removed by its id, and an object that was put meanwhile is another one. Not so the
version `null` of a bucket that keeps none any more: what is put there takes its place, under the same id. There, and
elsewhere, the removal is on condition of the ETag, which AWS has known since 2025; a server that passes over the
condition is found out by a removal of nothing, and then a look just before is all there is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

from s3bu.errors import StorageError
from s3bu.storage import ObjectStat, Unfinished
from s3bu.storage.s3_connection import S3Client
from s3bu.storage.s3_errors import FAULTS, code_of
from s3bu.storage.s3_put import CONFLICT

T = TypeVar("T")

_NO_VERSIONS = frozenset(("NotImplemented", "MethodNotAllowed"))
_ENABLED, _SUSPENDED, _NULL = "Enabled", "Suspended", "null"
_ANOTHER = frozenset(("PreconditionFailed", "NoSuchKey", CONFLICT))
_NO_UPLOADS = frozenset(("NoSuchUpload", "NotImplemented", "MethodNotAllowed"))


class Ask(Protocol):
    """Makes one request of boto3, allowed by an action, of a key or the bucket; errors become ours."""

    def __call__(self, action: str, name: str, call: Callable[[S3Client], T]) -> T:
        """Return what the call returns."""


class Removal:
    """What removes from one bucket; keys are relative to `root`.

    `stat` makes of an item of a listing what it says, `look` asks what lies under a key, `senseless` is the error of a
    listing that makes no sense.
    """

    def __init__(
        self,
        ask: Ask,
        bucket: str,
        root: str,
        stat: Callable[[Mapping[str, Any], str], ObjectStat],
        look: Callable[[str], ObjectStat | None],
        senseless: Callable[[], StorageError],
    ) -> None:
        self._ask = ask
        self._bucket = bucket
        self._root = root
        self._stat = stat
        self._look = look
        self._senseless = senseless
        self._versioning: str | None = None
        self._has_conditions: bool | None = None

    def now(self) -> datetime:
        """Return what time it is at the server, by the head of an answer."""

        def ask(client: S3Client) -> str:
            answer = client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
            return str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))

        text = self._ask("s3:ListBucket", "", ask)
        try:
            moment = parsedate_to_datetime(text)
        except (TypeError, ValueError, OverflowError) as error:
            raise StorageError(f"s3://{self._bucket}: the server does not say what time it is") from error
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    # --- versions

    @property
    def has_versions(self) -> bool:
        """Whether the bucket keeps versions, or did once."""
        if self._versioning is None:
            self._versioning = self._ask("s3:GetBucketVersioning", "", self._asked_versioning)
        return self._versioning in (_ENABLED, _SUSPENDED)

    def _asked_versioning(self, client: S3Client) -> str:
        try:
            answer = client.get_bucket_versioning(Bucket=self._bucket)
        except FAULTS as error:
            if code_of(error) in _NO_VERSIONS:
                return ""
            raise
        return str(answer.get("Status", ""))

    def versions(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield all versions under a prefix of a bucket that keeps them, those of a key together, the newest first."""
        asked: dict[str, Any] = {}
        last = ""
        while True:
            page = self._page(prefix, asked)
            for item in page.get("Versions", ()):
                version = item.get("VersionId")
                stat = self._stat(item, prefix)
                if not isinstance(version, str) or not version or stat.key < last:
                    raise self._senseless()
                last = stat.key
                if stat.key:
                    yield replace(stat, version=version)
            if not page.get("IsTruncated"):
                return
            following = {"KeyMarker": page.get("NextKeyMarker"), "VersionIdMarker": page.get("NextVersionIdMarker")}
            if not all(isinstance(marker, str) for marker in following.values()) or following == asked:
                raise self._senseless()
            asked = following

    def _page(self, prefix: str, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._ask(
                "s3:ListBucketVersions",
                "",
                lambda client: dict(
                    client.list_object_versions(Bucket=self._bucket, Prefix=self._root + prefix, **asked)
                ),
            )
        except (AttributeError, OverflowError, TypeError, ValueError) as error:  # boto3 expects sensible answers
            raise self._senseless() from error

    # --- removing

    def remove(self, stat: ObjectStat) -> bool:
        """Remove the very version, or object, that was listed; say whether it was still that one."""
        name = self._root + stat.key
        if stat.version and not (self.has_versions and self._versioning == _SUSPENDED and stat.version == _NULL):
            version = {"Key": name, "VersionId": stat.version}
            self._ask(
                "s3:DeleteObjectVersion", name, lambda client: client.delete_object(Bucket=self._bucket, **version)
            )
            return True
        if not stat.version and self.has_versions:
            first = next((one for one in self.versions(stat.key) if one.key == stat.key), None)
            return first is not None and first.etag == stat.etag and self.remove(first)
        if self._has_conditions is None:
            self._has_conditions = not self._removed_if(f"{name}-none", stat.etag)
        if self._has_conditions:
            return self._removed_if(name, stat.etag)
        found = self._look(name)
        if found is None or found.etag != stat.etag:
            return False
        self._ask("s3:DeleteObject", name, lambda client: client.delete_object(Bucket=self._bucket, Key=name))
        return True

    def _removed_if(self, name: str, etag: str) -> bool:
        def ask(client: S3Client) -> bool:
            try:
                client.delete_object(Bucket=self._bucket, Key=name, IfMatch=f'"{etag}"')
            except FAULTS as error:
                if code_of(error) in _ANOTHER:
                    return False
                raise
            return True

        return self._ask("s3:DeleteObject", name, ask)

    # --- uploads in parts that nobody ended

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the uploads that were begun and neither ended nor aborted."""
        asked: dict[str, Any] = {}
        while True:
            page = self._ask("s3:ListBucketMultipartUploads", "", lambda client: self._asked_uploads(client, asked))  # noqa: B023 - called at once
            for item in page.get("Uploads", ()):
                match (item.get("Key"), item.get("UploadId"), item.get("Initiated")):
                    case (str(key), str(upload), datetime() as begun) if key.startswith(self._root):
                        begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
                        yield Unfinished(key.removeprefix(self._root), upload, begun)
                    case _:
                        raise self._senseless()
            following = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
            if not page.get("IsTruncated") or following == asked or None in following.values():
                return
            asked = following

    def _asked_uploads(self, client: S3Client, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._root, **asked))
        except FAULTS as error:
            if code_of(error) in _NO_UPLOADS:  # how some say that there are none
                return {}
            raise

    def abandon(self, upload: Unfinished) -> None:
        """Abort an upload; one that is over by now is no error."""
        name = self._root + upload.key

        def ask(client: S3Client) -> None:
            try:
                client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload.id)
            except FAULTS as error:
                if code_of(error) not in _NO_UPLOADS:
                    raise

        self._ask("s3:AbortMultipartUpload", name, ask)
