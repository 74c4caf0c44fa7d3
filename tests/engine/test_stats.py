"""What the loop says about itself is measured, and says nothing where nothing was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.stats import ENOUGH, WINDOW, Meter, percentile


def measured(interval: float, count: int, tick_time: float = 0.01) -> Meter:
    meter = Meter()
    for n in range(count):
        meter.add(n * interval, tick_time, 0.05, None)
    return meter


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_measured_value_that_so_many_do_not_exceed(values, percent):
    value = percentile(values, percent)
    assert value in values
    assert sum(v <= value for v in values) >= percent / 100 * len(values)
    assert sum(v < value for v in values) < percent / 100 * len(values)


def test_nothing_measured_is_no_figure():
    assert percentile([], 50) is None
    assert Meter().rate is None
    assert not Meter().slow(17.5)


def test_the_rate_is_that_of_the_frames_handed_over():
    assert measured(0.05, 30).rate == pytest.approx(20)


def test_running_slow_is_said_only_of_a_rate_that_is_clearly_missed():
    assert measured(1 / 16, 30).slow(17.5)
    assert not measured(1 / 17.3, 30).slow(17.5)
    assert not measured(1.0, ENOUGH - 1).slow(17.5)


def test_a_tick_over_its_budget_counts_as_missed_while_it_is_looked_back_on():
    meter = measured(0.05, 10, tick_time=0.06)
    assert meter.missed == 10
    for n in range(WINDOW):
        meter.add(1 + n, 0.04, 0.05, None)
    assert meter.missed == 0


def test_a_pause_is_no_slow_tick():
    meter = measured(0.05, 20)
    meter.interrupt()
    meter.add(100.0, 0.01, 0.05, None)
    assert meter.rate is None
