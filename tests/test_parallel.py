"""The pool and the budget: what comes out, what is taken ahead, and how it all ends."""

import threading
from collections.abc import Iterator

import pytest

from s3bu.parallel import Budget, each
from tests.fakes import wait_for


def nothing() -> None:
    pass


class Ended:
    """Counts how often a run was given up."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("s3bu_")]


def test_every_item_gives_its_result() -> None:
    results = each(lambda number: number * 2, range(1000), workers=4, give_up=nothing)
    assert sorted(results) == list(range(0, 2000, 2))


def test_no_items_give_no_results() -> None:
    assert list(each(lambda number: number, [], workers=4, give_up=nothing)) == []


def test_work_is_done_on_several_threads_at_once() -> None:
    barrier = threading.Barrier(4, timeout=30)
    assert len(list(each(lambda _: barrier.wait(), range(4), workers=4, give_up=nothing))) == 4


def test_items_are_taken_on_the_thread_of_the_caller() -> None:
    threads = []

    def items() -> Iterator[int]:
        for number in range(50):
            threads.append(threading.current_thread())
            yield number

    list(each(lambda number: number, items(), workers=2, give_up=nothing))
    assert set(threads) == {threading.current_thread()}


def test_only_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = each(lambda number: number, items(), workers=2, give_up=nothing)
    next(results)
    assert len(taken) <= 8


def test_a_run_to_the_end_is_not_given_up() -> None:
    ended = Ended()
    list(each(lambda number: number, range(10), workers=2, give_up=ended))
    assert ended.times == 0


def test_an_error_of_the_work_ends_the_run_and_comes_out_as_it_is() -> None:
    ended, error = Ended(), ValueError("no")

    def fail(number: int) -> int:
        if number == 5:
            raise error
        return number

    with pytest.raises(ValueError, match="no") as caught:
        list(each(fail, range(100_000), workers=2, give_up=ended))
    assert caught.value is error
    assert ended.times == 1


def test_what_was_not_begun_when_an_error_came_is_never_begun() -> None:
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        list(each(fail, range(1000), workers=1, give_up=nothing))
    assert len(begun) < 10


def test_an_error_of_the_items_ends_the_run() -> None:
    ended = Ended()

    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(each(lambda number: number, items(), workers=2, give_up=ended))
    assert ended.times == 1


def test_giving_up_releases_the_work_under_way_and_only_then_the_caller_goes_on() -> None:
    released, over = threading.Event(), []

    def work(number: int) -> int:
        if number:
            released.wait(30)
            over.append(number)
            return number
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        list(each(work, [1, 2, 0], workers=3, give_up=released.set))
    assert sorted(over) == [1, 2]
    assert pool_threads() == []


def test_a_caller_that_stops_early_gives_up() -> None:
    ended = Ended()
    results = each(lambda number: number, range(1000), workers=2, give_up=ended)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert ended.times == 1
    assert pool_threads() == []


def test_an_interrupt_in_the_caller_gives_up() -> None:
    ended = Ended()
    results = each(lambda number: number, range(1000), workers=2, give_up=ended)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert ended.times == 1


def test_no_more_than_the_budget_is_ever_held() -> None:
    budget, lock, held, most = Budget(10), threading.Lock(), [0], [0]

    def work(number: int) -> None:
        nbytes = number % 7 + 1
        with budget.claim(nbytes):
            with lock:
                held[0] += nbytes
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= nbytes

    list(each(work, range(2000), workers=8, give_up=nothing))
    assert most[0] <= 10
    assert held[0] == 0


@pytest.mark.parametrize("nbytes", [10, 11, 10**15])
def test_a_claim_beyond_the_whole_waits_for_all_of_it(nbytes: int) -> None:
    budget = Budget(10)
    entered, leave, second = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with budget.claim(nbytes):
            entered.set()
            leave.wait(30)

    def ask() -> None:
        with budget.claim(1):
            second.set()

    threads = [threading.Thread(target=hold), threading.Thread(target=ask)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    assert not second.wait(0.05)
    leave.set()
    assert second.wait(30)
    for thread in threads:
        thread.join()


def test_a_large_claim_is_not_overtaken_by_small_ones_for_ever() -> None:
    budget = Budget(10)
    order: list[str] = []

    def ask(name: str, nbytes: int) -> None:
        with budget.claim(nbytes):
            order.append(name)

    with budget.claim(5):
        large = threading.Thread(target=ask, args=("large", 10))
        large.start()
        wait_for(lambda: budget._queue)
        small = threading.Thread(target=ask, args=("small", 1))
        small.start()
        wait_for(lambda: len(budget._queue) == 2)
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_what_was_claimed_is_free_again_after_an_error() -> None:
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"^$"), budget.claim(10):
            raise ValueError
    with budget.claim(10):
        pass


def test_a_claim_of_nothing_is_granted() -> None:
    with Budget(0).claim(0), Budget(0).claim(5):
        pass
