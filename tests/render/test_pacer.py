"""Pacing: a tick's frames come one after another, evenly, and never behind newer ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.render.window.pacer import Pacer


def frames(count: int, first: int = 0) -> np.ndarray:
    """Frames `(count, 1, 1, 3)` that are numbered by their colour."""
    return np.arange(first, first + count, dtype=np.uint8)[:, None, None, None].repeat(3, -1)


def shown(pacer: Pacer, now: float) -> int | None:
    frame = pacer.take(now)
    return None if frame is None else int(frame[0, 0, 0])


def test_a_single_frame_is_shown_as_soon_as_it_is_there_and_once():
    pacer = Pacer()
    pacer.put(frames(1), 5.0, 0.057)
    assert pacer.wait(5.0) == 0
    assert [shown(pacer, 5.0), shown(pacer, 5.1)] == [0, None]
    assert pacer.wait(5.1) is None


def test_several_frames_are_spread_over_the_time_to_the_next_tick():
    pacer = Pacer()
    pacer.put(frames(4), 0.0, 0.2)
    times = [0.0, 0.04, 0.051, 0.09, 0.101, 0.151, 0.19]
    assert [shown(pacer, now) for now in times] == [0, None, 1, None, 2, 3, None]


@pytest.mark.parametrize("clock", [0.0, 0.3, 12345.678, 98765.4321, 250000.3])
def test_the_window_may_sleep_until_the_next_frame_is_due(clock):
    pacer = Pacer()
    pacer.put(frames(4), clock, 0.2)
    shown(pacer, clock)
    now = clock + 0.02
    assert pacer.wait(now) == pytest.approx(0.03)
    assert shown(pacer, now + pacer.wait(now) + 1e-9) == 1  # the sum is rounded


def test_newer_frames_replace_those_that_were_not_shown():
    pacer = Pacer()
    pacer.put(frames(4), 0.0, 0.2)
    shown(pacer, 0.0)
    pacer.put(frames(4, first=10), 0.1, 0.2)
    assert shown(pacer, 0.1) == 10


def test_before_anything_came_there_is_nothing_to_show():
    assert shown(Pacer(), 1.0) is None
    assert Pacer().wait(1.0) is None


@given(st.integers(1, 12), st.lists(st.floats(0, 1), max_size=30))
def test_frames_are_shown_in_order_and_at_most_once(count, times):
    pacer = Pacer()
    pacer.put(frames(count), 0.0, 0.5)
    seen = [number for now in sorted(times) if (number := shown(pacer, now)) is not None]
    assert seen == sorted(set(seen))
