"""What passes is got over: the outcome is the same as without it, and nothing is told."""

import pytest

from tests.faults.faults import LOST, QUICK, error_within_200, stalled_before_head, stalled_inside_body, stalled_request
from tests.faults.proxy import Fault, first_times
from tests.faults.scenes import Place
from tests.running import Result


def check_success(result: Result) -> None:
    assert (result.code, result.errors) == (0, []), result


def named(fault: Fault) -> str:
    return fault.__name__


@pytest.mark.parametrize("fault", QUICK, ids=named)
def test_a_backup_of_which_every_request_is_struck_once_is_whole(fault: Fault, place: Place) -> None:
    place.proxy.begin(first_times(fault))
    check_success(place.backup())
    assert {"LIST", "GET", "PUT", "BEGIN", "PART", "COMPLETE"} <= {asked.operation for asked, _ in place.proxy.struck}
    assert place.check() == place.files()
    assert len(place.manifests()) == 1
    # An upload whose name never arrived cannot be taken back; a lifecycle rule of the bucket does it.
    assert place.uploads() == [] or fault in LOST


@pytest.mark.parametrize("fault", QUICK, ids=named)
def test_a_restore_of_which_every_request_is_struck_once_is_whole(fault: Fault, stored: Place) -> None:
    stored.proxy.begin(first_times(fault))
    check_success(stored.restore())
    assert stored.files(stored.target) == stored.files()


@pytest.mark.parametrize("fault", QUICK, ids=named)
def test_a_sync_of_which_every_request_is_struck_once_takes_all_in(fault: Fault, stored: Place) -> None:
    stored.forget_state()
    stored.proxy.begin(first_times(fault))
    result = stored.sync()
    check_success(result)
    assert "2 snapshots taken in, 2 in the index" in result.out


@pytest.mark.parametrize("fault", [stalled_request, stalled_before_head], ids=named)
def test_a_put_that_stalls_once_is_sent_again(fault: Fault, place: Place) -> None:
    place.proxy.begin(first_times(fault, "^(PUT data|PART)"))
    check_success(place.backup())
    assert {"PUT", "PART"} <= {asked.operation for asked, _ in place.proxy.struck}
    assert place.check() == place.files()


def test_a_content_that_stalls_midway_is_gone_on_with(stored: Place) -> None:
    stored.proxy.begin(first_times(stalled_inside_body, "^GET data"))
    check_success(stored.restore())
    assert stored.files(stored.target) == stored.files()


@pytest.mark.parametrize("operation", ["LIST", "PUT", "BEGIN", "PART", "COMPLETE"])
def test_an_error_after_a_200_is_no_success(operation: str, place: Place) -> None:
    place.proxy.begin(first_times(error_within_200, f"^{operation} "))
    check_success(place.backup())
    assert operation in {asked.operation for asked, _ in place.proxy.struck}
    assert place.check() == place.files()
