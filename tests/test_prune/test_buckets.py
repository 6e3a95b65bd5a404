"""Prune in buckets and directories by the command line: versions, permissions, what is said."""

import json
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.running import Result, Scene, backed_up, check_refusal, run, succeed, write_file, write_job

DAY = 86_400


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = backed_up(tmp_path_factory.mktemp("first") / "scene")
    scene.put_content(b"orphan")
    age(scene.repository / "data", 30)
    return scene


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def age(directory: Path, days: float) -> None:
    """Let all files below a directory be so many days older."""
    for path in directory.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY
            os.utime(path, (then, then))


def told(result: Result) -> dict[str, Any]:
    return next(one for one in map(json.loads, result.out.splitlines()) if one["message_type"] == "summary")


def prune(place: str | Path, *options: str) -> dict[str, Any]:
    return told(succeed("prune", place, *options, "--json"))


# --- in a directory


def test_in_a_directory_contents_go_after_three_days_and_a_backup_goes_on(scene: Scene) -> None:
    assert prune(scene.repository, "-n")["marked"] == 1
    assert prune(scene.repository)["marked"] == 1
    age(scene.repository / "repo" / "marks", 3.1)
    size = scene.object_of("orphan").stat().st_size
    dry, done = prune(scene.repository, "-n"), prune(scene.repository)
    assert {name: done[name] for name in dry if name not in ("dry_run", "requests")} == {
        name: dry[name] for name in dry if name not in ("dry_run", "requests")
    }
    assert (done["deleted"], done["bytes_deleted"], done["needed"]) == (1, size, 3)
    assert not scene.object_of("orphan").exists()
    write_file(scene.source / "again", "orphan")
    succeed("backup", scene.repository, scene.job)
    succeed("restore", scene.repository, "home/src", scene.target)
    assert (scene.target / "again").read_text() == "orphan"


def test_the_status_is_a_table_or_a_word_that_there_is_nothing(scene: Scene) -> None:
    assert "nothing is marked" in succeed("prune", scene.repository, "--status").err
    succeed("prune", scene.repository)
    out = succeed("prune", scene.repository, "--status").out
    assert out.splitlines()[0].split() == ["marked", "may", "be", "deleted", "from", "contents", "size", "mark"]
    assert "repo/marks/" in out
    check_refusal(run("prune", scene.repository, "--status", "-n"), 2, "two questions")


def test_an_object_that_nobody_knows_is_told_and_nothing_is_deleted(scene: Scene) -> None:
    (scene.repository / "manifests" / "stray").write_text("x")
    check_refusal(run("prune", scene.repository), 1, "manifests/stray: no manifest", "nothing was deleted")


# --- in a bucket


@pytest.fixture
def client(moto_url: str, make_client: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    return make_client(moto_url)


def back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was put just now be old enough to be marked and deleted: a server's clock cannot be set."""
    monkeypatch.setattr("s3bu.prune.YOUNG", timedelta(0))
    monkeypatch.setattr("s3bu.prune.WAIT", timedelta(0))


def test_in_a_bucket_with_versions_all_that_is_deleted_is_free(
    scene: Scene, client: Any, moto_url: str, make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = make_bucket(moto_url)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    source = write_file(scene.root / "other" / "stays", "stays").parent
    job = write_job(scene.root / "home.yml", {"src": source})
    succeed("init", bucket)
    succeed("backup", bucket, job)
    orphan = "data/ab12/ab12" + "0" * 60
    for body in (b"x" * 300, b"y" * 400):
        client.put_object(Bucket=bucket, Key=orphan, Body=body)
    (named,) = (
        one["Key"] for one in client.list_objects_v2(Bucket=bucket, Prefix="data/")["Contents"] if one["Key"] != orphan
    )
    client.put_object(Bucket=bucket, Key=named, Body=client.get_object(Bucket=bucket, Key=named)["Body"].read())
    back_in_time(monkeypatch)
    _wait_a_second()  # what has the very time of its mark stays
    marked = prune(bucket)
    assert (marked["marked"], marked["deleted"]) == (1, 0)
    assert marked["older"] == 2
    _wait_a_second()
    swept = prune(bucket)
    assert (swept["deleted"], swept["bytes_deleted"]) == (2, 700)
    assert swept["older"] == 1
    versions = client.list_object_versions(Bucket=bucket, Prefix="data/")
    assert {one["Key"] for one in versions["Versions"]} == {named}
    assert "DeleteMarkers" not in versions
    succeed("restore", bucket, "home/src", scene.target)


def _wait_a_second() -> None:
    began = datetime.now().second
    while datetime.now().second == began:
        time.sleep(0.05)
