"""`s3bu find`, `history`, `diff` and `du`: what the index knows, without asking the repository."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, excluded_directories, load_job, open_index_for_reading
from s3bu.cli.values import value_of
from s3bu.console import Console, Row, Table
from s3bu.console.text import format_nbytes, shown_line
from s3bu.errors import JobNotFoundError, UsageError
from s3bu.moment import format_local, parse_moment
from s3bu.progress import Failure
from s3bu.size import parse_size

if TYPE_CHECKING:
    from s3bu.index import Index, IndexedSnapshot
    from s3bu.query import Query
    from s3bu.repository import Repository
    from s3bu.scan import Scan


def find(
    repository: Location,
    pattern: str,
    /,
    *,
    since: str | None = None,
    until: str | None = None,
    label: str | None = None,
    larger: str | None = None,
    deleted: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Find paths in all snapshots.

    A file that did not change is one line, however many snapshots have it. Answered from the index. Exit codes: 0 done,
    also when nothing was found, 2 wrong usage.

    For example:

      s3bu find my-bucket '*.odt'
      s3bu find my-bucket 're:^letters/' --since 2026-03-01 --until 2026-03-31
      s3bu find my-bucket '*' --deleted --larger 100M

    Parameters
    ----------
    pattern
        a glob (matched with the last name, or with the whole path if it has a slash), or re: and a regular expression
    since
        only what a snapshot of that time or later has
    until
        only what a snapshot of that time or before has
    label
        only sources of this label
    larger
        only files of so many bytes or more, such as 500k, 10M, 1.5G
    deleted
        only paths that the newest snapshot of their source does not have
    """
    from s3bu.pattern import compile_pattern  # noqa: PLC0415 - start-up counts
    from s3bu.search import Wanted, check_label  # noqa: PLC0415
    from s3bu.search import find as ask_for  # noqa: PLC0415

    compile_pattern(pattern)
    now = datetime.now(UTC)
    wanted = Wanted(
        pattern,
        since=value_of("--since", since, partial(parse_moment, now=now, is_first=True)),
        until=value_of("--until", until, partial(parse_moment, now=now)),
        label=label,
        larger=value_of("--larger", larger, parse_size),
        is_deleted=deleted,
    )
    with common.console() as console, open_index_for_reading(repository, common, console) as (_, index):
        if label is not None:
            check_label(index, label)
        _or_nothing(console, _tell(console, index, ask_for(wanted), "version", _VERSION), "nothing found")
    return 0


def history(repository: Location, path: str, /, *, common: Common = NOTHING_COMMON) -> int:
    """Show all versions of one path, and what became of each.

    Answered from the index. Exit codes: 0 done, 2 wrong usage, also when no snapshot has the path.

    For example:

      s3bu history my-bucket letters/to-anna.odt

    Parameters
    ----------
    path
        the path below the source, as `find` and `ls` print it
    """
    from s3bu.search import history as ask_for  # noqa: PLC0415 - start-up counts

    with common.console() as console, open_index_for_reading(repository, common, console) as (_, index):
        if not _tell(console, index, ask_for(path), "version", _VERSION):
            raise UsageError(f"no snapshot in the index has '{path}'", hint="`s3bu find` looks for parts of paths")
    return 0


