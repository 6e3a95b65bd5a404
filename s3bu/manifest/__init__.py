"""The manifest: the entries of one snapshot, and the lines that hold them in the repository.

Lines are of two kinds. An entry line, `size,mtime,0mode,hash,path`, is a regular file, exactly as the original
writes and reads it. An extension line, `@kind field=value …`, says what those five columns cannot; it has no comma,
so that the original passes over it. A manifest of s3bu starts with a header that names the key where it lies and
ends with a trailer that counts and hashes all before it, so that one that is cut, altered or moved is found out. One
of the original has neither, and is taken as it is.

`reader` reads and checks what is written here. Compression and encryption are wrapped around both elsewhere.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

FILE = "file"
DIRECTORY = "dir"
SYMLINK = "symlink"
SPECIAL = "special"
"""A FIFO or device: recorded, so that a restore can say what it does not bring back."""

FAILED_PATH_BOUND = 15_000
"""So many bytes of a path that failed stand in a manifest: one too long for an entry is named there too."""

_SECOND = 1_000_000_000
_BUFFER = 256 * 1024
# The original gives up, silently, at a line of 64 KiB: stay well below it.
_WRITTEN_LINE_BOUND = 60_000
_COLUMNS_BOUND = 300

_SAFE = "$&+:=@"
_PLAIN = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.-~$&+:=@/"


class Writable(Protocol):
    """Where a manifest's plain bytes go."""

    def write(self, content: bytes, /) -> object:
        """Take all of `content`."""


class Owner(NamedTuple):
    """Whose a directory or symbolic link is; the names are empty where the numbers had none."""

    uid: int
    gid: int
    user: str
    group: str


class Seen(NamedTuple):
    """What a scan saw of a file that no manifest has, by which this machine knows the file again.

    Inode and device are as SQLite takes them: signed, in 64 bits.
    """

    ctime_ns: int
    inode: int
    device: int


class Entry(NamedTuple):
    """One file, directory, symbolic link or special file of a snapshot.

    A named tuple, not a frozen dataclass, since a snapshot has millions: it takes a third of the time to make.

    `path` is relative to the source, as raw bytes with `/` between segments; one that was read may be anything,
    absolute or with `..` too, and is for restore to refuse. `mtime_ns` is in whole seconds for a file that was
    read, and may be beyond 64 bits: only its seconds are bounded by them. Zero stands for "not known" as well as for
    1970, so compare never trusts it. `mode` is masked with 0o777 for files and 0o7777 for directories, and 0 for links.
    `hash` is 64 lower-case hex digits, or empty for a file that the original failed to read, a directory or a link.
    `nbytes` is 0 for what is not a file, `owner` absent for files. `target` is a link's; of a special file it is what
    it is, `fifo`, `char 8:1` or `block 8:1` with the device's major and minor number, and empty for all else. `seen` is
    there for a file that this machine scanned itself.
    """

    path: bytes
    kind: str
    nbytes: int
    mtime_ns: int
    mode: int
    hash: str = ""
    target: bytes = b""
    owner: Owner | None = None
    seen: Seen | None = None


