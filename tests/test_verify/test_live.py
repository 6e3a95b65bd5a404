"""The live files: what is bad is put back from them where the hash is right, and the newest snapshot is compared."""

import os
from collections.abc import Callable
from contextlib import closing

import pytest

from s3bu.backup import Options, Outcome
from s3bu.backup import run as run_backup
from s3bu.compression import MAGIC
from s3bu.errors import AccessDenied
from s3bu.size import Share
from s3bu.storage import PART_BOUND
from s3bu.storage.memory import StoredObject
from tests.fakes import OLD, Listener, World, file_entry, key_of, manifest_key, without_override
from tests.test_backup.runs import back_up
from tests.test_store.storing import NOISE, rewrite
from tests.test_verify.verifying import ALL, TEXT, cut, verify

NAMES = ("missing", "empty", "cut", "swapped", "right")


def damaged(world: World) -> None:
    """Back up five files, and damage the objects of four."""
    for name in NAMES:
        world.write(name, TEXT + name.encode())
    back_up(world)
    del world.storage.objects[key_of(TEXT + b"missing")]
    cut(world, TEXT + b"empty", 0)
    cut(world, TEXT + b"cut", 500)
    world.put_content(TEXT[::-1] + b"another", at=TEXT + b"swapped")


@pytest.mark.parametrize("has_conditional_writes", [True, False, None])
def test_what_is_bad_is_replaced_and_what_is_missing_put_back(
    world: World, has_conditional_writes: bool | None
) -> None:
    damaged(world)
    world.storage.has_conditional_writes = has_conditional_writes
    right = world.storage.objects[key_of(TEXT + b"right")]
    verified = verify(world, reads=ALL, repairs=True)
    assert (verified.code, verified.repaired, verified.problems) == (3, {b"missing", b"empty", b"cut", b"swapped"}, {})
    assert (verified.whole, verified.report.repaired) == ({"docs": (1, 1)}, 4)
    assert world.storage.objects[key_of(TEXT + b"right")] is right
    world.check_contents()
    assert verify(world, reads=ALL).code == 0


def test_after_a_repair_a_backup_sends_nothing(world: World) -> None:
    damaged(world)
    verify(world, reads=ALL, repairs=True)
    assert back_up(world).nbytes_sent == 0


def test_a_file_that_changed_repairs_nothing_and_is_not_stored(world: World) -> None:
    damaged(world)
    world.write("missing", b"changed since")
    (world.source / "cut").unlink()
    before = world.hashes()
    verified = verify(world, reads=ALL, repairs=True)
    assert (verified.code, verified.repaired, verified.problems) == (
        1,
        {b"empty", b"swapped"},
        {b"missing": "missing", b"cut": "cut"},
    )
    assert world.hashes() == before
    assert verified.said.failures == []


def test_a_file_that_an_older_snapshot_had_under_another_name_repairs_both(world: World) -> None:
    world.write("old name", b"content")
    back_up(world)
    world.write("new name", b"content")
    (world.source / "old name").unlink()
    back_up(world)
    del world.storage.objects[key_of(b"content")]
    verified = verify(world, repairs=True)
    assert (verified.code, verified.repaired) == (3, {b"old name", b"new name"})
    assert verified.whole == {"docs": (2, 2)}


def test_a_file_that_came_to_be_as_it_was_repairs_an_older_snapshot(world: World) -> None:
    path = world.write("a", b"first")
    back_up(world)
    world.write("a", b"second", mtime=OLD + 1)
    back_up(world)
    del world.storage.objects[key_of(b"first")]
    assert verify(world, repairs=True).code == 1
    path.write_bytes(b"first")
    assert verify(world, repairs=True).repaired == {b"a"}


def test_a_large_content_is_put_back_in_parts(world: World) -> None:
    world.write("large", NOISE)
    back_up(world)
    cut(world, NOISE, PART_BOUND)
    assert verify(world, repairs=True).repaired == {b"large"}
    world.check_contents()


def test_a_compressed_object_is_replaced_by_one_that_can_be_read(world: World) -> None:
    world.write("a", TEXT)
    back_up(world, compress=True)
    world.put_content(b"another", at=TEXT)
    assert verify(world, reads=ALL, repairs=True).repaired == {b"a"}
    world.check_contents()
    assert verify(world).code == 0


def test_what_cannot_be_read_now_is_not_replaced(world: World) -> None:
    world.write("a", b"content")
    back_up(world)
    before = world.storage.objects[key_of(b"content")]
    world.storage.archived.add(key_of(b"content"))
    verified = verify(world, reads=ALL, repairs=True)
    assert (verified.code, verified.problems) == (3, {b"a": "archived"})
    assert world.storage.objects[key_of(b"content")] is before


def test_credentials_that_may_not_write_leave_the_damage_and_it_is_told(world: World) -> None:
    damaged(world)
    world.storage.denied.add(key_of(TEXT + b"missing"))
    verified = verify(world, reads=ALL, repairs=True)
    assert verified.code == 1
    assert [type(error) for error in verified.report.errors] == [AccessDenied]


