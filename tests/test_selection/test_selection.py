"""What stands below `s3bu:` in a job: what it leaves out of a walk, and by which rule it says so."""

import io
import os
import time
from pathlib import Path

import pytest

from s3bu.errors import JobError
from s3bu.filters import Filters
from s3bu.mounts import pseudo_file_system
from s3bu.scan import Scan
from s3bu.selection import Selection, Skipped
from s3bu.selection.presets import PRESETS
from tests.fakes import write

TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def walk(
    root: Path, selection: Selection, filters: Filters | None = None
) -> tuple[set[str], dict[str, str], list[str]]:
    """Return what a walk yields, what it leaves out with the rule, and what was odd."""
    skipped: list[Skipped] = []
    chosen = filters or Filters(selection=selection)
    scan = Scan(os.fsencode(root), chosen, tell=skipped.append)
    kept = {os.fsdecode(item.path) for item in scan}
    return kept, {os.fsdecode(one.path): str(one.rule) for one in skipped}, scan.left.odd


def plant(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, b"content")
    return root


def test_a_pattern_leaves_out_files_and_directories_with_all_below(root: Path) -> None:
    plant(root, "a.o", "a.c", "build/x", "deep/build/y", "deep/b.o")
    kept, skipped, _ = walk(root, Selection(exclude=(b"*.o", b"build/")))
    assert kept == {"a.c", "deep"}
    assert skipped == {
        "a.o": "exclude: *.o",
        "build": "exclude: build/",
        "deep/build": "exclude: build/",
        "deep/b.o": "exclude: *.o",
    }


def test_what_lies_below_an_excluded_directory_cannot_be_taken_back(root: Path) -> None:
    plant(root, "build/keep", "logs/keep", "logs/a")
    kept, _, _ = walk(root, Selection(exclude=(b"build/", b"!build/keep", b"logs/*", b"!logs/keep")))
    assert kept == {"logs", "logs/keep"}


def test_an_excluded_directory_is_not_even_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, "closed/a", "open/a")
    real_open, opened = os.open, []

    def open_noted(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append(path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_noted)
    walk(root, Selection(exclude=(b"closed",)))
    assert b"open" in opened
    assert b"closed" not in opened


def test_an_ignore_file_holds_below_its_directory_and_outranks_the_job(root: Path) -> None:
    write(root / "a" / ".s3buignore", b"!*.o\n# a comment\n/x\n")
    plant(root, "a/a.o", "a/x", "a/deep/x", "b.o")
    kept, skipped, _ = walk(root, Selection(exclude=(b"*.o",), ignore_files=(b".s3buignore",)))
    assert kept == {"a", "a/.s3buignore", "a/a.o", "a/deep", "a/deep/x"}
    assert skipped == {"b.o": "exclude: *.o", "a/x": "ignore_files: /x (a/.s3buignore:3)"}


def test_a_later_name_of_ignore_files_outranks_an_earlier_one(root: Path) -> None:
    write(root / ".gitignore", b"*.o\n*.log\n")
    write(root / ".s3buignore", b"!*.o\n")
    plant(root, "a.o", "a.log")
    kept, _, _ = walk(root, Selection(ignore_files=(b".gitignore", b".s3buignore")))
    assert kept == {".gitignore", ".s3buignore", "a.o"}


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "long", "long line", "costly"])
def test_an_ignore_file_that_cannot_be_used_excludes_nothing_and_is_told(root: Path, kind: str) -> None:
    plant(root, "a")
    file = root / ".s3buignore"
    match kind:
        case "link":
            write(root / "other", b"a\n")
            file.symlink_to("other")
        case "fifo":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "long":
            write(file, b"a\n" * 6_000)
        case "long line":
            write(file, b"a" + b"*" * 1_000 + b"\n")
        case "costly":
            write(file, b"a\n" + b"[!a]*\n" * 4_500)
    kept, skipped, odd = walk(root, Selection(ignore_files=(b".s3buignore",)))
    assert "a" in kept
    assert skipped == {}
    assert [".s3buignore" in line and "excludes nothing" in line for line in odd] == [True]


@pytest.mark.parametrize(
    "text", [b"**/*a*a*a*/**/*a*a*a*/b", b"*a*a*a*a*a*a*a*a*b", b"**/*/**/*/**/*/**/*/**/b", b"[!a]" * 240 + b"\n"]
)
def test_no_pattern_takes_long(root: Path, text: bytes) -> None:
    write(root / ".s3buignore", b"\n".join([text.strip() + b"%d" % number for number in range(20)]))
    plant(root, "/".join(["a" * 30] * 10), "/".join("a" * 200) + "/c", "a" * 255)
    began = time.process_time()
    kept, _, odd = walk(root, Selection(ignore_files=(b".s3buignore",)))
    assert time.process_time() - began < 5
    assert len(kept) == 213
    assert odd == []


