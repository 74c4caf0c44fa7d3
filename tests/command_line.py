"""Playhead's command line, run by tests in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = [sys.executable, str(ROOT / "main.py")]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # two small processes then do not wait for each other


def run(
    *arguments: object, folder: Path | None = None, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`home`: where its worlds and scenes are, in place of the usual place."""
    command = [*MAIN, *map(str, arguments)]
    env = ONE_THREAD if home is None else {**ONE_THREAD, "PLAYHEAD_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=env)


def only_sentence(status: object, out: str, err: str) -> str:
    """What a refused command said: one line, with status 2 and no traceback."""
    assert status == 2, err
    assert out == ""
    assert err.startswith("playhead: "), err
    assert len(err.splitlines()) == 1, err
    return err


def refusal(*arguments: object, folder: Path | None = None) -> str:
    """The sentence that a command ends in."""
    done = run(*arguments, folder=folder)
    return only_sentence(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Start:
    """A world and what to start it from, as arguments of `rollout`."""

    world: Path
    context: Path

    def rollout(self, actions: object, out: Path, *more: object) -> tuple[object, ...]:
        start = ("rollout", "--world", self.world, "--context", self.context)
        return (*start, "--actions", actions, "--out", out, "--device", "cpu", *more)
