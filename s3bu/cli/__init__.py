"""The command line: a command opens what it needs, calls one operation, reports, and returns an exit code."""

import contextlib
import gc
import io
import os
import sys
from collections.abc import Sequence
from itertools import takewhile

from cyclopts import App, CycloptsError

from s3bu import __version__
from s3bu.cli.backup import backup
from s3bu.cli.forget import forget
from s3bu.cli.help import Formatter
from s3bu.cli.index import index
from s3bu.cli.job import job
from s3bu.cli.keys import init, keys
from s3bu.cli.plan import plan
from s3bu.cli.prune import prune
from s3bu.cli.query import query
from s3bu.cli.restore import download, restore
from s3bu.cli.rewrite import rewrite
from s3bu.cli.search import diff, du, find, history
from s3bu.cli.snapshots import ls, snapshots
from s3bu.cli.status import status
from s3bu.cli.verify import verify
from s3bu.cli.watch import watch
from s3bu.cli.wrong import refusal
from s3bu.console import Style, make_console
from s3bu.console.text import shown
from s3bu.errors import S3buError
from s3bu.interrupt import Terminated, stoppable

app = App(
    name="s3bu",
    version=__version__,
    help="Encrypted, deduplicated backups of directories in an S3 bucket or directory of your own.",
    help_format="plaintext",
    help_formatter=Formatter(),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
)
for command in (
    init,
    backup,
    plan,
    watch,
    status,
    restore,
    snapshots,
    ls,
    find,
    history,
    diff,
    du,
    query,
    verify,
    download,
    forget,
    prune,
    rewrite,
):
    app.command(command)
app.command(job)
app.command(index)
app.command(keys)

_INTERRUPTED = 130
_TERMINATED = 143
_NO_READER = 141
"""128 + SIGPIPE, as any other program ends whose reader left; never 0, which would hide what came of the run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error that a user can cause ends here as one line."""
    os.umask(0o077)
    # A run makes hundreds of thousands of entries that live to its end; looking through them again and again takes a
    # tenth of it.
    gc.set_threshold(100_000, 50, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may have letters that the terminal's encoding lacks
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with stoppable():
            return _run(given)
    except S3buError as error:
        return _end(given, error, error.exit_code)
    except KeyboardInterrupt:
        hint = "what was done is kept: run the same command again, a restore with -f"
        return _end(given, S3buError("interrupted", hint=hint), _INTERRUPTED)
    except Terminated:
        return _end(given, S3buError("terminated"), _TERMINATED)
    except BrokenPipeError:
        _silence_stdout()
        return _NO_READER
    except OSError as error:
        return _end(given, _refused(error), S3buError.exit_code)


def _refused(error: OSError) -> S3buError:
    """Say which path the system refused; where the error names none, it is the output, which was open before."""
    why = (error.strerror or str(error)).lower()
    if isinstance(error.filename, str | bytes):
        return S3buError(f"{shown(error.filename)}: {why}")
    _silence_stdout()
    return S3buError(f"cannot write the output: {why}")


def _end(arguments: Sequence[str], error: S3buError, code: int) -> int:
    """Say why the command ended, as the user wants to be told, also where the command line makes no sense."""
    wants_json = "--json" in takewhile("--".__ne__, arguments)
    make_console(Style(is_json=wants_json)).end(error, code)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        result = app(arguments)
    except CycloptsError as error:
        raise refusal(app, error) from error
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _silence_stdout() -> None:
    """Leave nothing to fail on at exit when whoever read the output left, as `head` does, or its disk is full."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
