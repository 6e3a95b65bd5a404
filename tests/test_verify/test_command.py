"""The command: what it says at three in the morning, its exit codes, and what it asks of a real server."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import Scene, backed_up, check_refusal, run, succeed, tree, write_file, write_job
from tests.servers import FaultyServer, error_response, faulty_server, relayed
from tests.test_requests import asked

TEXT = "some text that packs well " * 200


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


def facts(result: Any, message_type: str) -> list[dict[str, Any]]:
    return [one for one in map(json.loads, result.out.splitlines()) if one["message_type"] == message_type]


def test_a_sound_repository_is_said_to_be_so(scene: Scene) -> None:
    result = succeed("verify", scene.repository, "--read-data", "all", "--against-source", "100%", scene.job)
    assert result.out.splitlines()[-1] == "sound"
    assert "1 of 1 snapshot whole" in result.out
    assert "3 files as in the snapshot" in result.out


def test_damage_is_named_with_who_needs_it_and_what_is_still_whole(scene: Scene) -> None:
    whole = scene.manifests()[-1]
    write_file(scene.source / "new", "new\x1b[2J", mtime=1_600_000_001)
    assert scene.backup().code == 0
    scene.object_of("new\x1b[2J").unlink()
    result = run("verify", scene.repository)
    check_refusal(result, 1, "damaged; 1 of 2 snapshots cannot come back whole", "hint: `s3bu verify --repair`")
    assert "home/src: new" in result.out
    (standing,) = [line for line in result.out.splitlines() if line.startswith("home/src ")]
    assert standing.endswith(whole)
    assert result.out.splitlines()[-1] == "DAMAGED"
    told = run("verify", scene.repository, "--json")
    assert [one["newest_whole_snapshot"] for one in facts(told, "standing")] == [whole]
    assert [(one["problem"], one["path"], one["stored"]) for one in facts(told, "fault")] == [("missing", "new", None)]


def test_a_repair_puts_back_what_is_here_and_ends_with_3(scene: Scene) -> None:
    scene.object_of("content of a").write_bytes(b"")
    scene.put_content(b"CONTENT OF B", at=b"content of b")
    result = run("verify", scene.repository, scene.job, "--read-data", "all", "--repair")
    assert (result.code, result.errors) == (3, []), result
    assert "repaired: 2 contents" in result.out
    succeed("verify", scene.repository, "--read-data", "all")
    succeed("restore", scene.repository, "home/src", scene.target)
    assert tree(scene.target) == tree(scene.source)


def test_a_job_of_the_repository_is_found_for_a_repair_and_one_that_is_not_there_is_said(scene: Scene) -> None:
    scene.object_of("content of a").unlink()
    result = run("verify", scene.repository, "--repair")
    check_refusal(result, 1, "damaged", "another one that backs up here may")
    assert "no job 'home'; so nobody knows where its files lie" in result.err
    succeed("job", "upload", scene.repository, "home", write_job(scene.root / "absolute.yml", {"src": scene.source}))
    assert run("verify", scene.repository, "--repair").code == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nothing",), 10, "job 'nothing' has no snapshots"),
        (("home/src",), 10, "write the label as an argument of its own: home src"),
        (("home", "nothing"), 2, "it has src"),
        (("--read-data", "0%"), 2, "--read-data '0%' is no share"),
        (("--read-data", "5"), 2, "--read-data '5' of what?"),
        (("--read-data", ""), 2, "--read-data '' is no share"),
        (("--against-source", ""), 2, "--against-source '' is no share"),
        (("--max-age", ""), 2, "--max-age '' is no age"),
        (("--read-data", "101%"), 2, "write 5%, a size such as 2GB, or all"),
        (("--against-source", "some"), 2, "--against-source 'some' is no share"),
        (("--max-age", "soon"), 2, "--max-age 'soon' is no age\ns3bu: hint: write 90m, 26h or 8d\n"),
    ],
)
def test_what_makes_no_sense_is_refused(scene: Scene, words: tuple[str, ...], code: int, said: str) -> None:
    result = run("verify", scene.repository, *words)
    assert result.code == code, result
    assert said in result.err


def test_a_snapshot_that_is_too_old_is_said(scene: Scene) -> None:
    result = run("verify", scene.repository, "--max-age", "0m")
    assert (result.code, result.out.splitlines()[-1]) == (3, "too old")


def test_what_is_no_repository_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_refusal(run("verify", tmp_path / "empty"), 10, "not a repository")


def test_without_identities_nothing_can_be_read(scene: Scene) -> None:
    scene.identities.unlink()
    succeed("verify", scene.repository)
    check_refusal(run("verify", scene.repository, "--read-data", "all"), 2, "identities.txt: no such file")


# --- a real server


@pytest.fixture
def server(moto_url: str) -> Iterator[FaultyServer]:
    with faulty_server(lambda head, body: relayed(moto_url, head, body)) as server:
        yield server


def test_it_takes_one_listing_and_one_head_for_each_object_that_others_compressed(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, options = f"s3://verify-{uuid.uuid4().hex[:12]}", ("--endpoint-url", server.url)
    source = write_file(tmp_path / "source" / "small", "small").parent
    for number in range(3):
        write_file(source / f"packed {number}", TEXT + str(number))
    job = write_job(tmp_path / "home.yml", {"src": source})
    assert run("backup", "--init", "-c", place, job, *options).code == 0
    assert verified(server, place, *options) == ["LIST data/", "LIST manifests/"]
    keys = Path(tmp_path / "home" / ".s3bu")
    shutil.rmtree(keys / "index")
    others = verified(server, place, *options, code=3)
    assert [one for one in others if one.startswith("HEAD")] == ["HEAD data"] * 3
    assert [one for one in others if one.startswith(("LIST", "GET data"))] == ["LIST data/", "LIST manifests/"]
    assert verified(server, place, *options, code=3) == ["LIST data/", "LIST manifests/"]
    read = verified(server, place, "--read-data", "all", *options)
    assert [one for one in read if "data" in one] == ["GET data"] * 4 + ["LIST data/"]


def verified(server: FaultyServer, place: str, *words: str, code: int = 0) -> list[str]:
    """Verify, and return what was asked for."""
    del server.heads[:]
    result = run("verify", place, *words)
    assert result.code == code, result
    return sorted(map(asked, server.heads))


def test_what_may_not_be_read_fails_and_is_no_damage(moto_url: str, tmp_path: Path) -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        is_read = head.startswith(b"GET") and b"/data/" in head.partition(b"\r\n")[0]
        return error_response("403 Forbidden", "AccessDenied") if is_read else relayed(moto_url, head, body)

    job = write_job(tmp_path / "home.yml", {"src": write_file(tmp_path / "source" / "a", TEXT).parent})
    with faulty_server(answer) as server:
        place, options = f"s3://verify-{uuid.uuid4().hex[:12]}", ("--endpoint-url", server.url)
        assert run("backup", "--init", place, job, *options).code == 0
        result = run("verify", place, "--read-data", "all", *options)
    check_refusal(result, 1, "s3:GetObject")
    assert "damaged" not in result.err
    assert result.out.splitlines()[-1] == "not all of it could be verified"


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_a_bad_object_is_replaced_in_a_bucket(
    kind: str, request: pytest.FixtureRequest, make_client: Any, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    bucket, options = f"repair-{uuid.uuid4().hex[:12]}", ("--endpoint-url", url)
    source = write_file(tmp_path / "source" / "a", TEXT).parent
    write_file(source / "b", "content of b")
    job = write_job(tmp_path / "home.yml", {"src": source})
    assert run("backup", "--init", bucket, job, *options).code == 0
    client = make_client(url)
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket, Prefix="data/")["Contents"]]
    bodies = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    client.put_object(Bucket=bucket, Key=keys[0], Body=bodies[1])
    client.delete_object(Bucket=bucket, Key=keys[1])
    assert run("verify", bucket, job, "--read-data", "all", "--repair", *options).code == 3
    succeed("verify", bucket, "--read-data", "all", *options)
