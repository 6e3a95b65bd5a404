import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3bu.errors import IntegrityError
from s3bu.manifest import (
    DIRECTORY,
    FILE,
    SPECIAL,
    SYMLINK,
    Entry,
    FailedPath,
    Header,
    ManifestWriter,
    Owner,
    escape,
    format_entry,
    format_failed,
    is_representable,
    load_entries,
    sort_key,
    unescape,
)
from s3bu.manifest.reader import ManifestReader, read_manifest

KEY = "manifests/home/docs/home-docs-2026-05-01-00001.csv.gz"
HASH = "ab" * 32
OTHER_HASH = "cd" * 32
HEADER = Header(KEY, "home", "docs", "laptop", datetime(2026, 5, 1, 12, 30, 1, tzinfo=UTC), "")

SECOND = 1_000_000_000
paths = st.binary(min_size=1, max_size=300).filter(lambda path: b"\0" not in path)
times = st.integers(min_value=-(2**63 - 1) * SECOND, max_value=(2**63) * SECOND - 1)
numbers = st.integers(min_value=0, max_value=2**63 - 1)
owners = st.none() | st.builds(Owner, numbers, numbers, st.text(max_size=20), st.text(max_size=20))
files = st.builds(
    Entry,
    path=paths,
    kind=st.just(FILE),
    nbytes=numbers,
    mtime_ns=times,
    mode=st.integers(0, 0o777),
    hash=st.text("0123456789abcdef", min_size=64, max_size=64),
    target=st.just(b""),
    owner=st.none(),
    seen=st.none(),
)
directories = st.builds(
    Entry,
    path=paths,
    kind=st.just(DIRECTORY),
    nbytes=st.just(0),
    mtime_ns=times,
    mode=st.integers(0, 0o7777),
    hash=st.just(""),
    target=st.just(b""),
    owner=owners,
    seen=st.none(),
)
links = st.builds(
    Entry,
    path=paths,
    kind=st.just(SYMLINK),
    nbytes=st.just(0),
    mtime_ns=times,
    mode=st.just(0),
    hash=st.just(""),
    target=st.binary(max_size=300),
    owner=owners,
    seen=st.none(),
)
entries = files | directories | links


def a_file(path: bytes = b"a", *, seconds: int = 1_700_000_000, content_hash: str = HASH) -> Entry:
    return Entry(path, FILE, 5, seconds * SECOND, 0o644, content_hash)


def reading(content: bytes, *, key: str = KEY, job: str = "home", label: str = "docs") -> ManifestReader:
    return read_manifest(io.BytesIO(content), key=key, job=job, label=label)


def read(content: bytes) -> list[Entry | FailedPath]:
    return list(reading(content))


def written(*lines: bytes, header: Header = HEADER) -> bytes:
    target = io.BytesIO()
    writer = ManifestWriter(target, header)
    for line in lines:
        writer.write(line)
    writer.finish()
    return target.getvalue()


def sealed(*lines: bytes) -> bytes:
    """A manifest with a right trailer around lines that the writer would never be given."""
    content = HEADER.format() + b"".join(lines)
    count = sum(not line.startswith(b"@") for line in lines)
    return content + b"#end entries=%d sha256=%s\n" % (count, hashlib.sha256(content).hexdigest().encode())


SMALL = written(
    format_entry(Entry(b"dir", DIRECTORY, 0, 5, 0o2750, owner=Owner(0, 5, "root", "tty"))),
    format_entry(a_file(b"dir/with, comma")),
    format_entry(a_file(b"epoch", seconds=0)),
    format_failed(FailedPath(b"gone wrong", "permission denied", "2026-04-30T01:02:03Z")),
    format_entry(Entry(b"link", SYMLINK, 0, 7, 0, target=b"dir/../x")),
    format_entry(a_file(b"z")),
)


# Escaping and order


