"""How snapshots are named, and what is told of each."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3bu.errors import (
    JobNotFoundError,
    UsageError,
)
from s3bu.progress import Silent
from s3bu.repository.naming import find_snapshot
from s3bu.snapshots import Line, summarise
from tests.fakes import (
    World,
    file_entry,
    manifest_key,
)

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def put_history(world: World) -> list[str]:
    """Store three snapshots, of the first three days of May 2026 at noon."""
    days = [datetime(2026, 5, day, 12, 0, tzinfo=UTC) for day in (1, 2, 3)]
    return [str(world.put_manifest([], key=manifest_key(f"{day:%Y-%m-%d}", 1), created=day)) for day in days]


def found(world: World, text: str) -> str:
    return str(find_snapshot(world.repository, text, now=NOW))


def test_a_snapshot_is_found_by_label_time_or_key(world: World) -> None:
    first, second, third = put_history(world)
    assert found(world, "home/docs") == third
    assert found(world, first) == first
    assert found(world, "home/docs@2026-05-02T12:00Z") == second
    assert found(world, "home/docs@2026-05-02T11:59Z") == first
    assert found(world, "home/docs@2026-05-02T13:00+00:00") == second
    assert found(world, "home/docs@30d") == second
    assert found(world, "home/docs@9999-01-01") == third


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", UsageError),
        ("home", UsageError),
        ("/docs", UsageError),
        ("home/", UsageError),
        ("home/pics", UsageError),
        ("work/docs", JobNotFoundError),
        ("home/docs@2026-04-30T12:00Z", UsageError),
        ("home/docs@never", UsageError),
        ("home/docs@", UsageError),
        ("manifests/home/docs/home-docs-2026-05-01-00002.csv.gz", UsageError),
        ("manifests/rubbish", UsageError),
    ],
)
def test_what_names_no_snapshot_is_refused_with_a_hint(world: World, text: str, kind: type[UsageError]) -> None:
    put_history(world)
    with pytest.raises(kind) as caught:
        found(world, text)
    assert caught.value.hint


def test_snapshots_are_told_in_numbers(world: World) -> None:
    first, second, third = (file_entry(name, name) for name in (b"a", b"bb", b"ccc"))
    created = NOW - timedelta(days=1)
    world.put_manifest([first, second], key=manifest_key("2026-01-01", 1), created=created)
    changed = second._replace(mode=0o600)
    world.put_manifest([changed, third], key=manifest_key("2026-01-02", 1), created=NOW)
    before, after = summarise(world.repository, "home", "docs", Silent())
    assert before == Line(manifest_key("2026-01-01", 1), created, "here", nfiles=2, nbytes=3, new=2)
    assert after == Line(manifest_key("2026-01-02", 1), NOW, "here", nfiles=2, nbytes=5, new=1, changed=1, removed=1)


def test_a_broken_snapshot_is_a_line_that_says_so_and_the_next_is_compared_with_the_one_before(world: World) -> None:
    world.put_manifest([file_entry(b"a")], key=manifest_key("2026-01-01", 1))
    broken = manifest_key("2026-01-02", 1)
    world.put_private(str(broken), b"rubbish\n")
    world.put_manifest([file_entry(b"a"), file_entry(b"b")], key=manifest_key("2026-01-03", 1))
    lines = summarise(world.repository, "home", None, Silent())
    assert [(line.error is None, line.new) for line in lines] == [(True, 1), (False, 0), (True, 1)]


def test_labels_are_not_compared_with_each_other(world: World) -> None:
    for label in ("docs", "pics"):
        world.put_manifest([file_entry(b"a")], key=manifest_key("2026-01-01", 1, label=label))
    assert [line.new for line in summarise(world.repository, None, None, Silent())] == [1, 1]


def test_entries_that_were_never_backed_up_count_as_failed(world: World) -> None:
    world.put_original_manifest(b"5,1600000000,0644,,unreadable\n")
    (line,) = summarise(world.repository, "home", "docs", Silent())
    assert (line.nfiles, line.nbytes, line.failed) == (0, 0, 1)


def test_a_job_or_label_without_snapshots_is_told(world: World) -> None:
    world.put_manifest([])
    with pytest.raises(JobNotFoundError):
        summarise(world.repository, "work", None, Silent())
    with pytest.raises(UsageError) as caught:
        summarise(world.repository, "home", "pics", Silent())
    assert caught.value.hint == "it has docs"
