"""A loop's session while it is lent, for some steps in lockstep (`engine.crew`). The loop waits meanwhile."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.tick import Tick

if TYPE_CHECKING:  # it imports torch, and a window opens before that
    from playhead.engine.session import Session
    from playhead.world.action import Action


class LentSession:
    """Some `actions` for a session, a tick each. The loop that lends it is told of them by three calls.

    `sample` gives its clock's time, and raises its error where it has ended; `now` gives it always. `played`
    takes in a tick: its number, its action, its frames, when it was sampled and ready, and who gets it before
    others do.
    `back` lets the loop go on, and is told whether the steps broke off. `each` is told of every tick, and of
    the seconds since the first began, when the last one is done: who answers by it finds the loop free.
    `at_once`: `played` looks at the session, or `sample` at what was played, so that no step may begin before
    the last is taken in.
    """

    def __init__(
        self,
        session: "Session",
        actions: "Sequence[Action]",
        each: Callable[[Tick, float], None],
        *,
        sample: Callable[[], float],
        now: Callable[[], float],
        played: "Callable[[int, Action, np.ndarray, float, float, Callable[[Tick], None]], None]",
        back: Callable[[bool], None],
        at_once: bool = False,
        answer: "Future[None] | None" = None,
    ) -> None:
        self.session, self.answer, self.at_once = session, answer or Future[None](), at_once
        self._actions, self._each = actions, each
        self._sample, self._now, self._played, self._back = sample, now, played, back
        self._arrived: tuple[int, Action, np.ndarray, float, float] | None = None
        self._took = 0.0  # seconds until then
        self._next = 0
        self._began = self._sampled = 0.0
        self._ticks: list[tuple[Tick, float]] = []

    def begin(self) -> "Action | None":
        if not self._next:
            self._began = time.perf_counter()
            for action in self._actions:
                self.session.check(action)
        if self._next == len(self._actions):
            return None
        self._sampled = self._sample()
        self._next += 1
        return self._actions[self._next - 1]

    def arrive(self, frames: np.ndarray) -> None:
        action, number = self._actions[self._next - 1], self.session.tick
        self._arrived = number, action, frames, self._sampled, self._now()
        self._took = time.perf_counter() - self._began

    def take_in(self) -> None:
        assert self._arrived is not None, "nothing has arrived"
        self._played(*self._arrived, self._receive)
        self._arrived = None

    def _receive(self, tick: Tick) -> None:
        self._ticks.append((tick, self._took))

    def give_back(self, error: BaseException | None) -> None:
        try:
            self._back(error is not None)
            for tick, seconds in self._ticks:
                self._each(tick, seconds)
        except BaseException as problem:  # who is told of them is nothing that others' steps may end by
            error = error or problem
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(None)
