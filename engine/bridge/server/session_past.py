"""The past of a hosted session: every tick since its start, recorded or not, and a few snapshots of the way.

A branch goes the way that `engine.timeline` goes to any moment: from the last snapshot before it, so that it
does not cost the whole past, however long that is. It is not a `Timeline`: the tree of one only grows, by a
branch for every reset and restore, and an agent that resets a million times would fill the server's memory
with what nobody can ask for any more.
"""

from collections.abc import Mapping

from playhead.engine.recording.tree import Branch, PlayedTick, Point, Tree
from playhead.engine.session import Session, Snapshot
from playhead.engine.timeline.seeker import Seeker
from playhead.engine.work import Work
from playhead.scenes.scene import Scene

LONGEST = 1_000_000
"""Ticks after which a session's past is no longer kept for branching."""
INTERVAL = 64
"""Ticks from one snapshot to the next, to begin with."""
MOST, MEMORY = 32, 128 * 2**20
"""Snapshots that are kept at the most, and bytes of them."""

Ticks = list[PlayedTick]
"""Every tick since the start."""


class SessionPast:
    """Lives on the loop's thread. `room`: snapshots that are kept; what is there already are `ticks`, and
    `snapshots` of their way, by tick.
    """

    def __init__(
        self, room: int, ticks: Ticks | None = None, snapshots: Mapping[int, Snapshot] | None = None
    ) -> None:
        self.room = room
        self.ticks: Ticks | None = [] if ticks is None else ticks
        self._snapshots: dict[int, Snapshot] = dict(snapshots or {})
        self._interval = INTERVAL
        self._next = len(self.ticks or ()) + INTERVAL

    def add(self, played: PlayedTick) -> bool:
        """Adds a tick; returns whether a snapshot of it is due."""
        if self.ticks is None:
            return False
        self.ticks.append(played)
        if len(self.ticks) > LONGEST:
            self.begin(None)
            return False
        due = self.room > 0 and len(self.ticks) >= self._next
        if due:
            self._next = len(self.ticks) + self._interval
        return due

    def begin(self, ticks: Ticks | None) -> None:
        """Goes on from other ticks, from none, or from what is not known (None)."""
        shared = 0
        for before, now in zip(self.ticks or (), ticks or (), strict=False):
            if before is not now and before != now:
                break
            shared += 1
        self.ticks, self._next = ticks, len(ticks or ()) + self._interval
        self._snapshots = {tick: kept for tick, kept in self._snapshots.items() if tick <= shared}

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot of the present; where there are too many, every other one goes."""
        if self.ticks is None or snapshot.tick != len(self.ticks) or not self.room:
            return
        self._snapshots[snapshot.tick] = snapshot
        while len(self._snapshots) > self.room:
            self._interval *= 2
            self._snapshots = dict(sorted(self._snapshots.items())[1::2])

    def forget(self) -> None:
        """Lets the snapshots go, by any thread: they only save time."""
        self._snapshots = {}

    def until(self, tick: int) -> dict[int, Snapshot]:
        """The snapshots that are not after a tick."""
        return {t: kept for t, kept in self._snapshots.items() if t <= tick}

    def __len__(self) -> int:
        """Snapshots that are kept."""
        return len(self._snapshots)


def play_again(
    session: Session, scene: Scene, seed: int, ticks: Ticks, snapshots: Mapping[int, Snapshot]
) -> Work[None]:
    """Takes a session to the end of ticks that began at a scene's start, from the last of their snapshots on.

    Where there is none the session has to stand at that start.
    """
    tree = Tree()
    tree.branches[1] = Branch(1, None, scene=1, seed=seed, play=0, ticks=ticks)
    given = {Point(1, tick): snapshot for tick, snapshot in snapshots.items()}
    head = None if given else Point(1, 0)
    yield from Seeker(tree, {1: scene}, given=given).going(session, Point(1, len(ticks)), head)
