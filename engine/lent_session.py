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

    `sample` gives its clock's time, and raises its error where it has ended. `played` takes in a tick: its
    action, its frames, when it was sampled, and who gets the tick before others do. `back` lets the loop go
    on, and is told whether the steps broke off. `each` is told of every tick, and of the seconds since the
    first began, when the last one is done: who answers by it finds the loop free.
    """

    def __init__(
        self,
        session: "Session",
        actions: "Sequence[Action]",
        each: Callable[[Tick, float], None],
        *,
        sample: Callable[[], float],
        played: "Callable[[Action, np.ndarray, float, Callable[[Tick], None]], None]",
        back: Callable[[bool], None],
        answer: "Future[None] | None" = None,
    ) -> None:
        self.session, self.answer = session, answer or Future[None]()
        self._actions, self._each = actions, each
        self._sample, self._played, self._back = sample, played, back
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
        return self._actions[self._next]

    def take(self, frames: np.ndarray) -> None:
        action = self._actions[self._next]
        self._next += 1
        self._played(action, frames, self._sampled, self._receive)

    def _receive(self, tick: Tick) -> None:
        self._ticks.append((tick, time.perf_counter() - self._began))

    def give_back(self, error: BaseException | None) -> None:
        self._back(error is not None)
        try:
            for tick, seconds in self._ticks:
                self._each(tick, seconds)
        except BaseException as problem:  # who is told of them is nothing that others' steps may end by
            error = error or problem
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(None)
