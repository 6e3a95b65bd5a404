"""How long the suites that draw their cases at random run: short in CI, as long as asked for elsewhere."""

import os


def rounds(short: int) -> int:
    """Return how many rounds to run: `short` of them, or that times `S3BU_ROUNDS`."""
    return short * int(os.environ.get("S3BU_ROUNDS", "1"))
