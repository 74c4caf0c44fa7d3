"""Smoothing: what a network delivers unevenly is handed on as evenly as it was sent."""

import math
from collections import deque
from typing import Generic, TypeVar

Thing = TypeVar("Thing")

WINDOW = 64
"""Arrivals that the jitter is judged by: some seconds of play."""
MOST = 0.15
"""Seconds of delay at the most; what comes later than that is shown when it comes."""
ENOUGH = 0.95
"""The part of arrivals that the delay makes even."""


class Smoother(Generic[Thing]):
    """Keeps things back until they are due: so long after they were sent as nearly all of them take to come.

    Sender and receiver need not agree on the time: the arrival that took least says how their clocks stand
    to each other, and by how much most others exceed it is the jitter. The `delay` that this costs is as
    large as the jitter, which without any is nothing.
    """

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=WINDOW)
        self._waiting: deque[tuple[float, Thing]] = deque()
        self._due = -math.inf
        self.delay = 0.0

    def put(self, thing: Thing, sent: float, now: float) -> None:
        """Takes in what was sent at `sent`, seconds of the sender's clock; things come in their order."""
        self._lags.append(now - sent)
        least = min(self._lags)
        late = sorted(lag - least for lag in self._lags)
        self.delay = min(MOST, late[math.ceil(len(late) * ENOUGH) - 1])
        self._due = max(self._due, sent + least + self.delay)
        self._waiting.append((self._due, thing))

    def take(self, now: float) -> list[Thing]:
        """What is due, in order."""
        due: list[Thing] = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        return due

    def wait(self, now: float) -> float | None:
        """Seconds until something is due; None if nothing is held."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None
