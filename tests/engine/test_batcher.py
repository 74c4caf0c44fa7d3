"""Sessions that arrive together share a pass, and dream what each would alone."""

import threading
import time

import numpy as np
import pytest

from playhead.engine import batcher
from playhead.engine.batcher import Batcher, SessionTiming
from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.world.action import Action
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world

TICKS = 40


def actions(draws, ticks: int) -> list[Action]:
    return [Action(frozenset(b for b in BUTTONS if draws.random() < 0.5)) for _ in range(ticks)]


def play_all(sessions, held, thinking=lambda n: 0.0) -> tuple[list[list[np.ndarray]], Batcher]:
    """Steps each session on a thread of its own. Returns what each dreamed."""
    together, dreams = Batcher(), [[] for _ in sessions]

    def play(n: int) -> None:
        for action in held[n]:
            dreams[n].append(together.step(sessions[n], action))
            together.finish(sessions[n])
            time.sleep(thinking(n))

    threads = [threading.Thread(target=play, args=(n,)) for n in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return dreams, together


def test_a_crowd_shares_passes_and_each_dreams_what_it_would_alone(any_world, monkeypatch):
    sizes = []

    def counting(sessions, held, meanwhile):
        sizes.append(len(sessions))
        return step_together(sessions, held, meanwhile)

    monkeypatch.setattr(batcher, "step_together", counting)
    world, draws = any_world, np.random.default_rng(0)
    crowd = [Session(world, make_tiny_context(seed=n), n) for n in range(4)]
    crowd[3].steps = 3 - crowd[3].steps  # goes with nobody
    held = [actions(draws, TICKS) for _ in crowd]
    alone = [session.fork() for session in crowd]
    dreams, _ = play_all(crowd, held)
    for session, wanted, dreamed in zip(alone, held, dreams, strict=True):
        assert np.array_equal(dreamed, [session.step(action) for action in wanted])
    assert sum(sizes) == 4 * TICKS and 1 < max(sizes) <= 3
    assert len(sizes) < 3 * TICKS  # so that most had company


def test_only_those_who_come_back_at_once_are_waited_for():
    world = make_tiny_world()
    pair = [Session(world, make_tiny_context(seed=n), n) for n in range(2)]
    _, together = play_all(pair, [[Action()] * 20, [Action()] * 4], lambda n: 0.05 * n)
    quick, slow = (together._members[session] for session in pair)
    assert slow.takes > batcher.PATIENCE and not slow.expected(slow.free_since)
    quick.takes = batcher.PATIENCE / 2  # as it was between two ticks
    assert quick.expected(quick.free_since) and not quick.expected(quick.free_since + 2 * batcher.PATIENCE)


@pytest.mark.parametrize("clock", [0.0, 0.3, 12345.678, 98765.4321, 250000.3])
def test_who_is_expected_does_not_hang_on_what_the_clock_shows(clock):
    """Sums of clock values are rounded: what is looked at lies clearly within the patience, or beyond."""
    member = SessionTiming(takes=batcher.PATIENCE / 2, free_since=clock)
    assert member.expected(clock) and member.expected(clock + 0.9 * batcher.PATIENCE)
    assert not member.expected(clock + 1.1 * batcher.PATIENCE)
    member.busy = True
    assert member.expected(clock + 10)
    member.takes = 1.1 * batcher.PATIENCE
    assert not member.expected(clock)


def test_a_session_that_breaks_says_so_to_its_own_loop_only():
    world = make_tiny_world()
    good, bad = (Session(world, make_tiny_context(seed=n), n) for n in range(2))
    together = Batcher()

    def fail() -> None:
        raise RuntimeError("no more")

    bad.finish = fail
    with pytest.raises(RuntimeError):
        together.step(bad, Action())
    assert together.step(good, Action()).any()
    together.finish(good)
