"""Smoothing: what comes unevenly is handed on evenly, in order, and no later than the jitter demands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.engine.bridge.client.smoother import MOST, Smoother

PERIOD = 0.057


def play(sent: list[float], lags: list[float]) -> list[float]:
    """When each thing is handed on, if the n-th takes `lags[n]` to come and none overtakes another."""
    smoother: Smoother[int] = Smoother()
    arrivals = np.maximum.accumulate(np.array(sent) + lags)
    handed: dict[int, float] = {}

    def hand_on(until: float) -> None:
        """As a thread does that sleeps for as long as it is told to."""
        now = 0.0
        while (wait := smoother.wait(now)) is not None and now + wait <= until:
            now += wait + 1e-9
            handed.update((n, now) for n in smoother.take(now))

    for number, arrival in enumerate(arrivals):
        hand_on(arrival)
        smoother.put(number, sent[number], arrival)
        handed.update((n, arrival) for n in smoother.take(arrival))
    hand_on(float("inf"))
    assert list(handed) == list(range(len(sent)))
    return list(handed.values())


def test_without_jitter_nothing_is_delayed_however_the_clocks_differ():
    for offset in (-5000.0, 0.0, 12345.6):
        sent = [n * PERIOD for n in range(100)]
        handed = play([s - offset for s in sent], [offset + 0.04] * 100)
        assert handed == pytest.approx([s + 0.04 for s in sent], abs=1e-6)


def test_jitter_is_taken_out():
    draws = np.random.default_rng(1)
    sent = [n * PERIOD for n in range(400)]
    lags = 0.03 + draws.exponential(0.01, 400)
    came = np.diff(np.maximum.accumulate(np.array(sent) + lags))[100:]
    handed = np.array(play(sent, list(lags)))
    assert np.diff(handed)[100:].std() < came.std() / 2
    assert (handed - sent).mean() < 0.03 + 0.06


def test_one_that_is_very_late_holds_up_the_others_no_longer_than_itself():
    sent = [n * PERIOD for n in range(100)]
    lags = [0.02] * 50 + [1.0] + [0.02] * 49
    handed = play(sent, lags)
    assert handed[50] == pytest.approx(sent[50] + 1.0)
    assert handed[99] == pytest.approx(sent[99] + 0.02, abs=MOST + 0.001)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=80))
def test_everything_is_handed_on_once_in_order_and_in_time(steps):
    sent = list(np.cumsum([gap for gap, _ in steps]))
    lags = [lag for _, lag in steps]
    handed = play(sent, lags)
    arrivals = np.maximum.accumulate(np.array(sent) + lags)
    assert (np.diff(handed) > -1e-6).all()
    assert (np.array(handed) >= arrivals - 1e-6).all()
    assert (np.array(handed) <= arrivals + MOST + 1e-6).all()
