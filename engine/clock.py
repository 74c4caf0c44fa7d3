"""The clock of the loop: ticks at a fixed rate, by sleeping, without drift."""

import time
from collections.abc import Callable

from playhead.world.errors import PlayheadError

SLOWEST, FASTEST = 0.25, 2.0
"""The range of the speed: from slow motion at a quarter to twice the world's own rate."""


class Clock:
    """Deadlines at `anchor + n * period`, in seconds: a late tick does not shift the later ones.

    A tick that is more than a period late lays the grid anew, from that moment on. So a long stall counts
    as one tick: what was missed is not made up for by racing, the world has slowed down instead.
    """

    def __init__(
        self,
        rate: float,
        speed: float = 1.0,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self.now, self._sleep = now, sleep
        self._speed = check_speed(speed)
        self.restart()

    @property
    def period(self) -> float:
        """Seconds from one tick to the next, at the present speed: the budget of a tick."""
        return 1 / (self.rate * self._speed)

    @property
    def due(self) -> float:
        """When the next tick is due."""
        return self._anchor + self._count * self.period

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        """The ticks that follow the last one take the new period."""
        last = self.due - self.period
        self._speed = check_speed(speed)
        self._anchor, self._count = last, 1

    def restart(self) -> None:
        """Makes the next tick due now, as after a pause."""
        self._anchor, self._count = self.now(), 0

    def wait(self) -> float:
        """Sleeps until the next tick is due and counts it. Returns by how many seconds it is late."""
        while (early := self.due - self.now()) > 0:
            self._sleep(early)
        late = -early
        if late > self.period:
            self.restart()
        self._count += 1
        return late


def check_speed(speed: float) -> float:
    """The speed, if it is one; raises PlayheadError otherwise."""
    if not SLOWEST <= speed <= FASTEST:
        raise PlayheadError(f"a speed is a factor from {SLOWEST:g} to {FASTEST:g}, not {speed:g}")
    return speed
