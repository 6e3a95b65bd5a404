"""What the user may write for a repository, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3bu.errors import UsageError
from s3bu.storage.directory import DirectoryStorage
from s3bu.storage.place import Place, S3Options, open_storage, parse_place

BUCKETS = [
    ("my-bucket", "my-bucket", ""),
    ("s3://my-bucket", "my-bucket", ""),
    ("s3://my-bucket/", "my-bucket", ""),
    ("S3://my.bucket/prefix", "my.bucket", "prefix"),
    ("s3://my_Bucket/a/b c/", "my_Bucket", "a/b c"),
    ("s3://my-bucket//a", "my-bucket", "a"),
]


@pytest.mark.parametrize(("text", "bucket", "prefix"), BUCKETS)
def test_buckets_are_parsed(text: str, bucket: str, prefix: str) -> None:
    assert parse_place(text) == Place("bucket", bucket=bucket, prefix=prefix)


DIRECTORIES = [
    ("/srv/backup", "/srv/backup"),
    ("/srv//backup/", "/srv/backup"),
    ("./here", "{cwd}/here"),
    ("../there", "{parent}/there"),
    (".", "{cwd}"),
    ("~/backup", "{home}/backup"),
    ("~", "{home}"),
    ("file:///srv/with%20space", "/srv/with space"),
    ("file:///srv/plus+plus", "/srv/plus+plus"),
    ("file://localhost/srv", "/srv"),
]


@pytest.mark.parametrize(("text", "path"), DIRECTORIES)
def test_directories_are_parsed(text: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = path.format(cwd=tmp_path, parent=tmp_path.parent, home=tmp_path / "home")
    assert parse_place(text) == Place("directory", path=expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "-bucket",
        "my bucket",
        "my-bucket/prefix",
        "s3://",
        "s3:///prefix",
        "s3://my-bucket/a//b",
        "s3://my-bucket/../x",
        "s3://my-bucket/a\nb",
        "s3://my-bucket/\udcff",
        "arn:aws:s3:::my-bucket",
        "http://my-bucket",
        "gs://my-bucket",
        "file://host/path",
        "file://",
        "~no-such-user-at-all/x",
        "/nul\0",
        "~\0",
        "file:///nul%00",
    ],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


def test_a_prefix_without_a_scheme_is_refused_with_both_ways_to_write_it() -> None:
    with pytest.raises(UsageError) as raised:
        parse_place("backup/laptop")
    assert raised.value.hint is not None
    assert "`s3://backup/laptop`" in raised.value.hint
    assert "`./backup/laptop`" in raised.value.hint


@given(st.text())
def test_any_text_is_a_place_or_a_usage_error(text: str) -> None:
    try:
        place = parse_place(text)
    except UsageError:
        return
    assert not place.prefix.startswith("/")
    assert not place.prefix.endswith("/")
    assert place.path.startswith("/") == (place.kind == "directory")


def test_a_directory_is_opened_as_one(tmp_path: Path) -> None:
    storage = open_storage(parse_place(str(tmp_path)), S3Options())
    assert isinstance(storage, DirectoryStorage)
    assert storage.url == str(tmp_path)


def test_parsing_loads_no_library_of_amazon() -> None:
    program = "import sys, s3bu.storage.place; sys.exit(any(name in sys.modules for name in ('boto3', 'pycurl')))"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent, check=True)
