"""What recording costs while a world is played, and how long the way to a moment of it takes."""

import contextlib
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from playhead.engine.loop import Loop
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.stats import percentile
from playhead.engine.tick import Tick
from playhead.engine.timeline.store import SnapshotStore
from playhead.engine.timeline.timeline import Timeline
from playhead.render.bench.play_speed import SETTLE, RandomSource, UnpacedClock, show
from playhead.scenes.scene import Scene
from playhead.world.world import World

TURN = 60
"""Counted ticks until the other way of playing has its turn."""


@dataclass
class RecordingCost:
    """Seconds from frame to frame, a list entry a tick; and the bytes that a minute of play takes."""

    plain: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)
    ticks_a_minute: float = 0.0
    thumbnails_a_minute: float = 0.0

    def ratio(self, part: float) -> float:
        """Recorded over not recorded, at a percentile."""
        return (percentile(self.recorded, part) or 0.0) / (percentile(self.plain, part) or float("inf"))


@contextlib.contextmanager
def recorded(world: World, scene: Scene) -> Iterator[Timeline]:
    """A timeline as `play` has one, written to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "play.playhead"
        timeline = Timeline(Recorder(path, world, scene.title), SnapshotStore(Path(folder) / "seek" / "play"))
        try:
            yield timeline
        finally:
            timeline.close()


def bench_recording(world: World, scene: Scene, ticks: int) -> RecordingCost:
    """Plays `ticks` ticks in either way, in turns, all from the scene's start: with and without recording."""
    cost = RecordingCost()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "play.playhead"
        timeline = Timeline(Recorder(path, world, scene.title), SnapshotStore(Path(folder) / "seek" / "play"))
        session = Session(world, scene.context, scene.seed, scene)
        session.warm_up()
        timeline.begin(session)
        loop = Loop(lambda: session, RandomSource(world.config.action), make_clock=UnpacedClock)
        previous: float | None = None

        def take_turns(session: Session) -> None:
            loop.timeline = None if loop.timeline is timeline else timeline
            session.reset()

        def count(tick: Tick) -> None:
            nonlocal previous
            times = cost.plain if loop.timeline is None else cost.recorded
            if tick.number > SETTLE and previous is not None:
                times.append(tick.timing.ready - previous)
            previous = tick.timing.ready
            if len(cost.recorded) >= ticks and len(cost.plain) >= ticks:
                loop.stop()
            elif tick.number == SETTLE + TURN:
                loop.ask(take_turns, begins=True)

        loop.subscribe(count)
        show(loop, world, scene)
        timeline.close()
        minutes = Recording.read(path).tree.count / world.config.ticks_per_second / 60
        sizes = [_size(path, emptied) for emptied in ("", "thumbnails", "ticks")]
        cost.thumbnails_a_minute, cost.ticks_a_minute = ((a - b) / minutes for a, b in pairwise(sizes))
    return cost


@dataclass
class SeekTimes:
    """Seconds of each tick, seek and picture; bytes of a snapshot, and of an hour of play on the disk."""

    ticks: list[float] = field(default_factory=list)
    seeks: list[float] = field(default_factory=list)
    pictures: list[float] = field(default_factory=list)
    snapshot: float = 0.0
    disk_an_hour: float = 0.0


def bench_seek(world: World, scene: Scene, ticks: int, seeks: int) -> SeekTimes:
    """Plays, opens what was recorded anew, with nothing in memory, and goes to moments at random."""
    found, draw = SeekTimes(), random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        path, folder = Path(temporary) / "play.playhead", Path(temporary) / "seek" / "play"
        session = Session(world, scene.context, scene.seed, scene)
        session.warm_up()
        timeline = Timeline(Recorder(path, world, scene.title), SnapshotStore(folder))
        timeline.begin(session)
        source = RandomSource(world.config.action)
        for _ in range(ticks):
            found.ticks.append(_time(lambda: timeline.step(session, source.sample())))
        timeline.close()
        snapshots = [file.stat().st_size for file in folder.glob("*.safetensors")]
        found.snapshot = sum(snapshots) / max(1, len(snapshots))
        kept = sum(file.stat().st_size for file in folder.iterdir())
        found.disk_an_hour = kept / ticks * world.config.ticks_per_second * 3600
        store = SnapshotStore(folder)
        timeline = Timeline(None, store, Recording.read(path))
        for _ in range(seeks):
            point = Point(1, draw.randint(1, ticks))
            found.seeks.append(_time(partial(timeline.seek, session, point)))
            point = Point(1, draw.randint(1, ticks))
            found.pictures.append(_time(partial(timeline.picture, session, point)))
        store.close()
    return found


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _size(path: Path, emptied: str) -> int:
    """The size of a recording's file after a table, if one is named, has been emptied for good."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as base:
        if emptied:
            base.execute(f"DELETE FROM {emptied}")
        base.execute("VACUUM")
    return path.stat().st_size
