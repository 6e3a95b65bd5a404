"""Find the snapshot that a user means: a manifest's key, `JOB/LABEL`, or `JOB/LABEL@TIME`."""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches

from s3bu.errors import JobNotFoundError, UsageError
from s3bu.moment import format_local, parse_moment
from s3bu.repository import Repository, StoredManifest
from s3bu.repository.layout import ManifestKey, parse_manifest_key


def find_snapshot(repository: Repository, text: str, *, now: datetime, allow_plain: bool = False) -> ManifestKey:
    """Return the key of the snapshot that `text` names.

    `JobNotFoundError` when the job has no snapshots, `UsageError` when label, key or time lead to none.
    """
    if text.startswith("manifests/"):
        return _by_key(repository, text)
    name, at, moment = text.rpartition("@") if "@" in text else (text, "", "")
    job, slash, label = name.partition("/")
    if not (job and slash and label):
        raise UsageError(
            f"'{text}' names no snapshot", hint="write JOB/LABEL, JOB/LABEL@TIME, or a key that `s3bu snapshots` lists"
        )
    until = parse_moment(moment, now=now) if at else None
    manifests = _of_label(repository, job, label)
    if until is None:
        return manifests[-1].key
    return _at_or_before(repository, manifests, until, allow_plain=allow_plain)


def _by_key(repository: Repository, text: str) -> ManifestKey:
    key = parse_manifest_key(text)
    if key is None:
        raise UsageError(f"'{text}' is no manifest's key", hint="`s3bu snapshots` lists them")
    if key not in [manifest.key for manifest in _of_label(repository, key.job, key.label)]:
        raise UsageError(f"{text}: no such snapshot", hint="`s3bu snapshots` lists them")
    return key


def _of_label(repository: Repository, job: str, label: str) -> list[StoredManifest]:
    manifests = repository.manifests(job)
    found = [manifest for manifest in manifests if manifest.key.label == label]
    if found:
        return found
    labels = sorted({manifest.key.label for manifest in manifests})
    if not labels:
        _ = repository.recipients()  # says so when this is no repository
        raise no_snapshots(repository, job)
    raise no_label(job, label, labels)


def manifests_of(repository: Repository, job: str | None, label: str | None) -> list[StoredManifest]:
    """Return the manifests of all jobs, of one, or of one label of it.

    `JobNotFoundError` when a job was named that has none, `UsageError` when it has none of that label.
    """
    manifests = repository.manifests(job)
    if not manifests:
        _ = repository.recipients()  # says so when this is no repository
    if job is not None and not manifests:
        raise no_snapshots(repository, job)
    chosen = [manifest for manifest in manifests if label in (None, manifest.key.label)]
    if job is not None and label is not None and not chosen:
        raise no_label(job, label, sorted({manifest.key.label for manifest in manifests}))
    return chosen


def no_label(job: str, label: str, labels: Sequence[str]) -> UsageError:
    """Return the error that says that a job has no snapshots of a label; `labels` are those that it has."""
    close = get_close_matches(label, labels, 1)
    guess = f"did you mean '{close[0]}'? " if close and len(labels) > 1 else ""
    return UsageError(f"job '{job}' has no snapshots of a label '{label}'", hint=f"{guess}it has {', '.join(labels)}")


def no_snapshots(repository: Repository, job: str) -> JobNotFoundError:
    """Return the error that says that a job has no snapshots, and which jobs have some."""
    jobs = sorted({manifest.key.job for manifest in repository.manifests()})
    hint = f"these have: {', '.join(jobs[:20])}" if jobs else "nothing was backed up here yet"
    if job.partition("/")[0] in jobs:
        hint = "write the label as an argument of its own: " + job.replace("/", " ", 1)
    return JobNotFoundError(f"{repository.storage.url}: job '{job}' has no snapshots", hint=hint)


def _at_or_before(
    repository: Repository, manifests: list[StoredManifest], until: datetime, *, allow_plain: bool
) -> ManifestKey:
    """Search by halves, since the time of a snapshot stands inside its manifest, and opening one takes a second.

    The manifests of a label are created one after the other, so their times rise with their keys.
    """
    low, high = 0, len(manifests)
    while low < high:
        middle = (low + high) // 2
        with repository.open_manifest(manifests[middle].key, allow_plain=allow_plain) as (_, created):
            low, high = (middle + 1, high) if created <= until else (low, middle)
    if low == 0:
        with repository.open_manifest(manifests[0].key, allow_plain=allow_plain) as (_, created):
            oldest = format_local(created)
        raise UsageError(
            f"no snapshot of {manifests[0].key.job}/{manifests[0].key.label} is that old",
            hint=f"the oldest one is of {oldest}",
        )
    return manifests[low - 1].key
