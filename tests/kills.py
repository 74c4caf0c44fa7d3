"""Plays that are killed at a random moment: what does the file hold that they leave behind?"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.recording.reader import Recording
from engine.recording.replay import verify
from tests.render.desktop import ROOT
from world.world import World

PLAY = """
import os, sys
from pathlib import Path
from render import play
from render.settings import PlaySettings

show = play.Play._receive

def receive(self, tick):
    show(self, tick)  # the player has it
    os.write(1, f"{tick.place}\\n".encode())

play.Play._receive = receive
world, scene, folder, script = sys.argv[1:]
play.play(PlaySettings(world=world, scene=scene, script=script, speed=2, recordings=Path(folder)))
"""
"""A real play that says on its standard output which ticks it has handed to its window."""


def kill_plays(world: Path, scene: Path, folder: Path, times: int, seed: int = 0) -> str:
    """Kills so many plays with SIGKILL. Returns what was lost, or raises AssertionError.

    Every file has to open, to hold every tick that had been handed over but at most the last two, and to
    simulate to equal hashes.
    """
    draw = random.Random(seed)
    loaded = World.load(world)
    loaded.share_cores()
    lost: list[int] = []
    played = 0
    for number in range(times):
        home = folder / f"kill-{number}"
        acknowledged = _kill_one(world, scene, home, draw)
        (file,) = home.glob("*.playhead")
        before = _contents(home)
        recording = Recording.read(file)
        assert _contents(home) == before, f"reading {file} changed it"
        assert not recording.sealed
        assert verify(recording, loaded) is None, f"{file} does not simulate to equal hashes"
        kept = recording.tree.count
        assert kept >= acknowledged - 2, f"{file} holds {kept} ticks, and {acknowledged} were shown"
        lost.append(max(0, acknowledged - kept))
        played += acknowledged
        shutil.rmtree(home)
    worst = {n: lost.count(n) for n in sorted(set(lost))}
    return f"{times} plays killed after {played} ticks; ticks lost: how often {worst}"


def _contents(folder: Path) -> dict[str, bytes]:
    """What the recordings of a folder and their logs hold; an index of a log is nobody's data."""
    return {path.name: path.read_bytes() for path in folder.glob("*.playhead*") if path.suffix[-4:] != "-shm"}


def _kill_one(world: Path, scene: Path, home: Path, draw: random.Random) -> int:
    """Returns the number of the last tick that the killed play had handed over."""
    buttons = ("w", "s", "left", "right", "a", "d", "space", "e")
    script = " ".join(f"{draw.choice(buttons)}*{draw.randint(1, 9)}" for _ in range(200))
    env = {**os.environ, "SDL_VIDEODRIVER": "dummy", "PLAYHEAD_HOME": str(home / "home")}
    command = [sys.executable, "-c", PLAY, str(world), str(scene), str(home), script]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"1:0\n", "the play did not begin"
        time.sleep(draw.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        said = process.stdout.read().decode().splitlines()
    finally:
        process.kill()
        process.wait()
    return int(said[-1].split(":")[1]) if said else 0
