"""What a backup would take at most: bytes to read and to send, the size of its manifest, and requests.

These are bounds for a run that reads the source as the plan saw it, and whose requests succeed at once. Contents that
turn out to be stored already, or twice in the source, are not sent; only reading them tells.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from s3bu.backup.deciding import Decision
from s3bu.draft import Draft
from s3bu.index import Index
from s3bu.lines import Lines
from s3bu.manifest import Entry, FailedPath
from s3bu.prices import Requests
from s3bu.storage import PART_BOUND, part_nbytes
from s3bu.store import object_bound

_GREASE = 512
"""The most that age adds to a header at random, and its first and last line, with room to spare."""
_STANZA = 256
_PRIVATE_OVERHEAD = 4_096
"""Header and trailer of a manifest, and the header of its encryption."""
_PAGE = 1_000
_PROBE_PUTS = 4
_NAME_ROOM = 64
"""What the lines of failures may be longer in the run, which knows more of why."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Files and bytes to read; bytes to send at most for contents, and for the manifest; requests at most."""

    nfiles: int
    nbytes: int
    nbytes_sent: int
    nbytes_manifest: int
    requests: Requests


def estimate(decision: Decision, *, is_publishing: bool, nread_manifests: int) -> Estimate:
    """Return what the decision would take; `nread_manifests` were read to make it, and would be read again."""
    draft, ground = decision.draft, decision.ground
    nfiles, nbytes = draft.wanted()
    sizes = [entry.nbytes for entry in draft.to_read()]
    overhead = _header_bound(decision) if sizes else 0
    bounds = [object_bound(size, overhead) for size in sizes]
    manifest = _manifest_bound(decision) if is_publishing else 0
    puts = sum(map(_puts_for, bounds)) + (_puts_for(manifest) if is_publishing else 0)
    if ground.repository.storage.has_conditional_writes is None:
        puts += _PROBE_PUTS
    return Estimate(
        nfiles,
        nbytes,
        sum(bounds),
        manifest,
        Requests(
            put=puts,
            get=_gets(decision, is_reading=bool(sizes)) + nread_manifests,
            list=_lists(decision, is_publishing=is_publishing),
        ),
    )


def _header_bound(decision: Decision) -> int:
    """Return the most that an object begins with before its content, by the recipients, whose stanzas are shorter."""
    recipients = decision.ground.repository.pinned_recipients(pins=False).recipients
    return _GREASE + sum(_STANZA + 2 * len(recipient.text) for recipient in recipients)


def _puts_for(nbytes: int) -> int:
    return 1 if nbytes <= PART_BOUND else math.ceil(nbytes / part_nbytes(nbytes)) + 2


def _gets(decision: Decision, *, is_reading: bool) -> int:
    ground = decision.ground
    recipients = 2 if ground.has_read_recipients else 0
    marks = len(ground.state.marks) if ground.known.has_listed else 0
    return recipients + (2 if is_reading else 0) + marks + 1  # the job itself, where it has to be read


def _lists(decision: Decision, *, is_publishing: bool) -> int:
    """Return how many listings a run asks for, a page each: job, state, label, and what is stored if need be."""
    ground = decision.ground
    state = len(ground.state.etags) // _PAGE + 1
    connection = ground.index.connection
    labels = int(connection.execute("SELECT count(*) FROM snapshot").fetchone()[0]) // _PAGE + 2
    stored = 0
    if ground.known.has_listed:
        stored = int(connection.execute("SELECT count(*) FROM content").fetchone()[0]) // _PAGE + 1
    return 1 + state + 2 * labels + stored + ((state + 2 * labels) if is_publishing else 0)


def _manifest_bound(decision: Decision) -> int:
    """Return the bytes of the manifest, by making it as if each file had a content of its own.

    A made up hash is as long, and packs as badly, as a real one.
    """
    draft, contents = decision.draft, decision.ground.known.contents.stored
    with _restored(decision.ground.index):
        made_up: set[bytes] = set()
        draft.keep_read(_as_if_read(draft, made_up))
        contents |= made_up
        draft.settle({})
        nbytes = sum(len(stretch.packed) for stretch in _lines(decision, draft))
        contents -= made_up
    return nbytes + nbytes // 1_000 + _PRIVATE_OVERHEAD


def _as_if_read(draft: Draft, made_up: set[bytes]) -> Iterator[Entry]:
    """Yield the files to read, each with a hash that is put into `made_up`."""
    for entry in draft.to_read():
        digest = hashlib.sha256(b"made up" + entry.path).digest()
        made_up.add(digest)
        yield entry._replace(hash=digest.hex())


def _lines(decision: Decision, draft: Draft) -> Lines:
    since = "0" * _NAME_ROOM
    failed = {one.path: FailedPath(one.path, one.error, since) for one in draft.failures()}
    return Lines(decision.ground.index, decision.number, draft, failed)


@contextmanager
def _restored(index: Index) -> Iterator[None]:
    """Give the draft back as it was at the end of the block."""
    index.connection.execute("DROP TABLE IF EXISTS kept_draft")
    index.connection.execute("CREATE TEMP TABLE kept_draft AS SELECT * FROM draft")
    try:
        yield
    finally:
        index.connection.executescript(
            "BEGIN; DELETE FROM draft; INSERT INTO draft SELECT * FROM kept_draft; COMMIT; DROP TABLE kept_draft"
        )
