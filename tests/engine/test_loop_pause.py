"""A loop that stands still: in a pause, between single steps, and while nothing is held."""

import threading

import numpy as np
import pytest

from playhead.engine.loop import Loop
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.world.action import Action
from tests.engine.fake_time import FakeTime
from tests.engine.loops import NOTHING, RIGHT, Holding, play, wait_until


@pytest.fixture
def session(tiny_world, tiny_context) -> Session:
    return Session(tiny_world, tiny_context, seed=3)


def test_a_pause_holds_the_world_and_single_steps_move_it_tick_by_tick(session):
    loop = Loop(lambda: session, Holding(), last=6, make_clock=FakeTime().clock)
    ticks: list[Tick] = []
    loop.subscribe(ticks.append)
    loop.subscribe(lambda tick: loop.toggle_pause() if tick.number == 2 else None)
    loop.start()
    wait_until(lambda: loop.stats is not None and loop.stats.paused)
    assert ticks[-1].number == 2
    for number in (3, 4):
        loop.single_step()
        wait_until(lambda number=number: loop.stats.tick == number)
        assert loop.stats.paused
    loop.toggle_pause()
    loop.join()
    assert [tick.number for tick in ticks] == [0, 1, 2, 3, 4, 5, 6]


def test_single_steps_in_quick_succession_are_all_played(session):
    loop = Loop(lambda: session, Holding(), last=3, make_clock=FakeTime().clock)
    for _ in range(3):
        loop.single_step()
    loop.start()
    loop.join()
    assert session.tick == 3


def test_what_is_held_in_a_paused_tick_counts(session):
    source = Holding()
    loop = Loop(lambda: session, source, last=1, make_clock=FakeTime().clock)
    ticks: list[Tick] = []
    loop.subscribe(ticks.append)
    loop.toggle_pause()
    loop.start()
    wait_until(lambda: loop.stats is not None and loop.stats.paused)
    source.action = RIGHT
    loop.single_step()
    loop.join()
    assert ticks[-1].action == RIGHT
    assert loop.stats.held == ("turn_right",)


@pytest.mark.parametrize("paused", [False, True])
def test_stop_ends_the_thread_also_in_a_pause(session, paused):
    loop = Loop(lambda: session, Holding(), make_clock=FakeTime().clock)
    if paused:
        loop.toggle_pause()
    loop.start()
    wait_until(lambda: loop.stats is not None and loop.stats.paused == paused)
    loop.stop()
    loop.join()
    assert not loop.alive
    assert not any(thread.name == "loop" for thread in threading.enumerate())


class Told:
    """A source that holds what a list says, sample by sample, and then its last entry."""

    def __init__(self, *actions: Action) -> None:
        self.actions, self.count = actions, 0

    def sample(self) -> Action:
        self.count += 1
        return self.actions[min(self.count, len(self.actions)) - 1]


def test_with_hold_the_world_stands_still_while_nothing_is_held(tiny_world, tiny_context, session):
    idle = [NOTHING] * 5
    ticks = play(lambda: session, Told(*idle, RIGHT, RIGHT, *idle, RIGHT), 3, hold=True)
    assert [tick.action for tick in ticks] == [None, RIGHT, RIGHT, RIGHT]
    assert [tick.number for tick in ticks] == [0, 1, 2, 3]
    again = Session(tiny_world, tiny_context, seed=3)
    for tick in ticks[1:]:
        assert np.array_equal(tick.frames, again.step(RIGHT))


def test_hold_is_taken_back_and_given_again_while_playing(session):
    seen: list[bool] = []
    source = Holding(RIGHT)

    def then(loop: Loop, tick: Tick) -> None:
        if tick.number == 1:
            source.action = NOTHING
            loop.toggle_hold()
        if tick.number == 4:
            loop.toggle_hold()
            threading.Thread(target=look, args=[loop]).start()

    def look(loop: Loop) -> None:
        wait_until(lambda: loop.stats.waiting)
        seen.append(loop.stats.held == ())
        source.action = RIGHT

    ticks = play(lambda: session, source, 5, then=then, hold=True)
    assert [tick.action for tick in ticks] == [None, RIGHT, NOTHING, NOTHING, NOTHING, RIGHT]
    assert seen == [True]


def test_a_single_step_is_played_with_nothing_held_in_spite_of_hold(session):
    def then(loop: Loop, tick: Tick) -> None:
        if tick.number < 2:
            loop.single_step()

    ticks = play(lambda: session, Holding(NOTHING), 2, then=then, hold=True)
    assert [tick.action for tick in ticks] == [None, NOTHING, NOTHING]
