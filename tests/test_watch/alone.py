"""What needs a process of its own: other rights, other limits, other mounts.

`python -m tests.test_watch.alone SCENARIO DIRECTORY` plays one of the functions here and fails where it does not hold;
`play` does so from a test, behind a command that takes rights away or gives namespaces.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.errors import S3buError
from s3bu.watch.inotify import Inotify
from s3bu.watch.limits import read_limits, warning_of_watches
from s3bu.watch.tree import Tree
from tests.running import without_override
from tests.test_watch.living import Living, living, watching

OWN_MOUNTS = ("unshare", "-m", "--propagation", "private")
OWN_LIMITS = ("unshare", "--user", "--map-root-user")
_LIMITS = Path("/proc/sys/user")


def play(scenario: str, directory: Path, *prefix: str) -> None:
    """Play a scenario in a process of its own, which must hold."""
    command = [*prefix, sys.executable, "-W", "error", "-m", "tests.test_watch.alone", scenario, str(directory)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def without_rights(scenario: str, directory: Path) -> None:
    """Play a scenario as somebody whom modes forbid something."""
    play(scenario, directory, *without_override())


# --- modes


def closed_directory(directory: Path) -> None:
    closed = directory / "source" / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0)
    with watching(directory / "home", directory / "source") as watched:
        assert set(watched.watched()) == {b""}
        closed.chmod(0o700)
        assert watched.dirty() == {b"closed": True}
        watched.check()


def closed_source(directory: Path) -> None:
    (directory / "source" / "inner").mkdir(parents=True)
    (directory / "source").chmod(0)
    with watching(directory / "home", directory / "source") as watched:
        watched.look_again()
        assert watched.dirty() == {}
        (directory / "source").chmod(0o700)
        watched.look_again()
        assert watched.dirty() == {b"": True}
        watched.check()


def directory_closed_in_between(directory: Path) -> None:
    """A directory that was opened, and may not be watched any more."""
    inotify = Inotify()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    directory.chmod(0)
    with pytest.raises(PermissionError):
        inotify.watch(descriptor)
    inotify.close(1)


# --- limits


def limit(nwatches: int) -> None:
    (_LIMITS / "max_inotify_watches").write_text(str(nwatches))


def few_watches(directory: Path) -> None:
    """Of twenty directories five are watched, the others are counted, and watched when they can be."""
    source = directory / "source"
    for number in range(19):
        (source / f"{number:02}").mkdir(parents=True)
    limit(6)  # the sixth is that of the cookies
    with watching(directory / "home", source) as watched:
        nwatched, nunwatched, why, *_ = watched.tree.counts(1)
        assert (nwatched, nunwatched) == (5, 15)
        assert why == "the kernel watches no more directories for this user"
        assert len(watched.watched()) == 5
        assert [one.name for one in watched.tree._sources._sources[1].unwatched] == [
            b"%02d" % number for number in range(4, 19)
        ]
        text = warning_of_watches(nwatched + nunwatched, nunwatched, read_limits())
        assert text is not None
        assert text.startswith("20 directories, and the kernel watches 6: raise it with `sysctl fs.inotify.max_user_w")
        watched.look_again()
        assert watched.dirty() == {}
        limit(100)
        watched.look_again()
        assert watched.dirty() == {b"": True}
        watched.check()


def no_watches(directory: Path) -> None:
    """Where other programs use up all watches nothing is watched, which is said, until there are some."""
    source = directory / "source"
    (source / "a").mkdir(parents=True)
    limit(0)
    with living(directory / "home", source) as watched:
        watched.tree.start()
        watched.add()
        assert watched.tree.counts(1)[:3] == (0, 2, "the kernel watches no more directories for this user")
        limit(100)
        watched.look_again()
        watched.look_again()
        watched.check()


def watches_that_come_free(directory: Path) -> None:
    """A directory that goes makes room for another one."""
    source = directory / "source"
    for name in ("a", "b", "c"):
        (source / name).mkdir(parents=True)
    limit(4)
    with watching(directory / "home", source) as watched:
        assert set(watched.watched()) == {b"", b"a", b"b"}
        (source / "a").rename(directory / "outside")
        watched.dirty()
        (source / "d").mkdir()
        assert watched.dirty() == {b"d": True}
        assert set(watched.watched()) == {b"", b"b", b"d"}
        (source / "b").rmdir()
        watched.dirty()
        watched.look_again()
        assert watched.reasons() == ["directories are watched that could not be watched before"]
        assert set(watched.watched()) == {b"", b"c", b"d"}
        watched.check()


def changes_below_what_is_not_watched(directory: Path) -> None:
    """What lies below a directory without a watch can have one, and moves when that moves."""
    source = directory / "source"
    (source / "a").mkdir(parents=True)
    limit(3)
    with watching(directory / "home", source) as watched:
        (source / "b" / "c").mkdir(parents=True)
        watched.dirty()
        assert set(watched.watched()) == {b"", b"a"}
        limit(100)
        descriptor = os.open(source / "b" / "c", os.O_RDONLY | os.O_DIRECTORY)
        sources = watched.tree._sources
        node = sources._sources[1].top.find(b"b/c")
        assert node is not None
        sources._watches.hold(node, descriptor)
        os.close(descriptor)
        (source / "b" / "c").rename(source / "b" / "d")  # nothing tells of it but the directory itself
        assert watched.dirty()[b"b/c"]
        assert not {b"b/c", b"b/d"} & set(watched.watched())


def few_queues(directory: Path) -> None:
    """Without a queue there is no tree, and an error says what to do."""
    (_LIMITS / "max_inotify_instances").write_text("1")
    (directory / "cookies").mkdir()
    first = Tree(directory / "cookies", lambda: None)
    with pytest.raises(S3buError, match="gives this user no more queues of changes, which are 1") as caught:
        Tree(directory / "cookies", lambda: None)
    assert caught.value.hint is not None
    assert "sysctl fs.inotify.max_user_instances=1024" in caught.value.hint
    first.close()
    Tree(directory / "cookies", lambda: None).close()


# --- mounts


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def watched_source(directory: Path) -> Iterator[Living]:
    (directory / "source" / "a" / "b").mkdir(parents=True)
    (directory / "source" / "file").write_text("x")
    with watching(directory / "home", directory / "source") as watched:
        watched.check()
        yield watched


def obstacle(watched: Living) -> str | None:
    watched.settle()
    found = watched.journal.find("home", "src")
    assert found is not None
    return found.obstacle


def mount_in_the_source(directory: Path) -> None:
    with watched_source(directory) as watched:
        place = directory / "source" / "a"
        mount("-t", "tmpfs", "tmpfs", place)
        (place / "new").mkdir()
        watched.look_again()
        assert watched.reasons() == ["something was mounted or unmounted in the source"]
        watched.check()
        assert obstacle(watched) is None
        (place / "new" / "file").write_text("x")
        assert watched.dirty() == {b"a/new/file": False}
        unmount(place)
        assert watched.reasons() == ["a file system was unmounted"]
        watched.look_again()
        watched.dirty()
        watched.check()


def mount_in_what_is_left_out(directory: Path) -> None:
    from s3bu.filters import Filters

    place = directory / "source" / "cache" / "inner"
    place.mkdir(parents=True)
    with watching(directory / "home", directory / "source", Filters(skip_dirs=(b"cache",))) as watched:
        mount("-t", "tmpfs", "tmpfs", place)
        watched.look_again()
        assert watched.dirty() == {}


def mount_over_the_source(directory: Path) -> None:
    with watched_source(directory) as watched:
        mount("-t", "tmpfs", "tmpfs", directory / "source")
        (directory / "source" / "new").mkdir()
        watched.look_again()
        assert watched.reasons() == ["the directory of the source is another one than before"]
        watched.check()
        unmount(directory / "source")
        watched.dirty()
        watched.look_again()
        watched.dirty()
        watched.check()


def unmount_in_secret(directory: Path) -> None:
    """What is unmounted while it is in use makes no event at once."""
    with watched_source(directory) as watched:
        place = directory / "source" / "a"
        mount("-t", "tmpfs", "tmpfs", place)
        watched.look_again()
        watched.dirty()
        with open(place / "held", "w"):
            subprocess.run(["umount", "-l", place], check=True)
            watched.look_again()
            assert watched.reasons() == ["something was mounted or unmounted in the source"]
            watched.check()


def bind_mount(directory: Path) -> None:
    """A directory that can be reached by two paths is told by both."""
    with watched_source(directory) as watched:
        (directory / "source" / "c").mkdir()
        mount("--bind", directory / "source" / "a", directory / "source" / "c")
        watched.look_again()
        watched.dirty()
        watched.check()
        (directory / "source" / "a" / "b" / "new").write_text("x")
        assert watched.dirty() == {b"a/b/new": False, b"c/b/new": False}
        (directory / "source" / "c" / "b").rename(directory / "source" / "c" / "z")
        assert watched.dirty() == {b"a/b": True, b"a/z": True, b"c/b": True, b"c/z": True}
        watched.check()


def overlay(directory: Path) -> None:
    """A source on an overlay, or around one, can never be believed; without it, it can again."""
    layers = directory / "layers"
    mount("-t", "tmpfs", "tmpfs", directory)
    for name in ("lower", "upper", "work"):
        (layers / name).mkdir(parents=True)
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    with watched_source(directory) as watched:
        assert obstacle(watched) is None
        mount("-t", "overlay", "overlay", "-o", options, directory / "source" / "a")
        watched.look_again()
        why = "an overlay file system is mounted at 'a', where changes may come unseen"
        assert obstacle(watched) == why
        unmount(directory / "source" / "a")
        watched.dirty()
        watched.look_again()
        assert obstacle(watched) is None
        mount("-t", "overlay", "overlay", "-o", options, directory / "source")
        watched.look_again()
        assert obstacle(watched) == "it lies on an overlay file system, where changes may come unseen"


def mounted_file(directory: Path) -> None:
    """What changes in a file through the place that it was mounted from is told there alone."""
    (directory / "elsewhere").write_text("x")
    with watched_source(directory) as watched:
        mount("--bind", directory / "elsewhere", directory / "source" / "file")
        watched.look_again()
        assert obstacle(watched) == "a file is mounted over 'file', and changes to it may come unseen"


def covered_mounts(directory: Path) -> None:
    """What is mounted below another mount is not there for anybody, whatever lies at its path now."""
    with watched_source(directory) as watched:
        place = directory / "source" / "a"
        for inner in ("b", "b", "c", "d"):
            (place / inner).mkdir(exist_ok=True)
            mount("-t", "ramfs" if inner == "c" else "proc", "x", place / inner)
        mount("-t", "tmpfs", "tmpfs", place)
        (place / "b").write_text("x")
        (place / "c").mkdir()
        (place / "d").mkdir()
        watched.look_again()
        assert watched.dirty()[b""]
        assert obstacle(watched) is None
        watched.check()


def missing_source_that_is_mounted(directory: Path) -> None:
    with living(directory / "home", directory / "disk" / "source") as watched:
        watched.tree.start()
        watched.add()
        watched.dirty()
        (directory / "disk").mkdir()
        mount("-t", "tmpfs", "tmpfs", directory / "disk")
        (directory / "disk" / "source" / "a").mkdir(parents=True)
        watched.look_again()
        assert watched.reasons() == ["the directory of the source was not there before"]
        watched.check()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
