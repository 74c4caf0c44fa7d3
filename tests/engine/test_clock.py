"""The clock: a fixed rate without drift, no racing after a stall, no waiting in circles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.clock import Clock
from playhead.world.errors import PlayheadError
from tests.engine.fake_time import FakeTime

RATE = 16.0
PERIOD = 1 / RATE
speeds = st.floats(0.25, 2.0)


def starts(time: FakeTime, busy: list[float], speed: float = 1.0) -> list[float]:
    """When each tick begins, if the ticks take so many periods each."""
    clock = time.clock(RATE, speed)
    begun = []
    for periods in busy:
        clock.wait()
        begun.append(time.now())
        time.seconds += periods * clock.period
    return begun


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=200), speeds)
def test_ticks_begin_on_the_grid_however_long_they_take_within_their_budget(busy, speed):
    begun = starts(FakeTime(), busy, speed)
    assert begun == pytest.approx([n * PERIOD / speed for n in range(len(busy))])


@given(st.floats(1.01, 1.9))
def test_a_late_tick_does_not_shift_the_later_ones(late):
    begun = starts(FakeTime(), [0.1, late, 0.05, 0.5, 0.5])
    assert begun[2] == pytest.approx((1 + late) * PERIOD)
    assert begun[3:] == pytest.approx([3 * PERIOD, 4 * PERIOD])


@given(st.floats(2.01, 1000))
def test_a_long_stall_is_not_made_up_for(stall):
    begun = starts(FakeTime(), [0.1, stall, 0.1, 0.1, 0.1])
    assert begun[2:] == pytest.approx([(1 + stall + n) * PERIOD for n in range(3)])


def test_a_tick_that_is_late_by_a_period_is_made_up_for_and_by_more_than_that_is_not():
    """The moments are exact, since the rate is a power of two."""
    assert starts(FakeTime(), [0, 2, 0, 0]) == [0, PERIOD, 3 * PERIOD, 3 * PERIOD]
    more = 2 + 2**-20
    assert starts(FakeTime(), [0, more, 0, 0]) == [0, PERIOD, (1 + more) * PERIOD, (2 + more) * PERIOD]


@given(st.lists(st.one_of(st.floats(0, 2), st.floats(0, 50)), min_size=2, max_size=60))
def test_the_world_never_runs_ahead_of_its_rate_by_more_than_one_tick(busy):
    begun = starts(FakeTime(), busy)
    for i in range(len(begun)):
        for j in range(i + 1, len(begun)):
            assert begun[j] - begun[i] >= (j - i - 1) * PERIOD - 1e-9


@given(st.lists(st.floats(1.0, 3.0), min_size=2, max_size=60))
def test_a_machine_that_is_too_slow_never_sleeps(busy):
    time = FakeTime()
    starts(time, [periods + 1e-6 for periods in busy])
    assert not time.slept


@given(st.lists(st.floats(0, 0.9), min_size=1, max_size=60))
def test_one_sleep_a_tick_is_all_the_waiting(busy):
    time = FakeTime()
    starts(time, busy)
    assert len(time.slept) <= len(busy)


def test_waking_too_early_is_slept_out():
    time = FakeTime()
    clock = time.clock(RATE)
    full_sleep = time.sleep
    clock._sleep = lambda seconds: full_sleep(max(seconds / 2, 1e-6))
    clock.wait()
    clock.wait()
    assert time.now() >= PERIOD


def test_wait_tells_how_late_a_tick_is():
    time = FakeTime()
    clock = time.clock(RATE)
    assert clock.wait() == 0
    time.seconds += 1.5 * PERIOD
    assert clock.wait() == pytest.approx(0.5 * PERIOD)


@given(speeds, speeds)
def test_another_speed_counts_from_the_last_tick(before, after):
    time = FakeTime()
    clock = time.clock(RATE, before)
    for _ in range(3):
        clock.wait()
    last = time.now()
    clock.speed = after
    clock.wait()
    clock.wait()
    assert time.now() - last == pytest.approx(2 * PERIOD / after)


def test_after_a_pause_the_next_tick_is_due_at_once():
    time = FakeTime()
    clock = time.clock(RATE)
    clock.wait()
    time.seconds += 0.3 * PERIOD
    clock.restart()
    clock.wait()
    assert time.now() == pytest.approx(0.3 * PERIOD)


@pytest.mark.parametrize("speed", [0, 0.2, 2.1, -1, float("nan")])
def test_a_speed_outside_the_range_is_refused(speed):
    with pytest.raises(PlayheadError, match=r"from 0\.25 to 2"):
        FakeTime().clock(RATE, speed)


def test_the_whole_range_of_speeds_is_allowed_and_nothing_chosen_is_the_rate_itself():
    for speed in (0.25, 1.0, 2.0):
        assert FakeTime().clock(RATE, speed).speed == speed
    clock = Clock(RATE)
    assert (clock.speed, clock.period) == (1.0, PERIOD)
