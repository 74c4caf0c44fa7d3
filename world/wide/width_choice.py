"""Whether a world's sessions share passes of one width: measured when it is served, on this device.

A pass over all rows has to take less time than ticks of as many sessions one after the other, and what it
makes of a row must not hang on where the row is and who is in the others. What was found is remembered in the
user's folder, so that a world serves the same numbers the next time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from playhead.world import remembered
from playhead.world.past import prefill
from playhead.world.state import WorldState
from playhead.world.terminal import plural
from playhead.world.timing import least_seconds
from playhead.world.world import World

WIDEST = 64
"""Rows that a pass has at the most: more sessions are in the next one."""
TICKS = 24
"""Of each way that are measured, after as many that fill caches and record graphs."""


@dataclass(frozen=True)
class WideChoice:
    """How many rows a pass has, 0 where sessions go one after the other, and in a sentence why."""

    width: int
    finding: str = ""


def choose_width(world: World, sessions: int) -> WideChoice:
    """Has `sessions` of a world go by wide passes (`World.widen`) where that is faster, and exact.

    Only on a GPU: a CPU's sessions share passes of any number of rows (`engine.together`).
    """
    width = min(sessions, WIDEST)
    if world.device.type != "cuda" or width < 2:
        return WideChoice(0)
    reason = world.why_not_wide
    if reason:
        return WideChoice(0, f"sessions step one after the other: {reason}")
    memory, key = remembered.note("wide.json"), _key(world, width)
    known = remembered.read(memory, WideChoice)
    if key not in known:
        known[key] = measure(world, width)
        remembered.write(memory, known)
    choice = known[key]
    if (world.wide.width if world.wide is not None else 0) != choice.width:
        world.widen(choice.width)
    return choice


def measure(world: World, width: int) -> WideChoice:
    """Times both ways, and looks whether a row is computed alike wherever it is."""
    one = least_seconds(_alone(world), TICKS, 2 * world.config.sampling.reach + TICKS)
    try:
        world.widen(width)
        if not is_exact(world, width):
            world.widen(0)
            return WideChoice(0, f"sessions step one after the other: in passes of {width} company shows")
        together = least_seconds(_together(world, width), TICKS, 4)
    except RuntimeError as problem:  # of a library's own, or for want of memory
        world.widen(0)
        said = next(iter(str(problem).splitlines()), type(problem).__name__)
        return WideChoice(0, f"sessions step one after the other: {said}")
    said = (
        f"{1000 * together:.1f} ms for a pass of {plural(width, 'session')}, {1000 * one:.1f} for a tick of "
        "one alone"
    )
    return WideChoice(width if together < width * one else 0, said)


def _alone(world: World) -> Callable[[], object]:
    """A tick of a session as it is without wide passes, its frames fetched."""
    state, held = world.new_state(), torch.zeros(1, 1, world.config.generator.inputs)
    ticks = iter(range(10**9))
    _fill(world, state, 0)

    def work() -> None:
        world.denoise(state, held, [0], next(ticks))
        frames = world.decode(state)
        world.commit(state)
        frames.cpu()

    return work


def _together(world: World, width: int) -> Callable[[], object]:
    """A tick of `width` sessions in one pass, their frames fetched."""
    assert world.wide is not None
    passes, ticks = world.wide, iter(range(10**9))
    states = [passes.row() for _ in range(width)]
    held = torch.zeros(width, 1, world.config.generator.inputs)
    return lambda: passes.tick(states, held, range(width), [next(ticks)] * width)


def is_exact(world: World, width: int) -> bool:
    """Whether a session dreams the same bits in the first row alone and in the last one in full company."""
    assert world.wide is not None
    passes, inputs = world.wide, world.config.generator.inputs
    crowd = [passes.row() for _ in range(width)]
    held = (torch.arange(width * inputs).view(width, 1, inputs) % 3 == 0).float()
    held[0] = held[-1]
    seeds = [*range(1, width), 1]  # the first row's seed is the last one's
    for state, seed in zip(crowd, seeds, strict=True):
        _fill(world, state, seed)
    for tick in range(4):
        alone = passes.tick(crowd[:1], held[:1], seeds[:1], [tick])
        others = passes.tick(crowd[1:], held[1:], seeds[1:], [tick] * (width - 1))
        if not np.array_equal(alone[0], others[-1]) or not torch.equal(crowd[0].latent, crowd[-1].latent):
            return False
    return True


def _fill(world: World, state: WorldState, seed: int) -> None:
    """Gives a state a past of noise."""
    draw = torch.Generator().manual_seed(seed)
    past = torch.randn((1, 3, *world.config.latent_shape), generator=draw).to(world.device)
    prefill(world, state, past, torch.zeros(1, 3, world.config.generator.inputs), [seed])


def _key(world: World, width: int) -> str:
    g, latent, sampling = world.config.generator, world.config.latent, world.config.sampling
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else world.device.type
    sizes = f"{g.layers}x{g.dim}x{g.ffn_dim}, {latent.height}x{latent.width}, {sampling.reach}"
    fused = f"fused {world.fused.fused} {world.fused_decoder.fused}"
    kinds = f"{world.dtype}, {world.precision}, {fused}, {world.frame_decoder.name}"
    return f"{name}, torch {torch.__version__}, {kinds}, {sizes}, {world.steps} steps, {width} rows"
