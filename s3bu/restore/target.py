"""The tree that a restore writes: verified whole or not at all, and never outside its root.

Directories are entered by descriptors that follow no link. A file is written beside its place under a name of its
own, made safe on the disk, given its mode and times, and only then takes its place; what was there is not touched
before (docs/architecture.md, rules 5 and 6). Errors are `OSError`s of one path; `TargetFull` is one that ends the run.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from s3bu.errors import S3buError, UsageError
from s3bu.manifest import FILE, Entry
from s3bu.rooted import Root
from s3bu.scan.found import reason

WRITE, OVERWRITE, LEFT = "write", "overwrite", "left"
"""What would become of a path: nothing is there, something else is, or it is right already."""
_FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_CHUNK = 1024 * 1024
_UNNAMED_MODE = 0o755
_PARTIAL_ATTEMPTS = 3
_BUSY = "another restore is writing this file"
_PARTIAL_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_TEMPORARY = re.compile(rb"\.s3bu-[0-9a-f]{16}\.(?:part|link)")


def is_like_temporary(path: bytes) -> bool:
    """Say whether a path has a name such as restore gives to its temporary files."""
    return _TEMPORARY.fullmatch(path.rpartition(b"/")[2]) is not None


def temporary_paths(path: bytes) -> tuple[bytes, bytes]:
    """Return where a file or link is written before it takes the name `path`."""
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + _partial_name(name), parent + slash + _link_name(name)


class TargetFull(S3buError):
    """Nothing more can be written to the target."""


class TakenError(Exception):
    """Something else lies where an entry should go, and overwriting was not asked for."""


def check_path(path: bytes) -> str | None:
    """Return what is wrong with a path from a manifest, or `None`; only a plain relative path may be written."""
    names = path.split(b"/")
    if not path or path.startswith(b"/"):
        return "refused: not a relative path"
    if b"\0" in path or any(name in {b"", b".", b".."} for name in names):
        return "refused: the path would lead elsewhere"
    return None


class Target:
    """The directory that is restored into.

    `overwrites` lets a file or link take the place of another; `mode_mask` is what of a directory's mode is applied.
    """

    def __init__(self, path: bytes, *, is_filled_fine: bool, overwrites: bool, mode_mask: int) -> None:
        self._overwrites = overwrites
        self._mode_mask = mode_mask
        self.root = _open_root(path, is_filled_fine=is_filled_fine or overwrites)

    @classmethod
    def look(cls, path: bytes, *, overwrites: bool) -> "Target | None":
        """Return the directory to be looked at alone, or `None` where there is none yet."""
        if not os.path.lexists(path):
            return None
        return cls(path, is_filled_fine=True, overwrites=overwrites, mode_mask=0o777)

    def __enter__(self) -> "Target":
        """Enter a block at whose end the directory is let go of."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of the directory."""
        self.root.close()

    # --- directories

    def prepare_directory(self, entry: Entry) -> None:
        """Make a directory, or see that one that is there can be written to while the restore goes on."""
        with _fatal_errors(), self.root.directory(entry.path, create=True) as directory:
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if mode & 0o700 != 0o700:
                os.fchmod(directory, mode | 0o700)

    def finish_directory(self, entry: Entry) -> None:
        """Give a directory its mode and time, when nothing more will be written into it."""
        with self.root.directory(entry.path) as directory:
            os.fchmod(directory, entry.mode & self._mode_mask)
            os.utime(directory, ns=(entry.mtime_ns, entry.mtime_ns))

    def finish_unnamed_directory(self, entry: Entry) -> None:
        """Give a directory that was made on the way, but of which the snapshot says nothing, an ordinary mode."""
        with self.root.directory(entry.path) as directory:
            os.fchmod(directory, _UNNAMED_MODE)

    # --- files

    def is_right(self, entry: Entry) -> bool:
        """Say whether the file is there with the right content, and see to its mode and time if so.

        `TakenError` when something else is there that may not be overwritten.
        """
        if not self._has_file(entry.path):
            return False
        try:
            descriptor = self.root.open_file(entry.path)
        except PermissionError:
            if self._overwrites:
                return False
            raise
        try:
            status = os.fstat(descriptor)
            if status.st_size == entry.nbytes and _hash(descriptor) == entry.hash:
                self._give_attributes(descriptor, entry)
                if status.st_nlink > 1:
                    self._drop_second_name(entry.path, status)
                return True
        finally:
            os.close(descriptor)
        if not self._overwrites:
            raise TakenError("a file with other content is there already; -o overwrites it")
        return False

    def fate(self, entry: Entry) -> str:
        """Say what writing a file or link would do, without doing it; `TakenError` where it would be refused."""
        parent, _, name = entry.path.rpartition(b"/")
        try:
            with self.root.directory(parent) as directory:
                os.stat(name, dir_fd=directory, follow_symlinks=False)
                if entry.kind != FILE and _is_link_to(directory, name, entry.target):
                    return LEFT
        except FileNotFoundError:
            return WRITE
        if entry.kind == FILE and self._has_file(entry.path):
            with open(self.root.open_file(entry.path), "rb") as file:
                if os.fstat(file.fileno()).st_size == entry.nbytes and _hash(file.fileno()) == entry.hash:
                    return LEFT
        if not self._overwrites:
            raise TakenError("something else is there already; -o overwrites it")
        return OVERWRITE

    def _drop_second_name(self, path: bytes, status: os.stat_result) -> None:
        """Remove the temporary name of a file, if it has one: a restore was killed when it had just got its own."""
        parent, _, name = path.rpartition(b"/")
        partial = _partial_name(name)
        with self.root.directory(parent) as directory, contextlib.suppress(FileNotFoundError, TakenError):
            if os.path.samestat(os.stat(partial, dir_fd=directory, follow_symlinks=False), status):
                _remove_stale(directory, partial)

    def _has_file(self, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        try:
            with self.root.directory(parent) as directory:
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode):
            raise TakenError("a directory is there already")
        if not stat.S_ISREG(mode) and not self._overwrites:
            raise TakenError("something that is no file is there already; -o overwrites it")
        return stat.S_ISREG(mode)

    @contextmanager
    def writing(self, entry: Entry) -> Iterator[BinaryIO]:
        """Hold a temporary file whose content takes its place at the end of the block, unless that raises."""
        parent, _, name = entry.path.rpartition(b"/")
        with _fatal_errors(), self.root.directory(parent, create=True) as directory:
            partial = _partial_name(name)
            descriptor = _create_partial(directory, partial)
            try:
                with open(descriptor, "w+b", closefd=False) as file:
                    yield file
                self._give_attributes(descriptor, entry)
                os.fsync(descriptor)
                self._place(directory, partial, name)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)

    def _give_attributes(self, descriptor: int, entry: Entry) -> None:
        os.fchmod(descriptor, entry.mode & self._mode_mask & 0o777)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _place(self, directory: int, partial: bytes, name: bytes) -> None:
        if self._overwrites:
            os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
        try:
            # A link, unlike a rename, never replaces what came meanwhile.
            os.link(partial, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError as error:
            raise TakenError("something is there already; -o overwrites it") from error
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                raise
            _rename_if_free(directory, partial, name)  # a file system without hard links
            return
        os.unlink(partial, dir_fd=directory)

    # --- links

    def write_link(self, entry: Entry) -> None:
        """Make a symbolic link, unless it is there already; nothing ever follows it."""
        parent, _, name = entry.path.rpartition(b"/")
        with _fatal_errors(), self.root.directory(parent, create=True) as directory:
            if not _is_link_to(directory, name, entry.target):
                self._link(directory, name, entry.target)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)

    def _link(self, directory: int, name: bytes, target: bytes) -> None:
        if not self._overwrites:
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError as error:
                raise TakenError("something else is there already; -o overwrites it") from error
            return
        partial = _link_name(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)
        os.symlink(target, partial, dir_fd=directory)
        try:
            os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(partial, dir_fd=directory)
            raise


