"""Buckets that the original program wrote, kept under `interop/`: read by s3bu whole, and backed up into further."""

import contextlib
import functools
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.running import Scene, own_environment, run, succeed, tree, write_file, write_job
from tests.servers import s3_client

BUCKETS = Path(__file__).parent / "interop"
PLACES = ("moto with metadata", "moto without metadata", "directory")
NEWEST_HOME = "manifests/nimbus/home/nimbus-home-2026-11-23-16317.csv.gz"
UNREADABLE = b"denied/unreadable"
# What the buckets' README.md says of each snapshot: the paths that cannot come back, with a word of the reason.
LOST: Mapping[str, Mapping[bytes, str]] = {
    "manifests/nimbus/home/nimbus-home-2026-11-23-16312.csv.gz": {UNREADABLE: "never backed up"},
    NEWEST_HOME: {UNREADABLE: "never backed up"},
    "manifests/nimbus/projects/nimbus-projects-2026-11-23-16313.csv.gz": {},
    "manifests/left/src/left-src-2026-11-23-19043.csv.gz": {
        b"gone": "data/664f/664fd5c4",
        b"poisoned": "not the content",
    },
    "manifests/left/src/x/left-src/x-2026-11-23-19044.csv.gz": {},
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """Both buckets, opened on this machine: the repository's name on the command line by the name of the job."""

    repositories: Mapping[str, str]

    def of(self, key: str) -> str:
        return self.repositories[key.split("/")[1]]


# Where metadata cannot matter to what a test shows, the harder case stands for all.
bare = pytest.mark.parametrize("buckets", ["moto without metadata"], indirect=True)


@pytest.fixture(params=PLACES)
def buckets(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
) -> Buckets:
    monkeypatch.setenv("S3BU_HOME", str(take_keys(tmp_path)))
    place: str = request.param
    names = {"nimbus": "original-bucket", "left": "leftovers-bucket"}
    if place == "directory":
        for name in names.values():
            shutil.copytree(BUCKETS / name / "objects", tmp_path / name)
        return Buckets({job: str(tmp_path / name) for job, name in names.items()})
    url = request.getfixturevalue("moto_url")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    made = {job: make_bucket(url) for job in names}
    for job, name in names.items():
        fill_bucket(make_client(url), made[job], BUCKETS / name, has_metadata="without" not in place)
    return Buckets(made)


def take_keys(directory: Path) -> Path:
    """Copy the buckets' keys, which are the same for both, and return where they lie."""
    keys = directory / "keys"
    keys.mkdir()
    for name in ("secrets.yml", "identities.txt"):
        write_file(keys / name, (BUCKETS / "original-bucket" / name).read_bytes(), mode=0o600)
    return keys


def fill_bucket(client: Any, bucket: str, directory: Path, *, has_metadata: bool) -> None:
    for key, facts in json.loads((directory / "objects.json").read_text()).items():
        body = (directory / "objects" / key).read_bytes()
        metadata = facts["metadata"] if has_metadata else {}
        client.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata)


@functools.cache
def expected(key: str) -> dict[bytes, tuple[str, int, int]]:
    """Return what a snapshot must give back: hash, mode and mtime by path."""
    name = "original-bucket" if "/nimbus/" in key else "leftovers-bucket"
    rows = json.loads((BUCKETS / name / "expected.json").read_text())[key]
    return {
        unquote_to_bytes(row["path"]): (row["sha256"], int(row["mode"], 8), row["mtime"])
        for row in rows
        if row["sha256"] and row.get("restores", True)
    }


def files(root: Path) -> dict[bytes, tuple[str | bytes, int, int]]:
    found = tree(root).items()
    assert {node.kind for _, node in found} <= {stat.S_IFREG, stat.S_IFDIR}
    return {path: (node.content, node.mode, node.mtime) for path, node in found if node.kind == stat.S_IFREG}


@pytest.mark.parametrize("key", LOST)
def test_a_snapshot_of_the_original_comes_back_as_it_was(buckets: Buckets, key: str, tmp_path: Path) -> None:
    result = run("restore", buckets.of(key), key, tmp_path / "out")
    assert files(tmp_path / "out") == expected(key)
    assert result.failed == {os.fsdecode(path) for path in LOST[key]}
    assert all(LOST[key][os.fsencode(path)] in why for path, why in result.failures.items()), result
    assert result.code == (3 if LOST[key] else 0)


