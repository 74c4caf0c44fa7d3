"""Axes: looking about by relative mouse motion, and by keys that push an axis while they are held."""

import threading
import time
from collections.abc import Callable

import pygame

from playhead.controls.keymap import Keymap


class Look:
    """Turns mouse motion and keys into axes from -1 to 1. Fed by the window, sampled by the loop.

    Motion is a speed: pixels since the last sample over the seconds since, in parts of the key map's
    `pixels_per_second`; what goes beyond the end of an axis is lost, as it is at the end of a stick. Where
    `tick` says how many seconds a tick has, motion is a part of a tick instead, whenever it is sampled:
    the samples of one tick add up to what a single one would have been.
    """

    def __init__(self, keymap: Keymap, now: Callable[[], float] = time.perf_counter) -> None:
        self._mouse, self._keys, self._now = keymap.mouse, keymap.pushed_by_key, now
        self._lock = threading.Lock()
        self._moved = dict.fromkeys(keymap.mouse.axes, 0.0)
        self._down: set[int] = set()
        self._tapped: set[int] = set()
        self._sampled = now()
        self.tick: float | None = None

    @property
    def wants_mouse(self) -> bool:
        """Whether the mouse moves anything."""
        return bool(self._moved)

    def feed(self, event: pygame.Event) -> None:
        with self._lock:
            if event.type == pygame.MOUSEMOTION and self._moved:
                right, down = event.rel
                mouse = self._mouse
                if mouse.x:
                    self._moved[mouse.x] += -right if mouse.invert_x else right
                if mouse.y:
                    self._moved[mouse.y] += down if mouse.invert_y else -down
            elif event.type == pygame.KEYDOWN and event.key in self._keys:
                self._down.add(event.key)
                self._tapped.add(event.key)
            elif event.type == pygame.KEYUP:
                self._down.discard(event.key)
            elif event.type == pygame.WINDOWFOCUSLOST:
                self._down.clear()

    def sample(self) -> dict[str, float]:
        """The axes that are not at rest."""
        with self._lock:
            now = self._now()
            seconds, self._sampled = max(now - self._sampled, 1e-3), now
            full = self._mouse.pixels_per_second * (self.tick or seconds)
            axes = {name: pixels / full for name, pixels in self._moved.items()}
            self._moved = dict.fromkeys(self._moved, 0.0)
            for key in self._down | self._tapped:
                axis, end = self._keys[key]
                axes[axis] = axes.get(axis, 0.0) + end
            self._tapped.clear()
        return {name: min(1.0, max(-1.0, value)) for name, value in axes.items() if value}
