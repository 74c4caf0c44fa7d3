"""A world played by ranks: `python -m tests.engine.parallel.on_ranks WORLD CONTEXT GPUS OUT`.

What a session has to be able to do is done there, by `play`, which tests do in one process as well.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from playhead.engine.parallel.start import load_world
from playhead.engine.session import Session
from playhead.scenes.scene import read_context
from playhead.world.action import Action
from playhead.world.world import World


def act(world: World, number: int) -> Action:
    """Something is held in every other tick, and the prompt changes in the third, where there are prompts."""
    space = world.config.action
    held = {"prompt_2"} & set(space.buttons) if number == 2 else set(space.seen[: number % 2])
    return Action(frozenset(held))


def play(world: World, context: Path) -> dict[str, np.ndarray]:
    """Frames by what they show: ticks, and where the session came by other ways to the same moments."""
    past = read_context(context, len(world.config.action.buttons))
    session = Session(world, past, 3)
    start = session.frames
    ticks = [session.step(act(world, n)) for n in range(3)]
    kept, known = session.snapshot(), session.latents
    twin = session.fork()
    ticks += [session.step(act(world, n)) for n in range(3, 8)]
    forked = [twin.step(act(world, n)) for n in range(3, 8)]
    del twin
    session.restore(kept)
    returned = [session.step(act(world, n)) for n in range(3, 8)]
    session.step(Action())
    session.reset(3)
    again = [start, *(session.step(act(world, n)) for n in range(8))]
    session.reset(3)
    for n in range(2):
        session.step(act(world, n))
    retraced = session.retrace(act(world, 2), known)
    session.enter(read_context(context, len(world.config.action.buttons)), 4)
    session.steps = 1
    return {
        "ticks": np.concatenate([start, *ticks]),
        "forked": np.concatenate(forked),
        "returned": np.concatenate(returned),
        "again": np.concatenate(again),
        "retraced": retraced,
        "other": np.concatenate([session.step(act(world, n)) for n in range(3)]),
        "keys": kept.state["cache"]["k"].float().numpy(),
    }


def main() -> None:
    world, context, gpus, out = sys.argv[1:]
    loaded = load_world(world, int(gpus), "cpu", dtype=torch.float32)
    threads = np.array(torch.get_num_threads())
    np.savez(out, **play(loaded, Path(context)), threads=threads)


if __name__ == "__main__":
    main()
