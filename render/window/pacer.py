"""Pacing: the frames of one tick are shown evenly over the time until the next tick's."""

import numpy as np


class Pacer:
    """Has one tick's frames uint8 `(n, H, W, 3)` and says which to show when; newer frames replace them."""

    def __init__(self) -> None:
        self._frames: np.ndarray | None = None
        self._start = self._interval = 0.0
        self._next = 0

    def put(self, frames: np.ndarray, now: float, period: float) -> None:
        """Takes over a tick's frames; the next tick's are expected after `period` seconds."""
        self._frames, self._start, self._next = frames, now, 0
        self._interval = period / len(frames)

    def take(self, now: float) -> np.ndarray | None:
        """The newest frame that is due and was not shown yet, `(H, W, 3)`; frames it overtook are dropped."""
        if self._frames is None or now < self._due:
            return None
        index = self._next
        while index + 1 < len(self._frames) and now >= self._start + (index + 1) * self._interval:
            index += 1
        self._next = index + 1
        frame: np.ndarray = self._frames[index]
        return frame

    def wait(self, now: float) -> float | None:
        """Seconds until the next frame is due; None if there is none to come."""
        if self._frames is None or self._next >= len(self._frames):
            return None
        return max(0.0, self._due - now)

    @property
    def _due(self) -> float:
        if self._frames is None or self._next >= len(self._frames):
            return float("inf")
        return self._start + self._next * self._interval
