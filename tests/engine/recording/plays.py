"""Plays that are recorded for the tests of recordings: one of a single branch, one of three."""

from pathlib import Path

from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context

TICKS = 30
"""Of the play of a single branch."""


def play(world: World, folder: Path) -> Path:
    """One branch, with a bookmark at its end, as `play.playhead` in `folder`."""
    session = Session(world, make_tiny_context(), 5)
    recorder = Recorder(folder / "play.playhead", world, "A play")
    timeline = Timeline(recorder)
    timeline.begin(session)
    for number in range(TICKS):
        timeline.step(session, Action(frozenset({"forward"} if number % 3 else ())), "keyboard")
    timeline.bookmark("the end")
    timeline.close()
    assert not timeline.failure
    return recorder.path


def play_branches(world: World, path: Path, seed: int = 5, bend: int = 6) -> Path:
    """Three branches, with a bookmark each: 10 ticks; from tick `bend` on 5; from its third on 2 more."""
    session = Session(world, make_tiny_context(), seed)
    timeline = Timeline(Recorder(path, world, "A play"))
    timeline.begin(session)
    for point, ticks, button in ((None, 10, 0), (Point(1, bend), 5, 2), (Point(2, bend + 3), 2, 3)):
        if point is not None:
            timeline.seek(session, point)
        for _ in range(ticks):
            timeline.step(session, Action(frozenset({BUTTONS[button]})))
        timeline.bookmark()
    timeline.close()
    return path
