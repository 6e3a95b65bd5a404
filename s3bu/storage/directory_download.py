"""A file of a local directory being read as an object."""

import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from s3bu.errors import StorageError
from s3bu.storage.directory_tree import time_of

if TYPE_CHECKING:
    from s3bu.storage.directory import DirectoryStorage


class DirectoryDownload:
    """A file being read, of the length that it had when it was opened."""

    def __init__(self, storage: "DirectoryStorage", key: str, descriptor: int, start: int) -> None:
        self.metadata: Mapping[str, str] = {}
        self._storage = storage
        self._key = key
        self._descriptor = descriptor
        self._is_closed = False
        try:
            status = os.fstat(descriptor)
        except OSError as error:
            self.close()
            raise storage.fault(error, key) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise StorageError(f"not a regular file: {storage.url}/{key}")
        self.nbytes = status.st_size
        self.modified = time_of(status)
        self._position = min(start, self.nbytes)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; a file that was cut meanwhile is a `StorageError`."""
        if self._is_closed:
            raise ValueError(f"read of a closed download: {self._key}")
        self._storage.refuse_when_stopped()
        missing = self.nbytes - self._position
        wanted = missing if size < 0 else min(size, missing)
        pieces: list[bytes] = []
        while wanted:
            piece = self._piece(wanted)
            self._position += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _piece(self, nbytes: int) -> bytes:
        try:
            piece = os.pread(self._descriptor, nbytes, self._position)
        except OSError as error:
            raise self._storage.fault(error, self._key) from error
        if not piece:
            raise StorageError(f"{self._storage.url}/{self._key} is shorter than it was when it was opened")
        return piece
