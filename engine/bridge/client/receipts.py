"""From the key to the frame, over a network: acts that were sent, their receipts, and what was shown."""

import threading
import time
from collections import deque

KEPT = 256
"""Acts and ticks that are remembered: more than can be under way."""


class Receipts:
    """Puts together when a key was pressed, which tick obeyed it, and when that tick was handed on.

    The receipt and the tick come by different ways, so either may be first. `times` are the last seconds
    from key to frame.
    """

    def __init__(self, remember: int = 120) -> None:
        self._lock = threading.Lock()
        self._sent: dict[int, float] = {}
        self._awaited: dict[int, float] = {}
        self._shown: dict[int, float] = {}
        self.times: deque[float] = deque(maxlen=remember)

    def sent(self, act: int, key: float) -> None:
        """Act number `act` went up, for a key pressed at `key`."""
        with self._lock:
            _keep(self._sent, act, key)

    def applied(self, act: int, tick: int) -> None:
        """The receipt of act number `act`: tick number `tick` was the first to obey it."""
        with self._lock:
            key = self._sent.pop(act, None)
            if key is None:
                return
            shown = self._shown.get(tick)
            if shown is not None and shown >= key:
                self.times.append(shown - key)
            else:
                _keep(self._awaited, tick, key)

    def shown(self, tick: int, now: float | None = None) -> None:
        """Tick number `tick` is handed on."""
        now = time.perf_counter() if now is None else now
        with self._lock:
            _keep(self._shown, tick, now)
            key = self._awaited.pop(tick, None)
            if key is not None:
                self.times.append(now - key)

    def forget(self) -> None:
        """What is under way will never be answered: the connection or the session is another now."""
        with self._lock:
            for table in (self._sent, self._awaited, self._shown):
                table.clear()


def _keep(table: dict[int, float], key: int, value: float) -> None:
    table[key] = value
    while len(table) > KEPT:
        del table[next(iter(table))]
