"""The names of things in a repository: which key holds what, and how a key is read back (docs/format.md, "Keys")."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from s3bu.errors import S3buError

RECIPIENTS = "repo/recipients.txt"
FURTHER_RECIPIENTS = "repo/recipients-s3bu.txt"
EPOCH = "repo/epoch"
MARKS = "repo/marks/"
SWEEP = "repo/sweep"

# A directory may hold names that are no text, which stand as halves of surrogate pairs; no job or label has one.
_MANIFEST = re.compile(
    r"manifests/(?P<job>[^/\ud800-\udfff]+)/(?P<label>[^\n\ud800-\udfff]+)/(?P=job)-(?P=label)-(?P<day>\d{4}-\d\d-\d\d)-(?P<second>\d{5})\.csv\.gz",
    re.ASCII,
)
_JOB = re.compile(r"jobs/(?P<job>[^/\ud800-\udfff]+)/(?P=job)-(?P<version>[0-9]{3}|[1-9][0-9]{3,8})\.yml")
_CONTENT = re.compile(r"data/(?P<start>[0-9a-f]{4})/(?P<hash>(?P=start)[0-9a-f]{60})")


@dataclass(frozen=True, slots=True, order=True)
class ManifestKey:
    """A manifest's key with what it says; ordered as the keys of one label are, so that the newest is the greatest."""

    job: str
    label: str
    day: date
    second: int

    def __str__(self) -> str:
        """Return the key."""
        name = f"{self.job}-{self.label}-{self.day.isoformat()}-{self.second:05d}.csv.gz"
        return f"{manifests_of(self.job, self.label)}{name}"

    @property
    def stamp(self) -> datetime:
        """The local time that the key was made from, as far as its seconds are those of a day."""
        return datetime.combine(self.day, datetime.min.time()) + timedelta(seconds=self.second)


def parse_manifest_key(key: str) -> ManifestKey | None:
    """Return what a key says if it is a manifest's by its full form, else `None`.

    The full form decides, not a prefix: `manifests/j/src/` also begins the manifests of a label `src/x`, which the
    original could make.
    """
    match = _MANIFEST.fullmatch(key)
    if match is None:
        return None
    try:
        day = date.fromisoformat(match["day"])
    except ValueError:
        return None
    return ManifestKey(match["job"], match["label"], day, int(match["second"]))


def next_manifest_key(job: str, label: str, newest: ManifestKey | None, now: datetime) -> ManifestKey:
    """Return the key for a manifest made at local time `now`, which always sorts after `newest`.

    Where the clock does not do that (set back, or another machine's is ahead), the newest key's seconds go on
    counting, beyond those of a day if need be, and after 99999 on the next date; at the end of the calendar there
    is none, which is an `S3buError`.
    """
    second = now.hour * 3600 + now.minute * 60 + now.second
    key = ManifestKey(job, label, now.date(), second)
    if newest is None or key > newest:
        return key
    if newest.second < 99999:
        return ManifestKey(job, label, newest.day, newest.second + 1)
    if newest.day == date.max:
        raise S3buError(f"{newest}: no key can come after this one", hint="no clock made it; remove that object")
    return ManifestKey(job, label, newest.day + timedelta(days=1), 0)


def manifests_of(job: str, label: str) -> str:
    """Return the prefix below which the manifests of a label lie."""
    return f"manifests/{job}/{label}/"


def private_key(job: str, name: str) -> str:
    """Return a key for the private state of one job; no label can clash with it, since none begins with a dot."""
    return f"manifests/{job}/.s3bu/{name}"


def job_key(job: str, version: int) -> str:
    """Return the key of a version of a job."""
    return f"jobs/{job}/{job}-{version:03d}.yml"


def parse_job_key(key: str) -> tuple[str, int] | None:
    """Return the job and its version if the key is that of a job, else `None`."""
    match = _JOB.fullmatch(key)
    return (match["job"], int(match["version"])) if match else None


def content_key(content_hash: str) -> str:
    """Return the key of the content with that hash."""
    return f"data/{content_hash[:4]}/{content_hash}"


def parse_content_key(key: str) -> str | None:
    """Return the hash if the key is that of a content, else `None`."""
    match = _CONTENT.fullmatch(key)
    return match["hash"] if match else None


def smallest_object(nbytes: int) -> int:
    """Return the least size of the object of a content that was not compressed: age's header, and a tag each 64 KiB."""
    return nbytes + 184 + 16 * max(1, -(-nbytes // 65536))


def says_compressed(metadata: Mapping[str, str]) -> bool | None:
    """Return whether the metadata of a content say that it is compressed, `None` where they have nothing of ours.

    Whoever copies objects may lose ours and add others, as rclone does with `mtime`.
    """
    ours = [name for name in metadata if name.startswith("s3bu-")]
    return "s3bu-compress" in ours if ours else None
