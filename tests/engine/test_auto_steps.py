"""`--steps auto`: the rate is held by fewer steps, and no step count is swung about."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.auto_steps import AutoSteps

BUDGET = 1.0


def run(auto: AutoSteps, pass_time: float, ticks: int, decode: float = 0.0) -> list[int]:
    """The steps of each tick on a machine where a pass takes `pass_time` budgets: steps + 1 passes a tick."""
    return [auto.update((auto.steps + 1) * pass_time + decode, BUDGET) for _ in range(ticks)]


def changes(steps: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(steps))


def test_a_machine_with_time_keeps_all_steps():
    assert set(run(AutoSteps(4), 0.19, 500)) == {4}


def test_a_slow_machine_drops_to_the_steps_that_hold_the_rate():
    auto = AutoSteps(4)
    assert run(auto, 0.3, 100)[-1] == 2  # three passes of 0.3 fit, four do not


def test_one_step_is_always_left():
    assert run(AutoSteps(4), 5.0, 200)[-1] == 1


def test_steps_come_back_when_the_machine_has_clear_room_again():
    auto = AutoSteps(4)
    run(auto, 0.3, 100)
    assert run(auto, 0.1, 300)[-1] == 4


def test_a_single_stall_costs_no_step():
    auto = AutoSteps(2)
    run(auto, 0.2, 50)
    assert auto.update(20.0, BUDGET) == 2
    assert set(run(auto, 0.2, 50)) == {2}


@given(st.floats(0.05, 1.5), st.floats(0, 0.5), st.integers(1, 8))
def test_on_a_steady_machine_the_steps_settle(pass_time, decode, most):
    auto = AutoSteps(most)
    run(auto, pass_time, 200, decode)
    assert changes(run(auto, pass_time, 1000, decode)) == 0


@given(st.lists(st.floats(0.7, 1.3), min_size=20, max_size=20))
def test_on_an_unsteady_machine_the_steps_change_seldom(loads):
    auto = AutoSteps(3)
    steps = [auto.update((auto.steps + 1) * 0.3 * loads[i % 20], BUDGET) for i in range(2000)]
    assert changes(steps) <= 14
