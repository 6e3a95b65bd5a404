"""Walk a source: a sorted stream of what is there, by `lstat` alone.

The order is the manifest's: by path segments as bytes. Directories are walked by descriptors that follow no link, so
a directory that is swapped for a link in mid-run leads nowhere. What could not be looked at comes out as a `Failure`
in its place of the order; what vanished in mid-run is not there. The walk holds one descriptor a level of depth.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.manifest import DIRECTORY, Entry
from s3bu.mounts import pseudo_file_system
from s3bu.progress import Failure
from s3bu.scan.found import Excluded, Followed, Left, Regular, directory_entry, reason, special, special_kind, symlink
from s3bu.scan.listing import Names, list_names
from s3bu.scan.source import DIRECTORY_FLAGS, SourceMissingError, open_source
from s3bu.scan.ways import ways_to
from s3bu.scan.witness import NOBODY, Glance, Known, Witness
from s3bu.selection import CACHEDIR_TAG, Place, Rule, Selection, Skipped, is_cache


@dataclass(slots=True)
class _Level:
    """One open directory on the way down: its descriptor, its path with a slash, and what is still to be looked at.

    `place` are the rules that hold in it, `device` says on which file system it lies, and `listed` is all in it.
    """

    descriptor: int
    prefix: bytes
    listed: Names
    place: Place
    device: int
    names: Iterator[tuple[bytes, "os.DirEntry[str] | None"]]


def _pass_over(skipped: Skipped) -> None:
    """Nobody wants to know."""


class Scan:
    """One walk of one source.

    `excluded` says by (device, inode) which directories to leave out, and what they are: the repository itself, when
    it lies inside the source. `left` fills while the walk goes on, `tell` is called with each path that is left out,
    in order too, and `witness` is told of each directory.
    """

    def __init__(
        self,
        root: bytes,
        filters: Filters,
        *,
        excluded: Excluded = MappingProxyType({}),
        tell: Callable[[Skipped], object] = _pass_over,
        witness: Witness = NOBODY,
    ) -> None:
        self.root = os.path.realpath(root)
        self.left = Left()
        self._tell = tell
        self._witness = witness
        self._filters = filters
        self._selection = filters.selection
        self._has_selection = filters.selection != Selection()
        self._excluded = excluded
        self._levels: list[_Level] = []
        self._only: frozenset[str] | None = None

    def __iter__(self) -> Iterator[Regular | Entry | Failure]:
        """Yield what the source holds, in order; a source that cannot be walked raises before the first."""
        try:
            self._enter_root()
            yield from self._below(0)
        finally:
            self._leave()

    def _below(self, depth: int) -> Iterator[Regular | Entry | Failure]:
        """Yield all that is in and below the open directories from that depth on, and leave them."""
        while len(self._levels) > depth:
            level = self._levels[-1]
            for name, found in level.names:
                item = self._look(level, name, found) if found is not None else None
                if item is not None:
                    yield item
                if self._levels[-1] is not level:
                    break
            else:
                os.close(self._levels.pop().descriptor)

    def _leave(self) -> None:
        for level in self._levels:
            os.close(level.descriptor)
        self._levels.clear()

    def directories(self, *tops: bytes) -> None:
        """Walk the directories at and below some paths alone, for the witness.

        Those on the way are met too, each once; what is not there, or left out, is not.
        """
        ways = ways_to(tops)
        self._only = frozenset(map(os.fsdecode, self._filters.deciding_names))
        try:
            self._enter_root()
            self._choose_way(ways)
            while self._levels:
                depth = len(self._levels)
                if not self._step_into_next():
                    os.close(self._levels.pop().descriptor)
                elif len(self._levels) > depth:
                    self._choose_way(ways)
        finally:
            self._only = None
            self._leave()

    def _choose_way(self, ways: dict[bytes, list[bytes]]) -> None:
        level = self._levels[-1]
        names = ways.get(level.prefix[:-1])
        if names is not None:
            listed = dict(level.listed)
            level.names = iter([(name, listed.get(name)) for name in names])

    def _step_into_next(self) -> bool:
        """Enter the next directory in the innermost one, or pass over it; return whether there was one."""
        level = self._levels[-1]
        for name, found in level.names:
            try:
                if found is not None and found.is_dir(follow_symlinks=False):
                    self._look(level, name, found)
                    return True
            except OSError:
                continue
        return False

    def glances(self, known: Known) -> Iterator[Glance]:
        """Yield what is at the paths that somebody wants to look at again, in order and each once.

        The items of one are to be taken before the next is asked for. A source that cannot be walked raises.
        """
        try:
            self._enter_root()
            self._choose(known)
            while self._levels:
                level = self._levels[-1]
                for name, found in level.names:
                    yield self._glance(known, level, name, found)
                    if self._levels[-1] is not level:
                        self._choose(known)
                        break
                else:
                    os.close(self._levels.pop().descriptor)
        finally:
            self._leave()

    def _choose(self, known: Known) -> None:
        level = self._levels[-1]
        listed = dict(level.listed)
        level.names = iter([(name, listed.get(name)) for name in sorted(known.names_in(level.prefix[:-1], listed))])

    def _glance(self, known: Known, level: _Level, name: bytes, found: "os.DirEntry[str] | None") -> Glance:
        path, depth = level.prefix + name, len(self._levels)
        is_known = known.is_known(path)
        if is_known and found is not None and not known.leads_on(path):
            entry = self._pass_by(level, name, found)
            if entry is not None:
                return Glance(path, (entry,), is_tree=False) if not known.was_left_out(path) else Glance(path, (), True)
        item = self._look(level, name, found) if found is not None else None
        if len(self._levels) == depth:
            return Glance(path, () if item is None else (item,), is_tree=True)
        assert item is not None
        if is_known:
            return Glance(path, (item,), is_tree=False)
        return Glance(path, chain((item,), self._below(depth)), is_tree=True)

    def _pass_by(self, level: _Level, name: bytes, found: "os.DirEntry[str]") -> Entry | None:
        """Return the entry of a directory that need not be entered; `None` where it must be looked at after all."""
        try:
            status = found.stat(follow_symlinks=False)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode) or self._directory_rule(level, name, status) is not None:
            return None
        return directory_entry(level.prefix + name, status)

    def follow(self, path: bytes) -> Followed:
        """Walk to one path, past all others, and return what the walk would make of it.

        The last of `Followed.above` that was not entered is where it ends.
        """
        skipped: list[Skipped] = []
        tell, self._tell = self._tell, skipped.append
        try:
            self._enter_root()
            return self._followed(path, skipped)
        finally:
            self._tell = tell
            self._leave()

    def _followed(self, path: bytes, skipped: list[Skipped]) -> Followed:
        item: Regular | Entry | Failure | None = None
        above, names = b"", path.split(b"/")
        for number, name in enumerate(names, 1):
            above = b"/".join(names[:number])
            level = self._levels[-1]
            found = dict(level.listed).get(name)
            if found is None:
                return Followed(above, is_there=False)
            item = self._look(level, name, found)
            if skipped:
                return Followed(above, rule=skipped[0].rule)
            if self._levels[-1] is level:
                break
        # What lets it in, if a rule does that takes back what another excludes.
        level = self._levels[-2 if isinstance(item, Entry) and item.kind == DIRECTORY else -1]
        is_directory = isinstance(item, Entry) and item.kind == DIRECTORY
        rule = level.place.deciding(above, above.rpartition(b"/")[2], is_directory=is_directory)
        return Followed(above, item=item, rule=rule, is_there=above == path and item is not None)

    def _enter_root(self) -> None:
        descriptor = open_source(self.root)
        try:
            status = os.fstat(descriptor)
            self._witness.directory(b"", descriptor, status)
            names = list_names(descriptor, self._only)
            self._check_root(descriptor, names)
        except OSError as error:
            os.close(descriptor)
            raise SourceMissingError(
                f"{os.fsdecode(self.root)}: the source cannot be listed ({reason(error)})"
            ) from error
        except JobError:
            os.close(descriptor)
            raise
        self._levels.append(_Level(descriptor, b"", names, self._selection.top(), status.st_dev, iter(names)))
        self._read_ignore_files(names)

    def _check_root(self, descriptor: int, names: Names) -> None:
        """Refuse a source of which nothing would be backed up."""
        kind = pseudo_file_system(os.fstat(descriptor).st_dev)
        if kind is not None:
            raise JobError(
                f"{os.fsdecode(self.root)}: the source is no file system that can be backed up ({kind})",
                hint="its files are made up by the kernel; take it out of the job",
            )
        rule = self._rule_of_names(descriptor, names)
        if rule is not None:
            raise JobError(
                f"{os.fsdecode(self.root)}: {rule.key} skips the whole source, since it contains "
                f"'{os.fsdecode(rule.detail)}'",
                hint=f"remove that item, or take its name out of {rule.key}"
                if rule.key == "skip_dir_items"
                else "remove that file, or take cachedir_tag out of the job",
            )

    def _read_ignore_files(self, names: Names) -> None:
        """Let the ignore files in the directory that was just entered hold in it."""
        if self._selection.ignore_files:
            level = self._levels[-1]
            found = {name for name, _ in names}
            level.place = level.place.entered(level.prefix, found, level.descriptor, self.left.odd)

    def _look(self, level: _Level, name: bytes, found: "os.DirEntry[str]") -> Regular | Entry | Failure | None:
        path = level.prefix + name
        try:
            status = found.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                return self._descend(level, name, status)
            rule = self._filters.file_rule(name)
            if rule is None and self._has_selection:
                rule = self._selecting_rule(level, name, status)
            if kind == stat.S_IFREG and status.st_nlink > 1 and self._matters(name, rule):
                self._witness.linked(path)
            if rule is not None:
                self._tell(Skipped(path, False, rule))
                return None
            if kind == stat.S_IFREG:
                return Regular(path, status)
            if kind == stat.S_IFLNK:
                return symlink(level.prefix + name, os.readlink(name, dir_fd=level.descriptor), status)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._failure(level, name, found, reason(error))
        self.left.special[special_kind(kind)] += 1
        return special(path, status)

    def _matters(self, name: bytes, rule: Rule | None) -> bool:
        """Say whether what becomes of a file by another name of it makes a difference, though a rule leaves it out."""
        return rule is None or rule.key == "max_file_size" or name in self._selection.ignore_files

    def _failure(self, level: _Level, name: bytes, found: "os.DirEntry[str]", error: str) -> Failure | None:
        """Return the failure of what could not be looked at, unless it is left out anyway.

        What it is shows by what the directory tells of it.
        """
        path = level.prefix + name
        try:
            is_directory = found.is_dir(follow_symlinks=False)
        except OSError:  # its directory does not tell either
            return Failure(path, error)
        rule = (
            self._filters.directory_rule(name, is_top=not level.prefix)
            if is_directory
            else self._filters.file_rule(name)
        )
        rule = rule or level.place.excluding(path, name, is_directory=is_directory)
        if rule is None:
            return Failure(path, error)
        self._tell(Skipped(path, is_directory, rule))
        return None

    def _selecting_rule(self, level: _Level, name: bytes, status: os.stat_result) -> Rule | None:
        """Return the rule of the selection by which something that is no directory is left out."""
        rule = level.place.excluding(level.prefix + name, name, is_directory=False)
        bound = self._selection.max_file_size
        if rule is None and bound is not None and stat.S_ISREG(status.st_mode) and status.st_size > bound:
            return Rule("max_file_size", b"%d" % bound)
        return rule

    def _directory_rule(self, level: _Level, name: bytes, status: os.stat_result) -> Rule | None:
        """Return the rule by which a directory is left out without being opened."""
        path = level.prefix + name
        rule = self._filters.directory_rule(name, is_top=not level.prefix)
        rule = rule or level.place.excluding(path, name, is_directory=True)
        if rule is not None:
            return rule
        what = self._excluded.get((status.st_dev, status.st_ino))
        if what is not None:
            self.left.excluded.append((path, what))
            return Rule(what, b"", is_of_job=False)
        return self._rule_of_device(level, status)

    def _rule_of_device(self, level: _Level, status: os.stat_result) -> Rule | None:
        """Return the rule by which a directory is left out for the file system on which it lies."""
        if status.st_dev == level.device:
            return None
        if self._selection.is_one_file_system:
            return Rule("one_file_system", b"", is_of_job=False)
        kind = pseudo_file_system(status.st_dev)
        return Rule("pseudo file system", kind.encode(), is_of_job=False) if kind is not None else None

    def _descend(self, level: _Level, name: bytes, status: os.stat_result) -> Entry | None:
        path = level.prefix + name
        rule = self._directory_rule(level, name, status)
        if rule is not None:
            self._tell(Skipped(path, True, rule))
            return None
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=level.descriptor)
        try:
            status = os.fstat(descriptor)  # opening it may have mounted something there, which `lstat` does not
            self._witness.directory(path, descriptor, status)
            names = list_names(descriptor, self._only)
            rule = self._rule_of_device(level, status) or self._rule_of_names(descriptor, names)
            if rule is not None and rule.key == "cachedir_tag":
                self._look_at_tag(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if rule is not None:
            os.close(descriptor)
            self._tell(Skipped(path, True, rule))
            return None
        self._levels.append(_Level(descriptor, path + b"/", names, level.place, status.st_dev, iter(names)))
        self._read_ignore_files(names)
        return directory_entry(path, status)

    def _rule_of_names(self, descriptor: int, names: Names) -> Rule | None:
        """Return the rule by which a directory is left out for what lies in it."""
        item = self._filters.skipping_item(name for name, _ in names)
        if item is not None:
            return Rule("skip_dir_items", item, is_of_job=False)
        if self._selection.has_cachedir_tag and any(name == CACHEDIR_TAG for name, _ in names) and is_cache(descriptor):
            return Rule("cachedir_tag", CACHEDIR_TAG, is_of_job=False)
        return None

    def _look_at_tag(self, path: bytes, descriptor: int) -> None:
        """Tell of a tag that has further links: by another name of it the directory may be taken in again."""
        with suppress(FileNotFoundError):
            if os.stat(CACHEDIR_TAG, dir_fd=descriptor, follow_symlinks=False).st_nlink > 1:
                self._witness.linked(path + b"/" + CACHEDIR_TAG)