@bare
def test_a_check_says_what_cannot_come_back(buckets: Buckets) -> None:
    key = "manifests/left/src/left-src-2026-11-23-19043.csv.gz"
    result = run("restore", buckets.of(key), key, "/nowhere", "-c")
    # That another content lies under a key shows only when it is read.
    assert result.failures == {"gone": "its content is not in the repository"}
    assert "8 files" in result.out
    assert "1 path cannot come back" in result.out
    assert result.code == 3
    assert not Path("/nowhere").exists()


@bare
def test_a_label_does_not_take_the_snapshots_of_one_below_it(buckets: Buckets, tmp_path: Path) -> None:
    run("restore", buckets.repositories["left"], "left/src", tmp_path / "src")
    run("restore", buckets.repositories["left"], "left/src/x", tmp_path / "src-x")
    assert files(tmp_path / "src").keys() == expected("manifests/left/src/left-src-2026-11-23-19043.csv.gz").keys()
    assert files(tmp_path / "src-x").keys() == {b"fine", b"only-here"}


@bare
def test_the_newest_job_is_the_one_of_the_highest_number(buckets: Buckets) -> None:
    assert succeed("job", "list", buckets.repositories["left"]).out.splitlines()[1].split() == ["left", "1000", "3"]
    shown = succeed("job", "show", buckets.repositories["left"], "left").out
    assert shown == (BUCKETS / "leftovers-bucket/objects/jobs/left/left-1000.yml").read_text()


@bare
def test_a_job_is_shown_whether_it_is_encrypted_or_not(buckets: Buckets) -> None:
    plain = succeed("job", "show", buckets.repositories["nimbus"], "nimbus", "--version", "0").out
    assert plain == (BUCKETS / "original-bucket/objects/jobs/nimbus/nimbus-000.yml").read_text()
    newest = succeed("job", "show", buckets.repositories["nimbus"], "nimbus").out
    assert "path: /srv/nimbus/home" in newest


@bare
def test_a_job_is_downloaded_in_plain(buckets: Buckets, tmp_path: Path) -> None:
    key = "jobs/nimbus/nimbus-001.yml"
    succeed("download", buckets.of(key), key, tmp_path / "out")
    assert "label: home" in (tmp_path / "out" / "nimbus-001.yml").read_text()


@bare
def test_a_manifest_is_downloaded_in_plain_with_the_rows_that_the_original_wrote(
    buckets: Buckets, tmp_path: Path
) -> None:
    succeed("download", buckets.of(NEWEST_HOME), NEWEST_HOME, tmp_path / "out")
    rows = json.loads((BUCKETS / "original-bucket/expected.json").read_text())[NEWEST_HOME]
    wanted = [f"{r['size']},{r['mtime']},{r['mode']},{r['sha256'] or ''},{r['path']}" for r in rows]
    assert (tmp_path / "out" / "nimbus-home-2026-11-23-16317.csv").read_text().splitlines() == wanted


def test_a_content_is_downloaded_in_plain_packed_or_not(buckets: Buckets, tmp_path: Path) -> None:
    packed = "adc6f465948ee5a06461038e24f704b4bc7e5feabf10ff530a3578d5f7718585"
    stored = "97d20438561116864c909da482ffd059896d8597b359f33801a58c7be0c1dbd8"
    for content in (packed, stored):
        key = f"data/{content[:4]}/{content}"
        succeed("download", buckets.repositories["nimbus"], key, tmp_path / "out")
        assert files(tmp_path / "out")[content.encode()][0] == content


@bare
def test_a_snapshot_is_listed_with_what_is_not_in_it(buckets: Buckets) -> None:
    result = run("ls", buckets.of(NEWEST_HOME), "nimbus/home")
    assert result.code == 0
    assert len(result.out.splitlines()) == 39
    (missing,) = (line for line in result.out.splitlines() if "(not backed up)" in line)
    assert missing.split()[-4] == UNREADABLE.decode()
    assert "1 file could not be read" in result.err


@dataclass(frozen=True, slots=True)
class Continued:
    """The newest snapshot of `home` laid out again, and backed up with s3bu into the bucket that it came from."""

    out: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    original_lines: list[str]
    lines: list[str]

    def new_contents(self) -> set[str]:
        return {key for key in self.after.keys() - self.before.keys() if key.startswith("data/")}


