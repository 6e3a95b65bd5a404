"""The jobs that are watched: the version that holds now, and how a newer one is found.

A local file is read again when it changed. For those of the repository a run of the program looks, so that a network
that is gone, or slow, never holds up the watcher. A job that cannot be read again stands as it was.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s3bu.errors import S3buError
from s3bu.job import Job, Source, is_job_file, load_job_file, parse_job
from s3bu.watch.children import Children
from s3bu.watch.runs import Commands, Ended, Message


@dataclass(slots=True)
class Following:
    """A job as the user named it, of which all sources are watched, or the one of a label; `version` of a stored one.

    `mark` tells a local file from what it was when it was read.
    """

    named: str
    label: str | None
    job: Job
    version: int = 0
    mark: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that are watched."""
        return tuple(source for source in self.job.sources if self.label in (None, source.label))

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return is_job_file(self.named)


def mark_of(path: str) -> tuple[int, ...]:
    """Return by what a file is told from what it was; nothing for one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


class Jobs:
    """Reads jobs again; `renewed` is called with each that has a newer version, `failed` with one that could not be."""

    def __init__(
        self,
        following: list[Following],
        commands: Commands,
        children: Children,
        renewed: Callable[[Following], object],
        failed: Callable[[Following, str], object],
    ) -> None:
        self.following = following
        self._commands = commands
        self._children = children
        self._renewed = renewed
        self._failed = failed
        self._is_looking = False
        self._asked: list[Callable[[], object]] = []
        self._done: list[Callable[[], object]] = []

    def of(self, job: str) -> Job:
        """Return the version of a job that holds."""
        return next(one.job for one in self.following if one.job.name == job)

    def look_at_files(self) -> None:
        """Read those local files again that changed."""
        for one in self.following:
            mark = mark_of(one.named) if one.is_local else one.mark
            if mark != one.mark:
                one.mark = mark
                self._read_file(one)

    def reload(self, done: Callable[[], object]) -> None:
        """Read all jobs again, and then call `done`, at once or later; a look that is under way may be too early."""
        self.look_at_files()
        self._asked.append(done)
        if not self._is_looking:
            self._begin()

    def _begin(self) -> None:
        self._done, self._asked = self._asked, []
        if all(one.is_local for one in self.following):
            self._finish()
            return
        self._is_looking = True
        self._children.start(self._commands.list_jobs(), self._listed, keeps="job_versions")

    def _finish(self) -> None:
        self._is_looking = False
        done, self._done = self._done, []
        for call in done:
            call()
        if self._asked and not self._is_looking:
            self._begin()

    def _read_file(self, one: Following) -> None:
        try:
            name, text = load_job_file(Path(one.named))
            directory = Path(one.named).absolute().parent
            job = parse_job(text, name=name, origin=one.named, strict=False, directory=directory)
        except S3buError as error:
            self._failed(one, error.message)
        else:
            one.job = job
            self._renewed(one)

    def _listed(self, ended: Ended) -> None:
        """Ask for the jobs of which there are newer versions."""
        stored = [one for one in self.following if not one.is_local]
        if ended.code != 0:
            for one in stored:
                self._failed(one, ended.why or "")
            self._finish()
            return
        newest = {message.get("job"): message.get("newest") for message in ended.facts}
        self._show([one for one in stored if newest.get(one.job.name) != one.version])

    def _show(self, left: list[Following]) -> None:
        """Read one job after the other."""
        if not left:
            self._finish()
            return
        one, *others = left

        def shown(ended: Ended) -> None:
            self._take(one, ended)
            self._show(others)

        self._children.start(self._commands.show_job(one.named), shown, keeps="job")

    def _take(self, one: Following, ended: Ended) -> None:
        if ended.code != 0 or not ended.facts:
            self._failed(one, ended.why or "it says nothing")
            return
        try:
            job, version = _parsed(one.named, ended.summary)
        except S3buError as error:
            self._failed(one, error.message)
        else:
            one.version = version
            one.job = job
            self._renewed(one)


def _parsed(name: str, message: Message) -> tuple[Job, int]:
    version, text = message.get("version"), message.get("text")
    if not isinstance(version, int) or not isinstance(text, str):
        raise S3buError(f"job '{name}' cannot be read")
    encoded = text.encode("utf-8", "surrogateescape")
    return parse_job(encoded, name=name, origin=f"{name}, version {version}", strict=False, directory=None), version
