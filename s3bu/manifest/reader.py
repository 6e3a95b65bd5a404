"""Reads a manifest as a stream, and finds out one that is cut, altered, moved or malformed.

What it reads was written by whoever knows the passphrase: this program, an older or a newer one, the original, or
someone who means harm. A line is taken as exactly what the format says, or refused with its number.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol, TypeVar

from s3bu.errors import IntegrityError
from s3bu.manifest import DIRECTORY, FILE, SPECIAL, SYMLINK, Entry, FailedPath, Header, Owner, escape, unescape

_SECOND = 1_000_000_000
_BLOCK = 256 * 1024
_LONGEST_LINE = 64 * 1024
_NUMBER_BOUND = 1 << 63
# Lines of different paths take more than 2.5 bytes each when they are packed, however regular they are; equal ones a
# tenth of a byte, so that half a megabyte took 700 of memory.
_FEWEST_LINES = 10_000

_ENTRY = re.compile(rb"([0-9]{1,19}),(-?[0-9]{1,19}),(0[0-7]{0,4}),([0-9a-f]{64}|),([^,]+)")
_CUT_ENTRY = re.compile(
    rb"[0-9]{0,19}|[0-9]{1,19},-?[0-9]{0,19}|[0-9]{1,19},-?[0-9]{1,19},(?:|0[0-7]{0,4}"
    rb"|0[0-7]{0,4},[0-9a-f]{0,64}|0[0-7]{0,4},(?:[0-9a-f]{64}|),[^,]*)"
)
_HEADER = re.compile(rb"#s3bu ([0-9]{1,9}) (.+)")
_WHOLE = re.compile(rb"[0-9]{1,19}")
_MODE = re.compile(rb"0[0-7]{0,4}")
_TIME = re.compile(rb"(-?[0-9]{1,19})\.([0-9]{9})")
_FAIL = b"@fail "
_SPECIAL = re.compile(rb"fifo|(?:char|block) [0-9]{1,10}:[0-9]{1,10}")
_TIMESTAMP = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|\+00:00)")

_T = TypeVar("_T")
_Fields = dict[bytes, bytes]
Packed = Callable[[], int]


class Readable(Protocol):
    """Where a manifest's plain bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, and none only at the end."""


def read_manifest(
    source: Readable, *, key: str, job: str, label: str, packed: Packed | None = None
) -> "ManifestReader":
    """Begin to read the manifest that lies under `key` and should be one of this job and label.

    Where it is unpacked while it is read, `packed` tells from how many bytes until then: one that gives more lines than
    any snapshot packs into them was made to fill the memory of whoever reads it, and is refused at once.
    An `IntegrityError` says that it has a header that cannot be read, or one of another place: then an older or
    another label's manifest was copied to this key.
    """
    reader = ManifestReader(source, key, packed)
    header = reader.header
    if header is not None and (header.key, header.job, header.label) != (key, job, label):
        place = ascii(header.key[:200])
        raise IntegrityError(f"{key}: an older or moved manifest, which says of itself that it lies under {place}")
    return reader