@pytest.mark.parametrize("content", [TEXT, NOISE])
def test_an_object_that_must_not_be_replaced_costs_its_own_file_alone(world: World, content: bytes) -> None:
    for name in ("a", "b"):
        world.write(name, content + name.encode())
        world.put_content(b"another", at=content + name.encode())
    world.put_manifest([file_entry(name.encode(), content + name.encode()) for name in ("a", "b")])
    world.storage.before_send = denying_to_replace(world)
    verified = verify(world, reads=ALL, repairs=True)
    assert (verified.code, verified.problems) == (1, {b"a": "cut", b"b": "cut"})
    assert {failure.path: "cannot be replaced" in failure.error for failure in verified.said.failures} == {
        b"a": True,
        b"b": True,
    }
    world.write("new", b"new")
    (outcome,), _ = backup(world)
    assert {failure.path for failure in outcome.failures} == {b"a", b"b"}
    assert outcome.published is not None
    assert world.newest().failed


def denying_to_replace(world: World) -> Callable[[str], None]:
    def strike(key: str) -> None:
        if key in world.storage.objects and key.startswith("data/"):
            raise AccessDenied(f"access to {key} is denied")

    return strike


def backup(world: World) -> tuple[list[Outcome], Listener]:
    """Back up where not all that is stored is right."""
    listener, job = Listener(), world.job()
    with closing(world.index()) as index:
        return run_backup(world.reopen(), index, job, job.sources, Options("here"), listener), listener


def test_a_source_that_is_not_here_is_said(world: World) -> None:
    damaged(world)
    world.source.rename(world.root / "elsewhere")
    verified = verify(world, repairs=True)
    assert verified.code == 1
    assert any("the source cannot be opened" in warning for warning in verified.said.warnings)


def test_a_link_in_the_place_of_a_file_is_not_followed(world: World) -> None:
    world.write("a", b"content")
    back_up(world)
    del world.storage.objects[key_of(b"content")]
    (world.source / "a").rename(world.root / "b")
    (world.source / "a").symlink_to(world.root / "b")
    assert verify(world, repairs=True).problems == {b"a": "missing"}


# --- spot check


def test_live_files_are_compared_with_the_newest_snapshot(world: World) -> None:
    for name in ("same", "rotten", "changed", "gone"):
        world.write(name, b"content of " + name.encode())
    back_up(world)
    world.write("changed", b"something else")
    (world.source / "gone").unlink()
    world.write("new", b"new")
    verified = verify(world, compares=ALL)
    compared = verified.report.compared
    assert compared is not None
    assert (verified.code, compared.nsame, compared.nchanged, compared.differing) == (0, 2, 2, [])


def test_a_file_that_looks_unmodified_and_is_not_is_named(world: World) -> None:
    world.write("rotten", b"content")
    world.write("same", b"same")
    back_up(world)
    rewrite(world.source / "rotten", b"CONTENT")
    forget_what_this_machine_saw(world)  # its ctime gives it away to the next backup, if this machine made the last one
    verified = verify(world, compares=ALL)
    assert verified.report.compared is not None
    named = [(live.label, path) for live, path in verified.report.compared.differing]
    assert (verified.code, named, verified.report.compared.nsame) == (1, [("docs", b"rotten")], 1)


def forget_what_this_machine_saw(world: World) -> None:
    with closing(world.index()) as index:
        index.connection.execute("UPDATE version SET ctime_ns = NULL, inode = NULL, device = NULL, local_nanos = NULL")


def test_a_file_that_the_next_backup_would_read_again_is_no_finding(world: World) -> None:
    world.write("rotten", b"content")
    back_up(world)
    rewrite(world.source / "rotten", b"CONTENT")
    verified = verify(world, compares=ALL)
    assert verified.report.compared is not None
    assert (verified.code, verified.report.compared.nchanged) == (0, 1)


def test_a_file_that_cannot_be_read_is_named_and_is_no_damage(world: World) -> None:
    world.write("closed", b"content")
    back_up(world)
    forget_what_this_machine_saw(world)
    os.chmod(world.source / "closed", 0)
    with without_override():
        verified = verify(world, compares=ALL)
    assert verified.report.compared is not None
    failures = [(failure.path, failure.error) for _, failure in verified.report.compared.failures]
    assert (verified.code, failures) == (3, [(b"closed", "permission denied")])


def test_a_source_that_is_not_here_cannot_be_compared(world: World) -> None:
    world.write("a", b"content")
    back_up(world)
    world.source.rename(world.root / "elsewhere")
    assert verify(world, compares=ALL).code == 3


def test_a_share_is_a_sample(world: World) -> None:
    for number in range(200):
        world.write(f"{number:03}", b"%d" % number)
    back_up(world)
    verified = verify(world, compares=Share(0.2))
    assert verified.report.compared is not None
    assert 5 < verified.report.compared.nsame < 120


def test_the_newest_snapshot_of_each_label_is_compared(world: World) -> None:
    for label in ("docs", "pics"):
        world.put_manifest([file_entry(b"a", b"a")], key=manifest_key("2026-01-01", 1, label=label))
    world.put_content(b"a")
    world.write("a", b"a")
    verified = verify(world, compares=ALL, labels=("docs", "pics", "never backed up"))
    assert verified.report.compared is not None
    assert (verified.code, verified.report.compared.nsame) == (0, 2)


def test_a_zipped_file_that_was_stored_as_it_is_is_sound(world: World) -> None:
    content = MAGIC + b"no gzip at all" * 30
    world.storage.objects[key_of(content)] = StoredObject(b"", {})
    world.put_content(content)
    world.put_manifest([file_entry(b"a", content)])
    assert verify(world, reads=ALL).code == 0