def diff(repository: Location, a: str, b: str, /, *, common: Common = NOTHING_COMMON) -> int:
    """Show what differs between two snapshots, or between one and now.

    Answered from the index; with `now` the source is looked at, and files are compared by size and time. Exit codes:
    0 done, 2 wrong usage, 3 done, but some of the source could not be looked at.

    For example:

      s3bu diff my-bucket home/documents@2026-05-01 home/documents
      s3bu diff my-bucket home/documents now
      s3bu diff my-bucket home.yml/documents now

    Parameters
    ----------
    a
        a snapshot: JOB/LABEL (the newest), JOB/LABEL@TIME (the newest at or before), or a key; with now, JOB may be a
        local .yml file
    b
        another snapshot of the same source, or now
    """
    from s3bu.search import diff as ask_for  # noqa: PLC0415 - start-up counts
    from s3bu.search import diff_now, find_indexed  # noqa: PLC0415

    now = datetime.now(UTC)
    job, a = _local_job(a)
    with common.console() as console, open_index_for_reading(repository, common, console) as (opened, index):
        before = find_indexed(index, a, now=now)
        if b == "now":
            failures: list[Failure] = []
            scan = _source_of(opened, repository, index, before, job)
            rows = diff_now(index, before, scan, failures)
            columns = ("status", "path", "path_raw", "kind", "size_before", "size")
            number = _tell_rows(console, columns, rows, "difference", _DIFFERENCE)
            _or_nothing(console, number + len(failures), _SAME)
            for failure in failures:
                console.failure(failure)
            return 3 if failures else 0
        after = find_indexed(index, b, now=now)
        if before.source != after.source:
            raise UsageError("the two snapshots are of different sources", hint="`s3bu query` compares anything")
        earlier, later = sorted((before, after), key=lambda one: one.number)
        if earlier != before:
            console.warning(f"{later.key} is the later one: what it has and the other has not is shown as new")
        number = _tell(console, index, ask_for(earlier.key, later.key), "difference", _DIFFERENCE)
        _or_nothing(console, number, _SAME)
    return 0


_LOCAL = re.compile(r"(?P<file>.+\.ya?ml)/(?P<label>[^/]+)", re.DOTALL)


def _local_job(text: str) -> tuple[str | None, str]:
    """Return the local job file by which a snapshot is named, if it is so, and its name by that job."""
    written = _LOCAL.fullmatch(text)
    return (None, text) if written is None else (written["file"], f"{Path(written['file']).stem}/{written['label']}")


def _source_of(
    opened: "Repository", repository: str, index: "Index", snapshot: "IndexedSnapshot", named: str | None
) -> "Scan":
    """Return a scan of the source of a snapshot, as its job has it now."""
    from s3bu.scan import Scan  # noqa: PLC0415 - start-up counts

    _, name, label = snapshot.key.rsplit("/", 1)[0].split("/", 2)
    try:
        job, _ = load_job(opened, named or name, index)
    except JobNotFoundError as error:
        error.hint = f"of a job that is a local file: `s3bu diff {repository} {name}.yml/{label} now`"
        raise
    source = next((one for one in job.sources if one.label == label), None)
    if source is None:
        raise UsageError(f"job '{name}' has no source '{label}' any more", hint="compare with another snapshot instead")
    return Scan(source.path, job.filters, excluded=excluded_directories(repository))


def du(
    repository: Location,
    snapshot: str | None = None,
    /,
    *,
    depth: int = 1,
    limit: int = 30,
    largest: Annotated[bool, Parameter(negative="")] = False,
    duplicates: Annotated[bool, Parameter(negative="")] = False,
    growth: str | None = None,
    common: Common = NOTHING_COMMON,
) -> int:
    """Show what takes the space: directories, what grew, large files, copies.

    Of a snapshot, or of the newest one of each source. Answered from the index; sizes are those of the files, before
    compression, and a content that is there twice is counted twice. Exit codes: 0 done, 2 wrong usage.

    For example:

      s3bu du my-bucket
      s3bu du my-bucket home/documents@2026-05-01 --depth 2
      s3bu du my-bucket --growth 30d
      s3bu du my-bucket --duplicates

    Parameters
    ----------
    snapshot
        JOB/LABEL (the newest), JOB/LABEL@TIME (the newest at or before), or a key
    depth
        how many levels of directories to tell apart
    limit
        how many lines to print
    largest
        show the largest files
    duplicates
        show contents that several files have
    growth
        show which directories grew or shrank since this time
    """
    from s3bu import search  # noqa: PLC0415 - start-up counts

    if sum((largest, duplicates, growth is not None)) > 1 or (growth is not None and snapshot is not None):
        raise UsageError("--largest, --duplicates and --growth exclude each other, and --growth a snapshot")
    now = datetime.now(UTC)
    with common.console() as console, open_index_for_reading(repository, common, console) as (_, index):
        key = search.find_indexed(index, snapshot, now=now).key if snapshot is not None else None
        if largest:
            _tell(console, index, search.largest(key, limit), "file", _FILE)
        elif duplicates:
            number = _tell(console, index, search.duplicates(key, limit), "duplicate", _DUPLICATE)
            _or_nothing(console, number, "no content is there twice")
        elif growth is not None:
            query = search.growth(value_of("--growth", growth, partial(parse_moment, now=now)), depth, limit)
            number = _tell(console, index, query, "directory", _GROWTH)
            _or_nothing(console, number, "nothing grew or shrank")
        else:
            _tell(console, index, search.by_directory(key, depth, limit), "directory", _DIRECTORY)
    return 0


