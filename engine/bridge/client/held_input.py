"""What a player on another machine does: what is held, what the server was told, and a script before that."""

import threading
import time
from collections.abc import Callable, Sequence

from playhead.engine.tick import ActionSource
from playhead.world.action import Action

HOLD_SECONDS, RENEW_SECONDS = 2.0, 0.5
"""Seconds for which the server holds an action, and after which it is told again."""
UNDER_WAY = 2
"""Ticks of a script that may be under way at a time."""
IDLE = Action()

Tell = Callable[[Action, bool], int | None]
"""Sends an act (and whether it is a tap). Returns its id, None if it could not be sent."""


class HeldInput:
    """What a source holds, and what the server was told last."""

    def __init__(self, source: ActionSource, key_time: Callable[[], float | None]) -> None:
        self._source, self._key_time = source, key_time
        self._lock = threading.Lock()
        self._held = self._told = IDLE
        self._told_at = 0.0

    def look(self) -> tuple[Action, float | None] | None:
        """On any thread: what is held now and when a key was pressed for it; None if nothing is new."""
        with self._lock:
            action = self._source.sample()
            if action == self._held and not action.moves:  # motion is new each time
                return None
            self._held = action
            return action, self._key_time()

    def tell(self, action: Action, tell: Tell) -> int | None:
        """Tells the server what is held."""
        return self._tell(action, True, tell)

    def tell_anew(self, tell: Tell) -> None:
        """Tells a server that knows of nothing that is held yet."""
        self._told = IDLE
        if self._held != IDLE:
            self._tell(self._held, True, tell)

    def renew(self, tell: Tell) -> None:
        """Tells the server again what is held still, before it lets that go."""
        if self._told != IDLE and time.perf_counter() > self._told_at + RENEW_SECONDS:
            self._tell(self._told, False, tell)

    def _tell(self, action: Action, tap: bool, tell: Tell) -> int | None:
        self._told, self._told_at = action, time.perf_counter()
        return tell(action, tap)


class RemoteScript:
    """Actions that are played tick by tick, from the session's start on, before the hand counts."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._actions = actions
        self._next = self._under_way = 0
        self._due = 0.0

    @property
    def over(self) -> bool:
        """Whether every action has been played, so that the clock may take over."""
        return self._next >= len(self._actions) and not self._under_way

    def go_on_from(self, tick: int) -> None:
        """The session is at this tick, by whatever way it came there."""
        self._next, self._under_way = min(tick, len(self._actions)), 0

    def end(self) -> None:
        """It is over for good, also where the session should begin anew."""
        self._actions, self._next, self._under_way = (), 0, 0

    def take(self, now: float, period: float) -> Action | None:
        """The next action, if it is due and not too many are under way."""
        if self._next >= len(self._actions) or self._under_way >= UNDER_WAY or now < self._due:
            return None
        self._due = (self._due if now < self._due + period else now) + period  # as the clock of a loop does
        self._next, self._under_way = self._next + 1, self._under_way + 1
        return self._actions[self._next - 1]

    def answered(self) -> None:
        """One that was under way has been played."""
        self._under_way -= 1

    def wait(self, now: float) -> float:
        """Seconds until another one may be due."""
        return max(self._due - now, 0.002)
