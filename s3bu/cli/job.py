"""`s3bu job`."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from s3bu.cli.opening import NOTHING_COMMON, NOTHING_TOLD, Common, Location, Telling, open_repository, read_stored_job
from s3bu.console import Console, Row, Table
from s3bu.console.text import counted, shown, shown_line
from s3bu.errors import JobError, S3buError, UsageError
from s3bu.job import check_job_name, load_job_file, parse_job

job = App(name="job", help="Check, upload, show, download, list and edit jobs.")

_TEMPLATE = b"""sources:
- path: /home/me/documents
  label: documents
"""


@job.command
def check(file: Path, /, *, telling: Telling = NOTHING_TOLD) -> int:
    """Check a job file, and name all that is wrong with it.

    For example:

      s3bu job check home.yml

    Parameters
    ----------
    file
        a job file
    """
    name, text = load_job_file(file)
    check_job_name(name)
    loaded = parse_job(text, name=name, origin=str(file), strict=True, directory=file.absolute().parent)
    with telling.console() as console:
        for source in loaded.sources:
            if not os.path.isdir(source.path):
                console.warning(f"{os.fsdecode(source.path)}: no such directory on this machine")
        labels = [source.label for source in loaded.sources]
        console.summary(
            {"job": name, "labels": labels}, f"{shown(str(file))}: a good job with {counted(len(labels), 'source')}"
        )
    return 0


@job.command
def upload(repository: Location, name: str, file: Path, /, *, common: Common = NOTHING_COMMON) -> int:
    """Check a job file and store it as a new version of a job.

    For example:

      s3bu job upload my-bucket home home.yml

    Parameters
    ----------
    name
        the job's name in the repository
    file
        a job file
    """
    check_job_name(name)
    _, text = load_job_file(file)
    parse_job(text, name=name, origin=str(file), strict=True, directory=None)
    with open_repository(repository, common) as opened, common.console() as console:
        _ = opened.recipients()  # says so when this is no repository
        _tell_version(console, name, opened.add_job(name, text))
    return 0


def _tell_version(console: Console, name: str, version: int) -> None:
    console.summary({"job": name, "version": version}, f"job {name}, version {version}")


@job.command
def download(
    repository: Location,
    name: str,
    /,
    *,
    version: int | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    common: Common = NOTHING_COMMON,
) -> int:
    """Write a job into a file, which must not be there yet.

    For example:

      s3bu job download my-bucket home -o home.yml

    Parameters
    ----------
    name
        the job's name
    version
        not the newest version but this one
    output
        the file to write; default: NAME.yml here
    """
    path = output or Path(f"{name}.yml")
    with open_repository(repository, common) as opened:
        stored = read_stored_job(opened, name, version)
    try:
        with path.open("xb") as file:
            file.write(stored.text)
    except FileExistsError as error:
        raise UsageError(f"{path}: is there already", hint="choose another name with -o") from error
    except OSError as error:
        raise S3buError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error
    with common.console() as console:
        facts = {"job": name, "version": stored.version, "path": os.fsencode(path)}
        console.summary(facts, f"{shown(os.fsencode(path))}: job {name}, version {stored.version}")
    return 0


@job.command
def show(repository: Location, name: str, /, *, version: int | None = None, common: Common = NOTHING_COMMON) -> int:
    """Print a job.

    For example:

      s3bu job show my-bucket home

    Parameters
    ----------
    name
        the job's name
    version
        not the newest version but this one
    """
    with open_repository(repository, common) as opened:
        stored = read_stored_job(opened, name, version)
    text = stored.text.decode("utf-8", "surrogateescape")
    facts = {"job": name, "version": stored.version, "is_encrypted": stored.is_encrypted, "text": text}
    lines = (shown_line(line.replace("\t", "    ")) for line in text.splitlines())
    with common.console() as console:
        console.tell("job", facts, *lines)
    return 0


@job.command(name="list")
def list_jobs(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """List the jobs of a repository with their versions.

    For example:

      s3bu job list my-bucket
    """
    with open_repository(repository, common) as opened:
        _ = opened.recipients()  # says so when this is no repository
        jobs = opened.jobs()
    rows = [_row(name, versions) for name, versions in sorted(jobs.items())]
    with common.console() as console:
        console.table(Table("job_versions", ("job", "newest", "versions"), rows, right=frozenset({1, 2})))
    return 0


def _row(name: str, versions: Sequence[int]) -> Row:
    facts = {"job": name, "newest": versions[-1], "versions": list(versions)}
    return Row(facts, (shown(name), str(versions[-1]), str(len(versions))))


@job.command
def edit(repository: Location, name: str, /, *, common: Common = NOTHING_COMMON) -> int:
    """Edit a job in $EDITOR, and store it as a new version.

    It is checked first; a new job starts from a template.

    For example:

      s3bu job edit my-bucket home

    Parameters
    ----------
    name
        the job's name
    """
    check_job_name(name)
    with open_repository(repository, common) as opened, common.console() as console:
        _ = opened.recipients()  # says so when this is no repository
        before = read_stored_job(opened, name).text if opened.job_versions(name) else _TEMPLATE
        text = _edited(name, before, console)
        if text == before:
            console.summary({"job": name, "version": None}, f"job {name}: not changed, nothing stored")
        else:
            _tell_version(console, name, opened.add_job(name, text))
    return 0


def _edited(name: str, text: bytes, console: Console) -> bytes:
    """Have the user edit the text until it is a good job, in a directory that only the user can look into."""
    with tempfile.TemporaryDirectory(prefix="s3bu-") as directory:
        path = Path(directory, f"{name}.yml")
        path.write_bytes(text)
        while True:
            _run_editor(path)
            _, edited = load_job_file(path)
            try:
                parse_job(edited, name=name, origin=path.name, strict=True, directory=None)
            except JobError as error:
                console.error(error, during="edit")
                if not _wants_again():
                    raise UsageError(f"job {name}: given up, nothing was stored") from error
            else:
                return edited


def _run_editor(path: Path) -> None:
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        subprocess.run([*editor, str(path)], check=True)  # noqa: S603 - the user's own editor
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"the editor '{editor[0]}' failed, nothing was stored", hint="set EDITOR to one that works"
        ) from error


def _wants_again() -> bool:
    """Ask whether to edit again; without a terminal there is nobody to ask."""
    try:
        return sys.stdin.isatty() and input("edit again? [Y/n] ").strip().lower() in {"", "y", "yes"}
    except EOFError:
        return False
