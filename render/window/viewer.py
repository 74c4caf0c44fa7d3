"""A window that shows frames at a fixed rate, for environments that are watched by a person."""

import numpy as np
import pygame

from playhead.engine.clock import Clock
from playhead.render.window.scaling import draw_picture
from playhead.render.window.window import Window


class Viewer:
    """Opens a window for pictures of `size` (width, height); `show` waits, so that ticks keep the `rate`."""

    def __init__(self, size: tuple[int, int], rate: float) -> None:
        self._window = Window(size)
        self._clock = Clock(rate)

    def show(self, frames: np.ndarray) -> None:
        """Shows the last of a tick's frames, uint8 `(n, H, W, 3)`, when it is due."""
        self._clock.wait()
        pygame.event.pump()
        draw_picture(self._window.screen, frames[-1])
        self._window.show()

    def close(self) -> None:
        self._window.close()
