"""A backup honours what a prune leaves: marked contents are put again, and what moved meanwhile is looked at again."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.errors import IntegrityError, ObjectNotFound, StorageError
from s3bu.progress import Failure
from s3bu.repository import State
from s3bu.repository.layout import EPOCH, MARKS
from s3bu.repository.state import read_marks
from s3bu.storage.memory import StoredObject
from tests.fakes import OLD, World, file_entry, hash_of, key_of, strike_while_reading, without_override
from tests.test_backup.runs import TEXT, back_up, files, run

NOON = f"{MARKS}2026-05-01T12:00:00Z"
LATER = f"{MARKS}2026-05-02T12:00:00Z"
OTHER = b"another text"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose file `old` is backed up, with creates known to be conditional."""
    world = World.make(tmp_path)
    world.write("old", TEXT)
    back_up(world)
    assert world.storage.has_conditional_writes
    world.storage.puts.clear()
    return world


def mark(world: World, *contents: bytes, at: str = NOON) -> None:
    lines = "".join(f"{hash_of(content)}\n" for content in contents)
    world.storage.objects[at] = StoredObject(lines.encode(), {})


def sweep(world: World, *contents: bytes) -> None:
    """Do what a prune does at last: move the epoch, then delete."""
    world.storage.objects[EPOCH] = StoredObject(b"a text", {})
    for content in contents:
        world.storage.delete(key_of(content))


def once(action: Callable[[], object], *, key: str = "") -> Callable[[str], None]:
    """Return a strike that acts when an object of that key, or any content, is first about to be sent."""
    actions = iter([action])

    def strike(sent: str) -> None:
        if sent == key or (not key and sent.startswith("data/")):
            next(actions, int)()

    return strike


def etag(world: World, content: bytes) -> str:
    return world.storage.objects[key_of(content)].etag


def sent(world: World, content: bytes) -> int:
    return world.storage.puts.count(key_of(content))