def test_a_cache_is_known_by_its_signature_alone(root: Path) -> None:
    write(root / "cache" / "CACHEDIR.TAG", TAG)
    write(root / "other" / "CACHEDIR.TAG", b"just a name\n")
    kept, skipped, _ = walk(root, Selection(has_cachedir_tag=True))
    assert kept == {"other", "other/CACHEDIR.TAG"}
    assert skipped == {"cache": "cachedir_tag: CACHEDIR.TAG"}


def test_a_source_that_is_a_cache_is_an_error_and_no_empty_snapshot(root: Path) -> None:
    write(root / "CACHEDIR.TAG", TAG)
    with pytest.raises(JobError, match="cachedir_tag skips the whole source"):
        walk(root, Selection(has_cachedir_tag=True))


def test_a_file_of_the_largest_size_stays_and_one_byte_more_does_not(root: Path) -> None:
    write(root / "fits", b"1234")
    write(root / "larger", b"12345")
    (root / "link").symlink_to("larger")
    kept, skipped, _ = walk(root, Selection(max_file_size=4))
    assert kept == {"fits", "link"}
    assert skipped == {"larger": "max_file_size: 4"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_out_what_it_lists(root: Path, preset: str) -> None:
    for pattern in PRESETS[preset]:
        name = pattern.replace("*", "x")
        plant(root, f"{name}inside" if name.endswith("/") else f"deep/{name}")
    plant(root, "kept/build/file", "kept/file.txt")
    kept, skipped, _ = walk(root, Selection(presets=(preset,)))
    assert {path for path in kept if "kept" not in path and os.path.isfile(root / path)} == set()
    assert {"kept/build/file", "kept/file.txt"} <= kept
    assert {rule.split(": ", 2)[2] for rule in skipped.values()} == set(PRESETS[preset])


def test_what_a_preset_leaves_out_the_job_can_take_back(root: Path) -> None:
    plant(root, "desktop.ini", "Thumbs.db")
    kept, _, _ = walk(root, Selection(presets=("os-junk",), exclude=(b"!desktop.ini",)))
    assert kept == {"desktop.ini"}


def test_a_pattern_takes_nothing_back_that_the_lists_leave_out(root: Path) -> None:
    plant(root, "a.bak", "b")
    filters = Filters(exclude_extensions=(b".bak",), selection=Selection(exclude=(b"!*.bak",)))
    kept, skipped, _ = walk(root, Selection(), filters)
    assert kept == {"b"}
    assert skipped == {"a.bak": "exclude_extensions: .bak"}


def test_a_pseudo_file_system_is_refused_as_a_source() -> None:
    with pytest.raises(JobError, match=r"/proc: the source is no file system .* \(proc\)"):
        list(Scan(b"/proc", Filters()))


def test_the_kernel_s_file_systems_are_known_by_their_mounts(root: Path) -> None:
    assert pseudo_file_system(os.stat("/proc").st_dev) == "proc"
    assert pseudo_file_system(os.stat(root).st_dev) is None


def test_a_mount_point_that_mounts_when_it_is_opened_is_no_pseudo_file_system(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = os.stat(root).st_dev
    mounts = f"24 1 {os.major(device)}:{os.minor(device)} / /net rw - autofs systemd-1 rw\n".encode()
    monkeypatch.setattr("builtins.open", lambda *_: io.BytesIO(mounts))
    assert pseudo_file_system(device) is None


@pytest.mark.parametrize("is_one", [False, True])
def test_what_is_mounted_by_opening_a_directory_is_judged_by_where_it_lies_then(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_one: bool
) -> None:
    """To open another directory than the one that was looked at is what an automount does."""
    plant(root, "auto/a", "b")
    real_open = os.open

    def open_mounting(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return real_open(b"/proc" if path == b"auto" else path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_mounting)
    kept, skipped, _ = walk(root, Selection(is_one_file_system=is_one))
    assert kept == {"b"}
    assert skipped == {"auto": "one_file_system" if is_one else "pseudo file system: proc"}


def test_pseudo_file_systems_and_on_request_all_others_are_left_out_below_a_source() -> None:
    """`/` has both: it is not walked far, and what it holds is no matter."""
    skipped: dict[bytes, str] = {}
    tops = tuple(os.fsencode(name) for name in os.listdir("/") if name not in {"proc", "sys", "dev"})
    for filters in (
        Filters(exclude_top_dirs=tops),
        Filters(exclude_top_dirs=tops, selection=Selection(is_one_file_system=True)),
    ):
        scan = Scan(b"/", filters, tell=lambda one: skipped.__setitem__(one.path, one.rule.key))
        entered = {item.path.split(b"/")[0] for item in scan}
        assert b"proc" not in entered
        expected = "one_file_system" if filters.selection.is_one_file_system else "pseudo file system"
        assert skipped[b"proc"] == expected