def _open_root(path: bytes, *, is_filled_fine: bool) -> Root:
    shown = os.fsdecode(path)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if not is_filled_fine and os.listdir(path):
            raise UsageError(
                f"{shown}: the target is not empty",
                hint="choose an empty one, or restore into it with -f (keeps what is there) or -o (overwrites)",
            )
        return Root(path)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be restored into ({reason(error)})") from error


def _partial_name(name: bytes) -> bytes:
    return b".s3bu-" + hashlib.sha256(name).hexdigest()[:16].encode() + b".part"


def _link_name(name: bytes) -> bytes:
    return _partial_name(name).removesuffix(b".part") + b".link"


def _create_partial(directory: int, name: bytes) -> int:
    """Create the temporary file and lock it, which says that it is in use; one that a killed restore left goes."""
    for _ in range(_PARTIAL_ATTEMPTS):
        try:
            descriptor = os.open(name, _PARTIAL_FLAGS, 0o600, dir_fd=directory)
        except FileExistsError:
            _remove_stale(directory, name)
            continue
        is_ours = False
        try:
            is_ours = _has_locked(descriptor, directory, name)
        finally:
            if not is_ours:
                os.close(descriptor)
        if is_ours:
            return descriptor
    raise TakenError(_BUSY)


def _remove_stale(directory: int, name: bytes) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(name, flags, dir_fd=directory)
        try:
            if not _has_locked(descriptor, directory, name):
                raise TakenError(_BUSY)
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(descriptor)


def _has_locked(descriptor: int, directory: int, name: bytes) -> bool:
    """Lock an open file; false where another restore has it, or took it away before it was locked.

    Only who holds the lock of the file that bears the name may take it away, so it stays where this says true.
    """
    try:
        _lock(descriptor)
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks (or, with EBADF, one that locks only what is open for writing): there the name
        # alone, which is created once, has to keep two restores apart.
        if error.errno not in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}:
            raise


def _rename_if_free(directory: int, partial: bytes, name: bytes) -> None:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
        return
    raise TakenError("something is there already; -o overwrites it")


def _is_link_to(directory: int, name: bytes, target: bytes) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == target
    except OSError:  # not there, or no link: what it is shows when it is made
        return False


def _hash(descriptor: int) -> str:
    digest = hashlib.sha256()
    position = 0
    while chunk := os.pread(descriptor, _CHUNK, position):
        digest.update(chunk)
        position += len(chunk)
    return digest.hexdigest()


@contextmanager
def _fatal_errors() -> Iterator[None]:
    """Make of an error that every further file will meet one that ends the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FATAL:
            raise
        raise TargetFull(
            f"the target cannot take more: {reason(error)}",
            hint="what was restored so far is complete; make room and run the same command again with -f",
        ) from error
