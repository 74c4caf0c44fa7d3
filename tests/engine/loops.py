"""Loops of tests: what holds the keys, and a play of so many ticks."""

import time
from collections.abc import Callable

from playhead.engine.loop import Loop
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.world.action import Action
from tests.conftest import BUTTONS
from tests.engine.fake_time import FakeTime

NOTHING = Action()
RIGHT = Action(frozenset({"turn_right"}))


class Holding:
    """A source that holds what it was last told."""

    def __init__(self, action: Action = NOTHING) -> None:
        self.action = action

    def sample(self) -> Action:
        return self.action


class Cycling:
    """A source that holds each button in turn."""

    def __init__(self) -> None:
        self.count = 0

    def sample(self) -> Action:
        self.count += 1
        return Action(frozenset({BUTTONS[self.count % len(BUTTONS)]}))


def play(open_session: Callable[[], Session], source, ticks: int, *, then=None, **options) -> list[Tick]:
    """What a loop of so many ticks hands over; `then(loop, tick)` may give commands as it does."""
    options.setdefault("make_clock", FakeTime().clock)
    loop = Loop(open_session, source, last=ticks, **options)
    handed_over: list[Tick] = []
    loop.subscribe(handed_over.append)
    if then:
        loop.subscribe(lambda tick: then(loop, tick))
    loop.start()
    loop.join()
    return handed_over


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for another thread; only a broken loop needs all of the time."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the loop did not get there in half a minute")
