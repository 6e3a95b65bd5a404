"""A restore before it happens: which paths it would write, overwrite, or leave since they are right already.

Nothing is written, and nothing fetched: what lies in the target is hashed, what lies in the repository only looked up.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from s3bu.manifest import FILE, Entry
from s3bu.prices import Requests
from s3bu.progress import Failure
from s3bu.restore import Plan, explain
from s3bu.restore.target import LEFT, WRITE, TakenError, Target
from s3bu.storage import ObjectStat

_BLOCK = 4096


class Fate(NamedTuple):
    """What would become of one path."""

    action: str
    entry: Entry


@dataclass(slots=True)
class Outlook:
    """What a restore would do: `fates` of files and links, and what it would take.

    `nbytes_written` is what the target must have room for, and `nbytes_free` what it has; `nbytes_fetched` is what
    comes from the repository, encrypted, by these requests.
    """

    fates: list[Fate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    nbytes_written: int = 0
    nbytes_free: int = 0
    nbytes_fetched: int = 0
    requests: Requests = field(default_factory=Requests)

    @property
    def counts(self) -> Counter[str]:
        """Paths by what would become of them."""
        return Counter(fate.action for fate in self.fates)

    @property
    def has_room(self) -> bool:
        """Whether the target has room for all of it."""
        return self.nbytes_written <= self.nbytes_free


def look_ahead(plan: Plan, target: bytes, *, overwrites: bool, objects: Mapping[str, ObjectStat]) -> Outlook:
    """Return what restoring a plan into a directory would do; `objects` are those of its contents, by hash."""
    outlook = Outlook(nbytes_free=_free(target))
    opened = Target.look(target, overwrites=overwrites)
    try:
        for entry in (*plan.files, *plan.links):
            if entry.kind != FILE or entry.hash in objects:  # what is not there is told by whoever looked it up
                _add(outlook, opened, entry)
    finally:
        if opened is not None:
            opened.root.close()
    fetched = {fate.entry.hash for fate in outlook.fates if fate.entry.kind == FILE and fate.action != LEFT}
    outlook.nbytes_fetched = sum(objects[one].nbytes for one in fetched)
    # Two pages of manifests find the snapshot, and a get reads it.
    outlook.requests = Requests(get=len(fetched) + 1, list=2)
    return outlook


def _add(outlook: Outlook, target: Target | None, entry: Entry) -> None:
    try:
        action = WRITE if target is None else target.fate(entry)
    except (OSError, TakenError) as error:
        outlook.failures.append(Failure(entry.path, explain(error)))
        return
    outlook.fates.append(Fate(action, entry))
    if action != LEFT:
        outlook.nbytes_written += -(-entry.nbytes // _BLOCK) * _BLOCK


def _free(path: bytes) -> int:
    """Return the bytes that are free where a directory lies, or would lie."""
    for above in _above(os.path.abspath(path)):
        try:
            found = os.statvfs(above)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return 0


def _above(path: bytes) -> Iterator[bytes]:
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path
