"""Writing one large object to S3 in parts.

The parts go through boto3, which knows how, and what it costs a request is little beside the megabytes of a part. Only
the last step can be conditional.
"""

import base64
import hashlib
import io
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from s3bu.errors import ObjectExists, StorageError
from s3bu.storage import PARTS_IN_FLIGHT, ObjectStat, part_nbytes
from s3bu.storage.calls import Calls, Work
from s3bu.storage.s3_connection import Connection
from s3bu.storage.s3_errors import FAULTS, Request, code_of, fault

# A stop has 10 s in all: parts under way, then the abort, then once more.
_FLIGHT_SECONDS = 3.0
_DISCARD_SECONDS = 3.0
_NO_UPLOAD = frozenset(("NoSuchUpload", "NoSuchKey"))
"""The second is what a 404 stands for whose body was lost."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an object goes, and by what rules.

    `look` says what is there already, which is asked when `refuses_existing`; `put` stores a small body by those rules.
    """

    request: Request
    metadata: Mapping[str, str]
    is_conditional: bool
    look: Callable[[], ObjectStat | None]
    refuses_existing: bool
    put: Callable[[bytes], None]


def _crc32(body: memoryview) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


class S3Upload:
    """One object being written; a body that fits in a part is put in one request."""

    def __init__(self, connection: Connection, calls: Calls, target: Target, nbytes: int) -> None:
        self._connection = connection
        self._calls = calls
        self._target = target
        self._part_nbytes = part_nbytes(nbytes)
        self._part = io.BytesIO()
        self._beginning: Work[str] | None = None
        self._flying: deque[Work[dict[str, Any]]] = deque()
        self._parts: list[dict[str, Any]] = []
        self._is_over = False

    def write(self, chunk: bytes, /) -> int:
        """Take the next bytes; the error of a part that failed comes out here or at `commit`."""
        self._refuse_when_over()
        rest = memoryview(chunk)
        while rest:
            taken = self._part.write(rest[: self._part_nbytes - self._part.tell()])
            rest = rest[taken:]
            if self._part.tell() == self._part_nbytes:
                self._send()
        return len(chunk)

    def flush(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Make the object appear; `ObjectExists` where it was to be created and is there."""
        self._refuse_when_over()
        if self._beginning is None:
            self._target.put(self._part.getvalue())
        else:
            if self._part.tell():
                self._send()
            self._land(0)
            self._complete(self._calls.wait(self._beginning))
        self._is_over = True

    def abort(self) -> None:
        """Take back all parts, in 10 s at most."""
        if self._is_over:
            return
        self._is_over = True
        self._part = io.BytesIO()
        if self._beginning is not None:
            self._take_back(self._beginning)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.abort()
        except StorageError as left:
            if error is None:
                raise
            error.add_note(left.message)

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise ValueError(f"the upload of {self._target.request.url} is over")

    def _send(self) -> None:
        if self._beginning is None:
            self._refuse_existing()
            self._beginning = self._calls.start(self._begin)
        upload_id = self._calls.wait(self._beginning)
        self._land(PARTS_IN_FLIGHT - 1)
        number = len(self._parts) + len(self._flying) + 1
        body, self._part = self._part, io.BytesIO()
        self._flying.append(self._calls.start(partial(self._put_part, upload_id, number, body)))

    def _land(self, still_flying: int) -> None:
        while len(self._flying) > still_flying:
            self._parts.append(self._calls.wait(self._flying[0]))
            self._flying.popleft()

    def _begin(self) -> str:
        checksum = {"ChecksumAlgorithm": "CRC32"} if self._connection.has_checksums else {}
        answer = self._asked("create_multipart_upload", Metadata=dict(self._target.metadata), **checksum)
        upload_id: str = answer["UploadId"]
        return upload_id

    def _put_part(self, upload_id: str, number: int, body: io.BytesIO) -> dict[str, Any]:
        body.seek(0)
        checksum = {"ChecksumCRC32": _crc32(body.getbuffer())} if self._connection.has_checksums else {}
        answer = self._asked("upload_part", UploadId=upload_id, PartNumber=number, Body=body, **checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def _complete(self, upload_id: str) -> None:
        self._refuse_existing()
        condition = {"IfNoneMatch": "*"} if self._target.is_conditional else {}
        parts = {"Parts": self._parts}
        self._calls.call(partial(self._completed, UploadId=upload_id, MultipartUpload=parts, **condition))

    def _completed(self, **arguments: Any) -> None:
        request = self._target.request
        try:
            self._call("complete_multipart_upload", **arguments)
        except FAULTS as error:
            code = code_of(error)
            if code in _NO_UPLOAD and self._has_landed():
                return
            if code == "ConditionalRequestConflict":
                raise StorageError(f"{request.url} is being written by someone else", hint="try again later") from error
            raise fault(error, request) from error

    def _has_landed(self) -> bool:
        """Say whether the object stands there whole: when an answer is lost the repeated request meets no upload.

        The ETag of an object in parts is made of those of its parts.
        """
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in self._parts)
        expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self._parts)}"
        stat = self._target.look()
        return stat is not None and stat.etag == expected

    def _refuse_existing(self) -> None:
        if self._target.refuses_existing and self._target.look() is not None:
            raise ObjectExists(f"{self._target.request.url} is there already")

    def _asked(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._call(operation, **arguments)
        except FAULTS as error:
            raise fault(error, self._target.request) from error

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        request = self._target.request
        answer: dict[str, Any] = getattr(self._connection.client, operation)(
            Bucket=request.bucket, Key=request.key, **arguments
        )
        self._connection.has_answered = True
        return answer

    def _take_back(self, beginning: Work[str]) -> None:
        # The run may be stopping, so nothing here goes through `Calls`, which would refuse it.
        beginning.join(_FLIGHT_SECONDS)
        if not beginning.outcome.done():
            raise self._left()
        if beginning.outcome.exception() is not None:
            return
        upload_id = beginning.outcome.result()
        self._discard(upload_id)
        if self._flying:
            # A part that was under way may have come in after all, and then it takes another abort.
            deadline = time.monotonic() + _FLIGHT_SECONDS
            for work in self._flying:
                work.join(max(deadline - time.monotonic(), 0))
            self._discard(upload_id)

    def _discard(self, upload_id: str) -> None:
        work = Work(partial(self._discarded, upload_id))
        work.join(_DISCARD_SECONDS)
        if not work.outcome.done():
            raise self._left()
        work.outcome.result()

    def _discarded(self, upload_id: str) -> None:
        request = replace(self._target.request, action="s3:AbortMultipartUpload")
        try:
            self._connection.quick.abort_multipart_upload(Bucket=request.bucket, Key=request.key, UploadId=upload_id)
        except FAULTS as error:
            if code_of(error) not in _NO_UPLOAD:
                raise fault(error, request) from error

    def _left(self) -> StorageError:
        hint = "a lifecycle rule for incomplete multipart uploads removes it"
        return StorageError(f"an unfinished upload of {self._target.request.url} may be left behind", hint=hint)
