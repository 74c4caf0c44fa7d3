"""Proofs that are too long for the suite: `python -m tests.long NAME`."""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable

import psutil
import torch

from engine.session import Session
from world.action import Action
from world.randomise import random_context, random_world, save_world_config
from world.world import World


def endless(name: str = "sgf", latents: int = 3000) -> None:
    """Plays past the 1,024-row table of the reference: memory stays flat and a tick's time does not drift."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PLAYHEAD_HOME"] = folder
        config = random_world(name, small=True)
        save_world_config(config)
        world = World.load(config.name, "cpu", torch.float32)
    session = Session(world, random_context(config), 0)
    ticks = latents // config.sampling.latents_per_tick
    process, times, memory = psutil.Process(), [], []
    for tick in range(ticks):
        began = time.perf_counter()
        frames = session.step(Action())
        session.finish()
        times.append(time.perf_counter() - began)
        if tick % max(1, ticks // 10) == 0:
            gc.collect()
            memory.append(process.memory_info().rss / 1e6)
    tenth = max(1, ticks // 10)
    early, late = (sorted(part)[len(part) // 2] for part in (times[tenth : 3 * tenth], times[-2 * tenth :]))
    growth = memory[-1] - memory[2]
    print(
        f"{name}: {session._state.cache.length} latents, tick p50 {early * 1000:.1f} ms early and "
        f"{late * 1000:.1f} ms late (ratio {late / early:.2f}), memory grew by {growth:.1f} MB"
    )
    assert session._state.cache.length == ticks * config.sampling.latents_per_tick
    assert torch.isfinite(session._state.latent).all() and frames.any()
    assert growth < 20, "memory grows"


PROOFS: dict[str, Callable[[], None]] = {
    "endless": endless,
    "endless-chunks": lambda: endless("longlive"),
    "endless-actions": lambda: endless("matrix-game-2"),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.long", description="Runs a long proof.")
    parser.add_argument("name", choices=sorted(PROOFS))
    PROOFS[parser.parse_args().name]()
