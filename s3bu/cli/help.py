"""How help looks: options in a column of their own, and text broken to the width of the terminal.

The formatter of cyclopts (its protocol `HelpFormatter`) that is plain breaks each text twice where the terminal is
narrow, once without and once with the option before it.
"""

import re
import textwrap
from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_WIDEST = 100
"""Longer lines are hard to read, however wide the terminal is."""
_LABELS = 26
"""So many columns an option has; what follows a longer one stands on the next line."""
_INDENT = "  "
_UNBROKEN = 10_000


class Formatter:
    """Prints the parts of a command's help: its usage, what it does, and its arguments, options and commands."""

    # Cyclopts gives all three, by these names.

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:  # noqa: ARG002
        """Print one panel: a title, and an entry a line or more."""
        entries = [(", ".join(entry.display_labels_with_metavar), _meaning(entry)) for entry in panel.entries]
        if not entries:
            return
        width = min(max(len(label) for label, _ in entries), _LABELS)
        lines = [f"{_plain(panel.title)}:"] if panel.title else []
        for label, meaning in entries:
            lines += _columns(label, meaning, width, _width(console))
        _print(console, lines)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: object) -> None:  # noqa: ARG002
        """Print how the command is called."""
        text = _plain(usage).strip()
        if text:
            _print(console, _wrapped(text if text.startswith("Usage:") else f"Usage: {text}", _width(console)))

    def render_description(self, console: "Console", options: "ConsoleOptions", description: object) -> None:  # noqa: ARG002
        """Print what the command does, by paragraphs; a line that is indented stands as it is."""
        text = _plain(description)
        if text:
            _print(console, [line for part in text.split("\n\n") for line in (*_part(part, _width(console)), "")][:-1])


def _width(console: "Console") -> int:
    return min(console.width, _WIDEST)


def _print(console: "Console", lines: list[str]) -> None:
    """Print lines as they are, and an empty one."""
    for line in (*lines, ""):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _plain(renderable: object) -> str:
    """Return a text without its style, and with no more breaks than it was written with."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and for help alone

    console = Console(file=StringIO(), width=_UNBROKEN, no_color=True, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(renderable, end="")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break a text, but neither within words nor options."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _part(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a paragraph; of one that is indented, as they stand."""
    if text.startswith(" "):
        yield from text.splitlines()
    else:
        yield from _wrapped(text, width)


def _meaning(entry: "HelpEntry") -> str:
    """Return what an entry means, with its default unless that is not to do so."""
    text = re.sub(r"\s+", " ", _plain(entry.description)) if entry.description is not None else ""
    notes = [f"choices: {', '.join(entry.choices)}"] if entry.choices else []
    notes += [f"default: {entry.default}"] if entry.default not in (None, "False", "()") else []
    notes += ["required"] if entry.required else []
    return " ".join([text, *(f"[{note}]" for note in notes)]).strip()


def _columns(label: str, meaning: str, width: int, total: int) -> list[str]:
    """Return the lines of an entry: its label, and what it means beside that, or below where it is too long."""
    margin = " " * (len(_INDENT) + width + len(_INDENT))
    lines = _wrapped(meaning, total, margin)
    if len(label) > width:
        return [_INDENT + label, *lines]
    first = lines[0].removeprefix(margin) if lines else ""
    return [f"{_INDENT}{label:{width}}{_INDENT}{first}".rstrip(), *lines[1:]]
