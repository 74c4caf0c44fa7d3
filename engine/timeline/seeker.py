"""The way to a moment: from the nearest snapshot before it, by what is stored of the ticks between.

Committing a tick's stored latents again is exact and leaves out the denoising; where latents are missing the
tick is simulated. Only the last ticks are decoded, as many as the decoder remembers.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.recording.schema import chain
from playhead.engine.recording.tree import PlayedTick, Point, Tree
from playhead.engine.work import Work, at_once
from playhead.scenes.scene import Scene

if TYPE_CHECKING:
    from playhead.engine.session import Session, Snapshot
    from playhead.engine.timeline.store import SnapshotStore

INTERVAL = 32
"""Ticks from one snapshot to the next, to begin with."""
REACH = 0.7
"""Seconds that the way from one snapshot to the next may take; the interval is made to fit."""

Progress = Callable[[int, int], None]
"""Told how many ticks of how many are done."""


class Seeker:
    """Keeps what makes the moments of a tree quick to reach, and takes a session there.

    All of it on the thread that owns the session. A way begins at a snapshot of the `store`'s or at one that
    is `given`; where there is none, at the start. `store` None: nothing is kept.
    """

    def __init__(
        self,
        tree: Tree,
        scenes: Mapping[int, Scene],
        store: "SnapshotStore | None" = None,
        given: "Mapping[Point, Snapshot] | None" = None,
    ) -> None:
        self._tree, self._scenes, self._store, self._given = tree, scenes, store, given or {}
        self.interval = INTERVAL
        self._since = 0  # ticks since the last snapshot on the way to where the session stands
        self._elsewhere: set[int] = set()

    def begin(self, snapshot: bool = False) -> None:
        """Takes note that the session stands somewhere else: at a start, or at a `snapshot` of somebody's."""
        self._since = self.interval if snapshot else 0

    def store_tick(self, session: "Session", point: Point) -> None:
        """Stores the latents of the tick that the session has just played, and a snapshot if one is due."""
        self._since += 1
        if self._store is None:
            return
        first, played = self._tick(point)
        self._store.put_latents(point, first, played, session.latents)
        if self._since >= self.interval:
            self._store.put(point, played, session.snapshot())
            self._since = 0

    def latents(self, session: "Session", point: Point) -> np.ndarray | None:
        """The stored latents of a tick, `(F, C, h, w)`."""
        return self._store.latents(point, *self._tick(point), session.latents) if self._store else None

    def stands(self, session: "Session", point: Point) -> bool:
        """Whether a session may stand at a point: it is of that scene, seed and tick."""
        root = self._tree.root(point.branch)
        context = self._scenes[root.scene].context
        return (session.tick, session.seed) == (point.tick, root.seed) and session.context is context

    def is_exact(self, point: Point, frames: np.ndarray) -> bool:
        """Whether frames have the hash that was recorded for a point, as far as that is known."""
        known = self._tree.hash_at(point)
        if not known or not point.tick:
            return not known or chain(b"", frames) == known
        before = self._tree.hash_at(self._tree.check(Point(point.branch, point.tick - 1)))
        return chain(before, frames) == known

    def reach(
        self, session: "Session", point: Point, head: Point | None, progress: Progress | None = None
    ) -> bool:
        """Takes the session, which stands at `head`, to a point. Returns whether its frames are the recorded.

        If they are not, what was stored is thrown away and everything simulated from the start, once for
        each play of another machine.
        """
        began = time.perf_counter()
        count = at_once(self.going(session, point, head, progress))
        exact = self.is_exact(point, session.frames)
        play = self._tree.branches[point.branch].play
        if not exact and play not in self._elsewhere:
            if self._store is not None:
                self._store.clear()
            at_once(self.going(session, point, None, progress))
            exact = self.is_exact(point, session.frames)
            if not exact:
                self._elsewhere.add(play)  # another machine's numbers: trying again would not help
        elif exact and count >= 8 and self._store is not None:
            each = (time.perf_counter() - began) / count
            self.interval = int(min(max(REACH / each, 8), 1024))
        return exact

    def going(
        self, session: "Session", point: Point, head: Point | None, progress: Progress | None = None
    ) -> Work[int]:
        """Takes the session, which stands at `head`, to a point. Returns how many ticks it played."""
        base = self._base(session, point, head)
        decoded = point.tick - session.world.decoder_span
        for number in range(base + 1, point.tick + 1):
            here = self._tree.check(Point(point.branch, number))
            _, played = self._tick(here)
            latents = self.latents(session, here)
            session.steps = played.steps
            if latents is not None:
                session.retrace(played.action, latents, decode=number >= decoded)
                self._since += 1
            else:
                session.step(played.action)
                session.finish()
                self.store_tick(session, here)
            if progress is not None:
                progress(number - base, point.tick - base)
            yield
        session.finish()
        return point.tick - base

    def _base(self, session: "Session", point: Point, head: Point | None) -> int:
        """Puts the session where the way to a point begins, as near as can be; returns the tick's number."""
        line = self._tree.lineage(point.branch)
        root = line[0]
        scene = self._scenes[root.scene]
        if head is not None and not self.stands(session, head):
            head = None
        for i, branch in reversed(list(enumerate(line))):
            last = point.tick if branch is line[-1] else min(point.tick, line[i + 1].first)
            found = self._nearest(branch.id, branch.first + 1, last)
            here = head is not None and head.branch == branch.id and head.tick <= last
            if head is not None and here and (found is None or head.tick >= found.tick):
                return head.tick
            if found is not None:
                snapshot = self._snapshot(session, found)
                if snapshot is not None:
                    if session.context is not scene.context:
                        session.enter(scene.context, root.seed, scene)
                    session.restore(snapshot)
                    self._since = 0
                    return found.tick
        self._since = 0
        session.enter(scene.context, root.seed, scene)
        return 0

    def _nearest(self, branch: int, first: int, last: int) -> Point | None:
        """The last snapshot of a branch's ticks `first` to `last`, if there is one."""
        found = [point for point in self._given if point.branch == branch and first <= point.tick <= last]
        stored = self._store.nearest(branch, first, last) if self._store is not None else None
        return max(found if stored is None else [*found, stored], default=None)

    def _snapshot(self, session: "Session", point: Point) -> "Snapshot | None":
        """The snapshot of a point that was found; None if it cannot be had after all."""
        if point in self._given or self._store is None:
            return self._given.get(point)
        return self._store.get(point, self._tick(point)[1], session.world.device)

    def _tick(self, point: Point) -> tuple[int, PlayedTick]:
        """Where the branch of a point begins, and the tick that led there; not for a start."""
        branch = self._tree.branches[point.branch]
        return branch.first, branch.ticks[point.tick - branch.first - 1]
