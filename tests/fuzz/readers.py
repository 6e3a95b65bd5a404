"""Examples that the original wrote, and a reader that hands them out in pieces as a network does."""

from pathlib import Path

BUCKETS = Path(__file__).parents[1] / "interop"


def examples(pattern: str) -> list[bytes]:
    """Return the objects of the original's buckets whose keys match, as they lie there."""
    return [path.read_bytes() for path in sorted(BUCKETS.glob(f"*/objects/{pattern}")) if path.is_file()]


class PieceReader:
    """Reads bytes, never more than so many at once."""

    def __init__(self, content: bytes, most: int) -> None:
        self._content = memoryview(content)
        self._most = most

    def read(self, size: int = -1, /) -> bytes:
        size = self._most if size < 0 else min(size, self._most)
        taken, self._content = self._content[:size], self._content[size:]
        return bytes(taken)
