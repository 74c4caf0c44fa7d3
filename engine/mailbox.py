"""A mailbox between two threads in which only the newest thing counts."""

import threading
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Mailbox(Generic[Thing]):
    """Has at most one thing: a newer one replaces the older, so that a slow taker never falls behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thing: Thing | None = None

    def put(self, thing: Thing) -> bool:
        """Leaves `thing`. Returns whether the box was empty, which is when the taker has to be woken."""
        with self._lock:
            was_empty, self._thing = self._thing is None, thing
        return was_empty

    def take(self) -> Thing | None:
        """The newest thing, once; None if nothing new came."""
        with self._lock:
            thing, self._thing = self._thing, None
        return thing