class ManifestReader:
    """The entries and failures of one manifest, once, in the order in which they stand there.

    Reading is a stream: no more than a block and one line are held. Therefore nothing is proven before the iteration
    has ended without an `IntegrityError`; whoever acts on entries earlier must be ready for one. Paths may come twice
    (the last one counts, see `load_entries`), out of order, or be odd in any way.

    `header` is there at once, and absent in a manifest of the original. `warnings`, `is_truncated` (a cut last line,
    which the original may have left, was dropped) and `is_rewritten` (paths were taken out later on) are complete after
    the iteration.
    """

    def __init__(self, source: Readable, key: str, packed: Packed | None = None) -> None:
        self.header: Header | None = None
        self.warnings: list[str] = []
        self.is_truncated = False
        self.is_rewritten = False
        self._source = source
        self._key = key
        self._packed = packed
        self._digest = hashlib.sha256()
        self._next_number = 1
        self._other_lines = 0
        self._has_unknown = False
        self._start = self._read_header()
        self._last_line = b""
        self._items = self._read_items()
        self._known: AbstractSet[bytes] = frozenset()
        self._lines: set[bytes] | None = None
        self.nlines = 0

    def __iter__(self) -> Iterator[Entry | FailedPath]:
        return self._items

    def differing(self, known: AbstractSet[bytes], lines: set[bytes]) -> Iterator[Entry | FailedPath]:
        """Yield, instead of everything, all failures and the entries whose lines are not `known`; collect all `lines`.

        To see what differs from a manifest that was read before costs no more than its changes. Lines are without
        their ends. Each line that comes twice is collected once, and `nlines` counts both.
        """
        self._known, self._lines = known, lines
        return self._items

    def _read_header(self) -> bytes:
        start = b""
        while b"\n" not in start and len(start) <= _LONGEST_LINE:
            chunk = self._source.read(_BLOCK)
            if not chunk:
                break
            start += chunk
        # No line of the original's starts so, hence a header that does not parse is never taken for one of its files.
        if not start.startswith(b"#"):
            return start
        line, end, rest = start.partition(b"\n")
        if not end or len(line) > _LONGEST_LINE:
            raise self._error("the header is cut")
        self.header = self._parse_header(line)
        self._digest.update(line + end)
        self._next_number = 2
        self._other_lines = 1
        return rest

    def _parse_header(self, line: bytes) -> Header:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise self._malformed(1)
        if int(found[1]) != 1:
            message = f"{self._key}: written by a newer version of s3bu"
            raise IntegrityError(message, hint="upgrade s3bu to read it")
        return self._parse_fields(1, found[2], _parse_header, _HEADER_FIELDS)

    def _read_items(self) -> Iterator[Entry | FailedPath]:
        for lines in self._read_blocks():
            yield from self._parse_lines(lines)
        if self.header is not None:
            self._check_trailer()
        elif self._last_line:
            yield from self._parse_last_line()

    def _read_blocks(self) -> Iterator[list[bytes]]:
        # The last line is kept back: it is the trailer, or one of the original's that may be cut.
        chunk = self._start or self._source.read(_BLOCK)
        self._start = b""
        while chunk:
            block = self._last_line + chunk
            split = block.rfind(b"\n", 0, len(block) - 1) + 1
            complete, self._last_line = block[:split], block[split:]
            self._digest.update(complete)
            lines = complete.split(b"\n")[:-1]
            if max(map(len, (*lines, self._last_line))) > _LONGEST_LINE:
                raise self._error("a line is longer than 64 KiB")
            self._check_packing(self._next_number + len(lines))
            yield lines
            chunk = self._source.read(_BLOCK)

    def _check_packing(self, number: int) -> None:
        if self._packed is not None and number > _FEWEST_LINES + self._packed():
            raise self._error("it has more lines than any snapshot packs into so few bytes")

    def _parse_lines(self, lines: list[bytes]) -> Iterator[Entry | FailedPath]:
        match, known = _ENTRY.fullmatch, self._known
        if self._lines is not None:
            self._lines.update(lines)
            self.nlines += len(lines)
        for number, line in enumerate(lines, self._next_number):
            if line in known and not line.startswith(_FAIL):
                self._other_lines += line.startswith(b"@")
                continue
            found = match(line)
            if found is None:
                item = self._parse_extension(number, line)
                if item is not None:
                    yield item
                continue
            size, mtime, mode, content_hash, path = found.groups()
            nbytes, seconds = int(size), int(mtime)
            if nbytes >= _NUMBER_BOUND or abs(seconds) >= _NUMBER_BOUND:
                raise self._malformed(number)
            raw = unescape(path)
            yield Entry(raw, FILE, nbytes, seconds * _SECOND, int(mode, 8) & 0o777, content_hash.decode("ascii"))
        self._next_number += len(lines)

    def _parse_extension(self, number: int, line: bytes) -> Entry | FailedPath | None:
        self._other_lines += 1
        kind, _, text = line.partition(b" ")
        if not kind.startswith(b"@") or b"," in line:
            raise self._malformed(number)
        if kind not in _EXTENSIONS:
            self._warn_of_unknown(number, kind)
            return None
        parse, names = _EXTENSIONS[kind]
        self.is_rewritten |= kind == b"@rewrite"
        return self._parse_fields(number, text, parse, names)

    def _parse_fields(self, number: int, text: bytes, parse: Callable[[_Fields], _T], names: set[bytes]) -> _T:
        try:
            fields = _split_fields(text)
            parsed = parse(fields)
        except (KeyError, ValueError) as error:
            raise self._malformed(number) from error
        unknown = sorted(fields.keys() - names)
        if unknown:
            self._warn_of_unknown(number, unknown[0])
        return parsed

    def _warn_of_unknown(self, number: int, name: bytes) -> None:
        if not self._has_unknown:
            self._has_unknown = True
            shown = escape(name[:40]).decode("ascii")
            self.warnings.append(
                f"{self._key}: skipped what this version of s3bu does not know: {shown}, line {number}"
            )

    def _check_trailer(self) -> None:
        kind, _, text = self._last_line.partition(b" ")
        if kind != b"#end" or not text.endswith(b"\n"):
            raise self._error("it is truncated, or goes on after its end")
        number = self._next_number
        entries, digest = self._parse_fields(number, text[:-1], _parse_trailer, _TRAILER_FIELDS)
        if digest != self._digest.hexdigest().encode() or entries != number - 1 - self._other_lines:
            raise self._error("it is not what was written")

    def _parse_last_line(self) -> Iterator[Entry | FailedPath]:
        line = self._last_line.removesuffix(b"\n")
        is_whole = line != self._last_line
        if _CUT_ENTRY.fullmatch(line) and not (is_whole and _ENTRY.fullmatch(line)):
            self.is_truncated = True
            self.warnings.append(f"{self._key}: dropped the last line, {self._next_number}, which is cut")
        elif is_whole:
            yield from self._parse_lines([line])
        else:
            raise self._malformed(self._next_number)

    def _malformed(self, number: int) -> IntegrityError:
        return self._error(f"line {number} is malformed")

    def _error(self, fault: str) -> IntegrityError:
        return IntegrityError(
            f"{self._key}: broken manifest: {fault}", hint="an older snapshot may be sound: `s3bu snapshots` lists them"
        )


