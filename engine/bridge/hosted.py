"""A session that clients play: its loop, who controls it, and what they hold."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.bridge.protocol import Act, Clock
from engine.loop import ActionSource, Loop, Tick
from engine.session import Session, Snapshot
from scenes.scene import Scene
from world.action import Action

LOCAL = "window"
"""The holder that is the person at this machine."""
LONGEST_HISTORY = 1_000_000
"""Ticks after which a session's past is no longer kept for branching."""

History = list[tuple[Action, int]]
"""The action and the steps of every tick since the start."""


@dataclass
class Lease:
    """Who controls a session, by the client's token ("": nobody), who may always have it, who asks for it."""

    owner: str
    holder: str
    asking: str = ""

    def take(self, client: str) -> bool:
        """Gives the control to `client` if it is free or its own; else notes that it asks."""
        if self.holder in ("", client) or client == self.owner:
            self.holder = client
            self.asking = "" if self.asking == client else self.asking
        else:
            self.asking = client
        return self.holder == client

    def release(self, client: str) -> None:
        if self.asking == client:
            self.asking = ""
        if self.holder == client:
            self.holder = LOCAL if self.owner == LOCAL else ""

    def grant(self, client: str) -> bool:
        """Hands the control from its holder or owner to the client that asks."""
        if client not in (self.holder, self.owner) or not self.asking:
            return False
        self.holder, self.asking = self.asking, ""
        return True


class ActSource:
    """A source of actions that is told what to hold, and says which of that was applied or superseded."""

    source = "bridge"

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._action, self._until = Action(), 0.0
        self._tapped: frozenset[str] = frozenset()
        self._waiting: list[tuple[str, Act]] = []
        self._sampled: list[tuple[str, Act]] = []

    def act(self, client: str, act: Act) -> list[tuple[str, Act]]:
        """Holds an action from now on. Returns the acts that this one superseded."""
        with self._lock:
            kept = [(c, a) for c, a in self._waiting if a.tap]
            lost = [(c, a) for c, a in self._waiting if not a.tap]
            self._tapped = frozenset().union(*(a.action.buttons for _, a in kept))
            self._waiting = [*kept[-64:], (client, act)]
            self._action, self._until = act.action, self._now() + act.hold
        return lost

    def release(self) -> None:
        """Lets everything go, as when the control changes hands."""
        with self._lock:
            self._action, self._tapped, self._waiting = Action(), frozenset(), []

    def sample(self) -> Action:
        with self._lock:
            if self._now() > self._until:
                self._action = Action()
            buttons, self._tapped = self._action.buttons | self._tapped, frozenset()
            self._sampled, self._waiting = self._waiting, []
            return Action(buttons, self._action.axes)

    def applied(self) -> list[tuple[str, Act]]:
        """The acts that the last sample was the first to obey."""
        found, self._sampled = self._sampled, []
        return found


class SharedSource:
    """A source that is the person at this machine, or the program that was given the control."""

    def __init__(self, local: ActionSource, acts: ActSource, lease: Lease) -> None:
        self._local, self._acts, self._lease = local, acts, lease
        self.source = "keyboard"

    def sample(self) -> Action:
        held, mine = self._local.sample(), self._lease.holder == LOCAL
        self.source = getattr(self._local, "source", "keyboard") if mine else self._acts.source
        return held if mine else self._acts.sample()


@dataclass(frozen=True)
class Kept:
    """A snapshot on the server and the past that led to it."""

    snapshot: Snapshot
    history: History | None


@dataclass
class Hosted:
    """A session on the server. The loop's thread owns the session and the history, the server's the rest."""

    id: str
    scene: Scene
    loop: Loop
    acts: ActSource
    lease: Lease
    clock: Clock
    public: bool = False
    last_used: float = field(default_factory=time.monotonic)
    waiting_steps: int = 0
    snapshots: dict[str, Kept] = field(default_factory=dict)
    history: History | None = field(default_factory=list)
    _restored: History | None = None

    def remember(self, tick: Tick) -> None:
        """On the loop's thread: adds a tick to the past, or begins it anew."""
        if tick.action is None:
            restored, self._restored = self._restored, None
            self.history = restored if restored is not None else [] if tick.number == 0 else None
        elif self.history is not None:
            self.history.append((tick.action, tick.steps))
            if len(self.history) > LONGEST_HISTORY:
                self.history = None

    def keep(self, session: Session) -> Kept:
        """On the loop's thread: the present state and its past."""
        return Kept(session.snapshot(), self.past())

    def past(self) -> History | None:
        """On the loop's thread: a copy of the past, None where it is not known."""
        return None if self.history is None else list(self.history)

    def restore(self, session: Session, kept: Kept) -> None:
        """On the loop's thread: goes back to a kept state."""
        session.restore(kept.snapshot)
        self._restored = None if kept.history is None else list(kept.history)
