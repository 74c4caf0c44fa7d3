"""A film of what was played in a session, dreamed again from its recording a tick at a time."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import replay
from playhead.engine.recording.tree import Point
from playhead.engine.work import Work
from playhead.render.export.video import VideoWriter
from playhead.world.world import World


def filming(file: Path, world: World, end: Point, out: Path, tell: Callable[[int], None]) -> Work[bool]:
    """Writes the way to a moment as an .mp4, in the world that it was played in, a tick at a time.

    `tell` is told how many ticks are done. Returns whether all frames are those that were played.
    """
    recording = yield from Recording.reading(file)
    config = world.config
    rate = Fraction(config.ticks_per_second).limit_denominator(1000) * config.frames_per_tick
    exact = True
    with VideoWriter(out, "mp4", (config.frame_height, config.frame_width), rate) as film:
        for moment in replay(recording, world, end.branch, 1, end.tick):
            film.write(moment.frames)
            exact &= moment.equal
            tell(moment.point.tick)
            yield
    return exact
