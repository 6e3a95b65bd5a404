"""`s3bu watch`."""

import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import (
    NOTHING_COMMON,
    OWN,
    Common,
    Location,
    excluded_directories,
    load_job,
    open_repository,
    parse_stored_job,
    read_stored_job,
    words_of,
)
from s3bu.cli.values import value_of
from s3bu.errors import UsageError
from s3bu.interrupt import Terminated
from s3bu.job import is_job_file
from s3bu.moment import parse_duration
from s3bu.size import parse_size

if TYPE_CHECKING:
    from s3bu.repository import Repository
    from s3bu.watch import Setting, Wanted
    from s3bu.watch.jobs import Following
    from s3bu.watch.log import Log

_PROGRAM = (sys.executable, "-P", "-m", "s3bu")
"""This program; -P: whatever lies in the working directory is no part of it."""
_DEFAULTS = {
    "--interval": "5m",
    "--settle": "10s",
    "--full-scan-every": "24h",
    "--large-interval": "1h",
    "--manifest-budget": "1GB",
}
_LONGEST_FULL = 7 * 86_400
_VARIABLES = (
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
)
"""What a unit takes over of the environment: where things are, and no secrets."""
_OF_AWS = re.compile(r"AWS_[A-Z0-9_]+")


def watch(
    repository: Location,
    job: str,
    label: str | None = None,
    /,
    *,
    also: Annotated[list[str] | None, Parameter(negative="")] = None,
    interval: str = _DEFAULTS["--interval"],
    settle: str = _DEFAULTS["--settle"],
    full_scan_every: str = _DEFAULTS["--full-scan-every"],
    large_interval: str = _DEFAULTS["--large-interval"],
    manifest_budget: str = "1GB",
    compress: Annotated[bool, Parameter(name=["--compress", "-c"], negative="")] = False,
    record_only: Annotated[bool, Parameter(negative="")] = False,
    once: Annotated[bool, Parameter(negative="")] = False,
    print_unit: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Watch sources, and back them up minutes after they change.

    Runs until a signal ends it: SIGTERM (exit code 0), or Ctrl-C. SIGHUP reads the jobs again. Exit codes: 2 wrong
    usage, 10 no repository or job, 11 another process watches a source, 12 key missing or wrong; of --once those of
    `s3bu backup`.

    For example:

      s3bu watch my-bucket home
      s3bu watch my-bucket home --also mail --interval 15m -c
      s3bu watch my-bucket home --print-unit

    Parameters
    ----------
    job
        a job's name, or a local .yml file
    label
        watch only the source of this label
    also
        watch the sources of this job too; may be given several times
    interval
        back a source up at most so often, and so long after its first change at the latest
    settle
        back it up before that, when nothing has changed in it for so long
    full_scan_every
        look at everything when the last full scan is so old; at most 7d
    large_interval
        take a file over 256 MiB that keeps changing at most so often
    manifest_budget
        publish at most so many bytes of manifests a day, by longer intervals
    compress
        compress new contents that get smaller by it
    record_only
        start no backups, only record what changes, for backups by cron
    once
        back each source up once, and end
    print_unit
        print a unit of systemd that runs this command as a service
    """
    from s3bu.watch import Wanted  # noqa: PLC0415 - start-up counts
    from s3bu.watch.schedule import Pace  # noqa: PLC0415

    if once and (record_only or print_unit):
        if print_unit:
            raise UsageError("--once ends, and a service does not", hint="leave out one of them")
        raise UsageError("--once backs up, and --record-only does not", hint="leave out one of them")
    budget = value_of("--manifest-budget", manifest_budget, parse_size)
    if budget == 0:
        raise UsageError("--manifest-budget 0 would never let a snapshot be published", hint="write 1GB, for example")
    full_seconds = value_of("--full-scan-every", full_scan_every, parse_duration)
    if full_seconds > _LONGEST_FULL:
        raise UsageError(
            f"--full-scan-every {full_scan_every} is too seldom",
            hint="7d is the longest: some changes come without a word",
        )
    _ = value_of("--large-interval", large_interval, parse_duration)
    seconds = value_of("--interval", interval, parse_duration), value_of("--settle", settle, parse_duration)
    pace = Pace(*seconds, budget, full_seconds)
    named = [job, *(also or ())]
    if len({Path(one).stem if is_job_file(one) else one for one in named}) < len(named):
        raise UsageError("a job is named twice", hint="leave out one of them")
    if print_unit:
        texts = (interval, settle, full_scan_every, large_interval, manifest_budget)
        given = dict(zip(_DEFAULTS, texts, strict=True))
        words = [word for name, text in given.items() if text != _DEFAULTS[name] for word in (name, text)]
        flags = {"-c": compress, "--record-only": record_only, "--once": once}
        words += [name for name, is_given in flags.items() if is_given]
        return _print_unit(repository, named, label, words, common)
    of_backup = (*(("-c",) if compress else ()), "--large-interval", large_interval)
    wanted = Wanted(pace, is_recording_only=record_only, is_once=once)
    return _watch(repository, [_absolute(one) for one in named], label, wanted, of_backup, common)


def _absolute(job: str) -> str:
    return os.path.abspath(job) if is_job_file(job) else job


def _watch(
    repository: str, named: list[str], label: str | None, wanted: "Wanted", of_backup: tuple[str, ...], common: Common
) -> int:
    if platform.system() != "Linux":
        raise UsageError(
            "only Linux tells what changes", hint="let cron, or launchd, start `s3bu backup` every so often"
        )
    from s3bu.watch import Watcher  # noqa: PLC0415 - start-up counts
    from s3bu.watch.events import TERMINATING  # noqa: PLC0415

    _make_own_directories()
    try:
        setting, following = _prepared(repository, named, label, wanted, of_backup, common)
        return Watcher(wanted, setting, following).run()
    except Terminated:
        return TERMINATING[15]


def _make_own_directories() -> None:
    """Make what each run writes into, so that it is known what not to watch."""
    from s3bu.keyring import usable_home  # noqa: PLC0415 - start-up counts

    home = usable_home(os.environ, *OWN)
    for name in OWN:
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)


def _prepared(
    text: str, named: list[str], label: str | None, wanted: "Wanted", of_backup: tuple[str, ...], common: Common
) -> "tuple[Setting, list[Following]]":
    """Read the jobs, which must be there, and say where all is; the repository itself is asked by runs alone later."""
    from s3bu.keyring import default_home  # noqa: PLC0415 - start-up counts
    from s3bu.storage.place import parse_place  # noqa: PLC0415
    from s3bu.watch import Setting  # noqa: PLC0415
    from s3bu.watch.notify import Notifier  # noqa: PLC0415
    from s3bu.watch.recorder import Place  # noqa: PLC0415
    from s3bu.watch.runs import Commands  # noqa: PLC0415

    with open_repository(text, common) as opened, common.console() as console:
        if not wanted.is_recording_only:
            _check(opened, is_directory=parse_place(text).kind == "directory")
        # What is odd about a job is said by each run of it, where there are any.
        tells = console.warning if wanted.is_recording_only else None
        following = [_following(opened, job, label if not number else None, tells) for number, job in enumerate(named)]
        place = Place(default_home(os.environ), opened.storage.identity, int(wanted.pace.full_every))
    commands = Commands(_PROGRAM, text, words_of(common), of_backup)
    setting = Setting(place, excluded_directories(text), commands, _log(common), Notifier(os.environ))
    return setting, following


def _check(repository: "Repository", *, is_directory: bool) -> None:
    """End before anything is watched where no backup could ever be made; a network is not waited for, runs do that."""
    _ = repository.keyring.secrets
    if is_directory:
        _ = repository.recipients()


def _following(
    repository: "Repository", named: str, label: str | None, tell: Callable[[str], None] | None
) -> "Following":
    from s3bu.cli.backup import chosen_sources  # noqa: PLC0415 - start-up counts
    from s3bu.watch.jobs import Following, mark_of  # noqa: PLC0415

    version, mark = 0, mark_of(named) if is_job_file(named) else ()
    if is_job_file(named):
        job, warnings = load_job(repository, named)
    else:
        stored = read_stored_job(repository, named)
        version = stored.version
        job, warnings = parse_stored_job(stored)
    if tell is not None:
        for warning in warnings:
            tell(warning)
    chosen_sources(job, label)
    return Following(named, label, job, version, mark)


def _print_unit(repository: str, named: list[str], label: str | None, options: list[str], common: Common) -> int:
    """Print a unit for a command line, with the whole paths of all files of this machine."""
    from s3bu.keyring import default_home  # noqa: PLC0415 - start-up counts
    from s3bu.storage.place import parse_place  # noqa: PLC0415
    from s3bu.watch.unit import print_unit as made  # noqa: PLC0415

    place = parse_place(repository)
    program = Path(sys.executable).absolute().with_name("s3bu")
    command = [str(program)] if program.exists() else [*_PROGRAM]
    command += ["watch", place.path if place.kind == "directory" else repository, _absolute(named[0])]
    command += [] if label is None else [label]
    command += [word for one in named[1:] for word in ("--also", _absolute(one))]
    command += [*options, *words_of(common), *(["--json"] if common.json else []), *(["-q"] if common.quiet else [])]
    environ = {"S3BU_HOME": str(default_home(os.environ).absolute())}
    environ |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    left = [name for name in sorted(os.environ) if _OF_AWS.fullmatch(name) and name not in _VARIABLES]
    print(made(command, environ, is_system=os.geteuid() == 0, left=left), end="")
    return 0


def _log(common: Common) -> "Log":
    from s3bu.console.log import JsonLog, PersonLog  # noqa: PLC0415 - start-up counts

    return JsonLog() if common.json else PersonLog(is_quiet=common.quiet)
