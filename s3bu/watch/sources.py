"""The sources that are watched through one queue, and what an event says of each.

An event for a path means that the path is dirty. One for a directory that came, went or moved means that it is dirty
with all below it: what was watched there is let go, and what is there now is walked and watched. Such a walk ends with
the same mark once more, since what changed between a run's look at a directory and the new watch came without a word.
Where something may have been missed the whole source is dirty, with a reason, and is walked anew.
"""

import contextlib
import errno
import os
from collections.abc import Collection
from pathlib import Path

from s3bu.errors import S3buError
from s3bu.filters import Filters
from s3bu.scan.found import Excluded, reason
from s3bu.scan.ways import outermost
from s3bu.watch import inotify
from s3bu.watch.inotify import Event
from s3bu.watch.node import Node, Top
from s3bu.watch.seen import Seen
from s3bu.watch.source import Counts, Source
from s3bu.watch.walk import Stopped, Walk
from s3bu.watch.watches import Watches

_BEGAN = "the watcher started after the last full scan"
_OVERFLOW = "the kernel's queue of events overflowed"
_UNKNOWN = "an event of an unknown kind came"
_GONE = "the directory of the source was moved or deleted"
_CAME = "the directory of the source was not there before"
_OTHER = "the directory of the source is another one than before"
_UNMOUNTED = "a file system was unmounted"
_MOUNTS = "something was mounted or unmounted in the source"
_LATE = "directories are watched that could not be watched before"
_MOST_PATIENCE = 360
_MOST_TRIED = 100
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sources:
    """The sources by their numbers in the journal, and the directory of its cookies; for one thread at a time."""

    def __init__(self, watches: Watches, seen: Seen, cookies: Path) -> None:
        self._watches = watches
        self._seen = seen
        self._sources: dict[int, Source] = {}
        self._doubts: dict[int, str] = {}
        self._waiting: dict[int, dict[bytes, None]] = {}
        self._walk: Walk | None = None
        self._is_stopped = False
        self._cookies = cookies
        self._cookie_node = Node(b"", None)
        self._cookie_identity = (0, 0)
        self._hold_cookies()

    def add(self, number: int, path: bytes, filters: Filters, excluded: Excluded) -> None:
        """Take a source that is to be watched; `settle` does it."""
        self._sources[number] = Source(number, path, filters, excluded, Top(number))
        self.doubt(number, _BEGAN)

    def remove(self, number: int) -> None:
        """Watch a source no more."""
        self._drop(self._sources[number], b"")
        del self._sources[number]
        self._doubts.pop(number, None)
        self._waiting.pop(number, None)

    def counts(self, number: int) -> Counts:
        """Return how much of a source is watched: nothing of one that is still to be added."""
        source = self._sources.get(number)
        return Counts(0, 0, None) if source is None else source.counts()

    def stop(self) -> None:
        """End walks early, since all is being closed; from any thread."""
        self._is_stopped = True
        if self._walk is not None:
            self._walk.is_stopped = True

    # --- events

    def take_in(self, event: Event) -> None:
        """Note what an event says."""
        if event.mask & inotify.OVERFLOW:
            self.doubt_all(event.fault or _OVERFLOW)
            return
        for node in self._watches.of(event.watch):
            if node is self._cookie_node:
                self._take_cookie(event)
                continue
            top, path = node.top_and_path()
            assert isinstance(top, Top)
            source = self._sources[top.source]
            if event.mask & ~inotify.KNOWN:
                self.doubt(source.number, f"{_UNKNOWN} ({event.mask:#x})")
            elif event.name:
                self._take_name(source, node, path, event)
            else:
                self._take_itself(source, node, path, event.mask)
        if event.mask & inotify.IGNORED:
            self._watches.ended(event.watch)

    def _take_cookie(self, event: Event) -> None:
        if event.name and event.mask & inotify.CREATED:
            self._seen.cookie(os.fsdecode(event.name))
        if event.mask & inotify.IGNORED:
            self._watches.let_go(self._cookie_node)
            self._keep_cookies()

    def _take_itself(self, source: Source, node: Node, path: bytes, mask: int) -> None:
        """Note what happened to a directory itself. Mostly the one above it tells as well, and better, if watched."""
        if mask & inotify.UNMOUNTED:
            self.doubt(source.number, _UNMOUNTED)
        elif mask & (inotify.UPROOTED | inotify.IGNORED):
            if node.parent is None:
                self._take_root(source, mask)
            elif not (mask & inotify.MOVED_ITSELF and node.parent.is_watched):
                self._again(source, path)
        elif path:
            self._seen.dirty(source.number, path)

    def _take_root(self, source: Source, mask: int) -> None:
        if not (mask & inotify.MOVED_ITSELF and source.is_as_seen(source.look())):  # it may have come back
            self.doubt(source.number, _GONE)

    def _take_name(self, source: Source, node: Node, above: bytes, event: Event) -> None:
        """Note what happened to something in a directory."""
        name, mask = event.name, event.mask
        path = above + b"/" + name if above else name
        is_placed = bool(mask & (inotify.APPEARED | inotify.VANISHED))
        if source.decides(name, is_content=not is_placed):
            self._walk_below(source, above, name)
        is_directory, child = bool(mask & inotify.OF_DIRECTORY), node.child(name)
        if child is None and source.is_left_out(path, is_directory=is_directory):
            return
        # A directory that nobody could enter has no node, or no watch: its mode may be another one now.
        if (is_placed and (is_directory or child)) or (is_directory and not (child and child.is_watched)):
            self._again(source, path)
        else:
            self._seen.dirty(source.number, path)

    # --- doubts and walks

    def doubt_all(self, why: str) -> None:
        """Let all sources be looked at whole, for something may have been missed."""
        for number in self._sources:
            self.doubt(number, why)

    def doubt(self, number: int, why: str) -> None:
        """Let a source be looked at whole; nothing counts as watched until it was walked anew."""
        self._seen.dirty(number, b"", is_tree=True, reason=why)
        self._seen.unwatch(number, b"")
        self._doubts.setdefault(number, why)

    def _walk_below(self, source: Source, above: bytes, name: bytes) -> None:
        """Have a directory walked again in which a file changed that says what is left out."""
        if above:
            self._again(source, above)
        else:
            self.doubt(source.number, f"'{os.fsdecode(name)}' changed, by which paths are left out")

    def _again(self, source: Source, path: bytes) -> None:
        """Let go what is watched at and below a path, and have it walked again if there is something."""
        self._drop(source, path)
        self._seen.dirty(source.number, path, is_tree=True)
        self._waiting.setdefault(source.number, {})[path] = None

    def _drop(self, source: Source, path: bytes) -> None:
        node = source.top.find(path)
        if node is None:
            return
        self._seen.unwatch(source.number, path)
        for one in node.all():
            source.nwatched -= one.is_watched
            source.unwatched.pop(one, None)
            self._watches.let_go(one)
        node.cut()

    def settle(self) -> None:
        """Do the walks that came up."""
        doubts, self._doubts = self._doubts, {}
        waiting, self._waiting = self._waiting, {}
        for number, why in doubts.items():
            waiting.pop(number, None)
            self._walk_whole(self._sources[number], why)
        for number, paths in waiting.items():
            self._walk_some(self._sources[number], paths)

    @property
    def is_settled(self) -> bool:
        """Whether there is no walk to be done."""
        return not (self._doubts or self._waiting)

    def _walk_whole(self, source: Source, why: str) -> None:
        source.is_walked = False
        self._drop(source, b"")
        source.sight, source.mounts = source.look(), source.read_mounts()
        source.is_walked = self._walked(source, (b"",))
        if not source.unwatched:
            source.patience = 0
        self._seen.dirty(source.number, b"", is_tree=True, reason=why)
        obstacle = source.find_obstacle() if source.is_walked else None
        if obstacle != source.obstacle:
            source.obstacle = obstacle
            self._seen.obstacle(source.number, obstacle)

    def _walk_some(self, source: Source, paths: Collection[bytes]) -> None:
        tops = outermost(path for path in paths if source.is_directory(path))
        if tops:
            self._walked(source, tops)
            for path in tops:
                self._seen.dirty(source.number, path, is_tree=True)

    def _walked(self, source: Source, tops: tuple[bytes, ...]) -> bool:
        """Walk and watch; a source that is not there, or of which all is left out, is looked at again later."""
        walk = self._walk = Walk(source, self._watches, self._seen, tops)
        walk.is_stopped = self._is_stopped
        source.fault = None
        try:
            with contextlib.suppress(Stopped):
                walk.run()
        except S3buError as error:
            source.keep_fault(error)
            return False
        finally:
            self._walk = None
            for path in walk.more:
                self._seen.dirty(source.number, path, is_tree=True, reason=None if path else _LATE)
        return True

    # --- looking around

    def look_again(self) -> None:
        """Look for what no event tells of: other directories in the place of sources, mounts, room for watches."""
        self._keep_cookies()
        for source in self._sources.values():
            why = self._reason_to_walk(source)
            if why is not None:
                self.doubt(source.number, why)

    def _reason_to_walk(self, source: Source) -> str | None:
        now = source.look()
        if not source.is_as_seen(now):
            return _GONE if now is None else _CAME if source.sight is None else _OTHER
        if not source.has_same_mounts(source.read_mounts()):
            return _MOUNTS
        return _LATE if source.unwatched and self._is_time_to_try(source) else None

    def _is_time_to_try(self, source: Source) -> bool:
        """Say whether a directory that could not be watched could be now; after each time longer looks pass."""
        source.waited += 1
        if source.waited < source.patience or not self._could_watch(source):
            return False
        source.waited, source.patience = 0, min(2 * source.patience + 1, _MOST_PATIENCE)
        return True

    def _could_watch(self, source: Source) -> bool:
        if source.sight is None:
            return False
        for node in list(source.unwatched)[:_MOST_TRIED]:
            path = node.top_and_path()[1]
            try:
                descriptor = os.open(source.sight.root + b"/" + path, _DIRECTORY_FLAGS)
            except OSError:
                self._drop(source, path)
                continue
            try:
                return self._watches.can_watch(descriptor)
            finally:
                os.close(descriptor)
        return False

    # --- cookies

    def _hold_cookies(self) -> None:
        try:
            descriptor = os.open(self._cookies, _DIRECTORY_FLAGS)
        except OSError as error:
            raise S3buError(f"{self._cookies}: cannot be opened ({reason(error)})") from error
        try:
            status = os.fstat(descriptor)
            self._watches.hold(self._cookie_node, descriptor)
            self._cookie_identity = status.st_ino, status.st_dev
        except OSError as error:
            if error.errno != errno.ENOSPC:  # else it is tried again, and runs get no answer until then
                raise S3buError(f"{self._cookies}: cannot be watched ({reason(error)})") from error
        finally:
            os.close(descriptor)

    def _keep_cookies(self) -> None:
        """Watch the directory of the cookies that is there now; without one, runs get no answer, and scan in full."""
        with contextlib.suppress(S3buError, OSError):
            status = os.stat(self._cookies)
            if self._cookie_node.is_watched and self._cookie_identity == (status.st_ino, status.st_dev):
                return
            self._watches.let_go(self._cookie_node)
            self._hold_cookies()
