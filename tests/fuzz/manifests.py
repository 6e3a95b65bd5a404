"""Manifests: whatever stands in one, what is read of it is well formed, prints on one line, and goes into the index."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from s3bu.cli.snapshots import _line
from s3bu.errors import IntegrityError
from s3bu.history import Facts, take_in
from s3bu.index import open_passing_index
from s3bu.manifest import (
    DIRECTORY,
    FILE,
    SPECIAL,
    SYMLINK,
    Entry,
    FailedPath,
    Header,
    Owner,
    format_entry,
    is_representable,
    load_entries,
    sort_key,
)
from s3bu.manifest.reader import read_manifest
from s3bu.repository import Snapshot
from s3bu.restore import plan_restore
from tests.fakes import OLD, SECOND, file_entry, manifest_key, manifest_text
from tests.fuzz.engine import Target
from tests.fuzz.readers import PieceReader

_KEY = manifest_key("2026-01-01", 1)
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_HASH = re.compile(r"[0-9a-f]{64}|")
_OWNER = Owner(1000, 1000, "me", "us")
_ENTRIES = [
    file_entry(b"a", b"a"),
    file_entry(b"directory/b c", b"b", mtime=-5),
    file_entry(b"directory/\xff\n,", b"", mtime=0),
    Entry(b"directory", DIRECTORY, 0, OLD * SECOND + 5, 0o3755, owner=_OWNER),
    Entry(b"link", SYMLINK, 0, OLD * SECOND, 0, target=b"../else\xffwhere", owner=_OWNER),
    Entry(b"pipe", SPECIAL, 0, OLD * SECOND, 0o600, target=b"fifo", owner=_OWNER),
    Entry(b"disk", SPECIAL, 0, OLD * SECOND, 0o600, target=b"block 8:1"),
]
_FAILED = [FailedPath(b"unreadable", "permission denied", "2026-01-01T00:00:00+00:00")]
_SEEDS = [
    manifest_text(Header(str(_KEY), "home", "docs", "here", _CREATED, ""), _ENTRIES, _FAILED),
    b"".join(format_entry(file_entry(b"%d" % number, b"same")) for number in range(50)),
    b"0,0,00,,denied%2Funreadable\n" + format_entry(file_entry(b"a"))[:-5],
    b"9223372036854775807,9223372036854775807,0777,%b,a\n9223372036854775807,0,00,,b\n" % (b"0" * 64),
    b"@fail path=a%FF error=permission%20denied since=2026\n" + format_entry(file_entry(b"a")),
    b"@meta path=a mtime=0.000000000\n@later x=y\n" + format_entry(_ENTRIES[0]),
]
_TOKENS = (
    b"@dir |@symlink |@special |@fail |@meta |#end |#s3bu 1 |#s3bu 2 | path=| mtime=| mode=0| uid=| target=| error=|"
    b"%2F..%2F|%FF|%ED%A0%80"
)


def _read(document: bytes, most: int) -> tuple[list[Entry | FailedPath], list[str]] | str:
    try:
        reader = read_manifest(PieceReader(document, most), key=str(_KEY), job="home", label="docs")
        return list(reader), reader.warnings
    except IntegrityError as error:
        assert len(error.message) < 1_000
        return "broken"  # which fault is met first may hang on how the bytes come


def _check_entry(entry: Entry) -> None:
    assert entry.path
    assert 0 <= entry.nbytes < 1 << 63
    assert 0 <= entry.mode <= (0o777 if entry.kind == FILE else 0o77777)
    assert _HASH.fullmatch(entry.hash)
    printed = _line(entry)
    assert printed.isprintable()
    if entry.kind == FILE and entry.hash and is_representable(entry):
        (again,) = read_manifest(io.BytesIO(format_entry(entry)), key=str(_KEY), job="home", label="docs")
        assert again == entry._replace(mtime_ns=entry.mtime_ns // SECOND * SECOND)


def _run(document: bytes) -> None:
    found = _read(document, 256 * 1024)
    assert found == _read(document, 1000 + len(document) // 50)
    if isinstance(found, str):
        return
    entries = load_entries(found[0])
    for entry in entries[:500]:
        _check_entry(entry)
    keys = [sort_key(entry.path) for entry in entries]
    assert keys == sorted(set(keys))
    plan = plan_restore(Snapshot(_KEY, _CREATED, None, entries, [], ()))
    for entry in (*plan.files, *plan.directories, *plan.links):
        assert not {b"", b".", b".."} & set(entry.path.split(b"/"))
        assert b"\0" not in entry.path + entry.target


@contextmanager
def manifest_target() -> Iterator[Target]:
    yield Target("manifest", _run, _SEEDS, _TOKENS.split(b"|"))


@contextmanager
def indexed_target() -> Iterator[Target]:
    """Take manifests into an index, which must say the same of them."""
    index = open_passing_index("place")
    source = index.source("home", "docs")

    def run(document: bytes) -> None:
        found = _read(document, 256 * 1024)
        # No file system has a name with NUL, and in the order of paths NUL stands for the slash.
        if isinstance(found, str) or any(b"\0" in item.path for item in found[0]):
            return
        index.clear()
        source = index.source("home", "docs")
        failed = tuple(item for item in found[0] if isinstance(item, FailedPath))
        take_in(index, Facts(_KEY, "etag", _CREATED, None, failed), iter(found[0]))
        assert list(index.currents(source)) == load_entries(found[0])

    try:
        assert source
        yield Target("indexed", run, _SEEDS, _TOKENS.split(b"|"))
    finally:
        index.close()
