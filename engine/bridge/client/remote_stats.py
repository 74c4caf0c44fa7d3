"""How a session on another machine does: the figures of its server, and of the way to it and back."""

import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import msgspec

from playhead.engine.bridge.client.receipts import Receipts
from playhead.engine.bridge.client.watcher import Watcher
from playhead.engine.stats import WINDOW, LinkStats, Stats, percentile

EXPECTED = 0.5
"""Seconds for which a change is believed to have happened before the figures have to show it."""


class RemoteStats:
    """Puts the figures together; `stats` is None until the server has sent some. For several threads.

    `state` says in a few words what is amiss with the connection, `receipts` time keys to frames.
    """

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._round_trips: deque[float] = deque(maxlen=WINDOW)
        self._expected: tuple[float, dict[str, Any]] = 0.0, {}
        self.receipts = Receipts(WINDOW)
        self.watcher: Watcher | None = None
        self.state = ""
        self.stats: Stats | None = None

    def answered(self, seconds: float) -> None:
        """A question was answered after so many seconds."""
        self._round_trips.append(seconds)

    def expect(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Stats
        """What the server's figures are going to say; those under way do not know of it yet."""
        until, expected = self._expected
        now = time.perf_counter()
        self._expected = now + EXPECTED, {**(expected if now < until else {}), **changes}
        self.update()

    def update(self, told: dict[str, Any] | None = None) -> None:
        """Takes in what the server told, if it did, and how the connection does."""
        with self._lock:
            stats = self.stats
            if told:
                try:
                    stats = msgspec.convert(told, Stats)
                except msgspec.ValidationError:
                    return  # figures of another version are better not shown than shown wrong
            if stats is None:
                return
            until, expected = self._expected
            if time.perf_counter() < until:
                stats = replace(stats, **expected)
            keys, watcher = self.receipts.times, self.watcher
            link = LinkStats(
                state=self.state,
                round_trip_p50=percentile(self._round_trips, 50),
                round_trip_p99=percentile(self._round_trips, 99),
                decode_p50=percentile(watcher.decode_times, 50) if watcher else None,
                delay=watcher.delay if watcher else 0.0,
                codec=self._codec,
            )
            self.stats = replace(stats, key_p50=percentile(keys, 50), key_p99=percentile(keys, 99), link=link)
