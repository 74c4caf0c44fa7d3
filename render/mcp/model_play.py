"""One session that a language model plays: a loop in lockstep, its timeline, and the newest frames."""

import re
from collections.abc import Sequence
from pathlib import Path

from playhead.controls.script import ScriptSource
from playhead.engine.bridge.server.registry import Registry, scene_info
from playhead.engine.loop import Loop
from playhead.engine.recording.edit import draft_of, write
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.schema import RecordingError
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.engine.timeline.opening import new_timeline
from playhead.render.mcp.model_played import Branched, Seen, chosen_ticks
from playhead.scenes.scene import Scene
from playhead.world.action import Action
from playhead.world.world import World

SOURCE = "model"
"""Who played these ticks, as a recording says it."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a recording may be saved as."""


class ModelPlay:
    """A session of a registry's world. Its methods wait for the loop and may be called by any thread.

    `folder`: where it is recorded, as a play in the window is; None: nowhere, and `save` is refused. Raises
    PlayheadError where the session cannot be opened.
    """

    def __init__(
        self, registry: Registry, world: World, scene: Scene, seed: int, steps: int, folder: Path | None
    ) -> None:
        self.world = world
        self.info, self.scene = registry.info(world), scene_info(scene)
        self._folder = folder
        self.timeline = new_timeline(world, scene, folder)
        self._newest: Tick | None = None

        def begin() -> Session:
            session = registry.open(world, scene, seed)
            session.steps = steps
            return session

        batcher = registry.batcher(world)
        idle = ScriptSource([])  # in lockstep nothing is sampled
        self._loop = Loop(begin, idle, lockstep=True, timeline=self.timeline, stepper=batcher)
        self._loop.subscribe(self._receive)
        self._loop.start()
        try:
            self._loop.ask(lambda session: None).result()
        except BaseException:
            self._loop.stop()
            self._loop.wait(60)
            self.timeline.close()
            self._loop.join()  # raises what really went wrong, if the loop has ended by it
            raise

    def _receive(self, tick: Tick) -> None:
        self._newest = tick

    @property
    def point(self) -> Point | None:
        """Where the session stands on its timeline."""
        return self.timeline.head

    @property
    def recorded(self) -> bool:
        return self.timeline.recorder is not None and not self.timeline.failure

    @property
    def failure(self) -> str:
        return self.timeline.failure

    @property
    def exact(self) -> bool:
        return self.timeline.exact

    def look(self) -> Seen:
        """The newest tick, or the start."""
        assert self._newest is not None  # the loop has begun
        return _seen(self._newest)

    def act(self, actions: Sequence[Action], pictures: int) -> list[Seen]:
        """Plays actions, a tick each. Returns so many of the ticks, evenly spaced, the last one among them.

        Raises ActionError, before anything is played, for one that this session cannot play.
        """
        chosen = chosen_ticks(len(actions), pictures)
        kept: list[Seen] = []
        played = 0

        def each(tick: Tick, seconds: float) -> None:
            nonlocal played
            if played in chosen:
                kept.append(_seen(tick))
            played += 1

        self._loop.step(actions, each, SOURCE).result()
        return kept

    def rewind(self, ticks: int) -> None:
        """Goes back by so many ticks, at most to the start."""
        self._loop.rewind(ticks).result()

    def branch(self, moment: str) -> None:
        """Goes to a moment of what was played, as `Tree.parse` reads it; what is played next is a branch.

        Raises RecordingError where there is none; the session then stays where it is.
        """
        point = self.timeline.tree.parse(moment)
        self._loop.seek(point).result()

    def bookmark(self, name: str) -> tuple[str, Point]:
        """Gives the present moment a name; an empty one is made up. Returns both."""
        mark = self._loop.ask(lambda session: self.timeline.bookmark(name)).result()
        return mark.name, mark.point

    def save(self, name: str) -> tuple[str, int]:
        """Writes all that was played to a file of its own. Returns its name and its ticks.

        Raises RecordingError for a name that is none or taken, and where nothing is recorded.
        """
        recorder = self.timeline.recorder
        if self.timeline.failure:
            raise RecordingError(self.timeline.failure)
        if recorder is None or self._folder is None:
            raise RecordingError("nothing is recorded here; start with --recordings FOLDER")
        check_name(name)
        path = self._folder / f"{name}.playhead"
        if path.exists():
            raise RecordingError(f"there is a recording `{name}` already; choose another name")
        self._loop.ask(lambda session: recorder.flush()).result()
        recording = Recording.read(recorder.path)
        write(path, draft_of(recording, lambda branch: branch.last))
        return path.name, recording.tree.count

    def moments(self) -> tuple[list[Branched], list[tuple[str, Point]]]:
        """The branches and bookmarks, the newest last."""
        branches = [Branched(branch.id, branch.parent, branch.last) for branch in self.timeline.branches]
        return branches, [(mark.name, mark.point) for mark in self.timeline.bookmarks]

    def close(self) -> None:
        """Ends the session after the tick under way; returns when all of it is written."""
        self._loop.stop()
        self._loop.wait(60)
        self.timeline.close()


def check_name(name: str) -> None:
    """Raises RecordingError for what is no name of a recording."""
    if not NAME.fullmatch(name):
        raise RecordingError(
            f"`{name}` is no name for a recording; use up to 64 letters, digits, - and _, no ending"
        )


def _seen(tick: Tick) -> Seen:
    return Seen(tick.number, tick.frames[-1])
