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
from playhead.scenes.scene import Scene

if TYPE_CHECKING:
    from playhead.engine.session import Session
    from playhead.engine.timeline.store import SnapshotStore

INTERVAL = 32
"""Ticks from one snapshot to the next, to begin with."""
REACH = 0.7
"""Seconds that the way from one snapshot to the next may take; the interval is made to fit."""

Progress = Callable[[int, int], None]
"""Told how many ticks of how many are done."""


class Way:
    """Keeps what makes the moments of a tree quick to reach, and takes a session there.

    All of it on the thread that owns the session. `store` None: every way begins at the start.
    """

    def __init__(self, tree: Tree, scenes: Mapping[int, Scene], store: "SnapshotStore | None") -> None:
        self._tree, self._scenes, self._store = tree, scenes, store
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
        count = self._go(session, place, head, progress)
        exact = self.is_exact(place, session.frames)
        play = self._tree.branches[place.branch].play
        if not exact and play not in self._elsewhere:
            if self._store is not None:
                self._store.clear()
            self._go(session, place, None, progress)
            exact = self.is_exact(place, session.frames)
            if not exact:
                self._elsewhere.add(play)  # another machine's numbers: trying again would not help
        elif exact and count >= 8 and self._store is not None:
            each = (time.perf_counter() - began) / count
            self.interval = int(min(max(REACH / each, 8), 1024))
        return exact

    def _go(self, session: "Session", place: Place, head: Place | None, progress: Progress | None) -> int:
        """Takes the session to a place; returns how many ticks it played for that."""
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
            found = self._store.nearest(branch.id, branch.first + 1, last) if self._store else None
            here = head is not None and head.branch == branch.id and head.tick <= last
            if head is not None and here and (found is None or head.tick >= found.tick):
                return head.tick
            if found is not None and self._store is not None:
                snapshot = self._store.get(found, self._tick(found)[1], session.world.device)
                if snapshot is not None:
                    if session.context is not scene.context:
                        session.enter(scene.context, root.seed, scene)
                    session.restore(snapshot)
                    self._since = 0
                    return found.tick
        self._since = 0
        session.enter(scene.context, root.seed, scene)
        return 0

    def _tick(self, place: Place) -> tuple[int, PlayedTick]:
        """Where the branch of a place begins, and the tick that led there; not for a start."""
        branch = self._tree.branches[place.branch]
        return branch.first, branch.ticks[place.tick - branch.first - 1]