class FailedPath(NamedTuple):
    """A path that could not be backed up this time, why, and since when; an empty path is the source itself."""

    path: bytes
    error: str
    since: str


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a manifest of s3bu: where it lies, and which host made it when from which parent.

    `created` must know its zone; `parent` is the key of the snapshot compared with, empty where there was none.
    """

    key: str
    job: str
    label: str
    host: str
    created: datetime
    parent: str

    def format(self) -> bytes:
        """Give the line with its end."""
        if self.created.tzinfo is None:
            raise ValueError("the time of a header must know its zone")
        created = self.created.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
        return _format_line(
            b"#s3bu 1",
            key=_encode(self.key),
            job=_encode(self.job),
            label=_encode(self.label),
            host=_encode(self.host),
            created=created.encode(),
            parent=_encode(self.parent),
        )


def sort_key(path: bytes) -> bytes:
    """Order paths as a manifest does, segment by segment, so that `a/x` stands before `a b` and `a.txt`.

    Names cannot hold NUL, so it may stand for the separator and is less than every byte of a name.
    """
    return path.replace(b"/", b"\0")


def escape(raw: bytes) -> bytes:
    """Percent-escape raw bytes as Go's `url.PathEscape` does, on which the original's manifests rest.

    The result is ASCII without comma, space, slash or control character.
    """
    if not raw.translate(None, _PLAIN):
        return raw.replace(b"/", b"%2F")
    return quote_from_bytes(raw, safe=_SAFE).encode("ascii")


def unescape(escaped: bytes) -> bytes:
    """Undo `escape`; a `%` without two hex digits after it stands for itself."""
    # Most paths have no other escape, and two steps give the same: `/` is no hex digit, so none can arise from it.
    raw = escaped.replace(b"%2F", b"/")
    return unquote_to_bytes(raw) if b"%" in raw else raw


def is_representable(entry: Entry) -> bool:
    """Whether the lines of an entry stay under 60,000 bytes; one that does not is a failure of its path.

    To be asked of every entry before its content is stored, also of those carried forward: what a parent manifest
    holds may be anything. `format_entry` takes no other.
    """
    names = () if entry.owner is None else (_encode(entry.owner.user), _encode(entry.owner.group))
    values = (entry.path, entry.target, *names)
    room = _WRITTEN_LINE_BOUND - _COLUMNS_BOUND
    return 3 * sum(map(len, values)) < room or sum(len(escape(value)) for value in values) < room


def format_entry(entry: Entry, *, is_carried_forward: bool = False) -> bytes:
    """Give the line or lines of an entry, each with its end.

    A file's time is cut down to whole seconds. Where that leaves zero, a second line says that this is the true
    time, unless the entry `is_carried_forward` from the parent: there the zero, which the caller sets, says that it
    failed. The fraction of a time before 1970 counts upwards from the second before it: `-1.500000000` is half a
    second before the epoch. Owners of files are not written.

    A `ValueError` is a fault of the program: an empty path, a file without a hash, or an entry not `is_representable`.
    """
    if entry.kind == FILE:
        lines = _format_file(entry, is_carried_forward)
    elif entry.kind == DIRECTORY:
        mode = b"0%o" % (entry.mode & 0o7777)
        lines = _format_line(
            b"@dir", path=entry.path, mtime=_format_time(entry.mtime_ns), mode=mode, **_owner_fields(entry.owner)
        )
    elif entry.kind == SYMLINK:
        mtime = _format_time(entry.mtime_ns)
        lines = _format_line(
            b"@symlink", path=entry.path, target=entry.target, mtime=mtime, **_owner_fields(entry.owner)
        )
    elif entry.kind == SPECIAL:
        lines = _format_special(entry)
    else:
        raise ValueError(f"no such kind of entry: {entry.kind!r}")
    if not entry.path or (len(lines) >= _WRITTEN_LINE_BOUND and not is_representable(entry)):
        raise ValueError(f"the path of an entry is empty or too long: {entry.path[:80]!r}")
    return lines


def _format_special(entry: Entry) -> bytes:
    kind, _, device = entry.target.partition(b" ")
    fields = {"path": entry.path, "kind": kind} | ({"device": device} if device else {})
    fields |= {"mtime": _format_time(entry.mtime_ns), "mode": b"0%o" % (entry.mode & 0o7777)}
    return _format_line(b"@special", **fields, **_owner_fields(entry.owner))


def _format_file(entry: Entry, is_carried_forward: bool) -> bytes:
    if len(entry.hash) != 64:
        raise ValueError(f"a file without a hash: {entry.path!r}")
    path = escape(entry.path)
    seconds = entry.mtime_ns // _SECOND
    line = b"%d,%d,0%o,%b,%b\n" % (entry.nbytes, seconds, entry.mode & 0o777, entry.hash.encode("ascii"), path)
    if seconds or is_carried_forward:
        return line
    return line + _format_line(b"@meta", path=entry.path, mtime=_format_time(entry.mtime_ns))


def format_failed(failed: FailedPath) -> bytes:
    """Give the `@fail` line; path, error and time are cut, so that it always fits."""
    path, error, since = failed
    return _format_line(
        b"@fail", path=path[:FAILED_PATH_BOUND], error=_encode(error[:1_000]), since=_encode(since[:100])
    )


def format_rewrite(at: datetime, host: str, removed: int, pattern: str) -> bytes:
    """Give the line that says that so many paths were taken out of a snapshot later on, by which pattern."""
    written = at.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
    return _format_line(
        b"@rewrite",
        at=written.encode(),
        host=_encode(host[:1_000]),
        removed=b"%d" % removed,
        pattern=_encode(pattern[:10_000]),
    )


def _format_line(kind: bytes, /, **fields: bytes) -> bytes:
    return kind + b"".join(b" %b=%b" % (name.encode(), escape(value)) for name, value in fields.items()) + b"\n"


def _format_time(mtime_ns: int) -> bytes:
    return b"%d.%09d" % divmod(mtime_ns, _SECOND)


def _owner_fields(owner: Owner | None) -> dict[str, bytes]:
    if owner is None:
        return {}
    user, group = _encode(owner.user), _encode(owner.group)
    return {"uid": b"%d" % owner.uid, "gid": b"%d" % owner.gid, "user": user, "group": group}


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def count_files(lines: bytes) -> int:
    """Return how many of whole lines are entry lines, which are all that the trailer counts."""
    return lines.count(b"\n") - lines.count(b"\n@") - lines.startswith(b"@")


def split_entries(lines: bytes) -> list[bytes]:
    """Return what `format_entry` gave for each of many entries, from all of it in one; no failures may be among it."""
    found: list[bytes] = []
    for line in lines.splitlines(keepends=True):
        if line.startswith(b"@meta"):
            found[-1] += line
        else:
            found.append(line)
    return found


class ManifestWriter:
    """Writes one manifest: the header at once, the lines as they come, the trailer at the end.

    Lines are written in the order given, which must be that of `sort_key`. Without `finish` the manifest is a
    truncated one, and every reader refuses it. `pack` makes of plain bytes what the target gets, a piece at a time.
    """

    def __init__(self, target: Writable, header: Header, pack: Callable[[bytes], bytes] = bytes) -> None:
        self._target = target
        self._pack = pack
        self._digest = hashlib.sha256()
        self._entries = 0
        self._pending = [header.format()]
        self._pending_nbytes = 0

    def write(self, lines: bytes) -> None:
        """Add the lines of entries or failures, as `format_entry` or `format_failed` gave them."""
        self._entries += count_files(lines)
        self._pending.append(lines)
        self._pending_nbytes += len(lines)
        if self._pending_nbytes >= _BUFFER:
            self._flush()

    def write_packed(self, lines: bytes, packed: bytes) -> None:
        """Add lines that went through `pack` before."""
        self._flush()
        self._entries += count_files(lines)
        self._digest.update(lines)
        self._target.write(packed)

    def finish(self) -> None:
        """Write what is pending, and the trailer; the target stays open."""
        self._flush()
        trailer = _format_line(b"#end", entries=b"%d" % self._entries, sha256=self._digest.hexdigest().encode())
        self._target.write(self._pack(trailer))

    def _flush(self) -> None:
        if not self._pending:
            return
        content = b"".join(self._pending)
        self._pending.clear()
        self._pending_nbytes = 0
        self._digest.update(content)
        self._target.write(self._pack(content))


def load_entries(items: Iterable[Entry | FailedPath]) -> list[Entry]:
    """Collect the entries of a manifest in the order of `sort_key`; of equal paths the last counts.

    Failures are left out. The list is in memory, a few hundred bytes an entry.
    """
    entries = [item for item in items if isinstance(item, Entry)]
    if all(earlier < later for earlier, later in pairwise(sort_key(entry.path) for entry in entries)):
        return entries
    return sorted({entry.path: entry for entry in entries}.values(), key=lambda entry: sort_key(entry.path))
