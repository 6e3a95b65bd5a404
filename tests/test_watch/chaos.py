"""What happens to a tree of files: all that people, editors, builds and accidents do to it, at random."""

import contextlib
import ctypes
import mmap
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tests.test_watch.writing import put, rewrite_with_its_time, write_asynchronously

LONG_AGO = 1_500_000_000
_MOST_PATHS = 90
_EXCHANGE = 2
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
_LIBC = ctypes.CDLL(None, use_errno=True)


class Chaos:
    """Acts on a source at random; `outside` is a directory beside it, on the same disk.

    `more` are further kinds of what may happen: "mounts", and "rights", for whom modes forbid something.
    """

    def __init__(self, source: Path, outside: Path, chance: random.Random, more: Collection[str] = ()) -> None:
        self.source = source
        self.outside = outside
        self.chance = chance
        self.done: list[str] = []
        self._mounted: list[Path] = []
        self._closed: list[Path] = []
        self._maps: list[mmap.mmap] = []
        self._open: list[int] = []
        outside.mkdir(exist_ok=True)
        self._silent: list[Callable[[], object]] = [self.rewrite_with_its_time, self.rewrite_with_its_time, self.chmod]
        quiet: list[Callable[[], object]] = [
            self.write,
            self.write,
            self.rewrite_with_its_time,
            self.rewrite_with_its_time,
            self.append,
            self.save_as_editors_do,
            self.save_as_editors_do,
            self.unlink,
            self.rename,
            self.chmod,
            self.utime,
            self.chmod_directory,
            self.make_deep,
            self.make_deep,
            self.remove_tree,
            self.move_within,
            self.move_within,
            self.move_away_and_back,
            self.move_away_and_back,
            self.move_out,
            self.move_in,
            self.exchange,
            self.replace_by_link,
            self.replace_by_file,
            self.link_within,
            self.link_from_outside,
            self.write_from_outside,
            self.write_map,
            self.hold_map,
            self.write_held_map,
            self.write_held_map,
            self.release_map,
            self.hold_open,
            self.write_held_open,
            self.write_held_open,
            self.close_held,
            self.read_all,
            self.make_fifo,
            self.leave_out,
            self.take_in_again,
            self.storm,
        ]
        self._actions = quiet
        if "mounts" in more:
            self._actions += [self.mount, self.unmount, self.bind]
        if "rights" in more:
            self._actions += [self.close, self.close, self.open]

    def act(self, times: int) -> None:
        """Do so many things; what does not work, since another one was in the way, does not."""
        self.source.mkdir(exist_ok=True)
        self._act(self._actions, times)
        self._thin()

    def act_silently(self, times: int) -> None:
        """Change so many files in ways that no directory shows, and no time of a file."""
        self._act(self._silent, times)

    def _act(self, actions: list[Callable[[], object]], times: int) -> None:
        for _ in range(times):
            action = self.chance.choice(actions)
            self.done.append(action.__name__)
            with contextlib.suppress(OSError):
                action()

    def _thin(self) -> None:
        """Keep the tree small: remove something of it while it is too large."""
        while sum(1 for _ in self.source.rglob("*")) > _MOST_PATHS:
            try:
                self.remove_tree()
                self.unlink()
            except OSError:
                return

    # --- choosing

    def _paths(self, kind: Callable[[int], bool], top: Path | None = None) -> list[Path]:
        found = []
        for above, directories, names in os.walk(top or self.source):
            found += [Path(above, name) for name in (*directories, *names)]
        return sorted(path for path in found if kind(os.lstat(path).st_mode))

    def _one_of(self, paths: list[Path]) -> Path:
        if not paths:
            raise FileNotFoundError
        return self.chance.choice(paths)

    def _file(self) -> Path:
        return self._one_of(self._paths(stat.S_ISREG))

    def _directory(self, *, may_be_source: bool = True) -> Path:
        return self._one_of(([self.source] if may_be_source else []) + self._paths(stat.S_ISDIR))

    def _name(self) -> str:
        return self.chance.choice(["a", "b", "c", "d", "e", "f", "g.tmp", "cache", "é", "x y"])

    def _new(self) -> Path:
        return self._directory() / self._name()

    def _content(self) -> bytes:
        return self.chance.randbytes(self.chance.randint(0, 40))

    def _date(self, path: Path) -> None:
        """Mostly let a file be old, so that nothing but an event leads to it."""
        if self.chance.random() < 0.8:
            os.utime(path, (LONG_AGO, LONG_AGO + self.chance.randint(0, 3)))

    # --- files

    def write(self) -> None:
        path = self._new()
        put(path, self._content())
        self._date(path)

    def rewrite_with_its_time(self) -> None:
        rewrite_with_its_time(self._file())

    def append(self) -> None:
        path = self._file()
        with open(path, "ab") as file:
            file.write(self._content())
        self._date(path)

    def save_as_editors_do(self) -> None:
        path = self._file()
        temporary = path.with_name(f".{path.name}.swp")
        with open(temporary, "wb") as file:
            file.write(self._content())
            os.fsync(file.fileno())
        self._date(temporary)
        temporary.rename(path)

    def unlink(self) -> None:
        self._one_of(self._paths(lambda mode: not stat.S_ISDIR(mode))).unlink()

    def rename(self) -> None:
        self._file().rename(self._new())

    def chmod(self) -> None:
        self._file().chmod(self.chance.choice([0o600, 0o644, 0o755, 0o444]))

    def utime(self) -> None:
        os.utime(self._file(), (LONG_AGO, LONG_AGO + self.chance.randint(0, 9)))

    def write_map(self) -> None:
        path = self._one_of([path for path in self._paths(stat.S_ISREG) if path.stat().st_size])
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[self.chance.randrange(len(memory))] ^= 1

    def hold_map(self) -> None:
        """Map a file, and keep it so: what is written into it makes no event."""
        path = self._one_of([path for path in self._paths(stat.S_ISREG) if path.stat().st_size])
        with open(path, "r+b") as file:
            self._maps.append(mmap.mmap(file.fileno(), 0))

    def write_held_map(self) -> None:
        if self._maps:
            memory = self.chance.choice(self._maps)
            memory[self.chance.randrange(len(memory))] ^= 1

    def release_map(self) -> None:
        if self._maps:
            self._maps.pop(self.chance.randrange(len(self._maps))).close()

    def hold_open(self) -> None:
        self._open.append(os.open(self._file(), os.O_RDWR))

    def write_held_open(self) -> None:
        """Write as databases do, into a file that stays open: that makes no event either."""
        if self._open:
            descriptor = self.chance.choice(self._open)
            offset = self.chance.randrange(os.fstat(descriptor).st_size + 1)
            write_asynchronously(descriptor, self.chance.randbytes(3), offset)

    def close_held(self) -> None:
        if self._open:
            os.close(self._open.pop(self.chance.randrange(len(self._open))))

    def read_all(self) -> None:
        for path in self._paths(stat.S_ISREG):
            path.read_bytes()

    def make_fifo(self) -> None:
        os.mkfifo(self._new())

    def link_within(self) -> None:
        os.link(self._file(), self._new())

    def link_from_outside(self) -> None:
        """Link a file from outside, and touch it: the link itself tells nobody who watches the source.

        So it is known when a run looks at the file for another reason, or with the next full scan.
        """
        path = self._file()
        os.link(path, self.outside / f"link{self.chance.randrange(3)}")
        path.chmod(stat.S_IMODE(path.stat().st_mode))

    def write_from_outside(self) -> None:
        path = self.outside / f"link{self.chance.randrange(3)}"
        rewrite_with_its_time(path)
        if self.chance.random() < 0.3:
            path.unlink()

    # --- directories

    def make_deep(self) -> None:
        deep = Path(self._directory(), *(self._name() for _ in range(self.chance.randint(1, 4))))
        deep.mkdir(parents=True, exist_ok=True)
        for _ in range(self.chance.randint(0, 2)):
            path = deep / self._name()
            put(path, self._content())
            self._date(path)

    def remove_tree(self) -> None:
        shutil.rmtree(self._directory(may_be_source=False))

    def chmod_directory(self) -> None:
        self._directory(may_be_source=False).chmod(self.chance.choice([0o700, 0o755, 0o2755]))

    def move_within(self) -> None:
        self._directory(may_be_source=False).rename(self._new())

    def move_away_and_back(self) -> None:
        """Change what lies in a directory while it is elsewhere, and once more when it has just come back."""
        path = self._directory(may_be_source=False)
        away = self.chance.choice([self._new(), self.outside / "moved"])
        path.rename(away)
        self._rewrite_below(away)
        if self.chance.random() < 0.3:
            time.sleep(0.003)
        away.rename(path)
        self._rewrite_below(path)

    def _rewrite_below(self, path: Path) -> None:
        files = self._paths(stat.S_ISREG, path)
        if files:
            rewrite_with_its_time(self.chance.choice(files))

    def move_out(self) -> None:
        self._directory(may_be_source=False).rename(self.outside / f"tree{self.chance.randrange(4)}")

    def move_in(self) -> None:
        trees = sorted(self.outside.glob("tree*"))
        tree = self._one_of(trees) if trees else self.outside / "tree0"
        (tree / "inner").mkdir(parents=True, exist_ok=True)
        put(tree / "inner" / "file", self._content())
        os.utime(tree / "inner" / "file", (LONG_AGO, LONG_AGO))
        tree.rename(self._new())

    def exchange(self) -> None:
        paths = self._paths(lambda mode: not stat.S_ISFIFO(mode))
        one, other = self._one_of(paths), self._one_of(paths)
        if _LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _EXCHANGE):
            raise OSError(ctypes.get_errno(), "cannot be exchanged")

    def replace_by_link(self) -> None:
        path = self._directory(may_be_source=False)
        target = self.outside / f"tree{self.chance.randrange(4)}"
        path.rename(target)
        path.symlink_to(target)

    def replace_by_file(self) -> None:
        path = self._directory(may_be_source=False)
        shutil.rmtree(path)
        put(path, self._content())
        self._date(path)

    def close(self) -> None:
        """Forbid to enter a directory, or to read a file, after something in it changed that only an event told of."""
        path = self._one_of(self._paths(lambda mode: stat.S_ISDIR(mode) or stat.S_ISREG(mode)))
        self._rewrite_below(path)
        path.chmod(0)
        self._closed.append(path)

    def open(self) -> None:
        """Allow it again."""
        if self._closed:
            self._closed.pop(self.chance.randrange(len(self._closed))).chmod(0o755)

    # --- rules

    def leave_out(self) -> None:
        """Let a directory be left out, or something in it; seldom in the source itself."""
        directory = self._directory(may_be_source=self.chance.random() < 0.1)
        match self.chance.randrange(3):
            case 0:
                (directory / ".nobackup").touch()
            case 1:
                put(directory / "CACHEDIR.TAG", _TAG)
            case 2:
                put(directory / ".ignore", f"{self._name()}\n".encode())

    def take_in_again(self) -> None:
        names = (".nobackup", "CACHEDIR.TAG", ".ignore")
        self._one_of([path for path in self._paths(stat.S_ISREG) if path.name in names]).unlink()

    # --- much at once, and accidents

    def storm(self, number: int = 300) -> None:
        """Make a directory full of files, and empty it again but for a few."""
        directory = self._new()
        directory.mkdir()
        for one in range(number):
            put(directory / f"{one}", b"x")
        for one in range(number - 3):
            (directory / f"{one}").unlink()

    def swap_source(self) -> None:
        """Put another directory in the place of the source, and maybe put the first one back."""
        away, other = self.outside / "away", self.outside / "other"
        for path in (away, other):
            shutil.rmtree(path, ignore_errors=True)
        self.source.rename(away)
        match self.chance.randrange(4):
            case 0:
                away.rename(self.source)
            case 1:
                _command("cp", "-a", away, self.source)
            case 2:
                _command("cp", "-a", away, other)
                away.rename(self.source)
                if _LIBC.renameat2(-100, os.fsencode(self.source), -100, os.fsencode(other), _EXCHANGE):
                    raise OSError(ctypes.get_errno(), "cannot be exchanged")
            case 3:
                self.source.mkdir()
                (self.source / "only").write_bytes(b"x")

    # --- mounts

    def mount(self) -> None:
        place = self._directory(may_be_source=self.chance.random() < 0.1)
        _command("mount", "-t", "tmpfs", "tmpfs", place)
        self._mounted.append(place)
        (place / "inner").mkdir()
        (place / "inner" / "file").write_bytes(self._content())
        os.utime(place / "inner" / "file", (LONG_AGO, LONG_AGO))

    def bind(self) -> None:
        one, place = self._directory(), self._directory(may_be_source=False)
        if one not in place.parents and place not in one.parents:
            _command("mount", "--bind", one, place)
            self._mounted.append(place)

    def unmount(self) -> None:
        if self._mounted:
            _command("umount", "-l", self._mounted.pop())


def _command(*words: str | Path) -> None:
    if subprocess.run(words, capture_output=True, check=False).returncode:
        raise OSError(0, "it does not work")
