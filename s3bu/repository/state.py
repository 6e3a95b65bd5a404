"""What a prune leaves for backups to see: marks on contents that it will delete, and an epoch that moves when it does.

Backups take no lock. They read the state before they list what is stored, and once more before they publish; whatever
moved in between is looked at again (docs/format.md, "Marks and epoch").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from s3bu.compression import Readable
from s3bu.errors import IntegrityError
from s3bu.repository.layout import EPOCH, MARKS

_MARK = re.compile(rb"[0-9a-f]{64}")
_CHUNK = 64 * 1024
_LINE_BOUND = 4096
"""A line this long is no mark and no comment that anyone would write."""


@dataclass(frozen=True, slots=True)
class State:
    """The ETags of the objects below `repo/` by key, never to be changed; two that are equal say that nothing moved."""

    etags: dict[str, str]

    @property
    def marks(self) -> tuple[str, ...]:
        """The keys of the objects that hold marks: all below `repo/marks/`, however they are named."""
        return tuple(key for key in self.etags if key.startswith(MARKS))

    @property
    def epoch(self) -> str | None:
        """The ETag of the epoch, `None` where no prune ever swept."""
        return self.etags.get(EPOCH)


@dataclass(frozen=True, slots=True)
class Contents:
    """The hashes, 32 bytes each, of the contents that are stored, and of those that must be overwritten.

    The latter count as absent: their object is too short to be any, or a prune marked it, and only an object that is
    younger than its mark survives.
    """

    stored: set[bytes]
    damaged: set[bytes]


def read_marks(reader: Readable, key: str) -> Iterator[bytes]:
    """Yield the marked hashes, 32 bytes each; `IntegrityError` names the first line that is none.

    Nothing is passed over but comments and blank lines: whoever cannot read the marks must not deduplicate.
    """
    for number, line in enumerate(_lines(reader), 1):
        if len(line) <= _LINE_BOUND and (not line.strip() or line.startswith(b"#")):
            continue
        if not _MARK.fullmatch(line):
            raise IntegrityError(
                f"{key}, line {number}: not a hash, so nobody knows which contents are about to be deleted",
                hint="update s3bu if a newer version pruned here; else find out who wrote the object",
            )
        yield bytes.fromhex(line.decode())


def _lines(reader: Readable) -> Iterator[bytes]:
    """Yield the lines without their ends; one that is too long comes in pieces that are too long."""
    rest = b""
    while chunk := reader.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _LINE_BOUND:
            yield rest
            rest = b""
    if rest:
        yield rest