# --- what a person sees of it


@dataclass(frozen=True, slots=True)
class _Shown:
    """A column as a person sees it: its title, what stands in it, and whether that is a number."""

    title: str
    cell: Callable[[Mapping[str, object]], str]
    is_number: bool = False


def _size(name: str, title: str | None = None) -> _Shown:
    return _Shown(title or name, lambda row: format_nbytes(int(str(row[name]))), is_number=True)


def _text(name: str) -> _Shown:
    return _Shown(name, lambda row: shown_line(str(row[name])))


def _time(name: str, title: str) -> _Shown:
    return _Shown(title, lambda row: format_local(datetime.fromtimestamp(int(str(row[name])), UTC)))


def _signed(row: Mapping[str, object]) -> str:
    growth = int(str(row["growth"]))
    return f"{'+' if growth > 0 else '-'}{format_nbytes(abs(growth))}"


_SOURCE = _Shown("source", lambda row: shown_line(f"{row['job']}/{row['label']}"))
_PATH = _text("path")
_VERSION = (
    _time("first_seen", "first seen"),
    _time("last_seen", "last seen"),
    _Shown("then", lambda row: str(row["ended"] or "")),
    _size("size"),
    _SOURCE,
    _PATH,
)
_DIFFERENCE = (_text("status"), _size("size_before", "before"), _size("size"), _PATH)
_DIRECTORY = (
    _size("size"),
    _Shown("files", lambda row: f"{row['files']:,}", is_number=True),
    _SOURCE,
    _text("directory"),
)
_FILE = (_size("size"), _SOURCE, _PATH)
_DUPLICATE = (
    _size("spare"),
    _Shown("copies", lambda row: f"{row['copies']:,}", is_number=True),
    _size("size"),
    _PATH,
)
_GROWTH = (_Shown("growth", _signed, is_number=True), _size("size", "size now"), _SOURCE, _text("directory"))


def _tell(console: Console, index: "Index", query: "Query", message_type: str, columns: tuple[_Shown, ...]) -> int:
    """Run a query and show its rows; return how many there were."""
    from s3bu.query import asked  # noqa: PLC0415 - start-up counts

    assert index.path is not None
    if console.wants_changes:
        console.note(query.shown)
    with asked(index.path, query) as answer:
        return _tell_rows(console, answer.columns, answer.rows, message_type, columns)


_SAME = "no difference"


def _or_nothing(console: Console, number: int, message: str) -> None:
    """Say that there is nothing, where there is."""
    if not number:
        console.note(message)


def _tell_rows(
    console: Console,
    names: Iterable[str],
    rows: Iterable[tuple[object, ...]],
    message_type: str,
    columns: tuple[_Shown, ...],
) -> int:
    names = tuple(names)
    found = [dict(zip(names, row, strict=True)) for row in rows]
    if not found:
        return 0
    right = frozenset(number for number, column in enumerate(columns) if column.is_number)
    told = (Row(row, [column.cell(row) for column in columns]) for row in found)
    console.table(Table(message_type, tuple(column.title for column in columns), told, right=right))
    return len(found)
