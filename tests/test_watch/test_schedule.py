"""When runs begin: the promises of the schedule, held by histories drawn at random."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.watch.schedule import NEVER, Pace, Schedule
from tests.rounds import rounds

DAY = 86_400.0


def schedule(**pace: float) -> Schedule[str]:
    return Schedule(Pace(**pace), chance=lambda: 0.0)  # type: ignore[arg-type]


def done(one: Schedule[str], source: str, at: float, nbytes: int | None = 100, *, was_full: bool = False) -> None:
    one.begin(source, at)
    one.succeed(source, manifest_nbytes=nbytes, was_full=was_full)


def test_a_source_is_due_as_soon_as_it_is_watched() -> None:
    one = schedule()
    one.add("home", 5.0)
    assert (one.due("home"), one.next(), one.all_due(5.0), one.all_due(4.9)) == (5.0, 5.0, ["home"], [])


def test_without_a_change_nothing_is_due_but_the_full_scan() -> None:
    one = schedule(full_every=1000.0)
    one.add("home", 0.0)
    done(one, "home", 1.0, was_full=True)
    assert one.due("home") == 1001.0
    done(one, "home", 1001.0, was_full=False)
    assert one.due("home") == 1301.0, "a run that was to be a full scan and was none is no full scan"
    done(one, "home", 1301.0, was_full=True)
    assert one.due("home") == 2301.0


def test_a_run_waits_until_the_tree_has_been_quiet() -> None:
    one = schedule(interval=300.0, settle=10.0)
    one.add("home", 0.0)
    done(one, "home", 0.0)
    one.changed("home", 1000.0)
    one.changed("home", 1007.0)
    assert one.due("home") == 1017.0


def test_a_tree_that_is_never_quiet_is_backed_up_an_interval_after_its_first_change() -> None:
    one = schedule(interval=300.0, settle=10.0)
    one.add("home", 0.0)
    done(one, "home", 0.0)
    for second in range(1000, 1300, 5):
        one.changed("home", float(second))
    assert one.due("home") == 1300.0


def test_what_changes_just_after_a_run_began_waits_for_the_interval() -> None:
    one = schedule(interval=300.0, settle=10.0)
    one.add("home", 0.0)
    one.begin("home", 0.0)
    one.changed("home", 1.0)
    assert one.due("home") == NEVER, "one run at a time"
    one.succeed("home", manifest_nbytes=None, was_full=True)
    assert one.due("home") == 300.0


def test_the_interval_stretches_with_the_manifests_and_the_number_of_sources() -> None:
    one = schedule(interval=300.0, budget=10**9)
    for source in ("home", "mail"):
        one.add(source, 0.0)
        done(one, source, 0.0, nbytes=10**7)
    assert one.stretched("home") == DAY / 50
    one.changed("home", 10.0)
    assert one.due("home") == DAY / 50


def test_a_run_that_published_nothing_takes_nothing_of_the_budget() -> None:
    one = schedule(interval=300.0, budget=10**9)
    one.add("home", 0.0)
    done(one, "home", 0.0, nbytes=10**7)
    done(one, "home", 5000.0, nbytes=None)
    one.changed("home", 5001.0)
    assert one.due("home") == 5300.0


def test_what_was_put_off_is_due_when_it_may_be_taken() -> None:
    one = schedule(interval=300.0)
    one.add("home", 0.0)
    done(one, "home", 0.0)
    one.want("home", 3600.0)
    assert one.due("home") == 3600.0
    one.want("home", 20.0)
    assert one.due("home") == 300.0


def test_failed_runs_are_tried_again_sooner_at_first_and_never_given_up() -> None:
    one = schedule(interval=300.0)
    one.add("home", 0.0)
    delays = []
    now = 0.0
    for _ in range(40):
        one.begin("home", now)
        now += 3.0
        one.fail("home", now)
        delays.append(one.due("home") - now)
        now = one.due("home")
    assert delays == [10, 20, 40, 80, 160, 320, *[600] * 34]
    done(one, "home", now)
    one.changed("home", now + 1)
    assert one.due("home") == now + 300.0


def test_tries_of_several_watchers_get_out_of_step() -> None:
    one: Schedule[str] = Schedule(Pace(), chance=lambda: 1.0)
    one.add("home", 0.0)
    one.begin("home", 0.0)
    one.fail("home", 0.0)
    assert one.due("home") == pytest.approx(11.0)


# --- whatever happens


@dataclass(slots=True)
class Past:
    """A watcher that is asked for its next run all the time, on a machine where things happen at random."""

    schedule: Schedule[str]
    began: list[float] = field(default_factory=list)
    published: list[tuple[float, int]] = field(default_factory=list)
    waits: float | None = None  # since when a change waits for a run that is done


EVENTS = st.lists(
    st.tuples(
        st.floats(0.01, 2000.0),  # seconds until it happens
        st.sampled_from(["a", "b"]),
        st.booleans(),  # whether the next run succeeds
        st.floats(0.0, 400.0),  # how long that takes
        st.one_of(st.none(), st.integers(1, 2 * 10**7)),  # what it publishes
    ),
    max_size=80,
)
SIZE = 5 * 10**6


@settings(max_examples=rounds(40), deadline=None)
@given(events=EVENTS, interval=st.floats(1.0, 600.0), settle=st.floats(0.0, 700.0))
def test_whatever_happens_the_promises_are_kept(
    events: list[tuple[float, str, bool, float, int | None]], interval: float, settle: float
) -> None:
    one: Schedule[str] = Schedule(Pace(interval, settle, 10**9, DAY), chance=lambda: 0.5)
    pasts = {source: Past(one) for source in ("a", "b")}
    for source in pasts:
        one.add(source, 0.0)
    now = 0.0
    for delay, source, succeeds, seconds, nbytes in events:
        until = now + delay
        while one.next() <= until:
            due = one.all_due(max(now, one.next()))[0]
            now = max(now, one.due(due))
            now = run(one, pasts[due], due, now, seconds, nbytes if succeeds else 0, interval)
        now = max(now, until)
        one.changed(source, now)
        if pasts[source].waits is None:
            pasts[source].waits = now
    while any(past.waits is not None for past in pasts.values()):
        assert one.next() < NEVER, "a change was forgotten"
        now = max(now, one.next())
        due = one.all_due(now)[0]
        now = run(one, pasts[due], due, now, 1.0, None, interval)
    check_budget([each for past in pasts.values() for each in past.published])


def run(
    one: Schedule[str], past: Past, source: str, now: float, seconds: float, nbytes: int | None, interval: float
) -> float:
    """Run a source, and hold that to the promises; `nbytes` of 0 is a run that fails."""
    has_failed = one.failures(source) > 0
    if past.began and not has_failed:
        assert now >= past.began[-1] + interval - 1e-6, "sooner than the interval"
    if past.waits is not None and not has_failed:
        assert one.due(source) <= past.waits + one.stretched(source) + 1e-6, "later than promised"
    one.begin(source, now)
    past.began.append(now)
    assert one.due(source) == NEVER
    if nbytes == 0:
        one.fail(source, now + seconds)
        assert now + seconds < one.due(source) <= now + seconds + 660.0
        return now + seconds
    one.succeed(source, manifest_nbytes=nbytes, was_full=True)
    past.waits = None
    if nbytes is not None:
        past.published.append((now, nbytes))
    return now + seconds


def check_budget(published: list[tuple[float, int]]) -> None:
    """Hold each day to the budget; the last manifest of each source counts for the time after it."""
    largest = max((nbytes for _, nbytes in published), default=0)
    for start, _ in published:
        inside = sum(nbytes for when, nbytes in published if start <= when < start + DAY)
        assert inside <= 10**9 + 2 * largest


@settings(max_examples=rounds(8), deadline=None)
@given(st.lists(st.integers(SIZE // 2, SIZE * 2), min_size=1, max_size=4), st.floats(1.0, 60.0))
def test_sources_that_change_all_the_time_stay_within_the_budget_over_every_day(
    sizes: list[int], interval: float
) -> None:
    one: Schedule[int] = Schedule(Pace(interval, 0.0, 10**9))
    published: list[tuple[float, int]] = []
    for source in range(len(sizes)):
        one.add(source, 0.0)
    now = 0.0
    while now < 2 * DAY:
        (source, *_) = one.all_due(now)
        one.begin(source, now)
        one.succeed(source, manifest_nbytes=sizes[source], was_full=True)
        published.append((now, sizes[source]))
        one.changed(source, now)
        now = max(now, one.next())
    for start, _ in published[::7]:
        inside = sum(nbytes for when, nbytes in published if start <= when < start + DAY)
        assert inside <= 10**9 + sum(sizes)


def test_a_source_that_is_gone_is_not_due() -> None:
    one = schedule()
    one.add("home", 0.0)
    one.remove("home")
    assert (one.next(), one.all_due(1e9)) == (NEVER, [])


def test_a_day_of_office_work_makes_no_more_snapshots_than_intervals() -> None:
    one = schedule(interval=300.0, settle=10.0)
    one.add("home", 0.0)
    done(one, "home", 0.0, nbytes=2 * 10**6)
    ran, states = [], []
    chance = random.Random(1)
    now = 3600.0
    while now < 3600.0 + 8 * 3600:
        pause = chance.choice([0.3, 2.0, 5.0, 40.0, 700.0])
        one.changed("home", now)
        if pause > 310:
            states.append((now, now + pause))  # quiet for settle and interval
        while one.next() <= now + pause:
            ran.append(one.next())
            done(one, "home", ran[-1], nbytes=2 * 10**6)
        now += pause
    assert len(ran) <= 97
    assert sum(2 * 10**6 for _ in ran) <= Pace().budget
    for begin, end in states:
        assert any(begin <= when <= end for when in ran), "a state that lasted was not backed up"
