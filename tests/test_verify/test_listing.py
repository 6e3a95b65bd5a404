"""What a listing tells: missing, empty, cut and archived objects, with the paths and snapshots that need them."""

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from s3bu.errors import AccessDenied, JobNotFoundError, UsageError
from s3bu.storage.memory import StoredObject
from tests.fakes import OF_OTHERS, OLD, PACKED, RAW, RoughStorage, World, file_entry, key_of, manifest_key
from tests.test_backup.runs import back_up
from tests.test_verify.verifying import ALL, TEXT, cut, spoil, verify


class Counting(RoughStorage):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def list(self, prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
        self.asked.append(f"list {prefix}")
        return super().list(prefix, after=after)

    def metadata(self, key: str):  # type: ignore[no-untyped-def]
        self.asked.append(f"head {key}")
        return self.objects[key].metadata

    def open(self, key: str, *, start: int = 0):  # type: ignore[no-untyped-def]
        self.asked.append(f"open {key}")
        return super().open(key, start=start)


def counting(world: World) -> tuple[World, Counting]:
    storage = Counting()
    storage.objects, storage.identity = world.storage.objects, world.storage.identity
    return dataclasses.replace(world, storage=storage), storage


def test_a_sound_repository_is_sound(world: World) -> None:
    world.write("a", b"content of a")
    world.write("b", b"content of b")
    back_up(world)
    verified = verify(world)
    assert (verified.code, verified.faults, verified.broken) == (0, [], {})
    assert verified.whole == {"docs": (1, 1)}
    assert (verified.report.tally.ncontents, verified.report.tally.nbytes, verified.report.tally.norphans) == (2, 24, 0)


def test_it_takes_one_listing_of_the_contents_and_opens_none(world: World) -> None:
    for number in range(20):
        world.write(str(number), b"%d" % number)
    back_up(world)
    world, storage = counting(world)
    assert verify(world).code == 0
    assert storage.asked == ["list manifests/", "list data/"]


def test_missing_empty_and_cut_objects_are_named(world: World) -> None:
    contents = {name: TEXT + name.encode() for name in ("missing", "empty", "stub", "cut", "right")}
    for name, content in contents.items():
        world.write(name, content)
    back_up(world)
    del world.storage.objects[key_of(contents["missing"])]
    cut(world, contents["empty"], 0)
    cut(world, contents["stub"], 199)
    cut(world, contents["cut"], 1000)
    expected = {b"missing": "missing", b"empty": "empty", b"stub": "cut", b"cut": "cut"}
    for home in ("state", "another machine"):
        verified = verify(world, home=home)
        assert (verified.code, verified.problems) == (1, expected)
        assert verified.whole == {"docs": (0, 1)}
        assert verify(world, home=home).problems == expected


def test_all_paths_and_snapshots_that_need_a_content_are_named(world: World) -> None:
    first, second, third, last = (manifest_key(f"2026-01-0{day}", 1) for day in (1, 2, 3, 4))
    lost, kept = file_entry(b"lost", b"lost"), file_entry(b"kept", b"kept")
    world.put_content(b"kept")
    world.put_manifest([kept], key=first)
    world.put_manifest([kept, lost], key=second)
    world.put_manifest([kept, lost, file_entry(b"d/copy", b"lost")], key=third)
    world.put_manifest([kept], key=last)
    world.put_manifest([lost], key=manifest_key("2026-01-01", 1, label="pics"))
    verified = verify(world)
    told = [(one.label, one.path, one.first.key, one.last.key, one.nsnapshots) for one in verified.faults]
    pics = str(manifest_key("2026-01-01", 1, label="pics"))
    assert told == [
        ("docs", b"d/copy", str(third), str(third), 1),
        ("docs", b"lost", str(second), str(third), 2),
        ("pics", b"lost", pics, pics, 1),
    ]
    docs, of_pics = verified.report.standings
    assert [(gap.first.key, gap.last.key, gap.nsnapshots, gap.nfiles) for gap in docs.gaps] == [
        (str(second), str(third), 2, 2)
    ]
    assert docs.newest_whole is not None
    assert docs.newest_whole.key == str(last)
    assert (of_pics.nwhole, of_pics.newest_whole) == (0, None)
    assert verified.report.problems == {"missing": 1}


def test_one_label_is_verified_alone_and_what_others_need_is_no_orphan(world: World) -> None:
    for label, content in (("docs", b"docs"), ("pics", b"pics")):
        world.put_manifest([file_entry(b"a", content)], key=manifest_key("2026-01-01", 1, label=label))
    world.put_content(b"docs")
    world.put_content(b"nobody's")
    verified = verify(world, label="docs")
    assert (verified.code, verified.report.tally.ncontents, verified.report.tally.norphans) == (0, 1, 1)
    assert verify(world, label="pics").problems == {b"a": "missing"}


def test_a_job_or_label_without_snapshots_is_told(world: World) -> None:
    with pytest.raises(JobNotFoundError):
        verify(world)
    world.put_manifest([])
    with pytest.raises(UsageError) as caught:
        verify(world, label="pics")
    assert caught.value.hint == "it has docs"


def test_an_archived_object_is_no_damage_and_is_named(world: World) -> None:
    world.write("a", b"content")
    back_up(world)
    world.storage.archived.add(key_of(b"content"))
    verified = verify(world)
    assert (verified.code, verified.problems, verified.whole) == (3, {b"a": "archived"}, {"docs": (1, 1)})


# --- compressed objects


def test_compressed_objects_that_were_stored_here_are_known_by_their_size(world: World) -> None:
    world.write("a", TEXT)
    back_up(world, compress=True)
    world, storage = counting(world)
    assert verify(world).code == 0
    assert storage.asked == ["list manifests/", "list data/"]


def test_compressed_objects_of_others_are_unverified_until_they_are_read_and_asked_for_once(world: World) -> None:
    world.write("a", TEXT)
    back_up(world, compress=True)
    world, storage = counting(world)
    for heads in ([f"head {key_of(TEXT)}"], []):
        del storage.asked[:]
        verified = verify(world, home="another machine")
        assert (verified.code, verified.problems, verified.report.problems) == (
            3,
            {b"a": "unverified"},
            {"unverified": 1},
        )
        assert verified.whole == {"docs": (1, 1)}
        assert [one for one in storage.asked if one.startswith("head")] == heads
    assert verify(world, home="another machine", reads=ALL).code == 0
    assert verify(world, home="another machine").code == 0


@pytest.mark.parametrize("metadata", [{}, OF_OTHERS])
def test_an_object_without_metadata_of_ours_may_be_compressed(world: World, metadata: dict[str, str]) -> None:
    world.put_manifest([file_entry(b"a", TEXT)])
    world.put_content(TEXT, metadata, packed=True)
    assert verify(world).report.problems == {"unverified": 1}
    assert verify(world, reads=ALL).code == 0


def test_credentials_that_may_not_look_at_objects_leave_compressed_ones_unverified(world: World) -> None:
    world.put_manifest([file_entry(b"a", TEXT), file_entry(b"b", b"b")])
    world.put_content(TEXT, PACKED, packed=True)
    world.put_content(b"b")
    world.storage.before_read = denying(key_of(TEXT))
    for _ in range(2):
        assert verify(world).problems == {b"a": "unverified"}
    world.storage.before_read = lambda key: None
    assert verify(world, reads=ALL).code == 0


def denying(denied: str):  # type: ignore[no-untyped-def]
    def strike(key: str) -> None:
        if key == denied:
            raise AccessDenied(f"access to {key} is denied")

    return strike


# --- objects that changed


def test_an_object_that_is_not_the_one_stored_here_is_unverified_until_it_is_read(world: World) -> None:
    world.write("a", b"content of a")
    back_up(world)
    assert verify(world).code == 0
    spoil(world, b"content of a", world.storage.objects[key_of(b"content of a")].body[:-1] + b"!")
    assert verify(world).problems == {b"a": "unverified"}
    assert verify(world, reads=ALL).problems == {b"a": "damaged"}
    assert verify(world).problems == {b"a": "damaged"}


@pytest.mark.parametrize("metadata", [{}, OF_OTHERS])
def test_a_cut_object_without_metadata_is_known_by_what_was_stored_here(world: World, metadata: dict[str, str]) -> None:
    world.write("a", TEXT)
    back_up(world)
    body = world.storage.objects[key_of(TEXT)].body
    world.storage.objects[key_of(TEXT)] = StoredObject(body[:1000], metadata)
    assert verify(world).problems == {b"a": "cut"}
    assert verify(world, home="another machine").problems == {b"a": "unverified"}


def test_an_object_that_another_machine_put_again_is_cleared_by_reading(world: World) -> None:
    world.write("a", TEXT)
    back_up(world)
    world.put_content(TEXT, PACKED, packed=True)
    assert verify(world).problems == {b"a": "unverified"}
    assert verify(world, reads=ALL).code == 0
    assert verify(world).code == 0


def test_what_was_known_of_an_object_is_forgotten_when_it_is_gone(world: World) -> None:
    world.write("a", TEXT)
    back_up(world)
    del world.storage.objects[key_of(TEXT)]
    (world.source / "a").unlink()
    back_up(world, is_full=True)
    world.storage.objects[key_of(TEXT)] = StoredObject(b"\0" * 300, {})
    assert verify(world).problems == {b"a": "unverified"}


# --- lies


def test_a_manifest_that_lies_about_a_length_accuses_its_own_entry_alone(world: World) -> None:
    world.put_content(b"content")
    honest, lying = file_entry(b"honest", b"content"), file_entry(b"lying", b"content")._replace(nbytes=10_000)
    world.put_manifest([honest, lying])
    assert verify(world).problems == {b"lying": "cut"}
    assert verify(world, reads=ALL).problems == {b"lying": "cut"}
    assert verify(world).problems == {b"lying": "cut"}


def test_two_rows_of_one_content_need_one_object(world: World) -> None:
    world.put_content(b"content")
    world.put_manifest([file_entry(b"a", b"content"), file_entry(b"b", b"content", mtime=OLD + 1)])
    assert verify(world).report.tally.ncontents == 1


def test_orphans_are_counted(world: World) -> None:
    world.put_manifest([])
    sizes = 0
    for content in (b"1", b"2", b"3"):
        world.put_content(content, RAW)
        sizes += len(world.storage.objects[key_of(content)].body)
    tally = verify(world).report.tally
    assert (tally.norphans, tally.orphan_nbytes) == (3, sizes)


def test_a_snapshot_that_is_too_old_is_incomplete(world: World) -> None:
    world.put_manifest([], created=datetime.now(UTC) - timedelta(hours=27))
    assert verify(world, oldest=datetime.now(UTC) - timedelta(hours=28)).code == 0
    verified = verify(world, oldest=datetime.now(UTC) - timedelta(hours=26))
    assert (verified.code, [one.is_too_old for one in verified.report.standings]) == (3, [True])


# --- the index follows


def test_the_next_backup_puts_again_what_verify_found_missing_or_bad(world: World) -> None:
    names = ("missing", "empty", "cut", "damaged")
    for name in names:
        world.write(name, TEXT + name.encode())
    back_up(world)
    del world.storage.objects[key_of(TEXT + b"missing")]
    cut(world, TEXT + b"empty", 0)
    cut(world, TEXT + b"cut", 1000)
    world.put_content(TEXT[::-1] + b"another", at=TEXT + b"damaged")
    assert verify(world, reads=ALL).problems == dict(zip(map(str.encode, names), names, strict=True))
    outcome = back_up(world)
    assert outcome.nbytes_sent > 0
    world.check_contents()
    assert verify(world, reads=ALL).code == 0


def test_what_is_unknown_to_an_index_made_anew_is_found_again(world: World) -> None:
    world.write("a", b"content")
    back_up(world)
    world.put_content(b"another", at=b"content")
    assert verify(world, reads=ALL).code == 1
    shutil.rmtree(world.root / "state" / "index")
    assert verify(world).code == 0  # a listing cannot tell
    assert verify(world, reads=ALL).problems == {b"a": "damaged"}


def test_looked_up_is_no_proof_of_an_object_that_came_later(world: World) -> None:
    world.put_manifest([file_entry(b"a", TEXT)])
    world.put_content(TEXT, PACKED, packed=True)
    verify(world)
    world.put_content(b"x" * 300, RAW, at=TEXT)
    assert verify(world).problems == {b"a": "cut"}