@pytest.fixture(scope="module", params=["moto", "directory"])
def continued(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    directory = tmp_path_factory.mktemp("continued")
    keys = take_keys(directory)
    if request.param == "directory":
        shutil.copytree(BUCKETS / "original-bucket" / "objects", directory / "bucket")
        with own_environment(keys):
            return back_up_again(directory, str(directory / "bucket"))
    url = request.getfixturevalue("moto_url")
    with contextlib.closing(s3_client(url)) as client:
        client.create_bucket(Bucket="continued")
        fill_bucket(client, "continued", BUCKETS / "original-bucket", has_metadata=True)
    with own_environment(keys, url):
        return back_up_again(directory, "continued")


def back_up_again(directory: Path, repository: str) -> Continued:
    source = directory / "home"
    assert run("restore", repository, "nimbus/home", source).code == 3
    write_file(source / os.fsdecode(UNREADABLE), "readable now")
    for passed_over in ("Downloads/x", "text/.DS_Store", "text/a.tfstate", "text/pyenv/x", "work/.git", "work/x"):
        write_file(source / passed_over, "the rules leave it out")
    job = write_job(directory / "nimbus.yml", {"home": "home"}, rules_of_the_job())
    before = objects(repository)
    result = succeed("backup", repository, job)
    after = objects(repository)
    (newest,) = [key for key in after.keys() - before.keys() if key.startswith("manifests/nimbus/home/")]
    return Continued(
        result.out, before, after, lines_of(repository, NEWEST_HOME, directory), lines_of(repository, newest, directory)
    )


def rules_of_the_job() -> str:
    text = (BUCKETS / "original-bucket/objects/jobs/nimbus/nimbus-000.yml").read_text()
    return text[text.index("exclude_extensions:") :]


def objects(repository: str) -> dict[str, object]:
    """Return the objects of a repository with what would change were they written again."""
    if repository.startswith("/"):
        found = (path for path in Path(repository).rglob("*") if path.is_file())
        return {str(path.relative_to(repository)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}
    with contextlib.closing(s3_client(os.environ["AWS_ENDPOINT_URL_S3"])) as client:
        listed = client.list_objects_v2(Bucket=repository)["Contents"]
    return {one["Key"]: (one["ETag"], one["LastModified"]) for one in listed}


def lines_of(repository: str, key: str, directory: Path) -> list[str]:
    succeed("download", repository, key, directory / "manifests")
    return (directory / "manifests" / Path(key).stem).read_text().split("\n")


def entry_lines(lines: list[str]) -> list[str]:
    """Return the lines that the original reads, without that of the one file that it could not read."""
    return [line for line in lines if line.count(",") == 4 and not line.endswith("denied%2Funreadable")]


def test_nothing_that_is_stored_is_sent_again(continued: Continued) -> None:
    assert continued.before.items() <= continued.after.items()
    (added,) = continued.new_contents()
    assert added.endswith(hashlib.sha256(b"readable now").hexdigest())


def test_the_new_manifest_has_the_lines_of_the_original_in_its_order(continued: Continued) -> None:
    assert len(entry_lines(continued.original_lines)) == 38
    assert entry_lines(continued.lines) == entry_lines(continued.original_lines)


def test_the_file_that_the_original_could_not_read_is_backed_up_now(continued: Continued) -> None:
    content = hashlib.sha256(b"readable now").hexdigest()
    assert f"12,1600000000,0644,{content},denied%2Funreadable" in continued.lines


def test_only_what_changed_counts_as_changed(continued: Continued) -> None:
    assert ", 1 changed, 0 removed, 38 unmodified" in continued.out


def test_the_age_program_opens_what_was_backed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    text = "as it was\n" * 1000
    write_file(scene.source / "plain", b"\0\1 as it is")
    succeed("backup", scene.repository, scene.job)
    write_file(scene.source / "packed", text)
    succeed("backup", scene.repository, scene.job, "-c")
    decrypt = ["age", "-d", "-i", str(scene.identities)]
    plain = subprocess.run([*decrypt, scene.object_of(b"\0\1 as it is")], check=True, capture_output=True).stdout
    packed = subprocess.run([*decrypt, scene.object_of(text)], check=True, capture_output=True).stdout
    assert (plain, gzip.decompress(packed)) == (b"\0\1 as it is", text.encode())
