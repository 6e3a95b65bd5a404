"""Numbers of bytes, and shares of them, as people write them."""

import math
import re
from typing import NamedTuple

from s3bu.errors import UsageError

_WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)(i?b)?", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_LARGEST = 2**63 - 1
"""What SQLite takes; no file is larger."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes that a text names: `500`, `10k`, `1.5G`, `2 MiB`; units are powers of 1,024."""
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise UsageError(f"'{text}' is no size", hint="write a number of bytes, or 10k, 5M, 1.5G")
    return min(int(float(written[1]) * 1024 ** _POWERS[written[2].lower()]), _LARGEST)


class Share(NamedTuple):
    """So much of something: a fraction of it, or so many bytes where they are given."""

    fraction: float
    nbytes: int | None = None

    def of(self, total: int) -> int:
        """Return how many of so many bytes that is, rounded up."""
        return min(total, math.ceil(total * self.fraction) if self.nbytes is None else self.nbytes)

    def fraction_of(self, total: int) -> float:
        """Return which fraction of so many bytes that is."""
        return self.fraction if self.nbytes is None else min(1.0, self.nbytes / max(total, 1))


def parse_share(text: str) -> Share:
    """Return the share that a text names: `all`, `5%`, or a size."""
    if text.strip().lower() == "all":
        return Share(1.0)
    written = _PERCENT.fullmatch(text.strip())
    try:
        share = Share(float(written[1]) / 100) if written else Share(1.0, parse_size(text))
    except UsageError:
        share = Share(0.0)
    if text.strip().isdecimal():
        raise UsageError(f"'{text}' of what?", hint=f"write {text.strip()}% or, for bytes, {text.strip()}B")
    if not 0 < share.fraction <= 1 or share.nbytes == 0:
        raise UsageError(f"'{text}' is no share", hint="write 5%, a size such as 2GB, or all")
    return share
