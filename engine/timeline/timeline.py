"""The timeline: every tick that sessions of one play have lived, as a tree, and the way to any of them.

Going back never takes anything away: what is played from an earlier moment is a branch. How a moment is
reached says `engine.timeline.seeker`.
"""

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Bookmark, Branch, PlayedTick, Point, Tree
from playhead.engine.timeline.pictures import Pictures
from playhead.engine.timeline.seeker import Progress, Seeker
from playhead.scenes.scene import Scene

if TYPE_CHECKING:
    from playhead.engine.recording.reader import Recording
    from playhead.engine.recording.recorder import Recorder
    from playhead.engine.session import Session
    from playhead.engine.tick import Tick
    from playhead.engine.timeline.store import SnapshotStore
    from playhead.world.action import Action


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
        self._head: Point | None = None
        self._moved = False
        self._lost, self._unrecorded = "", unrecorded
        self.seeker = Seeker(self.tree, self._scenes, store)
        self.pictures = Pictures(self.tree, recording.thumbnails() if recording is not None else ())
        self._followed: int | None = None
        self._chords: dict[tuple[str, ...], Action] = {}
        self.differs: Point | None = None
        self.exact = True

    @property
    def head(self) -> Point | None:
        """Where the session stands; None before it has begun, or where it is lost to this timeline."""
        return self._head

    @property
    def failure(self) -> str:
        """Why nothing is recorded any more, in a sentence; empty while it is, or was never to be."""
        if self.recorder is None:
            return self._unrecorded
        return self.recorder.failure or self._lost

    @property
    def branches(self) -> list[Branch]:
        with self._lock:
            return list(self.tree.branches.values())

    @property
    def bookmarks(self) -> list[Bookmark]:
        with self._lock:
            return list(self.tree.bookmarks)

    def thumbnails(self) -> list[tuple[Point, np.ndarray]]:
        """Small pictures, uint8 `(h, w, 3)`, of moments, in the order of branches and ticks."""
        return self.pictures.thumbnails()

    def scene(self, point: Point) -> Scene:
        """The scene that a point's root begins from."""
        return self._scenes[self.tree.root(point.branch).scene]

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
        if moved and self._head is not None and self.seeker.stands(session, self._head):
            return
        if session.tick:
            self._lose("the session went on from a state that was not recorded")
            return
        with self._lock:
            self._head = Point(self._root(session).id, 0)
        self._lost = ""
        self.seeker.begin()
        self.pictures.moved()
        self._add_thumbnail(session)

    def moved(self, point: Point) -> None:
        """Takes note that a snapshot, which was made at this point, is being restored; `begin` follows."""
        with self._lock:
            self._head = self.tree.check(point)
        self._moved, self._lost = True, ""
        self.seeker.begin(snapshot=True)
        self.pictures.moved()

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
            given = session.scene or Scene("", "", "", name, session.seed, session.context)
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
        """Takes in a tick of the loop before it is handed over. Returns it with its point."""
        if tick.action is not None and self._head is not None:
            took = tick.timing.ready - tick.timing.sampled
            self._take(tick.action, tick.steps, tick.source, took, tick.frames)
            if self.recorder is not None:
                self.recorder.wait()
        return msgspec.structs.replace(tick, point=self._head)

    def _take(self, action: "Action", steps: int, source: str, took: float, frames: np.ndarray) -> None:
        if self._head is None:
            return
        self._moved = False
        if source == "replay" and self._follow(action, frames):
            return
        if not action.moves:  # an hour has tens of thousands of ticks, and few chords
            action = self._chords.setdefault(action.in_words(), action)
        played = PlayedTick(action, steps, source, time.time(), took)
        with self._lock:
            branch = self.tree.branches[self._head.branch]
            if self._head.tick < branch.last or branch.play != self._play:
                branch = self._fork(self._head)
            before = branch.tip
            branch.ticks.append(played)
            self._head = Point(branch.id, branch.last)
            if self.recorder is not None:
                self.recorder.add(self._head, played, before, frames)
        self.pictures.remember(self._head, frames[-1])

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
        if self.tree.check(Point(number, head.tick)) != head:
            return None
        return self.tree.tick(Point(number, head.tick + 1))

    def _follow(self, action: "Action", frames: np.ndarray) -> bool:
        played = self.next_tick()
        if played is None or played.action != action or self._head is None or self._followed is None:
            return False
        with self._lock:
            self._head = self.tree.check(Point(self._followed, self._head.tick + 1))
        self.pictures.remember(self._head, frames[-1])
        if self.differs is None and not self.seeker.is_exact(self._head, frames):
            self.differs = self._head
        return True

    def _fork(self, point: Point) -> Branch:
        before = self.tree.sealed(point)
        root = self.tree.root(point.branch)
        branch = Branch(self._next_branch(), point, root.scene, root.seed, self._play, time=time.time())
        self.tree.branches[branch.id] = branch
        if self.recorder is not None:
            self.recorder.add_branch(branch, before)
        return branch

    def settle(self, session: "Session") -> None:
        """Keeps what makes the present moment quick to reach; called once a tick is committed."""
        if self._head is None or not self._head.tick:
            return
        self._add_thumbnail(session)
        self.seeker.store_tick(session, self._head)

    def _add_thumbnail(self, session: "Session") -> None:
        if self._head is None:
            return
        rate = session.world.config.ticks_per_second
        small = self.pictures.add_thumbnail(self._head, session.frames[-1], rate)
        if small is not None and self.recorder is not None:
            self.recorder.add_thumbnail(self._head, small)

    def seek(self, session: "Session", point: Point, progress: Progress | None = None) -> np.ndarray:
        """Takes the session to a moment of the tree, from which it goes on exactly. Returns its frames.

        Raises RecordingError for a moment that there is not; the session then stays where it is.
        `exact` is False afterwards where the recorded frames cannot be had on this machine.
        """
        point = self.tree.check(point)
        played = self.tree.tick(point)
        session.finish()
        try:
            self.exact = self.seeker.reach(session, point, self._head, progress)
        except BaseException:
            self._lose(f"the way to {point} broke off")
            raise
        if played is not None:
            session.steps = played.steps
        with self._lock:
            self._head = point
        self._moved, self._lost = True, ""
        self.pictures.remember(point, session.frames[-1])
        self.pictures.moved()
        return session.frames

    def rewind(self, session: "Session", ticks: int) -> np.ndarray:
        """Goes back by so many ticks, at most to the start. Raises RecordingError before a beginning."""
        head = self._head
        if head is None:
            raise RecordingError("there is nothing to go back to")
        return self.seek(session, Point(head.branch, max(0, head.tick - ticks)))

    def picture(self, session: "Session", point: Point) -> np.ndarray:
        """A moment's last frame, uint8 `(H, W, 3)`, without going there: to look for a moment by eye.

        It is exact where it was shown lately; else decoded from stored latents, or a thumbnail enlarged.
        """
        point = self.tree.check(point)
        recent = self.pictures.recent(point)
        if recent is not None:
            return recent
        found: list[np.ndarray] = []
        for number in range(max(1, point.tick - session.world.decoder_span), point.tick + 1):
            latents = self.seeker.latents(session, self.tree.check(Point(point.branch, number)))
            found = [*found, latents] if latents is not None else []
        if found:
            picture = session.world.picture(np.concatenate(found))
        else:
            picture = self.pictures.enlarged(point, session.frames.shape[1:3])
        self.pictures.remember(point, picture)
        return picture

    def discard(self) -> None:
        """Takes away what was written; returns at once."""
        if self.recorder is not None:
            self.recorder.discard()
        if self._store is not None:
            self._store.close()

    def close(self) -> None:
        """Returns when everything is written."""
        if self.recorder is not None:
            self.recorder.close()
        if self._store is not None:
            self._store.close()
