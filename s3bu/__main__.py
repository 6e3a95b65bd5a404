"""`python -m s3bu`, and the entry point of the program `s3bu`."""

import contextlib
import os
import sys

from s3bu.cli import main as run


def main() -> None:
    """Run a command, and exit with its code.

    The process ends without Python's teardown: a thread of obstore that lets go of an object just then would abort it
    (exit code 134, in one run of 25; PyO3/pyo3-async-runtimes#40), and taking a million entries apart takes a second.
    All files are closed and all threads joined by then.
    """
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
