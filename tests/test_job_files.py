"""Names of jobs, and the local files that hold them."""

import os
import socket
from pathlib import Path

import pytest

from s3bu.errors import JobError, UsageError
from s3bu.job import check_job_name, is_job_file, load_job_file


@pytest.mark.parametrize("name", ["home", "_", "9", "A.b-c", "x" * 64])
def test_a_good_job_name_passes(name: str) -> None:
    check_job_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".x", "a/b", "a b", "a\n", "\u00e9", "x" * 65])
def test_a_bad_job_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_job_name(name)
    assert "1 to 64" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "is_file"), [("a.yml", True), ("./b/c.yaml", True), ("home", False), ("yml", False), ("a.YML", False)]
)
def test_a_job_file_is_told_by_its_ending(text: str, is_file: bool) -> None:
    assert is_job_file(text) == is_file


def test_a_job_file_yields_its_stem_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "my.home.yml"
    path.write_bytes(b"sources: []\r\n")
    assert load_job_file(path) == ("my.home", b"sources: []\r\n")


def test_a_missing_job_file_is_a_usage_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: .*home\.yml") as caught:
        load_job_file(tmp_path / "home.yml")
    assert "without the ending" in (caught.value.hint or "")


def test_a_directory_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        load_job_file(tmp_path)


def test_a_fifo_is_no_job_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yml")
    with pytest.raises(UsageError, match="not a regular file"):
        load_job_file(tmp_path / "a.yml")


def test_a_socket_is_no_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.yml")
        with pytest.raises(UsageError, match=r"cannot read a\.yml: "):
            load_job_file(Path("a.yml"))


def test_a_path_through_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        load_job_file(tmp_path / "file" / "a.yml")


def test_an_endless_job_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(JobError, match="too large for a job"):
        load_job_file(path)
