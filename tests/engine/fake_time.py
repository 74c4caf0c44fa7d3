"""Time that passes only when something is said to take some."""

from playhead.engine.clock import Clock


class FakeTime:
    """Seconds since zero; sleeping moves them on at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.seconds += seconds

    def clock(self, rate: float, speed: float = 1.0) -> Clock:
        return Clock(rate, speed, now=self.now, sleep=self.sleep)
