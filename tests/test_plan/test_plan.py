"""What a plan shows of a source, and the guard that it shares with the backup."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from s3bu.backup import DeletionsRefusedError, Options
from s3bu.cli.opening import load_job
from s3bu.filters import Filters
from s3bu.prices import LIST_PRICES, Requests, price_of_requests, price_of_storage, price_of_transfer
from s3bu.repository import layout
from s3bu.scan.source import SourceMissingError
from s3bu.selection import Selection
from tests.fakes import OLD, World, without_override, write
from tests.running import Scene, backed_up, run, succeed, write_file
from tests.test_plan.planning import do, show

HERE = Options("here")
TEXT = b"some text"


def test_each_path_has_its_status_and_why(world: World) -> None:
    for name in ("same", "size", "time", "mode", "gone", "kind", "touched", "left out"):
        world.write(name, TEXT)
    do(world, HERE)
    world.write("new", TEXT)
    world.write("size", TEXT * 2)
    world.write("time", TEXT, mtime=OLD + 1)
    world.write("mode", TEXT, mode=0o600)
    (world.source / "gone").unlink()
    (world.source / "kind").unlink()
    (world.source / "kind").symlink_to("same")
    world.write("touched", TEXT)  # written again, with the same size and time
    shown = show(world, HERE, world.job(Filters(selection=Selection(exclude=(b"left*", b"/x")))))
    assert shown.reasons == {
        b"new": ("new", None),
        b"size": ("changed", "size"),
        b"time": ("changed", "time"),
        b"mode": ("changed", "mode"),
        b"gone": ("removed", "vanished"),
        b"kind": ("changed", "kind"),
        b"touched": ("check", "ctime"),
        b"left out": ("removed", "exclude: left*"),
    }
    assert shown.read == {b"new", b"size", b"time", b"mode", b"touched"}


def test_a_racy_file_is_to_be_checked(world: World) -> None:
    world.write("racy", TEXT, mtime=time.time() + 9)
    do(world, HERE)
    assert show(world, HERE).reasons == {b"racy": ("check", "racy")}


def test_a_content_that_is_gone_from_the_repository_is_to_be_stored_again(world: World) -> None:
    world.write("file", TEXT)
    do(world, HERE)
    for key in [key for key in world.storage.objects if key.startswith("data/")]:
        del world.storage.objects[key]
    shown = show(world, Options("here", is_full=True))
    assert shown.reasons == {b"file": ("check", "not stored")}
    assert shown.plan.why_listed == "--full-scan asks for it"


def test_a_directory_that_cannot_be_listed_is_carried_forward_and_fails(world: World) -> None:
    world.write("closed/file", TEXT)
    do(world, HERE)
    (world.source / "closed").chmod(0)
    with without_override():
        shown = show(world, HERE)
    (world.source / "closed").chmod(0o755)
    assert shown.reasons == {b"closed": ("carried", "permission denied"), b"closed/file": ("carried", None)}
    assert [failure.path for failure in shown.plan.failures] == [b"closed"]


def test_an_unchanged_source_is_nothing_to_do(world: World) -> None:
    world.write("file", TEXT)
    do(world, HERE)
    shown = show(world, HERE)
    assert (shown.paths, shown.plan.is_something, shown.plan.counts["unmodified"]) == ([], False, 1)


def test_a_source_that_is_missing_is_its_error(world: World) -> None:
    world.source.rmdir()
    assert isinstance(show(world, HERE).plan.error, SourceMissingError)


# --- the guard


def write_many(world: World, numbers: range, content: bytes, *, mtime: int = OLD) -> None:
    for number in numbers:
        world.write(f"{number:03d}", content + b" %d" % number, mtime=mtime)


@pytest.mark.parametrize(("total", "changed", "is_refused"), [(100, 51, True), (100, 50, False), (99, 99, False)])
def test_more_than_half_of_a_hundred_files_changed_at_once_stop_a_backup(
    world: World, total: int, changed: int, is_refused: bool
) -> None:
    write_many(world, range(total), b"first")
    do(world, HERE)
    write_many(world, range(changed), b"enciphered")
    shown, done = show(world, HERE), do(world, HERE)
    assert (str(shown.plan.alarm) == f"{changed} of {total} files changed since the last snapshot") == is_refused
    assert isinstance(done.outcome.error, DeletionsRefusedError) == is_refused
    assert shown.plan.publishes is (None if is_refused else True)
    assert show(world, Options("here", accepts_deletions=True)).plan.alarm is None
    assert len(world.manifest_keys()) == (1 if is_refused else 2)
    accepted = do(world, Options("here", accepts_deletions=True))
    assert accepted.outcome.error is None
    assert len(accepted.of("changed")) == (changed if is_refused else 0)


def test_files_that_only_got_another_time_look_alarming_and_stop_nothing(world: World) -> None:
    write_many(world, range(100), b"first")
    do(world, HERE)
    write_many(world, range(100), b"first", mtime=OLD + 5)
    assert show(world, HERE).plan.alarm is not None
    assert do(world, HERE).outcome.published


def test_a_first_snapshot_and_a_rehash_alarm_nobody(world: World) -> None:
    write_many(world, range(120), b"first")
    assert show(world, HERE).plan.alarm is None
    do(world, HERE)
    rehash = Options("here", is_rehash=True)
    shown = show(world, rehash)
    assert shown.plan.alarm is None
    assert {reason for _, reason in shown.reasons.values()} == {"rehash"}
    assert do(world, rehash).outcome.error is None


def test_files_that_came_anew_alarm_nobody(world: World) -> None:
    write_many(world, range(100), b"first")
    do(world, HERE)
    write_many(world, range(100, 400), b"new")
    assert show(world, HERE).plan.alarm is None
    assert do(world, HERE).outcome.published


def test_what_the_job_leaves_out_now_has_not_vanished(world: World) -> None:
    write_many(world, range(100), b"first")
    do(world, HERE)
    job = world.job(Filters(selection=Selection(exclude=(b"0*",))))
    assert show(world, HERE, job).plan.alarm is None
    done = do(world, HERE, job)
    assert done.outcome.published
    assert len(done.of("removed")) == 100


@pytest.mark.parametrize(
    "filters", [Filters(include_extensions=(b".jpg",)), Filters(selection=Selection(max_file_size=10))]
)
@pytest.mark.parametrize("instead", ["link", "file"])
def test_what_lay_below_a_directory_vanished_though_a_file_in_its_place_is_left_out(
    world: World, filters: Filters, instead: str
) -> None:
    for number in range(100):
        world.write(f"photos/{number:03d}.jpg", b"%d" % number)
    job = world.job(filters)
    do(world, HERE, job)
    (world.source / "photos").rename(world.root / "elsewhere")
    if instead == "link":
        (world.source / "photos").symlink_to(world.root / "elsewhere")
    else:
        world.write("photos", TEXT * 2)
    shown = show(world, HERE, job)
    assert shown.reasons[b"photos/042.jpg"] == ("removed", "vanished")
    assert shown.plan.publishes is False
    assert isinstance(do(world, HERE, job).outcome.error, DeletionsRefusedError)


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_what_a_job_of_the_bucket_leaves_out_is_meant_only_if_it_is_encrypted(world: World, is_encrypted: bool) -> None:
    write_many(world, range(100), b"first")
    do(world, HERE)
    text = f"sources: [{{path: {world.source}, label: docs}}]\ns3bu: {{exclude: ['*']}}\n"
    world.put_private(layout.job_key("home", 2), text.encode(), packed=is_encrypted, encrypted=is_encrypted)
    job, _ = load_job(world.reopen(), "home")
    assert show(world, HERE, job).plan.publishes is is_encrypted
    assert isinstance(do(world, HERE, job).outcome.error, DeletionsRefusedError) is not is_encrypted


def test_what_an_ignore_file_leaves_out_has_vanished_since_anybody_may_put_one_there(world: World) -> None:
    job = world.job(Filters(selection=Selection(ignore_files=(b".ignore",))))
    write_many(world, range(100), b"first")
    do(world, HERE, job)
    world.write(".ignore", b"*\n")
    assert show(world, HERE, job).plan.publishes is False
    assert isinstance(do(world, HERE, job).outcome.error, DeletionsRefusedError)


def test_another_machine_under_the_label_is_not_taken_for_changes(world: World) -> None:
    write_many(world, range(100), b"ours")
    do(world, HERE)
    write_many(world, range(100), b"theirs")
    do(world, Options("there", accepts_deletions=True), home="another state")
    write_many(world, range(100), b"ours")
    assert show(world, HERE).plan.alarm is None
    assert do(world, HERE).outcome.published


def test_an_ignore_file_with_bytes_that_are_no_text_is_told_as_it_is(world: World) -> None:
    job = world.job(Filters(selection=Selection(ignore_files=(b".ignore",))))
    directory = world.source / os.fsdecode(b"caf\xe9")
    for name in ("\udcff", "kept"):
        write(directory / name, TEXT)
    do(world, HERE, job)
    write(directory / ".ignore", b"\xff\n")
    reason = os.fsdecode(b"ignore_files: \xff (caf\xe9/.ignore:1)")
    shown = show(world, HERE, job)
    assert shown.reasons[b"caf\xe9/\xff"] == ("removed", reason)
    assert do(world, HERE, job).of("removed") == {b"caf\xe9/\xff"}
    assert show(world, HERE, job).reasons == {b"caf\xe9/\xff": ("skipped", reason)}


# --- what it costs


def test_prices_are_for_a_thousand_requests_a_gigabyte_stored_and_one_fetched() -> None:
    requests = Requests(put=1_000, get=2_000, list=3_000)
    assert price_of_requests(requests, {}) == pytest.approx(
        LIST_PRICES["put"] + 2 * LIST_PRICES["get"] + 3 * LIST_PRICES["list"]
    )
    assert price_of_requests(requests, {"put": 1, "list": 0}) == pytest.approx(1 + 2 * LIST_PRICES["get"])
    assert price_of_storage(2_000_000_000, {"storage": 0.5}) == 1
    assert price_of_transfer(500_000_000, {"transfer": 0.2}) == pytest.approx(0.1)


def test_a_large_file_is_put_in_parts(world: World) -> None:
    world.write("large", os.urandom(20 * 1024 * 1024))
    shown = show(world, HERE)
    assert shown.estimate is not None
    assert shown.estimate.requests.put >= 3 + 2 + 1
    assert shown.estimate.nbytes_sent < 21 * 1024 * 1024


# --- the command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("plan") / "scene")


@pytest.fixture
def scene(made: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return made.copy(tmp_path / "scene", monkeypatch)


def plans(scene: Scene, *options: str) -> tuple[int, list[dict[str, object]]]:
    result = run("plan", scene.repository, scene.job, *options, "--json", "--no-progress")
    return result.code, [json.loads(line) for line in result.out.splitlines()]


def test_the_exit_code_says_on_request_whether_there_is_something_to_do(scene: Scene) -> None:
    run("backup", scene.repository, scene.job)  # what was copied is another file by its inode
    assert plans(scene, "--exit-code")[0] == 0
    write_file(scene.source / "new", "new")
    assert plans(scene)[0] == 0
    assert plans(scene, "--exit-code")[0] == 4
    scene.source.rename(scene.root / "elsewhere")
    assert plans(scene, "--exit-code")[0] == 3


def test_a_program_reads_of_each_path_whether_it_is_read_as_a_boolean(scene: Scene) -> None:
    scene.job.write_text(f"{scene.job.read_text()}s3bu: {{exclude: [out]}}\n")
    write_file(scene.source / "new", "new")
    write_file(scene.source / "out", "out")
    (scene.source / "empty").mkdir()
    read = {str(one["item"]): one["reads"] for one in plans(scene)[1] if one["message_type"] == "plan"}
    found = read["new"], read["out"], read["empty"]
    assert repr(found) == "(True, False, False)"  # 1 equals True


def test_a_plan_of_what_the_guard_would_stop_fails_and_says_why(scene: Scene) -> None:
    for number in range(120):
        write_file(scene.source / "many" / f"{number:03d}", "new")
    succeed("backup", scene.repository, scene.job)
    (scene.source / "many").rename(scene.root / "elsewhere")
    for command in (("plan", "--exit-code"), ("backup", "--dry-run")):
        result = run(command[0], scene.repository, scene.job, command[1])
        assert result.code == 1
        assert "s3bu: error: " in result.err
        assert "vanished since the last snapshot; a backup would publish nothing" in result.err
    assert run("backup", scene.repository, scene.job).code == 1
    assert run("backup", scene.repository, scene.job, "--dry-run", "--accept-deletions").code == 0


def test_a_label_cannot_steer_the_terminal(scene: Scene) -> None:
    job = scene.root / "odd.yml"
    job.write_text(f'sources: [{{path: {scene.source}, label: "l\\e[31m"}}]\n')
    for command in (("plan",), ("plan", "--explain", "a"), ("backup",), ("plan", "--explain", "a")):
        result = run(command[0], scene.repository, job, *command[1:])
        assert result.code == 0
        assert "\\x1b[31m" in result.out
        assert "\x1b" not in result.out + result.err


def test_a_dry_run_is_a_plan(scene: Scene) -> None:
    write_file(scene.source / "new", "new")
    before = scene.manifests()
    dry = succeed("backup", scene.repository, scene.job, "--dry-run")
    plan = succeed("plan", scene.repository, scene.job)
    assert dry.out == plan.out
    assert "new" in dry.out
    assert scene.manifests() == before


def test_many_paths_are_grouped_by_directory_unless_all_are_asked_for(scene: Scene) -> None:
    for number in range(100):
        write_file(scene.source / "many" / f"{number:03d}", "new")
    grouped = succeed("plan", scene.repository, scene.job).out
    assert [line.split()[0] for line in grouped.splitlines() if line.endswith("  many/")] == ["100"]
    assert "many/042" not in grouped
    assert "many/042" in succeed("plan", scene.repository, scene.job, "-v").out


def test_a_path_is_explained_by_the_rule_that_decides_and_by_the_last_snapshots(scene: Scene) -> None:
    job = scene.job.read_text()
    scene.job.write_text(f"{job}s3bu:\n  exclude: ['directory/*', '!directory/c']\n  ignore_files: [.ignore]\n")
    write_file(scene.source / ".ignore", "# ours\na\n")
    write_file(scene.source / "directory" / "deep" / "x", "new")
    os.mkfifo(scene.source / "pipe")
    explained = {}
    for path in ("a", "b", "directory/c", "directory/deep/x", "nothing", "pipe"):
        _, told = plans(scene, "--explain", path)
        explained[path] = [told[0][name] for name in ("verdict", "at", "rule", "rule_detail", "rule_file", "rule_line")]
        assert [one["type"] for one in told[1:]] == ["file" if path in {"a", "b", "directory/c"} else None]
    assert explained == {
        "a": ["excluded", "a", "ignore_files", "a", ".ignore", 2],
        "b": ["included", "b", None, None, None, None],
        "directory/c": ["included", "directory/c", "exclude", "!directory/c", None, None],
        "directory/deep/x": ["excluded", "directory/deep", "exclude", "directory/*", None, None],
        "nothing": ["absent", "nothing", None, None, None, None],
        "pipe": ["recorded", "pipe", None, None, None, None],
    }
    assert plans(scene, "--explain", f"{scene.source}/b")[1][0]["path"] == "b"
    assert plans(scene, "--explain", "/etc/passwd")[0] == 2


def test_a_repository_in_a_directory_costs_nothing(scene: Scene) -> None:
    assert plans(scene)[1][-1]["cost_of_requests_at_most"] is None


def test_a_plan_of_a_bucket_says_what_it_costs_by_the_prices_of_the_job(
    made: Scene, moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    succeed("init", "s3://plan-costs")
    source = write_file(tmp_path / "source" / "file", "content").parent
    job = tmp_path / "home.yml"
    job.write_text(f"sources: [{{path: {source}, label: src}}]\ns3bu: {{prices: {{put: 1000, list: 0, get: 0}}}}\n")
    result = succeed("plan", "s3://plan-costs", job, "--json", "--no-progress")
    summary = json.loads(result.out.splitlines()[-1])
    assert summary["cost_of_requests_at_most"] == summary["put_requests_at_most"] > 0
    assert "$" in succeed("plan", "s3://plan-costs", job).out


def test_a_week_old_snapshot_is_a_reason_for_one(world: World) -> None:
    world.write("file", TEXT)
    do(world, HERE)
    before = world.newest().entries
    world.storage.objects.pop(str(world.manifest_keys()[0]))
    world.put_manifest(
        before, created=world.repository.read_snapshot(world.put_manifest(before)).created - timedelta(8)
    )
    assert show(world, HERE).plan.news == "the last snapshot is a week old"