@given(st.binary())
@example(b"%2F%252F%%2F")
@example(b"a,b c\n/\xff~")
def test_unescape_undoes_escape(raw: bytes) -> None:
    assert unescape(escape(raw)) == raw


@given(st.binary())
def test_escaped_bytes_hold_nothing_that_divides_lines_fields_or_columns(raw: bytes) -> None:
    assert not set(escape(raw)) & set(b",/ \n\r\t\0\x1b'\"")
    assert escape(raw).isascii()


def test_escape_leaves_plain_what_go_leaves_plain_and_nothing_else() -> None:
    plain = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_.~$&+:=@"
    assert [byte for byte in range(256) if len(escape(bytes([byte]))) == 1] == sorted(plain)


@pytest.mark.parametrize(
    ("escaped", "raw"),
    [(b"a%2fb", b"a/b"), (b"a+b", b"a+b"), (b"100%", b"100%"), (b"%zz%2", b"%zz%2"), (b"%%2F", b"%/")],
)
def test_unescape_takes_every_escape_and_leaves_what_is_none(escaped: bytes, raw: bytes) -> None:
    assert unescape(escaped) == raw


@given(st.lists(paths | st.lists(st.binary(max_size=2), max_size=4).map(b"/".join)))
def test_sort_key_orders_by_segments(some: list[bytes]) -> None:
    clean = [path.replace(b"\0", b"\1") for path in some]
    assert sorted(clean, key=sort_key) == sorted(clean, key=lambda path: tuple(path.split(b"/")))


# Formatting


def test_a_file_is_one_line_as_the_original_writes_it() -> None:
    entry = Entry(b"dir/a b", FILE, 12, -SECOND - 1, 0o100755, HASH)
    assert format_entry(entry) == b"12,-2,0755," + HASH.encode() + b",dir%2Fa%20b\n"


def test_mode_zero_has_two_digits_as_the_original_writes_it() -> None:
    assert format_entry(a_file()._replace(mode=0)).split(b",")[2] == b"00"


def test_a_true_time_of_zero_has_a_line_of_its_own() -> None:
    lines = format_entry(a_file(b"a/b", seconds=0)).splitlines()
    assert lines[1:] == [b"@meta path=a%2Fb mtime=0.000000000"]


def test_a_time_within_the_second_of_zero_is_told_exactly() -> None:
    lines = format_entry(a_file()._replace(mtime_ns=5)).splitlines()
    assert lines[1:] == [b"@meta path=a mtime=0.000000005"]


def test_a_time_of_zero_that_is_carried_forward_has_no_such_line() -> None:
    assert format_entry(a_file(seconds=0), is_carried_forward=True) == b"5,0,0644," + HASH.encode() + b",a\n"


def test_a_directory_tells_its_whole_mode_time_and_owner() -> None:
    entry = Entry(b"a/b", DIRECTORY, 0, 1_500_000_000, 0o1777, owner=Owner(1000, 100, "me", ""))
    line = b"@dir path=a%2Fb mtime=1.500000000 mode=01777 uid=1000 gid=100 user=me group=\n"
    assert format_entry(entry) == line


