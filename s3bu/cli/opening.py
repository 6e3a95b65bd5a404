"""The options that all commands share, and the parts that a command needs, opened and joined."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Group, Parameter

from s3bu.console import Console, Style, make_console
from s3bu.errors import CredentialsError, JobNotFoundError, RepositoryNotFoundError, S3buError, UsageError
from s3bu.job import Job, check_job_name, is_job_file, load_job_file, parse_job

if TYPE_CHECKING:
    from s3bu.index import Index
    from s3bu.journal import Journal
    from s3bu.progress import Progress
    from s3bu.repository import Repository, StoredJob
    from s3bu.scan.found import Excluded
    from s3bu.storage.place import Place

_SHARED = Group("Common options", sort_key=100)

Location: TypeAlias = Annotated[
    str, Parameter(help="a bucket (my-bucket, s3://my-bucket/prefix) or a directory (/path, ./path)")
]
"""Where a repository is, as a user writes it."""


@Parameter(name="*", group=_SHARED)
@dataclass(frozen=True)
class Telling:
    """How the user wants to be told."""

    json: Annotated[bool, Parameter(negative="", help="print JSON lines, for programs")] = False
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative="", help="print errors and what was asked for alone")
    ] = False
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative="", help="name each path and what becomes of it")
    ] = False
    no_progress: Annotated[bool, Parameter(negative="", help="print no progress")] = False

    def console(self) -> Console:
        """Return the console that prints it so."""
        return make_console(Style(self.json, self.quiet, self.verbose, has_progress=not self.no_progress))


NOTHING_TOLD = Telling()


@Parameter(name="*", group=_SHARED)
@dataclass(frozen=True)
class Common(Telling):
    """Where the repository is reached, where the keys lie, and how the user wants to be told."""

    profile: Annotated[str | None, Parameter(name=["--profile", "-p"], help="AWS profile to use")] = None
    endpoint_url: Annotated[str | None, Parameter(help="S3 endpoint, for stores other than AWS")] = None
    region: Annotated[str | None, Parameter(help="region of the bucket (environment: AWS_REGION)")] = None
    secrets_file: Annotated[
        Path | None,
        Parameter(
            name=["--secrets-file", "-s"],
            env_var="S3BU_SECRETS_FILE",
            help="passphrases (environment: S3BU_SECRETS_FILE; default: secrets.yml in ~/.s3bu or $S3BU_HOME)",
        ),
    ] = None
    identities_file: Annotated[
        Path | None,
        Parameter(
            name=["--identities-file", "-i"],
            env_var="S3BU_IDENTITIES_FILE",
            help="identities (environment: S3BU_IDENTITIES_FILE; default: identities.txt beside the passphrases)",
        ),
    ] = None
    max_work_factor: Annotated[
        int, Parameter(help="highest scrypt work factor to accept; 22 takes gigabytes and half a minute a file")
    ] = 20


NOTHING_COMMON = Common()


def words_of(common: Common) -> tuple[str, ...]:
    """Return the options that another command needs to reach the same repository with the same keys."""
    given = {
        "--profile": common.profile,
        "--endpoint-url": common.endpoint_url,
        "--region": common.region,
        "--secrets-file": common.secrets_file and common.secrets_file.absolute(),
        "--identities-file": common.identities_file and common.identities_file.absolute(),
    }
    if common.max_work_factor != NOTHING_COMMON.max_work_factor:
        given["--max-work-factor"] = str(common.max_work_factor)
    return tuple(word for name, value in given.items() if value is not None for word in (name, str(value)))


@contextmanager
def open_repository(text: str, common: Common, *written: str) -> Iterator["Repository"]:
    """Hold the repository that the user named open; whether it is there shows at the first request.

    `written` names what the command writes into below $S3BU_HOME, and cannot do without.
    """
    from s3bu.keyring import Keyring, usable_home  # noqa: PLC0415 - start-up counts
    from s3bu.remembered import Remembered  # noqa: PLC0415
    from s3bu.repository import Repository  # noqa: PLC0415
    from s3bu.storage.place import S3Options, open_storage, parse_place  # noqa: PLC0415

    home = usable_home(os.environ, *written)
    place = parse_place(text)
    options = S3Options(profile=common.profile, region=common.region, endpoint_url=common.endpoint_url)
    keyring = Keyring(common.secrets_file or home / "secrets.yml", common.identities_file or home / "identities.txt")
    storage = open_storage(place, options)
    try:
        remembered = Remembered(home, storage.identity)
        yield Repository(storage, keyring, remembered, max_work_factor=common.max_work_factor)
    except BaseException as error:
        storage.stop()
        if isinstance(error, CredentialsError | RepositoryNotFoundError) and place.bucket and os.path.isdir(text):
            error.hint = f"a directory of that name is here: did you mean `./{text}`?"
        raise
    finally:
        storage.close()


OWN = {"index": "the index of s3bu", "journals": "the journal of s3bu", "locks": "the locks of s3bu"}
"""What changes below $S3BU_HOME with each run, and is made again where it is gone."""


def excluded_directories(text: str) -> "Excluded":
    """Return what a source around it must not back up: the repository's own directory, and what each run writes."""
    from s3bu.keyring import default_home  # noqa: PLC0415 - start-up counts
    from s3bu.storage.place import parse_place  # noqa: PLC0415

    home = default_home(os.environ)
    own: dict[str | Path, str] = {home / name: what for name, what in OWN.items()}
    place: Place = parse_place(text)
    if place.kind == "directory":
        own[place.path] = "the repository itself"
    excluded = {}
    for path, what in own.items():
        with contextlib.suppress(OSError):  # not there, or not to be looked at, which the first request tells better
            status = os.stat(path)
            excluded[status.st_dev, status.st_ino] = what
    return excluded


