"""What does not pass is told, soon and with the right exit code; what was done counts, and nothing wrong is written."""

import itertools
import time
from collections import defaultdict

import pytest

from s3bu.storage import s3_transport
from tests.faults.faults import (
    EXPIRED,
    access_denied,
    error_within_200,
    flipped,
    forbidden_without_a_word,
    internal_error,
    no_such_key,
    reset_before_request,
    slow_down,
    stalled_before_head,
    too_many_requests,
    truncated_body,
)
from tests.faults.proxy import Asked, Fault, Passing, always, first_times, from_nth, in_turn
from tests.faults.scenes import NSMALL, Place, in_haste
from tests.faults.test_passing import check_success, named
from tests.rounds import rounds
from tests.running import Result, check_refusal

IN_FLIGHT = 2 * NSMALL
"""So many requests may be under way when the first of them is refused."""
SECONDS = 30


def check_next(place: Place) -> None:
    """Hold the next run, with nothing in its way, to a whole snapshot."""
    place.proxy.begin()
    check_success(place.backup())
    assert place.check() == place.files()


# --- the storage is gone


@pytest.mark.parametrize(
    ("fault", "pattern", "words"),
    [
        (internal_error, "^PUT data", "failed at s3:PutObject"),
        (slow_down, "^PUT data", "is overloaded (SlowDown)"),
        (too_many_requests, "", "is overloaded"),
        (reset_before_request, "", "cannot reach"),
        (reset_before_request, "^PUT data", "broke off"),
        (truncated_body, "^LIST", "failed at s3:ListBucket"),
        (error_within_200, "^(PUT|COMPLETE)", "(InternalError)"),
        (internal_error, "^PUT manifests/home/src", "failed at s3:PutObject"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_backup_gives_up_what_fails_for_ever(fault: Fault, pattern: str, words: str, place: Place) -> None:
    place.proxy.begin(always(fault, pattern))
    begun = time.monotonic()
    check_refusal(place.backup(), 1, words)
    assert time.monotonic() - begun < SECONDS
    assert place.manifests() == []
    check_next(place)


def test_a_server_that_is_silent_from_the_start_is_not_waited_for_long(place: Place) -> None:
    place.proxy.begin(always(stalled_before_head))
    begun = time.monotonic()
    check_refusal(place.backup(), 1, "cannot reach")
    assert time.monotonic() - begun < SECONDS


def test_a_server_that_falls_silent_is_given_up(place: Place) -> None:
    place.proxy.begin(always(stalled_before_head, "^PUT data"))
    begun = time.monotonic()
    with in_haste(retries=1):
        check_refusal(place.backup(), 1, "does not answer")
    assert time.monotonic() - begun < SECONDS
    assert place.manifests() == []
    check_next(place)


def test_repetitions_are_bounded_and_scattered(place: Place) -> None:
    place.proxy.begin(always(slow_down, "^PUT data"))
    place.backup()
    moments: dict[Asked, list[float]] = defaultdict(list)
    for moment, asked in place.proxy.log:
        moments[asked].append(moment)
    puts = [came for asked, came in moments.items() if str(asked).startswith("PUT data")]
    assert max(map(len, puts)) <= 4
    pauses = [[after - before for before, after in itertools.pairwise(came)] for came in puts]
    for number in range(3):
        nth = [each[number] for each in pauses if len(each) > number]
        longest = s3_transport._FIRST_PAUSE * 2**number * 2
        assert min(nth) >= longest / 4
        assert max(nth) - min(nth) > longest / 8, "they all come again at the same moment"


# --- credentials


def check_expired(result: Result, place: Place) -> None:
    """Hold a run to end with the first request that is refused, and to tell it once."""
    check_refusal(result, 1, "the credentials have expired")
    assert len(result.errors) == 2, result.errors
    assert 0 < len(place.proxy.struck) <= IN_FLIGHT


STEP = max(1, 10 // rounds(1))
"""From each so-manieth request on the credentials are expired, in a test of its own."""


@pytest.mark.parametrize("nth", range(0, 40, STEP))
def test_credentials_that_expire_during_a_backup_end_it_at_once(nth: int, place: Place) -> None:
    place.proxy.begin(from_nth(nth, EXPIRED[nth // STEP % 2]))
    check_expired(place.backup(), place)
    assert place.manifests() == []
    assert place.uploads() == [] or nth > 0
    check_next(place)


@pytest.mark.parametrize("nth", range(0, 28, STEP))
def test_credentials_that_expire_during_a_restore_end_it_at_once(nth: int, stored: Place) -> None:
    stored.proxy.begin(from_nth(nth, EXPIRED[nth // STEP % 2]))
    check_expired(stored.restore(), stored)
    if stored.target.exists():
        assert stored.files(stored.target).items() <= stored.files().items()
    stored.proxy.begin()
    check_success(stored.restore("-f"))
    assert stored.files(stored.target) == stored.files()


@pytest.mark.parametrize("nth", range(3))
def test_credentials_that_expire_during_a_sync_end_it_at_once(nth: int, stored: Place) -> None:
    stored.forget_state()
    stored.proxy.begin(from_nth(nth, EXPIRED[0]))
    check_expired(stored.sync(), stored)
    stored.proxy.begin()
    check_success(stored.sync())


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        (access_denied, "^PUT data"),
        (forbidden_without_a_word, "^(BEGIN|PART|COMPLETE)"),
        (forbidden_without_a_word, "^LIST manifests"),
        (access_denied, "^PUT manifests/home/src"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_forbidden_ends_a_backup(fault: Fault, pattern: str, place: Place) -> None:
    place.proxy.begin(always(fault, pattern))
    check_refusal(place.backup(), 1, "is denied")
    assert len(place.proxy.struck) <= IN_FLIGHT
    assert place.manifests() == []
    check_next(place)


def test_what_is_forbidden_ends_a_restore(stored: Place) -> None:
    stored.proxy.begin(always(access_denied, "^GET data"))
    result = stored.restore()
    check_refusal(result, 1, "is denied", "s3:GetObject")
    assert len(result.errors) == 2


# --- bodies that are wrong or gone


@pytest.mark.parametrize("fault", [flipped, no_such_key, error_within_200], ids=named)
def test_a_content_that_is_wrong_or_gone_fails_its_file_alone(fault: Fault, stored: Place) -> None:
    stored.proxy.begin(always(fault, "^GET data/0"))  # few, since five in a row end the run
    result = stored.restore()
    wrong = {str(asked).removeprefix("GET data/")[5:] for asked, _ in stored.proxy.struck}
    right = {path: content for path, content in stored.files().items() if content not in wrong}
    assert result.code == 3
    assert 0 < len(wrong) < 5
    assert result.failed == {path.decode() for path in stored.files().keys() - right.keys()}
    assert stored.files(stored.target) == right
    stored.proxy.begin()
    check_success(stored.restore("-f"))
    assert stored.files(stored.target) == stored.files()


def test_a_content_that_is_gone_when_it_is_gone_on_with_fails_its_file(stored: Place) -> None:
    stored.proxy.begin(in_turn(truncated_body, no_such_key, "^GET data"))
    result = stored.restore()
    assert result.code == 3
    assert stored.files(stored.target) == {}
    assert result.failed == {path.decode() for path in stored.files()}


def test_a_manifest_that_is_wrong_is_told(stored: Place) -> None:
    stored.forget_state()
    stored.proxy.begin(always(flipped, "^GET manifests"))
    check_refusal(stored.restore(), 1, "manifests/home/src/")
    result = stored.sync()
    assert result.code == 3
    assert "could not be opened" in result.out
    stored.proxy.begin()
    result = stored.sync()
    check_success(result)
    assert "2 snapshots taken in, 2 in the index" in result.out


def test_a_backup_that_cannot_read_the_last_snapshot_makes_a_whole_one(place: Place) -> None:
    check_success(place.backup())
    place.change(1)
    place.forget_state()
    place.proxy.begin(always(flipped, "^GET manifests"))
    result = place.backup()
    assert (result.code, result.errors) == (0, [])
    assert "warning" in result.err
    assert place.check() == place.files()


def test_recipients_that_are_altered_on_the_way_are_not_used(place: Place) -> None:
    place.proxy.begin(always(flipped, "^GET repo/recipients.txt"))
    result = place.backup()
    assert result.code in (1, 2, 12), result
    assert result.errors
    assert place.keys("data/") == []
    check_next(place)


@pytest.mark.parametrize("pattern", ["^LIST manifests", "^LIST repo", "^LIST data"])
def test_a_bucket_that_is_gone_is_told(pattern: str, place: Place) -> None:
    place.proxy.begin(always(no_such_key, pattern))
    check_refusal(place.backup(), 10, "there is no bucket")
    check_next(place)


def test_another_machine_that_took_the_key_just_before_keeps_it(place: Place) -> None:
    intruder = b"of another machine"

    def taken(passing: Passing) -> None:
        key = next(asked.key for _, asked in place.proxy.log if str(asked).startswith("PUT manifests/home/src"))
        place.client.put_object(Bucket=place.bucket, Key=key, Body=intruder)
        head, body = passing.relay()
        passing.send(head + body)

    place.proxy.begin(first_times(taken, "^PUT manifests/home/src"))
    check_success(place.backup())
    first, second = place.manifests()
    assert place.client.get_object(Bucket=place.bucket, Key=first)["Body"].read() == intruder
    assert second > first
