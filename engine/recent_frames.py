"""The frames that a session has shown lately: kept in a notebook alone, where it shows itself by them."""

import sys
from collections import deque

import numpy as np

SECONDS, MOST = 10.0, 64 * 2**20
"""Of play, and bytes of frames, that are kept at the most."""


def in_notebook() -> bool:
    """Whether this program runs in IPython, as all notebooks do; it is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell is not None and shell() is not None


class RecentFrames:
    """The last ticks' frames, uint8 `(n, H, W, 3)` each, of a session at `rate` ticks a second."""

    def __init__(self, rate: float) -> None:
        self._ticks: deque[np.ndarray] = deque(maxlen=max(1, round(SECONDS * rate)))

    def begin(self, frames: np.ndarray) -> None:
        """Goes on from a start or from elsewhere: what came before is no part of the film."""
        self._ticks.clear()
        self.add(frames)

    def add(self, frames: np.ndarray) -> None:
        """Takes in a tick."""
        self._ticks.append(frames)
        while len(self._ticks) > 1 and sum(tick.nbytes for tick in self._ticks) > MOST:
            self._ticks.popleft()

    def frames(self) -> np.ndarray:
        """All that is kept, `(N, H, W, 3)`."""
        return np.concatenate(self._ticks)
