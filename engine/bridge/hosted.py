"""A session that clients play: its loop, who controls it, and what they hold."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.bridge.acts import ActSource
from engine.bridge.lease import Lease
from engine.bridge.protocol import Clock
from engine.loop import Loop
from engine.session import Session, Snapshot
from engine.tick import Tick
from scenes.scene import Scene
from world.action import Action

if TYPE_CHECKING:
    from engine.recording.tree import Place

LONGEST_HISTORY = 1_000_000
"""Ticks after which a session's past is no longer kept for branching."""

History = list[tuple[Action, int]]
"""The action and the steps of every tick since the start."""


@dataclass(frozen=True)
class Kept:
    """A snapshot on the server and the past that led to it."""

    snapshot: Snapshot
    history: History | None
    place: "Place | None" = None


@dataclass
class Hosted:
    """A session on the server. The loop's thread owns the session and the history, the server's the rest.

    `attached`: the tokens of clients who asked what it is. `keeping`: snapshots that are being taken.
    """

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
    attached: set[str] = field(default_factory=set)
    keeping: int = 0
    _restored: History | None = None

    @property
    def concerned(self) -> set[str]:
        """The tokens of the clients who own the session, control it, ask for that or look at it."""
        return self.lease.concerned | self.attached

    def set_clock(self, clock: Clock) -> None:
        if clock != self.clock:
            self.clock = clock
            self.follow_control()

    def follow_control(self) -> None:
        """A live session stands still while nobody controls it: whoever comes back finds it as it was."""
        self.loop.set_lockstep(self.clock == "lockstep" or not self.lease.holder)

    def begin_from(self, past: History | None) -> None:
        """Before the loop starts: the past that its session has already."""
        self._restored = past

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
        timeline = self.loop.timeline
        return Kept(session.snapshot(), self.past(), timeline.head if timeline is not None else None)

    def past(self) -> History | None:
        """On the loop's thread: a copy of the past, None where it is not known."""
        return None if self.history is None else list(self.history)

    def restore(self, session: Session, kept: Kept) -> None:
        """On the loop's thread: goes back to a kept state."""
        session.restore(kept.snapshot)
        if self.loop.timeline is not None and kept.place is not None:
            self.loop.timeline.moved(kept.place)
        self._restored = None if kept.history is None else list(kept.history)
