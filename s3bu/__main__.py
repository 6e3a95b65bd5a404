"""`python -m s3bu`, and the entry point of the program `s3bu`."""

import sys

from s3bu.cli import main as run


def main() -> None:
    """Run a command, and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