def count_looks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the prefixes that are listed."""
    listed: list[str] = []
    real = world.storage.list

    def counted(prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
        listed.append(prefix)
        return real(prefix, after=after)

    monkeypatch.setattr(world.storage, "list", counted)
    return listed


# --- what was marked before


def test_a_marked_content_is_put_again_over_the_one_that_is_there(world: World) -> None:
    before = etag(world, TEXT)
    mark(world, TEXT)
    back_up(world)
    assert sent(world, TEXT) == 1
    assert etag(world, TEXT) != before


def test_a_marked_content_of_a_new_file_is_put_once_for_all_files_that_have_it(world: World) -> None:
    mark(world, TEXT)
    world.write("copy", TEXT)
    assert back_up(world).published
    assert sent(world, TEXT) == 1


def test_a_content_that_is_younger_than_its_mark_is_not_put_again(world: World) -> None:
    mark(world, TEXT)
    back_up(world)
    back_up(world, is_full=True)
    assert sent(world, TEXT) == 1


def test_of_several_marks_the_latest_counts(world: World) -> None:
    mark(world, TEXT)
    back_up(world)
    mark(world, TEXT, at=LATER)
    back_up(world)
    assert sent(world, TEXT) == 2


def test_a_content_that_was_put_again_is_carried_forward_while_its_mark_is_there(world: World) -> None:
    mark(world, TEXT)
    back_up(world)
    world.write("old", OTHER, mtime=OLD + 5, mode=0)
    with without_override():
        back_up(world, is_full=True)
    assert list(files(world.newest())) == [b"old"]


def test_a_content_that_is_not_marked_is_not_put_again(world: World) -> None:
    mark(world, OTHER)
    world.write("copy", TEXT)
    assert back_up(world).published
    assert sent(world, TEXT) == 0


def test_a_marked_content_that_no_file_has_any_more_is_not_carried_forward(world: World) -> None:
    mark(world, TEXT)
    world.write("old", OTHER, mtime=OLD + 5, mode=0)
    with without_override():
        outcome = back_up(world)
    assert outcome.failures == [Failure(b"old", "permission denied")]
    assert files(world.newest()) == {}


# --- what moves while a run is under way


def test_a_mark_that_appears_meanwhile_makes_the_run_put_the_content_again(world: World) -> None:
    before = etag(world, TEXT)
    world.write("new", OTHER)
    world.storage.before_send = once(lambda: mark(world, TEXT))
    assert back_up(world).published
    assert etag(world, TEXT) != before
    world.check_newest()


def test_what_a_sweep_deleted_meanwhile_is_put_again_before_the_snapshot_names_it(world: World) -> None:
    world.write("new", OTHER)
    world.storage.before_send = once(lambda: sweep(world, TEXT))
    outcome = back_up(world)
    assert outcome.nfiles == 2
    assert files(world.newest()) == {b"new": file_entry(b"new", OTHER), b"old": file_entry(b"old", TEXT)}
    world.check_newest()


def test_what_the_run_itself_put_is_put_again_when_a_sweep_deleted_it(world: World) -> None:
    world.write("first", OTHER)
    world.write("last", b"last")
    world.storage.before_send = lambda key: sweep(world, OTHER) if sent(world, OTHER) == 1 else None
    assert back_up(world).published
    world.check_newest()


def test_what_the_run_put_after_it_had_seen_the_mark_is_not_put_a_third_time(world: World) -> None:
    """The mark stays where it is, and the epoch moves once more after the content was put again."""
    world.write("new", OTHER)

    def strike(key: str) -> None:
        if key == key_of(OTHER):
            mark(world, TEXT)
        elif key == key_of(TEXT):
            sweep(world)

    world.storage.before_send = strike
    assert back_up(world).published
    assert sent(world, TEXT) == 1


def test_a_second_mark_on_what_was_put_again_for_the_first_makes_it_be_put_once_more(world: World) -> None:
    mark(world, TEXT)
    back_up(world)
    world.write("new", OTHER)
    world.storage.before_send = once(lambda: mark(world, TEXT, at=LATER), key=key_of(OTHER))
    assert back_up(world).published
    assert sent(world, TEXT) == 2


def test_a_file_that_went_away_with_its_content_is_no_entry(world: World) -> None:
    world.write("new", OTHER)

    def strike() -> None:
        (world.source / "old").unlink()
        sweep(world, TEXT)

    world.storage.before_send = once(strike)
    assert back_up(world).published
    assert list(files(world.newest())) == [b"new"]


def test_a_failure_is_told_once_though_the_lines_are_settled_twice(world: World) -> None:
    world.write("new", OTHER)
    world.write("shut", b"shut", mode=0)
    world.storage.before_send = once(lambda: sweep(world, TEXT))
    with without_override():
        outcome = back_up(world)
    assert [failure.path for failure in outcome.failures] == [b"shut"]
    assert sum(outcome.counts.values()) == 2


def test_a_state_that_keeps_moving_publishes_nothing(world: World) -> None:
    numbers = itertools.count()
    world.write("new", OTHER)
    before = world.manifest_keys()
    real = world.storage.list

    def restless(prefix: str, *, after: str = ""):  # type: ignore[no-untyped-def]
        world.storage.put(EPOCH, b"%d" % next(numbers), {})
        return real(prefix, after=after)

    world.storage.list = restless  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="keep moving"):
        run(world)
    assert world.manifest_keys() == before


def test_each_source_of_a_run_is_published_only_after_a_look_of_its_own(world: World) -> None:
    def strike(key: str) -> None:
        if key.startswith("manifests/home/docs/"):
            sweep(world, OTHER)

    world.write("new", OTHER)
    world.storage.before_send = strike
    outcomes, _ = run(world, job=world.job(labels=("docs", "again")))
    assert all(outcome.published for outcome in outcomes)
    world.check_newest("again")


# --- what it costs


def test_a_run_without_changes_lists_the_state_once_and_reads_nothing_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = count_looks(world, monkeypatch)
    opened: list[str] = []
    sweep(world)
    world.storage.before_read = opened.append
    assert back_up(world).published is None
    assert listed.count("repo/") == 1
    assert not [key for key in opened if key == EPOCH or key.startswith(MARKS)]


def test_a_run_that_publishes_looks_twice_and_lists_no_contents_that_the_index_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("new", OTHER)
    listed = count_looks(world, monkeypatch)
    assert back_up(world).published
    assert [prefix for prefix in listed if prefix in {"repo/", "data/"}] == ["repo/", "repo/", "data/"]  # our check


def test_a_second_look_reads_only_the_files_whose_content_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    world.write("new", OTHER)
    for name in ("new", "old"):
        strike_while_reading(monkeypatch, world.source / name, lambda name=name: reads.append(name))  # type: ignore[misc]
    world.storage.before_send = once(lambda: sweep(world, TEXT))
    assert back_up(world).published
    assert sorted(reads) == ["new", "old", "old"]  # it is racy, and then gone


# --- marks that cannot be read


@pytest.mark.parametrize(
    "line", [b"x" * 64, hash_of(TEXT).upper().encode(), hash_of(TEXT)[:63].encode(), b"#" * 5000, b"\xff"]
)
def test_marks_that_nobody_understands_stop_the_run_and_name_key_and_line(world: World, line: bytes) -> None:
    world.write("new", OTHER)
    world.storage.put(NOON, b"# made by a prune\n\n" + line + b"\n", {})
    with pytest.raises(IntegrityError, match=f"{NOON}, line 3: not a hash"):
        run(world)
    assert not world.storage.objects.keys() & {key_of(OTHER)}


def test_a_line_without_an_end_is_not_held_in_memory() -> None:
    stream = io.BytesIO(b"#" * 10_000_000)
    with pytest.raises(IntegrityError, match="line 1"):
        list(read_marks(stream, NOON))
    assert stream.tell() < 100_000


def test_marks_are_read_across_the_pieces_in_which_they_come() -> None:
    digests = [number.to_bytes(32, "big") for number in range(5000)]
    text = b"\n".join(digest.hex().encode() for digest in digests)
    assert list(read_marks(io.BytesIO(text), NOON)) == digests


# --- marks that vanish while they are read


def test_marks_that_vanish_between_listing_and_reading_are_those_of_the_state_there_is_then(world: World) -> None:
    mark(world, TEXT)
    state = world.repository.state()
    world.storage.delete(NOON)
    mark(world, OTHER, at=LATER)
    assert list(world.repository.marked(state)) == [bytes.fromhex(hash_of(OTHER))]


def test_marks_that_keep_vanishing_are_an_error(world: World) -> None:
    mark(world, TEXT)
    state = world.repository.state()

    def strike(key: str) -> None:
        raise ObjectNotFound(f"{key}: gone")

    world.storage.before_read = strike
    with pytest.raises(StorageError, match="keep vanishing"):
        world.repository.marked(state)


def test_a_run_during_which_marks_vanish_publishes(world: World) -> None:
    mark(world, TEXT)
    world.write("new", OTHER)
    world.storage.before_read = lambda key: world.storage.delete(key) if key == NOON else None
    assert back_up(world).published
    world.check_newest()


# --- the state


def test_a_state_knows_its_marks_and_its_epoch() -> None:
    earlier = State({EPOCH: "a", NOON: "b"})
    now = State({EPOCH: "c", NOON: "b", LATER: "d"})
    assert (now.marks, now.epoch) == ((NOON, LATER), "c")
    assert now != earlier
    assert State({}).epoch is None


def test_the_state_is_what_lies_below_repo(world: World) -> None:
    before = world.repository.state()
    assert world.repository.state() == before
    sweep(world)
    assert world.repository.state() != before
