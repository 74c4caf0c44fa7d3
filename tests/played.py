"""A recorded play of a tiny world for tests: a root, a branch of it, and a bookmark."""

from pathlib import Path

import numpy as np

from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context

SEED = 5
FIRST, FORK, SECOND = 12, 7, 9
"""Ticks of branch 1; the one after which branch 2 begins; ticks of branch 2."""


def act(number: int) -> Action:
    """An action that says which one it is."""
    return Action(frozenset(name for bit, name in enumerate(BUTTONS) if number >> bit & 1))


def record_play(path: Path, world: World) -> dict[int, np.ndarray]:
    """Records the play; returns each branch's frames from its start on, the start's own first."""
    session = Session(world, make_tiny_context(), SEED)
    timeline = Timeline(Recorder(path, world, "A play"))
    timeline.begin(session)
    seen = {1: [session.frames]}
    for tick in range(1, FIRST + 1):
        seen[1].append(timeline.step(session, act(tick)))
    timeline.seek(session, Point(1, FORK))
    timeline.bookmark("the fork")
    seen[2] = seen[1][: FORK + 1]
    for tick in range(SECOND):
        seen[2].append(timeline.step(session, act(100 + tick)))
    timeline.close()
    assert not timeline.failure
    return {branch: np.concatenate(frames) for branch, frames in seen.items()}
