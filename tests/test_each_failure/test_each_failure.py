"""No failure makes a run lie, lose what was there, or leave what the next clean run cannot make whole."""

import itertools
from collections.abc import Iterator

import pytest

from tests.rounds import rounds
from tests.test_each_failure.faults import DOMAINS, MANNERS, Faults, armed
from tests.test_each_failure.scenarios import SCENARIOS, Scenario, Stage, quick_scene

STEP = max(60 // rounds(1), 1)
"""Every so manieth operation fails; with `S3BU_ROUNDS=60` each of them."""
STEPS = {"files": STEP, "storage": max(STEP // 6, 1), "index": max(STEP // 2, 1)}


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return SCENARIOS[request.param]


@pytest.fixture
def stage(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with quick_scene(monkeypatch) as scene:
        yield Stage.set(scene, scenario.set_up)


def failures(domain: str) -> Iterator[tuple[int, str]]:
    """Yield which operation fails, and in which manner, without end."""
    step = STEPS[domain]
    for number in itertools.count(1, step):
        if step == 1:
            yield from ((number, manner) for manner in MANNERS[domain])
        else:
            yield number, MANNERS[domain][number // step % len(MANNERS[domain])]


@pytest.mark.parametrize("domain", DOMAINS)
def test_after_any_failure_nothing_is_wrong_and_the_next_run_makes_it_whole(
    scenario: Scenario, stage: Stage, domain: str
) -> None:
    for number, manner in failures(domain):
        stage.put_back()
        faults = Faults(domain, number, manner)
        with armed(faults):
            result = scenario.run(stage.scene)
        if not faults.struck:
            assert result.code == scenario.code
            break
        try:
            assert "cannot write the output" not in result.err
            scenario.check(stage.scene, result)
            scenario.again(stage.scene)
        except BaseException as error:
            error.add_note(f"{manner} the {number}. of {domain}, {faults.struck[:3]}: {result}")
            raise