def test_a_time_before_the_epoch_counts_upwards_from_its_second() -> None:
    entry = Entry(b"l", SYMLINK, 0, -SECOND // 2, 0, target=b"/x y")
    assert format_entry(entry) == b"@symlink path=l target=%2Fx%20y mtime=-1.500000000\n"


@pytest.mark.parametrize(
    "entry", [a_file(content_hash=""), a_file(b""), a_file()._replace(kind="fifo"), a_file(b"," * 20_000)]
)
def test_what_no_manifest_may_hold_is_not_formatted(entry: Entry) -> None:
    with pytest.raises(ValueError, match=r"hash|path|kind"):
        format_entry(entry)


@given(entries, st.booleans())
def test_the_original_sees_the_files_and_passes_over_all_else(entry: Entry, is_carried_forward: bool) -> None:
    lines = format_entry(entry, is_carried_forward=is_carried_forward).split(b"\n")
    commas = [line.count(b",") for line in lines]
    assert commas == [4 if entry.kind == FILE else 0, *(0 for _ in lines[1:])]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"", FILE, 2**63 - 1, 0, 0o777, HASH),
        Entry(
            b"", DIRECTORY, 0, -(2**62) * SECOND, 0o7777, owner=Owner(2**32 - 1, 2**32 - 1, "\u20ac" * 400, "g" * 400)
        ),
        Entry(b"", SYMLINK, 0, -(2**62) * SECOND, 0, target=b"," * 9_000, owner=Owner(2**32 - 1, 2**32 - 1, "u", "g")),
    ],
)
def test_an_entry_is_representable_up_to_just_below_60000_bytes(entry: Entry) -> None:
    longest = 0
    for length in range(20_000, 60_000, 50):
        longer = entry._replace(path=b"a" * length)
        if is_representable(longer):
            longest = max(longest, *map(len, format_entry(longer).splitlines(keepends=True)))
    assert 59_000 < longest < 60_000


def test_the_line_of_a_failed_path_fits_whatever_it_tells() -> None:
    failed = FailedPath(b"," * 100_000, "\U0001f600" * 100_000, "," * 1_000)
    assert len(format_failed(failed)) < 60_000


def test_a_failure_of_common_size_is_told_whole() -> None:
    failed = FailedPath(b"\xff" * 4_096, "input/output error, twice", "2026-04-30T01:02:03Z")
    assert read(written(format_failed(failed))) == [failed]


# Header and trailer


def test_a_manifest_begins_with_its_key_and_ends_with_count_and_hash() -> None:
    lines = written(format_entry(a_file())).splitlines(keepends=True)
    key = b"manifests%2Fhome%2Fdocs%2Fhome-docs-2026-05-01-00001.csv.gz"
    header = b"#s3bu 1 key=" + key + b" job=home label=docs host=laptop created=2026-05-01T12:30:01Z parent=\n"
    digest = hashlib.sha256(header + lines[1]).hexdigest().encode()
    assert (lines[0], lines[2]) == (header, b"#end entries=1 sha256=" + digest + b"\n")


@given(
    st.text(max_size=80),
    st.text(max_size=80),
    st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(timezone(timedelta(hours=5, minutes=30)))),
)
def test_a_header_comes_back_as_it_was(host: str, parent: str, created: datetime) -> None:
    header = Header(KEY, "home", "docs", host, created, parent)
    assert reading(written(header=header)).header == header


def test_bytes_of_a_host_name_that_are_no_text_come_back() -> None:
    header = Header(KEY, "home", "docs", b"lap\xfftop".decode("utf-8", "surrogateescape"), HEADER.created, KEY)
    assert reading(written(header=header)).header == header


def test_a_header_without_zone_is_not_written() -> None:
    header = Header(KEY, "home", "docs", "laptop", datetime(2026, 5, 1), "")
    with pytest.raises(ValueError, match="zone"):
        header.format()


@pytest.mark.parametrize(
    ("key", "job", "label"),
    [(KEY + "x", "home", "docs"), (KEY, "other", "docs"), (KEY, "home", "other")],
)
def test_a_manifest_that_lies_elsewhere_is_refused(key: str, job: str, label: str) -> None:
    with pytest.raises(IntegrityError, match="older or moved"):
        reading(written(), key=key, job=job, label=label)


def test_a_manifest_of_a_later_format_is_refused_with_a_hint() -> None:
    with pytest.raises(IntegrityError, match="newer version") as caught:
        reading(SMALL.replace(b"#s3bu 1", b"#s3bu 2"))
    assert caught.value.hint is not None
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "created", [b"2026-05-01T12:30:01", b"2026-05-01T12:30:01+02:00", b"2026-13-01T12:30:01Z", b"20260501T123001Z"]
)
def test_a_header_whose_time_is_not_utc_is_refused(created: bytes) -> None:
    with pytest.raises(IntegrityError, match="line 1 "):
        reading(SMALL.replace(b"2026-05-01T12:30:01Z", created))


