"""A loop on a slow machine: what it measures, what it says, and the steps that it gives up."""

import numpy as np
import pytest

from playhead.engine.loop import Loop
from playhead.engine.session import Session
from playhead.world.action import Action
from tests.engine.fake_time import FakeTime
from tests.engine.loops import Holding, play


class Slow(Session):
    """A session whose passes take `cost` seconds of a fake time each."""

    def __init__(self, world, context, seed, fake: FakeTime, cost: float) -> None:
        self.fake, self.cost = fake, cost
        super().__init__(world, context, seed)

    def step(self, action: Action) -> np.ndarray:
        self.fake.seconds += self.cost * self.steps
        return super().step(action)

    def finish(self) -> None:
        if self._pending:
            self.fake.seconds += self.cost
        super().finish()


@pytest.fixture
def session(tiny_world, tiny_context) -> Session:
    return Session(tiny_world, tiny_context, seed=3)


def test_automatic_steps_hold_the_rate_of_a_slow_machine(tiny_world, tiny_context):
    fake = FakeTime()
    ticks = play(
        lambda: Slow(tiny_world, tiny_context, 0, fake, cost=0.4 / 17.5),  # two passes fit, three do not
        Holding(),
        80,
        make_clock=fake.clock,
        auto_steps=True,
    )
    assert (ticks[1].steps, ticks[-1].steps) == (2, 1)
    ready = [tick.timing.ready for tick in ticks[-20:]]
    assert np.diff(ready) == pytest.approx(1 / 17.5)


def test_automatic_steps_can_be_turned_on_and_off(session):
    states: list[bool] = []

    def then(loop, tick):
        states.append(loop.stats is not None and loop.stats.auto)
        if tick.number in (2, 6):
            loop.toggle_auto_steps()

    play(lambda: session, Holding(), 9, then=then)
    assert states == [False] * 3 + [True] * 4 + [False] * 3


def test_a_machine_that_is_too_slow_slows_the_world_down_and_says_so(tiny_world, tiny_context):
    fake = FakeTime()
    loop = Loop(
        lambda: Slow(tiny_world, tiny_context, 0, fake, cost=0.5 / 17.5),
        Holding(),
        last=40,
        make_clock=fake.clock,
    )
    loop.start()
    loop.join()
    stats = loop.stats
    assert stats.slow
    assert stats.rate == pytest.approx(17.5 / 1.5)
    assert stats.tick_p50 == pytest.approx(1.5 * stats.budget)
    assert (stats.missed, stats.counted) == (40, 40)
    assert stats.steps == 2


def test_latency_is_measured_from_the_key_to_the_frames(tiny_world, tiny_context):
    fake = FakeTime()
    loop = Loop(
        lambda: Slow(tiny_world, tiny_context, 0, fake, cost=0.01),
        Holding(),
        last=5,
        key_time=lambda: fake.seconds - 0.005,
        make_clock=fake.clock,
    )
    loop.start()
    loop.join()
    assert loop.stats.key_p50 == pytest.approx(0.005 + 2 * 0.01)  # two denoise steps; the commit is not in it


def test_a_key_pressed_while_the_world_stood_still_waited_for_no_tick(session):
    fake = FakeTime()
    fake.seconds = 100.0
    loop = Loop(lambda: session, Holding(), last=5, key_time=lambda: 99.0, make_clock=fake.clock)
    loop.start()
    loop.join()
    assert loop.stats.key_p50 is None
