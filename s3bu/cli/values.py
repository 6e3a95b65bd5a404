"""Values of options, as texts: what is wrong with one is said with the option's name, since a command has several."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar, overload

from s3bu.errors import UsageError
from s3bu.moment import parse_moment

Value = TypeVar("Value")


@overload
def value_of(option: str, text: str, parse: Callable[[str], Value]) -> Value: ...
@overload
def value_of(option: str, text: str | None, parse: Callable[[str], Value]) -> Value | None: ...
def value_of(option: str, text: str | None, parse: Callable[[str], Value]) -> Value | None:
    """Return what an option's text stands for, nothing where it was not given."""
    if text is None:
        return None
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option} {error.message}", hint=error.hint) from error


def oldest_of(option: str, text: str | None) -> datetime | None:
    """Return before which moment something is older than an age."""
    return value_of(option, text, _before)


def _before(text: str) -> datetime:
    try:
        return parse_moment(text, now=datetime.now(UTC))
    except UsageError as error:
        raise UsageError(f"'{text}' is no age", hint="write 90m, 26h or 8d") from error
