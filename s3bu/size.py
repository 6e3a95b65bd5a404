"""Numbers of bytes as people write them."""

import re

from s3bu.errors import UsageError

_WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)(i?b)?", re.IGNORECASE)
_LARGEST = 2**63 - 1
"""What SQLite takes; no file is larger."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes that a text names: `500`, `10k`, `1.5G`, `2 MiB`; units are powers of 1,024."""
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise UsageError(f"'{text}' is no size", hint="write a number of bytes, or 10k, 5M, 1.5G")
    return min(int(float(written[1]) * 1024 ** _POWERS[written[2].lower()]), _LARGEST)
