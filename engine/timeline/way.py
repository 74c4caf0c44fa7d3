"""The way to a moment: from the nearest snapshot before it, by what is stored of the ticks between.

Committing a tick's stored latents again is exact and leaves out the denoising; where latents are missing the
tick is simulated. Only the last ticks are decoded, as many as the decoder remembers.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.recording.schema import chain
from playhead.engine.recording.tree import Place, PlayedTick, Tree
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


class Way:
    """Keeps what makes the moments of a tree quick to reach, and takes a session there.

    All of it on the thread that owns the session. A way begins at a snapshot of the `store`'s or at one that
    is `given`; where there is none, at the start. `store` None: nothing is kept.
    """

    def __init__(
        self,
        tree: Tree,
        scenes: Mapping[int, Scene],
        store: "SnapshotStore | None" = None,
        given: "Mapping[Place, Snapshot] | None" = None,
    ) -> None:
        self._tree, self._scenes, self._store, self._given = tree, scenes, store, given or {}
        self.interval = INTERVAL
        self._since = 0  # ticks since the last snapshot on the way to where the session stands
        self._elsewhere: set[int] = set()

    def begin(self, snapshot: bool = False) -> None:
        """Takes note that the session stands somewhere else: at a start, or at a `snapshot` of somebody's."""
        self._since = self.interval if snapshot else 0

    def keep(self, session: "Session", place: Place) -> None:
        """Stores the latents of the tick that the session has just played, and a snapshot if one is due."""
        self._since += 1
        if self._store is None:
            return
        first, played = self._tick(place)
        self._store.put_latents(place, first, played, session.latents)
        if self._since >= self.interval:
            self._store.put(place, played, session.snapshot())
            self._since = 0

    def latents(self, session: "Session", place: Place) -> np.ndarray | None:
        """The stored latents of a tick, `(F, C, h, w)`."""
        return self._store.latents(place, *self._tick(place), session.latents) if self._store else None

    def stands(self, session: "Session", place: Place) -> bool:
        """Whether a session may stand at a place: it is of that scene, seed and tick."""
        root = self._tree.root(place.branch)
        context = self._scenes[root.scene].context
        return (session.tick, session.seed) == (place.tick, root.seed) and session.context is context

    def is_exact(self, place: Place, frames: np.ndarray) -> bool:
        """Whether frames have the hash that was recorded for a place, as far as that is known."""
        known = self._tree.hash_at(place)
        if not known or not place.tick:
            return not known or chain(b"", frames) == known
        before = self._tree.hash_at(self._tree.check(Place(place.branch, place.tick - 1)))
        return chain(before, frames) == known

    def reach(
        self, session: "Session", place: Place, head: Place | None, progress: Progress | None = None
    ) -> bool:
        """Takes the session, which stands at `head`, to a place. Returns whether its frames are the recorded.

        If they are not, what was stored is thrown away and everything simulated from the start, once for
        each play of another machine.
        """
        began = time.perf_counter()
        count = at_once(self.going(session, place, head, progress))
        exact = self.is_exact(place, session.frames)
        play = self._tree.branches[place.branch].play
        if not exact and play not in self._elsewhere:
            if self._store is not None:
                self._store.clear()
            at_once(self.going(session, place, None, progress))
            exact = self.is_exact(place, session.frames)
            if not exact:
                self._elsewhere.add(play)  # another machine's numbers: trying again would not help
        elif exact and count >= 8 and self._store is not None:
            each = (time.perf_counter() - began) / count
            self.interval = int(min(max(REACH / each, 8), 1024))
        return exact

    def going(
        self, session: "Session", place: Place, head: Place | None, progress: Progress | None = None
    ) -> Work[int]:
        """Takes the session, which stands at `head`, to a place. Returns how many ticks it played."""
        base = self._base(session, place, head)
        decoded = place.tick - session.world.decoder_span
        for number in range(base + 1, place.tick + 1):
            here = self._tree.check(Place(place.branch, number))
            _, played = self._tick(here)
            latents = self.latents(session, here)
            session.steps = played.steps
            if latents is not None:
                session.retrace(played.action, latents, decode=number >= decoded)
                self._since += 1
            else:
                session.step(played.action)
                session.finish()
                self.keep(session, here)
            if progress is not None:
                progress(number - base, place.tick - base)
            yield
        session.finish()
        return place.tick - base

    def _base(self, session: "Session", place: Place, head: Place | None) -> int:
        """Puts the session where the way to a place begins, as near as can be; returns the tick's number."""
        line = self._tree.lineage(place.branch)
        root = line[0]
        scene = self._scenes[root.scene]
        if head is not None and not self.stands(session, head):
            head = None
        for i, branch in reversed(list(enumerate(line))):
            last = place.tick if branch is line[-1] else min(place.tick, line[i + 1].first)
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

    def _nearest(self, branch: int, first: int, last: int) -> Place | None:
        """The last snapshot of a branch's ticks `first` to `last`, if there is one."""
        found = [place for place in self._given if place.branch == branch and first <= place.tick <= last]
        stored = self._store.nearest(branch, first, last) if self._store is not None else None
        return max(found if stored is None else [*found, stored], default=None)

    def _snapshot(self, session: "Session", place: Place) -> "Snapshot | None":
        """The snapshot of a place that was found; None if it cannot be had after all."""
        if place in self._given or self._store is None:
            return self._given.get(place)
        return self._store.get(place, self._tick(place)[1], session.world.device)

    def _tick(self, place: Place) -> tuple[int, PlayedTick]:
        """Where the branch of a place begins, and the tick that led there; not for a start."""
        branch = self._tree.branches[place.branch]
        return branch.first, branch.ticks[place.tick - branch.first - 1]
