"""`python -m s3bu`, and the entry point of the program `s3bu`."""

import contextlib
import os
import sys

from s3bu.interrupt import leave_at_once


def main() -> None:
    """Run a command, and exit with its code.

    The process ends without Python's teardown, since taking a million entries apart takes a second, and a request of
    boto3 that was given up may still hold its thread. All files are closed by then.
    """
    leave_at_once()  # as long as a command is only being imported
    from s3bu.cli import main as run  # noqa: PLC0415

    code = run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
