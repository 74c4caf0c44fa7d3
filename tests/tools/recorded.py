"""Long plays that are recorded, and replayed in a new process."""

import random
import subprocess
import sys
import time
from pathlib import Path

from playhead.engine.loop import Loop
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.session import Session
from playhead.engine.timeline.store import SnapshotStore
from playhead.engine.timeline.timeline import Timeline
from playhead.scenes.scene import load_scene
from playhead.world.action import Action, ActionSpace
from playhead.world.world import World
from tests.render.desktop import ROOT, display, playing

KEYS = ("w", "s", "a", "d", "Left", "Right", "space", "e")


def play_with_keys(world: Path, scene: Path, folder: Path, ticks: int, undone: int = 0) -> str:
    """Plays in a window with keys that go down and up at odd moments, and replays that in a new process.

    So many times the last second is `undone`, by its key.
    """
    draw = random.Random(0)
    options = ["--world", str(world), "--scene", str(scene), "--ticks", str(ticks), "--speed", "2"]
    with display() as screen, playing(screen, folder, *options, "--record", str(folder)) as player:
        assert player.window
        left = undone
        while player.process.poll() is None:
            if left and draw.random() < 0.05:
                player.press("BackSpace")
                left -= 1
            player.type(draw.choice(("keydown", "keyup", "key")), draw.choice(KEYS))
            time.sleep(draw.expovariate(20))
        status, said = player.end()
        assert (status, said) == (0, ""), said
    (file,) = folder.glob("*.playhead")
    tree = Recording.read(file).tree
    assert tree.count == ticks
    assert len(tree.branches) > undone // 2
    chords = len({played.action.buttons for branch in tree.branches.values() for played in branch.ticks})
    return f"{replay(file, world)}; {chords} chords of keys, {file.stat().st_size / 1e3:.0f} kB"


def play_with_rewinds(world: Path, scene: Path, folder: Path, rewinds: int, pause: float = 2.0) -> str:
    """Plays on and goes back so many times, to places near and far; replays every branch in a new process.

    `pause`: seconds from one to the next, at most.
    """
    draw = random.Random(0)
    loaded, start = World.load(world), load_scene(scene)
    loaded.share_cores()
    folder.mkdir()
    timeline = Timeline(Recorder(folder / "play.playhead", loaded), SnapshotStore(folder / "seek" / "play"))
    source = Fidgets(loaded.config.action, draw)
    loop = Loop(lambda: Session(loaded, start.context, start.seed, start), source, speed=2, timeline=timeline)
    loop.start()
    for number in range(rewinds):
        time.sleep(draw.uniform(0.1, pause))
        if number % 4:
            loop.rewind(draw.randint(1, 60)).result(60)
        else:
            branch = draw.choice(timeline.branches)
            point = timeline.tree.end(branch.id)._replace(tick=draw.randint(0, branch.last))
            loop.seek(timeline.tree.check(point)).result(60)
        timeline.bookmark()
    time.sleep(pause)
    loop.stop()
    loop.join()
    timeline.close()
    assert not timeline.failure, timeline.failure
    recording = Recording.read(folder / "play.playhead")
    assert len(recording.tree.branches) > rewinds // 2
    assert len(recording.tree.bookmarks) == rewinds
    return replay(recording.path, world)


class Fidgets:
    """A source of actions that change at random."""

    def __init__(self, space: ActionSpace, draw: random.Random) -> None:
        self._space, self._draw, self._held = space, draw, Action()

    def sample(self) -> Action:
        if self._draw.random() < 0.3:
            self._held = Action(frozenset(self._draw.sample(self._space.buttons, self._draw.randint(0, 2))))
        return self._held


def replay(file: Path, world: str | Path) -> str:
    """Simulates every branch again in a process of its own; what that says."""
    command = [sys.executable, "main.py", "replay", str(file), "--verify", "--world", str(world)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
