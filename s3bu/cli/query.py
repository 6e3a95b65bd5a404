"""`s3bu query`."""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_index_for_reading
from s3bu.console import Console, Row, Table
from s3bu.console.text import shown_line
from s3bu.errors import UsageError

if TYPE_CHECKING:
    from s3bu.query import Answer, Value

_MEASURED = 500
"""Columns of a table are as wide as its first rows need; later ones may stand out, since they are not waited for."""
_MEASURED_NBYTES = 1024 * 1024
_SECONDS_BOUND = 1_000_000.0


def query(
    repository: Location,
    sql: str | None = None,
    /,
    *,
    tables: Annotated[bool, Parameter(negative="")] = False,
    param: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    timeout: float = 5.0,
    table: Annotated[bool, Parameter(negative="")] = False,
    csv: Annotated[bool, Parameter(negative="")] = False,
    array: Annotated[bool, Parameter(negative="")] = False,
    common: Common = NOTHING_COMMON,
) -> int:
    """Ask the index in SQL: all snapshots, without asking the repository.

    The statement can only read, and runs in a process of its own. docs/query.md explains the views, with examples.

    For example:

      s3bu query my-bucket --tables
      s3bu query my-bucket "SELECT path, size FROM files ORDER BY size DESC LIMIT 5"
      s3bu query my-bucket "SELECT * FROM versions WHERE path = :p" --param p=a.odt

    Parameters
    ----------
    sql
        one SELECT over the views
    tables
        show the views with their columns, and the functions
    param
        a value for :NAME in the statement, as NAME=VALUE; may be given several times
    timeout
        seconds after which the query is ended
    table
        print a table for people, as is done where nothing else is asked for
    csv
        print CSV with a line of titles
    array
        print one JSON array of the rows; --json prints a JSON object a line instead
    """
    from s3bu.query import Query, asked  # noqa: PLC0415 - start-up counts

    with common.console() as console:
        if tables:
            _tell_views(console)
            return 0
        if sql is None:
            raise UsageError("no statement to run", hint="give one in quotes; --tables shows what can be asked")
        if not 0 < timeout <= _SECONDS_BOUND:
            raise UsageError(f"--timeout {timeout:g} is no time to wait for a query", hint="write seconds, such as 60")
        wanted = Query(sql, _parameters(param), timeout)
        tell = _chosen({"--table": table, "--csv": csv, "--array": array, "--json": common.json})
        with open_index_for_reading(repository, common, console) as (_, index):
            assert index.path is not None
            with asked(index.path, wanted) as answer:
                tell(answer, console)
    return 0


def _parameters(texts: Sequence[str]) -> Mapping[str, str]:
    parameters = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"'{text}' is no parameter", hint="write NAME=VALUE")
        parameters[name.removeprefix(":")] = value
    return parameters


def _tell_views(console: Console) -> None:
    from s3bu.views import FUNCTIONS, VIEWS  # noqa: PLC0415 - start-up counts

    for view in VIEWS:
        columns = [{"name": column.name, "meaning": column.meaning} for column in view.columns]
        width = max(len(column.name) for column in view.columns)
        lines = [f"  {column.name:{width}}  {column.meaning}" for column in view.columns]
        facts = {"name": view.name, "meaning": view.meaning, "columns": columns}
        console.tell("view", facts, f"{view.name}: {view.meaning}", *lines, "")
    for name, (_, _, meaning) in FUNCTIONS.items():
        console.tell("function", {"name": name, "meaning": meaning}, f"{name}(): {meaning}")


def _chosen(forms: Mapping[str, bool]) -> "Callable[[Answer, Console], None]":
    """Return what prints an answer in the form that was asked for."""
    asked = [name for name, is_asked in forms.items() if is_asked]
    if len(asked) > 1:
        raise UsageError(f"rows are printed in one form, not in {len(asked)}", hint=f"give one of {', '.join(asked)}")
    if asked == ["--csv"]:
        return _tell_csv
    return _tell_array if asked == ["--array"] else _tell_rows


def _tell_csv(answer: "Answer", _console: Console) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(answer.columns)
    writer.writerows([_text(value) for value in row] for row in answer.rows)


def _tell_array(answer: "Answer", _console: Console) -> None:
    from s3bu.console.lines import json_object  # noqa: PLC0415 - start-up counts

    columns, before = _distinct(answer.columns), "["
    for row in answer.rows:
        sys.stdout.write(f"{before}\n{json_object(dict(zip(columns, row, strict=True)))}")
        before = ","
    sys.stdout.write("[]\n" if before == "[" else "\n]\n")


def _tell_rows(answer: "Answer", console: Console) -> None:
    columns = _distinct(answer.columns)
    rows = (_row(columns, row) for row in answer.rows)
    first = _first(rows)
    numeric = frozenset(
        column
        for column, values in enumerate(zip(*(row.facts.values() for row in first), strict=True))
        if _are_numbers(values)
    )
    titles = [shown_line(name) for name in answer.columns]
    console.table(Table("row", titles, chain(first, rows), right=numeric, measured=len(first)))


def _distinct(columns: Sequence[str]) -> Sequence[str]:
    """Return names that each stand once, as an object needs them: `path`, `path:1`, as SQLite tells them apart."""
    distinct: list[str] = []
    for name in columns:
        others = (name, *(f"{name}:{number}" for number in range(1, len(columns))))
        distinct.append(next(one for one in others if one not in distinct))
    return distinct


def _first(rows: Iterator[Row]) -> list[Row]:
    """Return the rows by which a table is measured: not many, and not much."""
    first: list[Row] = []
    nbytes = 0
    for row in islice(rows, _MEASURED):
        first.append(row)
        nbytes += sum(map(len, row.cells))
        if nbytes > _MEASURED_NBYTES:
            break
    return first


def _are_numbers(values: Sequence[object]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _row(columns: Sequence[str], values: Sequence["Value"]) -> Row:
    return Row(dict(zip(columns, values, strict=True)), [shown_line(_text(value)) for value in values])


def _text(value: "Value") -> str:
    if value is None:
        return ""
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