def parse_lines(lines: Iterable[bytes]) -> Iterator[Entry | FailedPath]:
    """Yield what lines say that were read, and found well formed, before; in no order."""
    reader = ManifestReader(io.BytesIO(b"".join(line + b"\n" for line in lines)), "lines read before")
    return iter(reader)


def path_of(line: bytes) -> bytes | None:
    """Return the path that a line is about, of lines that were found well formed before; `None` of all others."""
    if line.startswith(b"#"):
        return None
    if line.startswith(b"@"):
        fields = _split_fields(line.partition(b" ")[2])
        return fields.get(b"path")
    return unescape(line.rpartition(b",")[2])


def _split_fields(text: bytes) -> _Fields:
    fields: _Fields = {}
    for token in text.split(b" "):
        name, equals, value = token.partition(b"=")
        if not name or not equals or name in fields or b"," in token:
            raise ValueError("not a list of fields")
        fields[name] = unescape(value)
    return fields


def _parse_header(fields: _Fields) -> Header:
    created = fields[b"created"]
    if not _TIMESTAMP.fullmatch(created):
        raise ValueError("not a time in UTC")
    key, job, label, host, parent = (_decode(fields[name]) for name in (b"key", b"job", b"label", b"host", b"parent"))
    return Header(key, job, label, host, datetime.fromisoformat(created.decode("ascii")), parent)


