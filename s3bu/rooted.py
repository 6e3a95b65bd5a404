"""Files below a root, reached one directory descriptor after the other, so that no link ever leads outside.

A path string is resolved by the kernel through whatever links stand in it at that moment; walking by `O_NOFOLLOW`
descriptors, a directory that somebody swaps for a link in mid-run is an error, not a way out (docs/architecture.md,
rules 6 and 8). It also reaches paths longer than the kernel takes as one string.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Root:
    """A directory that is opened once; all paths are relative to it, in bytes, with `/` between the components.

    A path that is not plain (absolute, or with empty, `.` or `..` components) is an error.
    Errors are plain `OSError`s, since to one caller they are a failure of one path and to another the end of the run.
    Safe from any thread. `created` collects the directories that were made on the way.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.created: set[bytes] = set()
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)

    def __enter__(self) -> "Root":
        """Enter a block at whose end it is closed."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    @contextmanager
    def directory(self, path: bytes, *, create: bool = False) -> Iterator[int]:
        """Hold a descriptor of the directory at `path` (`b""` is the root), making what is missing where asked to."""
        descriptor = os.dup(self._fd)
        try:
            walked = b""
            for name in _names(path) if path else []:
                walked = walked + b"/" + name if walked else name
                child = self._enter(descriptor, name, walked, create=create)
                os.close(descriptor)
                descriptor = child
            yield descriptor
        finally:
            os.close(descriptor)

    def _enter(self, parent: int, name: bytes, path: bytes, *, create: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass  # another thread was quicker; the open below says what it made
        else:
            with self._lock:
                self.created.add(path)
        return os.open(name, _DIRECTORY, dir_fd=parent)

    def open_file(self, path: bytes) -> int:
        """Return a descriptor for reading the regular file at `path`, as `Files` does."""
        with Files(self) as files:
            return files.open(path)[0]


class Files:
    """Opens files below a root for reading; of neighbours, the way to their directory is walked once.

    For one thread. A directory that was replaced since the last file of it was opened is noticed where that matters:
    a name that is not found there is looked for again from the root on.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._parent: bytes | None = None
        self._held = contextlib.ExitStack()
        self._directory = -1

    def __enter__(self) -> "Files":
        """Enter a block at whose end the last directory is let go of."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of it."""
        self._held.close()

    def open(self, path: bytes) -> tuple[int, os.stat_result]:
        """Return a descriptor of the regular file at `path`, and what it is; never waits, never follows links."""
        *parents, name = _names(path)
        parent = b"/".join(parents)
        if parent == self._parent:
            with contextlib.suppress(FileNotFoundError):
                return _open_regular(name, self._directory)
        self._enter(parent)
        return _open_regular(name, self._directory)

    def _enter(self, parent: bytes) -> None:
        self._parent = None
        self._held.close()
        self._directory = self._held.enter_context(self._root.directory(parent))
        self._parent = parent


def _open_regular(name: bytes, directory: int) -> tuple[int, os.stat_result]:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "not a regular file any more")
    descriptor = os.open(name, _REGULAR, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file any more")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status


def _names(path: bytes) -> list[bytes]:
    """Return the names that a path is made of; one that could lead elsewhere is an error."""
    names = path.split(b"/")
    if any(name in {b"", b".", b".."} or b"\0" in name for name in names):
        raise OSError(errno.EINVAL, "not a plain relative path")
    return names