@contextmanager
def open_local_index(repository: "Repository", progress: "Progress") -> Iterator["Index"]:
    """Hold the index of a repository open for a backup; where none can be kept, one that ends with it, and a warning.

    As long as it is held, nobody brings it up to date, or makes it anew.
    """
    from s3bu.index import held  # noqa: PLC0415 - start-up counts
    from s3bu.lock import sharing  # noqa: PLC0415

    index = _open_index(repository, progress, without="which reads the last snapshot each time")
    with held(index), sharing(index.path, progress) if index.path else nullcontext():
        yield index


@contextmanager
def open_journal(repository: "Repository") -> Iterator["Journal | None"]:
    """Hold the journals of a repository open for a run, if a watcher ever kept any."""
    from s3bu.journal import open_for_run  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415

    journal = open_for_run(default_home(os.environ), repository.storage.identity)
    with nullcontext() if journal is None else closing(journal):
        yield journal


@contextmanager
def open_synced_index(repository: "Repository", console: Console) -> Iterator["Index"]:
    """Hold the index of a repository alone and up to date, for what takes snapshots out of both.

    `LockedError` when a backup uses it. Where none can be kept, it ends with the block.
    """
    from s3bu.index import held  # noqa: PLC0415 - start-up counts
    from s3bu.lock import alone  # noqa: PLC0415
    from s3bu.sync import sync  # noqa: PLC0415

    index = _open_index(repository, console, without="which reads every snapshot")
    with held(index), alone(index.path, console) if index.path else nullcontext():
        sync(repository, index, console)
        yield index


def _open_index(repository: "Repository", progress: "Progress", *, without: str) -> "Index":
    """Open the index of a repository; where none can be kept, one in memory, and a warning of what that costs."""
    from s3bu.index import open_index, open_passing_index  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import default_home  # noqa: PLC0415

    identity = repository.storage.identity
    try:
        return open_index(default_home(os.environ), identity, progress)
    except S3buError as error:
        progress.warning(f"{error.message}; going on without an index, {without}")
        return open_passing_index(identity)


@contextmanager
def open_index_for_reading(repository: str, common: Common, console: Console) -> Iterator[tuple["Repository", "Index"]]:
    """Hold a repository and its index open, to be asked."""
    with open_repository(repository, common) as opened, index_for_reading(opened, console) as index:
        yield opened, index


@contextmanager
def index_for_reading(repository: "Repository", console: Console) -> Iterator["Index"]:
    """Hold the index of a repository open, to be asked; `UsageError` when it knows no snapshot."""
    from s3bu.index import held, open_index  # noqa: PLC0415 - start-up counts
    from s3bu.keyring import usable_home  # noqa: PLC0415

    with held(open_index(usable_home(os.environ, "index"), repository.storage.identity, console)) as index:
        if not index.snapshots():
            raise UsageError(
                "the index of this repository holds no snapshot",
                hint=f"`s3bu index sync {repository.storage.url}` takes them in",
            )
        yield index


def read_stored_job(
    repository: "Repository", name: str, version: int | None = None, *, index: "Index | None" = None
) -> "StoredJob":
    """Return a version of a job of the repository, the newest unless one is named; from the index if it has it."""
    from s3bu.repository import StoredJob  # noqa: PLC0415 - start-up counts

    versions = repository.job_versions(name)
    if not versions:
        _ = repository.recipients()  # says so when this is no repository
        known = ", ".join(sorted(repository.jobs()))
        raise JobNotFoundError(
            f"{repository.storage.url}: no job '{name}'",
            hint=f"it has {known}" if known else "upload one with `s3bu job upload`, or name a local .yml file",
        )
    if version is not None and version not in versions:
        numbers = ", ".join(str(number) for number in list(versions)[-10:])
        raise JobNotFoundError(f"job '{name}' has no version {version}", hint=f"it has {numbers}")
    number = max(versions) if version is None else version
    kept = index.job(name, number, versions[number]) if index else None
    if kept is not None:
        return StoredJob(name, number, *kept)
    stored = repository.read_job(name, number)
    if index:
        index.keep_job(name, number, versions[number], stored.text, is_encrypted=stored.is_encrypted)
    return stored


def load_job(repository: "Repository", text: str, index: "Index | None" = None) -> tuple[Job, tuple[str, ...]]:
    """Return the job that the user named, a local file or one of the repository, with what is odd about it."""
    if is_job_file(text):
        path = Path(text)
        name, content = load_job_file(path)
        check_job_name(name)
        job = parse_job(content, name=name, origin=text, strict=False, directory=path.absolute().parent)
        return job, job.warnings
    return parse_stored_job(read_stored_job(repository, text, index=index))


def parse_stored_job(stored: "StoredJob") -> tuple[Job, tuple[str, ...]]:
    """Return the job that a version in the repository describes, with what is odd about it."""
    origin = f"{stored.name}, version {stored.version}"
    job = parse_job(stored.text, name=stored.name, origin=origin, strict=False, directory=None)
    if stored.is_encrypted:
        return job, job.warnings
    who = "whoever writes to the bucket decides what is backed up; upload it again"
    return replace(job, is_trusted=False), (f"job '{stored.name}' is not encrypted: {who}", *job.warnings)
