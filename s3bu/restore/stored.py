"""What of a plan could be restored now: whether its contents are stored, and as long as they must be."""

from s3bu.manifest import Entry
from s3bu.progress import Failure
from s3bu.repository import Repository
from s3bu.repository.layout import content_key, says_compressed, smallest_object
from s3bu.restore import Plan, need_identities
from s3bu.storage import ObjectStat

_LOOKED_UP_BOUND = 50
"""So many contents are looked up one by one; of more, one listing of all is quicker."""


def check(repository: Repository, plan: Plan) -> list[Failure]:
    """Return what could not be restored now: contents that are gone, archived or cut, by one listing."""
    return look_up(repository, plan)[0]


def look_up(repository: Repository, plan: Plan) -> tuple[list[Failure], dict[str, ObjectStat]]:
    """Return the same, and the objects of the contents that are there, by hash."""
    need_identities(repository, plan)
    objects = _objects(repository, {entry.hash for entry in plan.files})
    faults: dict[tuple[str, int], str | None] = {}
    for entry in plan.files:
        if (entry.hash, entry.nbytes) not in faults:
            faults[entry.hash, entry.nbytes] = _fault(repository, entry, objects.get(entry.hash))
    checked = ((entry.path, faults[entry.hash, entry.nbytes]) for entry in plan.files)
    return [*plan.failures, *(Failure(path, fault) for path, fault in checked if fault)], objects


def leave_out(plan: Plan, failures: list[Failure]) -> None:
    """Take out of a plan the files that `check` found cannot be restored: their failures are told instead."""
    known = {failure.path for failure in plan.failures}
    plan.failures.extend(failure for failure in failures if failure.path not in known)
    gone = {failure.path for failure in failures}
    plan.files[:] = [entry for entry in plan.files if entry.path not in gone]


def _objects(repository: Repository, wanted: set[str]) -> dict[str, ObjectStat]:
    """Return by hash the objects of contents: a few are looked up one by one, many by one listing of all."""
    if len(wanted) > _LOOKED_UP_BOUND:
        return {found: status for found, status in repository.objects() if found in wanted}
    found = ((one, next(repository.storage.list(content_key(one)), None)) for one in wanted)
    return {one: status for one, status in found if status is not None and status.key == content_key(one)}


def _fault(repository: Repository, entry: Entry, status: ObjectStat | None) -> str | None:
    if status is None:
        return "its content is not in the repository"
    if status.is_archived:
        return f"{status.key} lies in an archive class and must be brought back first"
    if status.nbytes >= smallest_object(entry.nbytes):
        return None
    is_packed = says_compressed(repository.storage.metadata(status.key))
    return f"{status.key} is cut short" if is_packed is False else None