def _parse_trailer(fields: _Fields) -> tuple[int, bytes]:
    return _parse_whole(fields[b"entries"]), fields[b"sha256"]


def _parse_directory(fields: _Fields) -> Entry:
    path, mtime_ns, mode = _parse_path(fields), _parse_time(fields[b"mtime"]), fields[b"mode"]
    if not _MODE.fullmatch(mode):
        raise ValueError("not a mode")
    return Entry(path, DIRECTORY, 0, mtime_ns, int(mode, 8), owner=_parse_owner(fields))


def _parse_symlink(fields: _Fields) -> Entry:
    path, mtime_ns, target = _parse_path(fields), _parse_time(fields[b"mtime"]), fields[b"target"]
    return Entry(path, SYMLINK, 0, mtime_ns, 0, target=target, owner=_parse_owner(fields))


def _parse_special(fields: _Fields) -> Entry:
    path, mtime_ns, mode = _parse_path(fields), _parse_time(fields.get(b"mtime", b"0.000000000")), fields[b"mode"]
    what = b" ".join(filter(None, (fields[b"kind"], fields.get(b"device"))))
    if not _MODE.fullmatch(mode) or not _SPECIAL.fullmatch(what):
        raise ValueError("not a special file")
    return Entry(path, SPECIAL, 0, mtime_ns, int(mode, 8), target=what, owner=_parse_owner(fields))


def _parse_meta(fields: _Fields) -> None:
    # That a time of zero is the true one changes nothing for a reader: compare trusts no zero, restore takes each.
    _parse_path(fields)
    _parse_time(fields.get(b"mtime", b"0.000000000"))


def _parse_rewrite(fields: _Fields) -> None:
    if not _TIMESTAMP.fullmatch(fields[b"at"]):
        raise ValueError("not a time in UTC")
    _parse_whole(fields[b"removed"])


def _parse_failed(fields: _Fields) -> FailedPath:
    return FailedPath(fields[b"path"], _decode(fields[b"error"]), _decode(fields[b"since"]))


def _parse_path(fields: _Fields) -> bytes:
    if not fields[b"path"]:
        raise ValueError("empty path")
    return fields[b"path"]


def _parse_owner(fields: _Fields) -> Owner | None:
    if b"uid" not in fields:
        return None
    user, group = _decode(fields.get(b"user", b"")), _decode(fields.get(b"group", b""))
    return Owner(_parse_whole(fields[b"uid"]), _parse_whole(fields[b"gid"]), user, group)


def _parse_whole(text: bytes) -> int:
    if not _WHOLE.fullmatch(text) or int(text) >= _NUMBER_BOUND:
        raise ValueError("not a number")
    return int(text)


def _parse_time(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None or abs(int(found[1])) >= _NUMBER_BOUND:
        raise ValueError("not a time")
    return int(found[1]) * _SECOND + int(found[2])


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


_OWNER = {b"uid", b"gid", b"user", b"group"}
_HEADER_FIELDS = {b"key", b"job", b"label", b"host", b"created", b"parent"}
_TRAILER_FIELDS = {b"entries", b"sha256"}
_EXTENSIONS: dict[bytes, tuple[Callable[[_Fields], Entry | FailedPath | None], set[bytes]]] = {
    b"@dir": (_parse_directory, {b"path", b"mtime", b"mode", *_OWNER}),
    b"@symlink": (_parse_symlink, {b"path", b"target", b"mtime", *_OWNER}),
    b"@special": (_parse_special, {b"path", b"kind", b"device", b"mtime", b"mode", *_OWNER}),
    b"@meta": (_parse_meta, {b"path", b"mtime"}),
    b"@fail": (_parse_failed, {b"path", b"error", b"since"}),
    b"@rewrite": (_parse_rewrite, {b"at", b"host", b"removed", b"pattern"}),
}
