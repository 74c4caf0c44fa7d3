"""The timeline: every tick that sessions of one play have lived, as a tree, and the way to any of them.

Going back never takes anything away: what is played from an earlier moment is a branch. A moment is reached
from the nearest snapshot before it, by committing the stored latents of the ticks between again, which is
exact and leaves out the denoising; where latents are missing, by simulating. The frames that are reached are
compared with the recorded hash, and simulated from scratch if anything was wrong with what was stored.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engine.recording.schema import RecordingError, chain
from engine.recording.tree import Bookmark, Branch, Place, PlayedTick, Tree
from scenes.scene import Scene

if TYPE_CHECKING:
    from engine.loop import Tick
    from engine.recording.reader import Recording
    from engine.recording.recorder import Recorder
    from engine.session import Session
    from engine.timeline.store import SnapshotStore
    from world.action import Action

INTERVAL = 32
"""Ticks from one snapshot to the next, to begin with."""
REACH = 0.7
"""Seconds that the way from one snapshot to the next may take; the interval is made to fit."""
THUMBNAIL_EVERY = 2.0
"""Seconds of play from one thumbnail to the next."""
THUMBNAIL_WIDTH = 64
RECENT = 32 * 2**20
"""Bytes of frames that are at hand without decoding anything."""

Progress = Callable[[int, int], None]
"""Told how many ticks of how many are done."""


class Timeline:
    """The tree of what was played, where in it the session stands (`head`), and its recording.

    The thread that owns the session calls what takes a session; everything else may be called by any thread.
    `recorder` None: nothing is written, for the reason `unrecorded` if that was not wished. `recording`: what
    was played before, to go on with.
    """

    def __init__(
        self,
        recorder: "Recorder | None" = None,
        store: "SnapshotStore | None" = None,
        recording: "Recording | None" = None,
        unrecorded: str = "",
    ) -> None:
        self.recorder, self._store = recorder, store
        self.tree = Tree() if recording is None else recording.tree
        self._scenes: dict[int, Scene] = {} if recording is None else recording.scenes
        self._play = recorder.play if recorder is not None else 0
        self._lock = threading.RLock()
        self._head: Place | None = None
        self._moved = False
        self._lost, self._unrecorded = "", unrecorded
        self._interval, self._since, self._thumbnail_due = INTERVAL, 0, 0
        self._recent: OrderedDict[Place, np.ndarray] = OrderedDict()
        self._thumbnails = dict(recording.thumbnails()) if recording is not None else {}
        self._elsewhere: set[int] = set()
        self._followed: int | None = None
        self.differs: Place | None = None
        self.exact = True

    @property
    def head(self) -> Place | None:
        """Where the session stands; None before it has begun, or where it is lost to this timeline."""
        return self._head

    @property
    def failure(self) -> str:
        """Why nothing is recorded any more, in a sentence; empty while it is, or was never to be."""
        if self.recorder is None:
            return self._unrecorded
        return self.recorder.failure or self._lost

    @property
    def path_end(self) -> Place | None:
        """The end of the branch that the session stands on."""
        return self.tree.end(self._head.branch) if self._head is not None else None

    @property
    def branches(self) -> list[Branch]:
        with self._lock:
            return list(self.tree.branches.values())

    @property
    def bookmarks(self) -> list[Bookmark]:
        with self._lock:
            return list(self.tree.bookmarks)

    def thumbnails(self) -> list[tuple[Place, np.ndarray]]:
        """Small pictures, uint8 `(h, w, 3)`, of moments, in the order of branches and ticks."""
        with self._lock:
            return sorted(self._thumbnails.items(), key=lambda item: item[0])

    def scene(self, place: Place) -> Scene:
        """The scene that a place's root begins from."""
        return self._scenes[self.tree.root(place.branch).scene]

    def bookmark(self, name: str = "") -> Bookmark:
        """Gives the present moment a name. Raises RecordingError before anything has begun."""
        with self._lock:
            if self._head is None:
                raise RecordingError("there is no moment to bookmark yet")
            number = max((mark.id for mark in self.tree.bookmarks), default=0) + 1
            mark = Bookmark(number, name.strip() or f"bookmark {number}", self._head, time.time())
            self.tree.bookmarks.append(mark)
        if self.recorder is not None:
            self.recorder.add_bookmark(mark)
        return mark

    def begin(self, session: "Session") -> None:
        """Takes note that the session goes on from its present state: a start, a restart, another scene.

        After `seek` nothing is left to note. A state of unknown origin cannot be recorded: `failure` says so.
        """
        moved, self._moved = self._moved, False
        if moved and self._head is not None and self._stands(session, self._head):
            return
        if session.tick:
            self._lose("the session went on from a state that was not recorded")
            return
        with self._lock:
            self._head = Place(self._root(session).id, 0)
        self._since, self._lost = 0, ""
        self._picture_thumbnail(session.frames)

    def moved(self, place: Place) -> None:
        """Takes note that a snapshot, which was made at this place, is being restored; `begin` follows."""
        with self._lock:
            self._head = self.tree.check(place)
        self._moved, self._lost = True, ""
        self._since, self._thumbnail_due = self._interval, 0

    def _stands(self, session: "Session", place: Place) -> bool:
        root = self.tree.root(place.branch)
        context = self._scenes[root.scene].context
        return (session.tick, session.seed) == (place.tick, root.seed) and session.context is context

    def _lose(self, reason: str) -> None:
        self._head = None
        self._lost = f"recording stopped: {reason}"

    def _root(self, session: "Session") -> Branch:
        """The root that a session at its start stands on, which may be a new one."""
        scenes = [n for n, scene in self._scenes.items() if scene.context is session.context]
        number = scenes[0] if scenes else max(self._scenes, default=0) + 1
        for branch in self.tree.branches.values():
            if branch.parent is None and (branch.scene, branch.seed) == (number, session.seed):
                return branch
        if not scenes:
            name = session.world.config.name
            given = session.scene or Scene("", "", "", name, session.seed, "", session.context)
            self._scenes[number] = replace(given, context=session.context)
            if self.recorder is not None:
                self.recorder.add_scene(number, self._scenes[number])
        root = Branch(self._next_branch(), None, number, session.seed, self._play, time=time.time())
        if self.recorder is not None:
            self.recorder.add_branch(root, None, session.frames)
        self.tree.branches[root.id] = root
        return root

    def _next_branch(self) -> int:
        return max(self.tree.branches, default=0) + 1

    def step(self, session: "Session", action: "Action", source: str = "script") -> np.ndarray:
        """Plays a tick without a loop. Returns its frames, as `Session.step`."""
        steps, began = session.steps, time.perf_counter()
        frames = session.step(action)
        self._take(action, steps, source, time.perf_counter() - began, frames)
        self.settle(session)
        return frames

    def receive(self, tick: "Tick") -> "Tick":
        """Takes in a tick of the loop before it is handed over. Returns it with its place."""
        if tick.action is not None and self._head is not None:
            took = tick.timing.ready - tick.timing.sampled
            self._take(tick.action, tick.steps, tick.source, took, tick.frames)
        return replace(tick, place=self._head)

    def _take(self, action: "Action", steps: int, source: str, took: float, frames: np.ndarray) -> None:
        if self._head is None:
            return
        self._moved = False
        if source == "replay" and self._follow(action, frames):
            return
        played = PlayedTick(action, steps, source, time.time(), took)
        with self._lock:
            branch = self.tree.branches[self._head.branch]
            if self._head.tick < branch.last or branch.play != self._play:
                branch = self._fork(self._head)
            before = branch.ticks[-1] if branch.ticks else branch
            branch.ticks.append(played)
            self._head = Place(branch.id, branch.last)
            self._remember(self._head, frames[-1])
        if self.recorder is not None:
            self.recorder.add(self._head, played, before, frames)

    def follow(self, branch: int) -> None:
        """Has ticks whose source is `replay` count as those of this branch, where they come next on it.

        `differs` is then the first whose frames are not the recorded ones.
        """
        self.tree.branch(branch)
        self._followed = branch

    def next_tick(self) -> PlayedTick | None:
        """The tick that comes next on the followed branch; None where there is none, or off the way to it."""
        number, head = self._followed, self._head
        if number is None or head is None or head.tick >= self.tree.branch(number).last:
            return None
        if self.tree.check(Place(number, head.tick)) != head:
            return None
        return self.tree.tick(Place(number, head.tick + 1))

    def _follow(self, action: "Action", frames: np.ndarray) -> bool:
        played = self.next_tick()
        if played is None or played.action != action or self._head is None or self._followed is None:
            return False
        with self._lock:
            self._head = self.tree.check(Place(self._followed, self._head.tick + 1))
            self._remember(self._head, frames[-1])
        if self.differs is None and not self._is_exact(self._head, frames):
            self.differs = self._head
        return True

    def _fork(self, place: Place) -> Branch:
        before = self.tree.tick(place) or self.tree.branches[place.branch]
        root = self.tree.root(place.branch)
        branch = Branch(self._next_branch(), place, root.scene, root.seed, self._play, time=time.time())
        self.tree.branches[branch.id] = branch
        if self.recorder is not None:
            self.recorder.add_branch(branch, before)
        return branch

    def settle(self, session: "Session") -> None:
        """Keeps what makes the present moment quick to reach; called once a tick is committed."""
        if self._head is None or not self._head.tick:
            return
        if self._head.tick >= self._thumbnail_due:
            self._picture_thumbnail(session.frames)
            self._thumbnail_due = self._head.tick + round(
                THUMBNAIL_EVERY * session.world.config.ticks_per_second
            )
        self._keep(session, self._head)

    def _keep(self, session: "Session", place: Place) -> None:
        """Stores the latents of the tick that the session has just played, and a snapshot if one is due."""
        self._since += 1
        if self._store is None:
            return
        played = self.tree.tick(place)
        assert played is not None
        first = self.tree.branches[place.branch].first
        self._store.put_latents(place, first, played, session.latents)
        if self._since >= self._interval:
            self._store.put(place, played, session.snapshot())
            self._since = 0

    def seek(self, session: "Session", place: Place, progress: Progress | None = None) -> np.ndarray:
        """Takes the session to a moment of the tree, from which it goes on exactly. Returns its frames.

        Raises RecordingError for a moment that there is not; the session then stays where it is.
        `exact` is False afterwards where the recorded frames cannot be had on this machine.
        """
        place = self.tree.check(place)
        played = self.tree.tick(place)
        # A tick that was not committed may be part of the way.
        session.finish()
        try:
            self._reach(session, place, progress)
        except BaseException:
            self._lose(f"the way to {place} broke off")
            raise
        if played is not None:
            session.steps = played.steps
        with self._lock:
            self._head = place
            self._remember(place, session.frames[-1])
        self._moved, self._lost = True, ""
        self._thumbnail_due = 0
        return session.frames

    def _reach(self, session: "Session", place: Place, progress: Progress | None) -> None:
        began = time.perf_counter()
        count = self._go(session, place, progress, retrace=True)
        self.exact = self._is_exact(place, session.frames)
        play = self.tree.branches[place.branch].play
        if not self.exact and play not in self._elsewhere:
            if self._store is not None:
                self._store.clear()
            self._go(session, place, progress, retrace=False)
            self.exact = self._is_exact(place, session.frames)
            if not self.exact:
                self._elsewhere.add(play)  # another machine's numbers: trying again would not help
        elif count >= 8 and self._store is not None:
            each = (time.perf_counter() - began) / count
            self._interval = int(min(max(REACH / each, 8), 1024))

    def rewind(self, session: "Session", ticks: int) -> np.ndarray:
        """Goes back by so many ticks, at most to the start. Raises RecordingError before a beginning."""
        head = self._head
        if head is None:
            raise RecordingError("there is nothing to go back to")
        return self.seek(session, Place(head.branch, max(0, head.tick - ticks)))

    def _go(self, session: "Session", place: Place, progress: Progress | None, retrace: bool) -> int:
        """Takes the session to a place; returns how many ticks it played for that."""
        base = self._base(session, place, retrace)
        path = self.tree.path(place.branch, place.tick)
        decoded = place.tick - session.world.decoder_span - 1
        like = session.latents
        for number in range(base + 1, place.tick + 1):
            here, played = self.tree.check(Place(place.branch, number)), path[number - 1]
            latents = None
            if retrace and self._store is not None:
                first = self.tree.branches[here.branch].first
                latents = self._store.latents(here, first, played, like)
            session.steps = played.steps
            if latents is not None:
                session.retrace(played.action, latents, decode=number > decoded)
                self._since += 1
            else:
                session.step(played.action)
                session.finish()
                if retrace or self._is_exact(here, session.frames):
                    self._keep(session, here)
            if progress is not None:
                progress(number - base, place.tick - base)
        session.finish()
        return place.tick - base

    def _base(self, session: "Session", place: Place, retrace: bool) -> int:
        """Puts the session where the way to a place begins, as near as can be; returns the tick's number."""
        root = self.tree.root(place.branch)
        scene = self._scenes[root.scene]
        line = self.tree.lineage(place.branch)
        own = self._head if self._head is not None and self._stands(session, self._head) else None
        if retrace:
            for i, branch in reversed(list(enumerate(line))):
                last = place.tick if branch is line[-1] else min(place.tick, line[i + 1].first)
                found = self._store.nearest(branch.id, branch.first + 1, last) if self._store else None
                near = own is not None and own.branch == branch.id and own.tick <= last
                if own is not None and near and (found is None or own.tick >= found.tick):
                    return own.tick
                if found is not None and self._store is not None:
                    played = self.tree.tick(found)
                    assert played is not None
                    snapshot = self._store.get(found, played, session.world.device)
                    if snapshot is not None:
                        if session.context is not scene.context:
                            session.enter(scene.context, root.seed, scene)
                        session.restore(snapshot)
                        self._since = 0
                        return found.tick
        self._since = 0
        if session.context is not scene.context:
            session.enter(scene.context, root.seed, scene)
        else:
            session.reset(root.seed)
        return 0

    def _is_exact(self, place: Place, frames: np.ndarray) -> bool:
        """Whether frames have the hash that was recorded for a place, as far as that is known."""
        known = self.tree.hash_at(place)
        if not known or not place.tick:
            return not known or chain(b"", frames) == known
        before = self.tree.hash_at(self.tree.check(Place(place.branch, place.tick - 1)))
        return chain(before, frames) == known

    def picture(self, session: "Session", place: Place) -> np.ndarray:
        """A moment's last frame, uint8 `(H, W, 3)`, without going there: to look for a moment by eye.

        It is exact where it was shown lately; else decoded from stored latents, or a thumbnail enlarged.
        """
        place = self.tree.check(place)
        with self._lock:
            if place in self._recent:
                return self._recent[place]
        first = max(1, place.tick - session.world.decoder_span)
        path = self.tree.path(place.branch, place.tick)
        found: list[np.ndarray] = []
        like = session.latents
        for number in range(first, place.tick + 1) if self._store is not None else ():
            here = self.tree.check(Place(place.branch, number))
            begins = self.tree.branches[here.branch].first
            latents = self._store.latents(here, begins, path[number - 1], like)
            found = [*found, latents] if latents is not None else []
        picture = session.world.picture(np.concatenate(found)) if found else self._enlarged(session, place)
        with self._lock:
            self._remember(place, picture)
        return picture

    def _enlarged(self, session: "Session", place: Place) -> np.ndarray:
        """The nearest thumbnail on the way to a place, as large as a frame."""
        height, width = session.frames.shape[1:3]
        with self._lock:
            line = {branch.id: branch for branch in self.tree.lineage(place.branch)}
            near = [p for p in self._thumbnails if p.branch in line and p == self.tree.check(p)]
            if not near:
                return np.zeros((height, width, 3), np.uint8)
            small = self._thumbnails[min(near, key=lambda p: abs(p.tick - place.tick))]
        rows = np.arange(height) * small.shape[0] // height
        columns = np.arange(width) * small.shape[1] // width
        return small[rows][:, columns]

    def _remember(self, place: Place, frame: np.ndarray) -> None:
        self._recent[place] = frame
        while len(self._recent) * frame.nbytes > RECENT:
            self._recent.popitem(last=False)

    def _picture_thumbnail(self, frames: np.ndarray) -> None:
        place = self._head
        if place is None or place in self._thumbnails:
            return
        by = max(1, frames.shape[2] // THUMBNAIL_WIDTH)
        height, width = (side // by for side in frames.shape[1:3])
        squares = frames[-1, : height * by, : width * by].reshape(height, by, width, by, 3)
        small = squares.mean((1, 3)).astype(np.uint8)
        with self._lock:
            self._thumbnails[place] = small
        if self.recorder is not None:
            self.recorder.add_thumbnail(place, small)

    def close(self) -> None:
        """Returns when everything is written."""
        if self.recorder is not None:
            self.recorder.close()
        if self._store is not None:
            self._store.close()
