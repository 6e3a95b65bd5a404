"""What the kernel does not let one watch is counted and said, and all else goes on; plays in `alone`."""

import errno
from pathlib import Path

import pytest

from s3bu.watch.limits import Limits, hint_of_queue, read_limits, refused, warning_of_watches
from tests.test_watch import alone

SCENARIOS = [
    alone.few_watches,
    alone.no_watches,
    alone.watches_that_come_free,
    alone.changes_below_what_is_not_watched,
    alone.few_queues,
]
CLOSED = [alone.closed_directory, alone.closed_source, alone.directory_closed_in_between]


@pytest.mark.parametrize("scenario", [one.__name__ for one in SCENARIOS])
def test_a_limit_is_no_end(scenario: str, tmp_path: Path) -> None:
    alone.play(scenario, tmp_path, *alone.OWN_LIMITS)


@pytest.mark.parametrize(
    "scenario",
    [one.__name__ for one in (alone.closed_directory, alone.closed_source, alone.directory_closed_in_between)],
)
def test_what_may_not_be_entered_is_watched_when_it_may_be(scenario: str, tmp_path: Path) -> None:
    alone.without_rights(scenario, tmp_path)


def test_the_limits_of_this_machine_are_numbers() -> None:
    assert all(limit is not None and limit > 0 for limit in read_limits())


def test_there_is_nothing_to_say_where_all_can_be_watched() -> None:
    assert warning_of_watches(8192, 0, Limits(8192, 128, 16384)) is None
    assert warning_of_watches(10**6, 0, Limits(None, None, None)) is None


def test_a_warning_says_how_to_raise_the_limit_for_good() -> None:
    assert warning_of_watches(60_000, 0, Limits(8192, 128, 16384)) == (
        "60,000 directories, and the kernel watches 8,192: raise it with `sysctl fs.inotify.max_user_watches=524288`, "
        "and to keep it write that into /etc/sysctl.d/60-s3bu.conf; what cannot be watched is scanned each time"
    )


def test_a_warning_leaves_room_for_twice_as_many() -> None:
    text = warning_of_watches(600_000, 100_000, Limits(524_288, 128, 16384))
    assert text is not None
    assert "fs.inotify.max_user_watches=2097152" in text


def test_a_warning_tells_of_others_that_use_up_the_limit() -> None:
    text = warning_of_watches(5_000, 100, Limits(8192, 128, 16384))
    assert text is not None
    assert text.startswith(
        "5,000 directories, and the kernel watches 8,192 in all, of which other programs have some: "
    )


def test_a_queue_that_overflowed_can_be_made_longer() -> None:
    assert "sysctl fs.inotify.max_queued_events=131072" in hint_of_queue(Limits(8192, 128, 16384))


def test_another_reason_without_a_queue_is_said_as_it_is() -> None:
    assert refused(OSError(errno.ENOMEM, "x")).message == "the kernel gives no queue of changes (x)"
