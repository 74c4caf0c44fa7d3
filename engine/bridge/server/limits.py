"""What a server lends out at the most, and how often it may be asked."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """At the most: sessions, megabytes of caches and snapshots, requests a second of one connection.

    `idle`: seconds after which a session ends that nobody uses. `unread`: bytes of frames that a connection
    may leave unread before it is cut. `waiting`: those of all connections, of which then the worst is cut.
    """

    sessions: int = 16
    memory: int = 4096
    rate: int = 5000
    idle: float = 600.0
    snapshots: int = 64
    clients: int = 1000
    unread: int = 64 * 2**20
    waiting: int = 512 * 2**20


class RateLimit:
    """How often something may be done: `rate` times a second, and as many at once."""

    def __init__(self, rate: float) -> None:
        self._rate = self._left = float(rate)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether it may be done once more now."""
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