@pytest.mark.parametrize("change", [b"lap,top", b"laptop x,y=z", b"laptop " + b"x=" + b"y" * 65_536, b"laptop host=x"])
def test_a_header_with_commas_twice_a_field_or_without_bound_is_refused(change: bytes) -> None:
    with pytest.raises(IntegrityError):
        reading(SMALL.replace(b"laptop", change))


# Round trip


@given(st.lists(entries | st.builds(FailedPath, st.binary(max_size=50), st.text(max_size=50), st.text(max_size=30))))
def test_what_was_written_is_read_with_file_times_in_whole_seconds(some: list[Entry | FailedPath]) -> None:
    lines = [format_entry(item) if isinstance(item, Entry) else format_failed(item) for item in some]
    reader = reading(written(*lines))
    assert list(reader) == [
        item._replace(mtime_ns=item.mtime_ns // SECOND * SECOND)
        if isinstance(item, Entry) and item.kind == FILE
        else item
        for item in some
    ]
    assert (reader.warnings, reader.is_truncated) == ([], False)


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_the_size_of_reads_changes_nothing(size: int) -> None:
    source = io.BytesIO(SMALL)

    class Slow:
        def read(self, _size: int, /) -> bytes:
            return source.read(size)

    assert list(read_manifest(Slow(), key=KEY, job="home", label="docs")) == read(SMALL)


def test_a_manifest_of_many_blocks_is_read_whole() -> None:
    some = [a_file(b"dir/%07d" % number) for number in range(20_000)]
    assert read(written(*map(format_entry, some))) == some


# Damage


@pytest.mark.parametrize("replacement", [None, *b"\n ,#@0f=%\x00\xff"])
def test_every_changed_byte_is_found(replacement: int | None) -> None:
    for place, byte in enumerate(SMALL):
        changed = byte ^ 1 if replacement is None else replacement
        if changed != byte:
            with pytest.raises(IntegrityError):
                read(SMALL[:place] + bytes([changed]) + SMALL[place + 1 :])


def test_every_cut_is_found() -> None:
    for length in range(1, len(SMALL)):
        with pytest.raises(IntegrityError):
            read(SMALL[:length])


def test_every_removed_doubled_or_swapped_line_is_found() -> None:
    lines = SMALL.splitlines(keepends=True)
    for number in range(len(lines)):
        before, line, after = lines[:number], lines[number], lines[number + 1 :]
        for changed in ([*before, *after], [*before, line, line, *after], [*before, *after[:1], line, *after[1:]]):
            if changed != lines:
                with pytest.raises(IntegrityError):
                    read(b"".join(changed))


@pytest.mark.parametrize("more", [b"\n", b"@dir path=x mtime=0.000000000 mode=0755\n", b"x", SMALL])
def test_whatever_comes_after_the_end_is_refused(more: bytes) -> None:
    with pytest.raises(IntegrityError):
        read(SMALL + more)


def test_a_count_that_is_wrong_under_a_right_hash_is_refused() -> None:
    with pytest.raises(IntegrityError):
        read(SMALL.replace(b"#end entries=3", b"#end entries=4"))


@given(st.binary(max_size=400) | st.lists(st.sampled_from([*SMALL.split(b"\n"), b"", b"@", b"#"])).map(b"\n".join))
def test_garbage_is_refused_or_read_but_nothing_else(content: bytes) -> None:
    try:
        found = read(content)
    except IntegrityError:
        return
    assert all(item.hash == "" or len(item.hash) == 64 for item in found if isinstance(item, Entry))


@given(st.text("0123456789abcdefABCDEF,-+ _\n.%@", max_size=200).map(str.encode))
def test_lines_much_like_entries_never_yield_another_kind_of_hash(content: bytes) -> None:
    try:
        found = read(b"5,1,0644," + HASH.encode()[:62] + content)
    except IntegrityError:
        return
    lower_hex = set("0123456789abcdef")
    for item in found:
        assert isinstance(item, Entry)
        assert item.hash == "" or (len(item.hash) == 64 and set(item.hash) <= lower_hex)


@pytest.mark.parametrize(
    "line",
    [
        b"-5,1,0644,%s,a",
        b"+5,1,0644,%s,a",
        b" 5,1,0644,%s,a",
        b"1_000,1,0644,%s,a",
        b"\xd9\xa5,1,0644,%s,a",
        b",1,0644,%s,a",
        b"5,,0644,%s,a",
        b"5,--1,0644,%s,a",
        b"5,1.5,0644,%s,a",
        b"5,1,,%s,a",
        b"5,1,644,%s,a",
        b"5,1,0648,%s,a",
        b"5,1,010000,%s,a",
        b"5,1,0o644,%s,a",
        b"9223372036854775808,1,0644,%s,a",
        b"5,9223372036854775808,0644,%s,a",
        b"5,-9223372036854775808,0644,%s,a",
        b"99999999999999999999999,1,0644,%s,a",
        b"5,1,0644,%s,",
        b"5,1,0644,0%s,a",
        b"5,1,0644,%s ,a",
        b"5,1,0644,%s",
        b"5,1,0644,%s,a,b",
        b"5,1,0644,a,a",
        b"",
        b"#",
        b"#end entries=0 sha256=0",
        b"#s3bu 1 key=x",
        b"@dir path=x mtime=1.000000000 mode=0755 mode=0755",
        b"@dir path=x mtime=1.000000000 mode=010000",
        b"@dir path=x mtime=1.0 mode=0755",
        b"@dir path=x mtime=1 mode=0755",
        b"@dir path=x mtime=9223372036854775808.000000000 mode=0755",
        b"@dir path=x mode=0755",
        b"@dir path= mtime=1.000000000 mode=0755",
        b"@dir mtime=1.000000000 mode=0755",
        b"@dir path=x mtime=1.000000000 mode=0755 uid=1",
        b"@dir path=x mtime=1.000000000 mode=0755 uid=-1 gid=1",
        b"@dir path=x mtime=1.000000000 mode=0755 uid=9223372036854775808 gid=1",
        b"@dir path=x  mtime=1.000000000 mode=0755",
        b"@dir path=x,y mtime=1.000000000 mode=0755",
        b"@dir",
        b"@symlink path=x mtime=1.000000000",
        b"@meta mtime=1.000000000",
        b"@meta path=x mtime=soon",
        b"@fail path=x error=y",
        b"@new,1,2,3,4",
    ],
)
def test_a_malformed_line_is_refused_with_its_number(line: bytes) -> None:
    broken = line.replace(b"%s", HASH.encode()) + b"\n"
    with pytest.raises(IntegrityError, match=f"{KEY}.*line 3 is malformed"):
        read(sealed(format_entry(a_file()), broken, format_entry(a_file())))
    with pytest.raises(IntegrityError, match=f"{KEY}.*line 1 is malformed"):
        read(broken + format_entry(a_file()) if not broken.startswith(b"#") else broken + b"x")


@pytest.mark.parametrize("wrong_hash", [HASH.upper(), HASH[:63], HASH + "0", "g" * 64, " " * 64])
def test_a_hash_that_is_not_64_lower_case_hex_digits_is_refused(wrong_hash: str) -> None:
    with pytest.raises(IntegrityError, match="line 1 is malformed"):
        read(b"5,1,0644," + wrong_hash.encode() + b",a\n")


# What is accepted


@pytest.mark.parametrize(
    "path",
    [b"/etc/passwd", b"../up", b"a//b", b"./a", b"a/", b"a\0b", b"-rf", b"\x1b[2J", b"\xff\xfe", b"new\nline", b" "],
)
def test_odd_paths_are_listed_as_they_are(path: bytes) -> None:
    assert read(b"5,1700000000,0644," + HASH.encode() + b"," + escape(path) + b"\n") == [a_file(path)]


def test_an_entry_without_hash_is_listed() -> None:
    assert read(b"11,0,00,,denied%2Funreadable\n") == [Entry(b"denied/unreadable", FILE, 11, 0, 0)]


def test_a_time_of_zero_is_read_as_zero_with_and_without_its_line() -> None:
    entry = a_file(seconds=0)
    carried = format_entry(entry, is_carried_forward=True)
    assert read(written(format_entry(entry), carried)) == [entry, entry]


def test_special_bits_of_a_file_are_dropped() -> None:
    assert read(b"5,1700000000,06755," + HASH.encode() + b",a\n") == [a_file()._replace(mode=0o755)]


def test_the_largest_numbers_are_read_exactly() -> None:
    most = 2**63 - 1
    line = b"%d,-%d,0644,%s,a\n" % (most, most, HASH.encode())
    assert read(line) == [Entry(b"a", FILE, most, -most * SECOND, 0o644, HASH)]


def test_fields_may_stand_in_any_order() -> None:
    line = b"@symlink gid=2 target=t mtime=-1.999999999 uid=1 path=x\n"
    assert read(sealed(line)) == [Entry(b"x", SYMLINK, 0, -1, 0, target=b"t", owner=Owner(1, 2, "", ""))]


def test_unknown_kinds_and_fields_are_skipped_with_one_warning() -> None:
    reader = reading(
        sealed(
            format_entry(a_file()),
            b"@hardlink path=p to=a\n",
            b"@meta path=a xattr.user.x=AA%3D%3D\n",
            b"@dir path=d mtime=1.000000000 mode=0755 colour=red\n",
            b"@\x1b[2J\n",
        )
    )
    assert list(reader) == [a_file(), Entry(b"d", DIRECTORY, 0, SECOND, 0o755)]
    assert reader.warnings == [f"{KEY}: skipped what this version of s3bu does not know: @hardlink, line 3"]


def test_a_warning_shows_an_unknown_name_escaped_and_short() -> None:
    reader = reading(sealed(b"@\x1b[2J" + b"x" * 10_000 + b"\n"))
    list(reader)
    assert "@%1B%5B2Jxxx" in reader.warnings[0]
    assert len(reader.warnings[0]) < 250


def test_an_empty_manifest_of_the_original_has_no_entries() -> None:
    reader = reading(b"")
    assert (reader.header, list(reader), reader.warnings) == (None, [], [])


def test_a_manifest_of_the_original_lies_where_it_lies() -> None:
    reader = reading(format_entry(a_file()), key="any", job="any", label="any")
    assert (reader.header, list(reader)) == (None, [a_file()])


def test_every_cut_of_an_entry_at_the_end_of_an_original_is_dropped_with_a_warning() -> None:
    first, last = format_entry(a_file()), format_entry(a_file(b"dir/some name", seconds=-5))
    for length in range(1, len(last)):
        reader = reading(first + last[:length])
        assert (list(reader), reader.is_truncated) == ([a_file()], True)
        assert reader.warnings == [f"{KEY}: dropped the last line, 2, which is cut"]


def test_a_cut_entry_with_an_end_of_line_is_dropped_too() -> None:
    reader = reading(format_entry(a_file()) + b"5,1700\n")
    assert (list(reader), reader.is_truncated) == ([a_file()], True)


@pytest.mark.parametrize("last", [b"hello", b"hello\n", b"5;6", b"@di", b"#end", b"5,1,0644,AB", b"-5,1"])
def test_a_last_line_that_is_no_cut_entry_is_refused(last: bytes) -> None:
    with pytest.raises(IntegrityError, match="line 2 is malformed"):
        read(format_entry(a_file()) + last)


def test_a_reader_gives_its_items_once() -> None:
    reader = reading(SMALL)
    assert (len(list(reader)), len(list(reader))) == (6, 0)


# Bounds


class Endless:
    """A source that repeats one line, or what is no line, for ever, and counts what was asked of it."""

    def __init__(self, start: bytes, repeated: bytes) -> None:
        self.start, self.repeated, self.nbytes = start, repeated, 0

    def read(self, size: int, /) -> bytes:
        chunk, self.start = self.start or self.repeated * (size // len(self.repeated)), b""
        self.nbytes += len(chunk)
        return chunk


@pytest.mark.parametrize("start", [b"", b"#s3bu 1 ", b"5,1,0644,", HEADER.format(), HEADER.format() + b"@dir path="])
def test_an_endless_line_is_refused_before_much_of_it_is_read(start: bytes) -> None:
    source = Endless(start, b"a")
    with pytest.raises(IntegrityError):
        list(read_manifest(source, key=KEY, job="home", label="docs"))
    assert source.nbytes < 2**20


@pytest.mark.parametrize("tail", [b"", b"\n", b"\n" + format_entry(a_file())])
def test_a_line_beyond_64_kib_is_refused_wherever_it_stands(tail: bytes) -> None:
    with pytest.raises(IntegrityError, match="64 KiB"):
        read(format_entry(a_file()) + b"5,1,0644," + HASH.encode() + b"," + b"a" * 65_536 + tail)


def test_memory_does_not_grow_with_the_length_of_a_manifest() -> None:
    def lines() -> Iterator[bytes]:
        yield from (format_entry(a_file(b"dir/%07d" % number)) * 100 for number in range(1_000))

    class Source:
        def __init__(self) -> None:
            self.lines = lines()

        def read(self, _size: int, /) -> bytes:
            return next(self.lines, b"")

    tracemalloc.start()
    try:
        count = sum(1 for _ in read_manifest(Source(), key=KEY, job="home", label="docs"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 3 * 2**20


def test_a_writer_does_not_keep_what_it_was_given() -> None:
    class Sink:
        def write(self, content: bytes, /) -> None:
            pass

    writer = ManifestWriter(Sink(), HEADER)
    line = format_entry(a_file(b"a" * 10_000))
    tracemalloc.start()
    try:
        for _ in range(2_000):
            writer.write(line[:5_000] + line[5_000:])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 2**20


# Loading


@given(st.lists(files))
def test_loaded_entries_are_sorted_and_the_last_of_equal_paths_counts(some: list[Entry]) -> None:
    expected = {entry.path: entry for entry in some}
    assert load_entries(some) == sorted(expected.values(), key=lambda entry: entry.path.split(b"/"))


def test_failures_are_no_entries() -> None:
    assert [entry.path for entry in load_entries(reading(SMALL))] == [
        b"dir",
        b"dir/with, comma",
        b"epoch",
        b"link",
        b"z",
    ]


def test_a_later_directory_takes_the_place_of_a_file_of_its_path() -> None:
    directory = Entry(b"a", DIRECTORY, 0, 0, 0o755)
    assert load_entries([a_file(b"b"), a_file(b"a", content_hash=OTHER_HASH), directory]) == [directory, a_file(b"b")]


@pytest.mark.parametrize("what", [b"fifo", b"char 1:3", b"block 8:16"])
def test_a_special_file_comes_back_as_it_was(what: bytes) -> None:
    entry = Entry(b"dev/x y", SPECIAL, 0, -1_500_000_000, 0o4620, "", what, Owner(0, 6, "root", "disk"))
    assert list(reading(sealed(format_entry(entry)))) == [entry]


@pytest.mark.parametrize("line", [b"kind=socket mode=0600", b"kind=char mode=0600", b"kind=char device=1 mode=0600"])
def test_a_special_file_of_no_known_kind_is_refused(line: bytes) -> None:
    with pytest.raises(IntegrityError, match="line 2"):
        list(reading(sealed(b"@special path=p " + line + b"\n")))
