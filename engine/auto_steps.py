"""`--steps auto`: as many denoise steps as the machine has time for."""

from collections import deque

LATE_AFTER = 12
"""Ticks that are looked at before steps are given up: two thirds of a second of freedoom."""
ROOM_AFTER = 60
"""Ticks of clear room before a step is taken back, to begin with."""
LONGEST = 1200
"""Ticks that are waited at most between two tries: about a minute."""
CLEAR_ROOM = 0.85
"""The part of the budget that a tick may be expected to take with one step more."""


class AutoSteps:
    """Gives up a denoise step when ticks overrun their budget, and takes it back when there is clear room.

    A step that was taken back in vain makes the next try wait twice as long, so that a machine between two
    step counts settles on the lower one instead of swinging between them.
    """

    def __init__(self, most: int) -> None:
        self.steps = self.most = most
        self._wait = ROOM_AFTER
        self._trying = False
        self._loads: deque[float] = deque(maxlen=LONGEST)

    def update(self, tick_time: float, budget: float) -> int:
        """Takes in a tick's time and budget, in seconds. Returns the steps for the next tick."""
        self._loads.append(tick_time / budget)
        if self.steps > 1 and self._late():
            if self._trying:
                self._wait = min(2 * self._wait, LONGEST)
            self._change(-1)
        elif self.steps < self.most and self._clear_room():
            self._change(1)
        return self.steps

    def _change(self, by: int) -> None:
        self.steps += by
        self._trying = by > 0
        self._loads.clear()

    def _late(self) -> bool:
        """Whether the last ticks took longer than their budget, a single stall aside."""
        if len(self._loads) < LATE_AFTER:
            return False
        last = sorted(list(self._loads)[-LATE_AFTER:])[:-1]
        return sum(last) > len(last)

    def _clear_room(self) -> bool:
        """Whether nearly every tick had room for one more of its steps + 1 passes (one is the commit)."""
        if len(self._loads) < self._wait:
            return False
        last = sorted(list(self._loads)[-self._wait :])
        return last[int(0.9 * len(last))] * (self.steps + 2) / (self.steps + 1) < CLEAR_ROOM
