"""Text for people: names that cannot steer a terminal, sizes and numbers as they are said, columns that line up."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

_WIDEST = 200
_INDENTATION = "    "


def shown(name: bytes | str) -> str:
    r"""Return a name as it may be printed: control characters, bidi marks and bytes that are no text as `\x1b`."""
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    return "".join(one if one.isprintable() and one != "\\" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    # The lone surrogates from U+DC80 on stand for bytes of a name that are no text; others come from broken documents.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def shown_line(text: str) -> str:
    """Return a message as it may be printed, on one line; names in it were not escaped one by one."""
    if text.isprintable():
        return text
    return text.translate({ord(one): _escaped(one) for one in set(text) if not one.isprintable()})


def format_nbytes(nbytes: int) -> str:
    """Return a size for a person: `0 B`, `1.5 KiB`, `3.0 GiB`."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1023.95 or unit == "TiB":  # more would be rounded to 1,024.0
            break
        size /= 1024
    return f"{nbytes} B" if unit == "B" else f"{size:,.1f} {unit}"


def format_dollars(amount: float) -> str:
    """Return a price for a person: `$12.50`, `$0.0031`, `less than $0.0001`."""
    if 0 < amount < 0.0001:
        return "less than $0.0001"
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `1,234 files`, `2 directories`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def changes(new: int, changed: int, removed: int) -> str:
    """Return what became of paths, of all kinds: `3 paths new, 1 changed, 0 removed`."""
    return f"{counted(new, 'path')} new, {changed:,} changed, {removed:,} removed"


def sent(nbytes: int, nbytes_manifest: int) -> str:
    """Return what a backup sent: contents, and the manifest that names all of them."""
    return f"{format_nbytes(nbytes)} and a manifest of {format_nbytes(nbytes_manifest)} sent"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(count * _columns_of(one) for one, count in Counter(text).items())


def _columns_of(one: str) -> int:
    return 0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1


def format_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: frozenset[int],
    width: int | None,
    measured: int | None = None,
) -> Iterator[str]:
    """Yield the lines of a table with columns as wide as they need to be; those in `right` hold numbers.

    With `measured` only so many rows decide how wide, up to a bound, and what is longer stands out.
    Columns that would go past `width` stand on further lines, indented: nothing is cut, and nothing breaks in a word.
    """
    rows = iter(rows)
    cells = [titles, *islice(rows, measured)]
    widths = [max(columns_of(row[column]) for row in cells) for column in range(len(titles))]
    if measured is not None:
        widths = [min(one, _WIDEST) for one in widths]
    lines = _folded(widths, width)
    for row in chain(cells, rows):
        padded = [
            _padded(cell, width, is_right=column in right)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for number, columns in enumerate(lines):
            # What stands alone on its line has no column to keep to.
            texts = [padded[column] for column in columns] if len(columns) > 1 or not number else [row[columns[0]]]
            yield (_INDENTATION if number else "") + "  ".join(texts).rstrip()


def _folded(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Return which columns stand on the first line of a row, on the second, and so on."""
    lines: list[list[int]] = [[]]
    used = 0
    for column, needed in enumerate(widths):
        if width is not None and lines[-1] and used + 2 + needed > width:
            lines.append([])
            used = len(_INDENTATION)
        used += needed + (2 if lines[-1] else 0)
        lines[-1].append(column)
    return lines


def _padded(cell: str, width: int, *, is_right: bool) -> str:
    space = " " * (width - columns_of(cell))
    return space + cell if is_right else cell + space
