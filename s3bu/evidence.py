"""Evidence: what this machine knows of an object because it stored it, looked it up, or read it.

A listing tells no more of an object than its size and ETag, and a compressed object is of any size. So the index keeps
what stands behind them. It speaks for the object that had that size and ETag, and for no other that lies there later.
"""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from s3bu.index import Index

LOOKED_UP, STORED, READ, UNOPENED, BAD, TOO_SHORT = range(6)
"""Its metadata do not say that it is cut; it was put by this machine; it was read, and was right; no identity opened
it; it was read, and was wrong; it is too short to be what it should be. The last two condemn it."""


class Evidence(NamedTuple):
    """What is known of the object of a hash (32 bytes); without an ETag it was put, and not listed since."""

    hash: bytes
    nbytes: int
    etag: str | None
    state: int

    def is_about(self, nbytes: int, etag: str) -> bool:
        """Say whether it speaks for an object of that size and ETag."""
        return self.nbytes == nbytes and self.etag in (None, etag)


def note_stored(index: Index, sizes: Mapping[bytes, int]) -> None:
    """Keep the sizes of objects that were put just now, by hash."""
    note(index, (Evidence(digest, nbytes, None, STORED) for digest, nbytes in sizes.items()))


def note(index: Index, found: Iterable[Evidence]) -> None:
    """Keep what was found out just now, in place of what was known before."""
    now = int(time.time())
    index.connection.executemany(
        "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?, ?)",
        ((*one, now if one.state in (READ, UNOPENED, BAD) else None) for one in found),
    )
