"""What is held: the state between the events of keys or a gamepad and the actions of a session."""

import threading
import time
from collections.abc import Callable, Hashable

from playhead.world.action import Action


class Held:
    """A source of actions that is told what goes down and up, by any thread.

    Something that went down and up again between two samples still counts for one tick: no tap is lost.
    `changed_at` is when the newest event of the last sample happened, None if there was none.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._down: dict[Hashable, frozenset[str]] = {}
        self._tapped: set[str] = set()
        self._newest: float | None = None
        self.changed_at: float | None = None

    def press(self, part: Hashable, buttons: frozenset[str]) -> None:
        """`part`, a key or a gamepad's part, goes down and holds `buttons`; nothing if it is down already."""
        with self._lock:
            if part not in self._down:
                self._down[part] = buttons
                self._tapped |= buttons
                self._newest = self._now()

    def release(self, part: Hashable) -> None:
        with self._lock:
            if self._down.pop(part, None) is not None:
                self._newest = self._now()

    def release_all(self) -> None:
        """Everything goes up, as when the window loses the focus and will not see it happen."""
        with self._lock:
            if self._down:
                self._down.clear()
                self._newest = self._now()

    def sample(self) -> Action:
        """The buttons held now, and those tapped since the last sample."""
        with self._lock:
            buttons = frozenset(self._tapped).union(*self._down.values())
            self._tapped.clear()
            self.changed_at, self._newest = self._newest, None
        return Action(buttons)
