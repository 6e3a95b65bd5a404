"""The rules that say which files and directories of a source are backed up.

The six lists are those of the original Go program, decided by bare names alone, without a look at the disk. Names are
bytes as the file system has them: a rule matches the same bytes, in the same case and the same Unicode form. What the
lists let through can still be left out by the `Selection`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from s3bu.selection import CACHEDIR_TAG, Rule, Selection


@dataclass(frozen=True, slots=True)
class Filters:
    """The six lists of a job, and its selection; an empty list is no rule at all.

    A list that holds something, but nothing that can match (an empty name, a path), is still a rule: as an `include_`
    list it lets nothing through. The one thing that is left out of account is an empty extension, which would
    otherwise be the suffix of every name.
    """

    include_extensions: tuple[bytes, ...] = ()
    exclude_extensions: tuple[bytes, ...] = ()
    include_top_dirs: tuple[bytes, ...] = ()
    exclude_top_dirs: tuple[bytes, ...] = ()
    skip_dirs: tuple[bytes, ...] = ()
    skip_dir_items: tuple[bytes, ...] = ()
    selection: Selection = field(default_factory=Selection)
    _wanted_suffixes: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _unwanted_suffixes: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _wanted_tops: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _unwanted_tops: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _skipped: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _items: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Each method is called a million times a run, so what they compare with is made once.
        for name, prepared in (
            ("_wanted_suffixes", _suffixes(self.include_extensions)),
            ("_unwanted_suffixes", _suffixes(self.exclude_extensions)),
            ("_wanted_tops", frozenset(self.include_top_dirs)),
            ("_unwanted_tops", frozenset(self.exclude_top_dirs)),
            ("_skipped", frozenset(self.skip_dirs)),
            ("_items", frozenset(self.skip_dir_items)),
        ):
            object.__setattr__(self, name, prepared)

    @property
    def deciding_names(self) -> frozenset[bytes]:
        """The names of what lies in a tree and decides about other paths than its own."""
        tag = (CACHEDIR_TAG,) if self.selection.has_cachedir_tag else ()
        return frozenset((*self.selection.ignore_files, *self.skip_dir_items, *tag))

    def file_rule(self, name: bytes) -> Rule | None:
        """Return the list by which a file or symbolic link of that name is left out, or `None`.

        Where there are `include_extensions` the name must end with one of them; then it must end with none of
        `exclude_extensions`. An extension is a suffix of the whole name that begins with a dot (added where it is
        missing), so `gz` and `.tar.gz` both match `a.tar.gz`, and `.DS_Store` matches the file of that name.
        """
        if self.include_extensions and not name.endswith(self._wanted_suffixes):
            return Rule("include_extensions", b"")
        if name.endswith(self._unwanted_suffixes):
            return Rule("exclude_extensions", next(one for one in self._unwanted_suffixes if name.endswith(one)))
        return None

    def directory_rule(self, name: bytes, *, is_top: bool) -> Rule | None:
        """Return the list by which a directory of that name is not entered, or `None`; `is_top`: it lies in the source.

        A top directory must be among `include_top_dirs`, where there are any, and not among `exclude_top_dirs`; no
        directory at any level may be among `skip_dirs`. The source itself is never asked about, and files that lie
        directly in it are not touched by these rules.
        """
        if is_top:
            if self.include_top_dirs and name not in self._wanted_tops:
                return Rule("include_top_dirs", b"")
            if name in self._unwanted_tops:
                return Rule("exclude_top_dirs", name)
        return Rule("skip_dirs", name) if name in self._skipped else None

    def skipping_item(self, names: Iterable[bytes]) -> bytes | None:
        """Return the first of `skip_dir_items` that is among the names in a directory, or `None`.

        A directory for which there is one is left out with all below it; this is asked for the source itself too.
        What the name belongs to (file, directory, link) is of no account.
        """
        if not self._items:
            return None
        found = self._items.intersection(names)
        return next(item for item in self.skip_dir_items if item in found) if found else None


def _suffixes(extensions: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(extension if extension.startswith(b".") else b"." + extension for extension in extensions if extension)
