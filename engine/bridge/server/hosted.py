"""A session that clients play: its loop, who controls it, and what they hold."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.bridge.server.acts import ActSource
from playhead.engine.bridge.server.lease import Lease
from playhead.engine.bridge.server.session_past import SessionPast, Ticks
from playhead.engine.bridge.wire.protocol import BridgeError, Clock
from playhead.engine.loop import Loop
from playhead.engine.recording.tree import PlayedTick, Point
from playhead.engine.session import Session, Snapshot
from playhead.engine.tick import Tick
from playhead.engine.tuning import Tuning
from playhead.scenes.scene import Scene
from playhead.world.action import Action

if TYPE_CHECKING:
    from playhead.engine.timeline.timeline import Timeline
    from playhead.world.world import World


@dataclass(frozen=True)
class HostedSnapshot:
    """A snapshot on the server and the past that led to it."""

    snapshot: Snapshot
    ticks: Ticks | None
    point: Point | None = None


@dataclass
class HostedSession:
    """A session on the server. The loop's thread owns the session and its past, the server's all else.

    `attached`: the tokens of clients who asked what it is. `keeping`: snapshots that are being taken.
    `restored`: `past` is that of the state which the loop begins with, or goes on from next. `seek_memory`:
    bytes that may be kept to make `seek` quick.
    """

    id: str
    scene: Scene
    loop: Loop
    acts: ActSource
    lease: Lease
    clock: Clock
    past: SessionPast = field(default_factory=lambda: SessionPast(0))
    public: bool = False
    last_used: float = field(default_factory=time.monotonic)
    waiting_steps: int = 0
    waiting_looks: int = 0
    seek_memory: int = 0
    snapshots: dict[str, HostedSnapshot] = field(default_factory=dict)
    attached: set[str] = field(default_factory=set)
    pending_snapshots: int = 0
    restored: bool = False

    @property
    def concerned(self) -> set[str]:
        """The tokens of the clients who own the session, control it, ask for that or look at it."""
        return self.lease.concerned | self.attached

    @property
    def world(self) -> "World":
        """Its world. Raises BridgeError as long as it is being opened."""
        if self.loop.world is None:
            raise BridgeError("busy", "the session is still being opened; try again in a moment")
        return self.loop.world

    def set_clock(self, clock: Clock) -> None:
        if clock != self.clock:
            self.clock = clock
            self.follow_control()

    def follow_control(self) -> None:
        """A live session stands still while nobody controls it: whoever comes back finds it as it was."""
        self.loop.tune(Tuning(lockstep=self.clock == "lockstep" or not self.lease.holder))

    def remember(self, tick: Tick) -> bool:
        """On the loop's thread: adds a tick to the past, or begins it anew.

        Returns whether a snapshot of it is due.
        """
        if tick.action is not None:
            return self.past.add(self._played(tick, tick.action))
        if not self.restored:
            self.past.begin([] if tick.number == 0 else None)
        self.restored = False
        return False

    def _played(self, tick: Tick, action: Action) -> PlayedTick:
        """A tick as the session's timeline has it, which may be written; or as it is to be played again."""
        timeline = self.loop.timeline
        played = timeline.tree.tick(tick.point) if timeline is not None and tick.point is not None else None
        return played or PlayedTick(action, tick.steps, tick.source, time=0.0, took=0.0)

    def snapshot_past(self, session: Session) -> None:
        """On the loop's thread: keeps a snapshot of the present for branches."""
        self.past.add_snapshot(session.snapshot())

    def take_snapshot(self, session: Session) -> HostedSnapshot:
        """On the loop's thread: the present state and its past."""
        timeline = self.loop.timeline
        return HostedSnapshot(
            session.snapshot(), self.ticks(), timeline.head if timeline is not None else None
        )

    def ticks(self) -> Ticks | None:
        """On the loop's thread: a copy of the past, None where it is not known."""
        return None if self.past.ticks is None else list(self.past.ticks)

    def seek(self, session: Session, timeline: "Timeline", point: Point) -> np.ndarray:
        """On the loop's thread: goes on from a moment that was played. Returns its frames."""
        frames = timeline.seek(session, point)
        self.past.begin(timeline.tree.path(point.branch, point.tick))
        self.restored = True
        return frames

    def restore(self, session: Session, kept: HostedSnapshot) -> None:
        """On the loop's thread: goes back to a kept state."""
        session.restore(kept.snapshot)
        if self.loop.timeline is not None and kept.point is not None:
            self.loop.timeline.moved(kept.point)
        self.past.begin(None if kept.ticks is None else list(kept.ticks))
        self.restored = True
