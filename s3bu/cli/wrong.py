"""What is wrong with a command line, in our words: those of cyclopts are for programmers."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from s3bu.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import App

_HINT = "`s3bu --help` lists the commands, `s3bu COMMAND --help` explains one; options go after the command"


def refusal(app: "App", error: CycloptsError) -> UsageError:
    """Return the error that a user gets to see."""
    chain = tuple(error.command_chain or ())
    if isinstance(error, UnknownCommandError) and chain:
        return UsageError(_first_line(error), hint=_members(app, chain))
    usage = _usage(chain, error.target) if error.target is not None else _HINT
    if isinstance(error, UnusedCliTokensError):
        return UsageError(_too_many(error.unused_tokens or []), hint=usage)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        return UsageError(f"{name} needs a value" if name.startswith("-") else f"no {name} was given", hint=usage)
    return UsageError(_first_line(error), hint=_HINT)


def _first_line(error: CycloptsError) -> str:
    """Return what is wrong with the command line, in one line and our case."""
    text = " ".join(str(error).split()).partition(" Available commands:")[0].removesuffix(".")
    return text[:1].lower() + text[1:]


def _too_many(words: list[str]) -> str:
    number = "one argument" if len(words) == 1 else f"{len(words)} arguments"
    return f"{number} too many: " + ", ".join(f"'{word}'" for word in words)


def _members(app: "App", chain: tuple[str, ...]) -> str:
    """Return which commands a group has."""
    group = app
    for name in chain:
        group = group[name]
    *names, last = sorted(name for name in group if not name.startswith("-"))
    return f"s3bu {' '.join(chain)} has {', '.join(names)} and {last}"


def _usage(chain: tuple[str, ...], command: Callable[..., object]) -> str:
    """Return how a command is called: its arguments are what stands in front of its options."""
    parameters = inspect.signature(command).parameters.values()
    arguments = [
        one.name.upper() if one.default is one.empty else f"[{one.name.upper()}]"
        for one in parameters
        if one.kind is one.POSITIONAL_ONLY
    ]
    return f"usage: {' '.join(['s3bu', *chain, *arguments, '[OPTIONS]'])}"
