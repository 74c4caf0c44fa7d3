"""How well the loop keeps up, measured over its last ticks."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 120
"""Ticks that the percentiles look back: seven seconds of freedoom."""
RATE_WINDOW = 36
"""Ticks that the rate looks back: two seconds of freedoom."""
ENOUGH = 9
"""Ticks before a verdict on the rate."""
KEEPS_UP = 0.95
"""The part of the wanted rate below which the world is said to run slow."""


@dataclass(frozen=True)
class LinkStats:
    """How a session on another machine is reached. Times in seconds; `None` where nothing was measured yet.

    `state` says in a few words what is amiss, and is empty if nothing is. `round_trip_p50`, `round_trip_p99`:
    a question's way there and its answer's way back. `decode_p50`: decoding a tick's frames. `delay`: by how
    much frames are held back so that they come evenly. `codec`: how they come.
    """

    state: str
    round_trip_p50: float | None
    round_trip_p99: float | None
    decode_p50: float | None
    delay: float
    codec: str


@dataclass(frozen=True)
class Stats:
    """What a loop is doing and how well. Times in seconds; `None` where nothing was measured yet.

    `tick_p50`, `tick_p99`: a tick's time from the sample of the input to the end of its commit, which has
    to stay below `budget`. `key_p50`, `key_p99`: from a key event to the first frame that obeys it.
    `missed` of the last `counted` ticks overran their budget. `link`: the way to the session, where it is not
    played in this process. `waiting`: the world stands still until something is held. `offloaded`: which
    blocks of the world are not kept on its device, and what a tick moves; empty if all are.
    """

    tick: int
    seed: int
    steps: int
    auto: bool
    paused: bool
    speed: float
    held: tuple[str, ...]
    budget: float
    rate: float | None
    wanted_rate: float
    tick_p50: float | None
    tick_p99: float | None
    key_p50: float | None
    key_p99: float | None
    missed: int
    counted: int
    slow: bool
    link: LinkStats | None = None
    waiting: bool = False
    offloaded: str = ""


class RollingTimes:
    """The last `WINDOW` of some times, sorted as they come: percentiles are asked for with every tick."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def append(self, time: float) -> None:
        if len(self._last) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self._last.append(time)
        insort(self._sorted, time)

    def __len__(self) -> int:
        return len(self._last)

    def percentile(self, percent: float) -> float | None:
        """As `percentile` of them."""
        return of_sorted(self._sorted, percent)


class Meter:
    """Rolling measurements of a loop."""

    def __init__(self) -> None:
        self.tick_times, self.key_times = RollingTimes(), RollingTimes()
        self._missed: deque[bool] = deque(maxlen=WINDOW)
        self._ready: deque[float] = deque(maxlen=RATE_WINDOW)

    def add(self, ready: float, tick_time: float, budget: float, key_time: float | None) -> None:
        """Takes in a tick: when its frames were handed over, its time, its budget, and the key's if any."""
        self._ready.append(ready)
        self.tick_times.append(tick_time)
        self._missed.append(tick_time > budget)
        if key_time is not None:
            self.key_times.append(key_time)

    def interrupt(self) -> None:
        """Forgets the rate, whose next tick is no neighbour of the last: after a pause or another speed."""
        self._ready.clear()

    @property
    def missed(self) -> int:
        return sum(self._missed)

    @property
    def rate(self) -> float | None:
        """Ticks per second achieved."""
        if len(self._ready) < 2 or self._ready[-1] == self._ready[0]:
            return None
        return (len(self._ready) - 1) / (self._ready[-1] - self._ready[0])

    def slow(self, wanted_rate: float) -> bool:
        """Whether the rate that is wanted is clearly not reached."""
        rate = self.rate
        return rate is not None and len(self._ready) >= ENOUGH and rate < KEEPS_UP * wanted_rate


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of the values do not exceed."""
    return of_sorted(sorted(values), percent)


def of_sorted(values: Sequence[float], percent: float) -> float | None:
    """The same of values in their order."""
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)] if values else None
