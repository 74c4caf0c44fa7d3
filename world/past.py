"""What a state begins with: a known past, committed and decoded as if it had been played."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from playhead.world.binding import bind
from playhead.world.config import WorldConfig
from playhead.world.context import Context
from playhead.world.errors import WorldError
from playhead.world.state import WorldState
from playhead.world.world import World

PAST = 2**48
"""The ticks of a known past count down from here, so that no session ever draws their noise again."""


@torch.no_grad()
def enter(world: World, state: WorldState, context: Context, seeds: Sequence[int]) -> Tensor:
    """Begins anew from a context: binds the state to it, and prefills what it has of a past.

    `seeds`, one a session: those under which it will be dreamed on.

    Returns the frames to begin with, as `World.decode` does: the last of the past, or else the context's
    picture, or black. Raises WorldError for a context of another world.
    """
    config = world.config
    state.restart()
    bind(world, state, context)
    if context.latents is not None:
        latents = torch.from_numpy(np.asarray(context.latents, dtype=np.float32)).to(world.device)
    elif not len(context.frames) or config.looks_at_picture:
        size = (config.frame_height, config.frame_width, 3)
        picture = context.frames[-1] if len(context.frames) else np.zeros(size, np.uint8)
        return torch.from_numpy(np.array(picture))[None, None]
    else:
        latents = world.encode(context.frames)
    led = _led(config, context, len(latents)).to(latents.device)
    return prefill(world, state, latents[None], led[None], seeds)


@torch.no_grad()
def prefill(
    world: World, state: WorldState, latents: Tensor, actions: Tensor, seeds: Sequence[int]
) -> Tensor:
    """Commits and decodes a past: latents `(B, T, C, h, w)`, actions `(B, T, buttons)` that led to each.

    T has to be a multiple of the latents a tick. Returns the frames of the last block, as `World.decode`
    does.
    """
    size = world.config.sampling.latents_per_tick
    if not latents.shape[1] or latents.shape[1] % size:
        raise WorldError(f"a context of {latents.shape[1]} latents cannot be committed in blocks of {size}")
    blocks = list(zip(latents.split(size, 1), actions.split(size, 1), strict=True))
    for before, (block, action) in zip(range(len(blocks), 0, -1), blocks, strict=True):
        world.relive(state, action, block, seeds, PAST - before)
    return state.frames


def _led(config: WorldConfig, context: Context, count: int) -> Tensor:
    """What was held when each of the context's `count` latents came about, `(count, inputs)`."""
    inputs = config.generator.inputs
    rows = torch.from_numpy(np.asarray(context.actions, dtype=np.float32))
    led = torch.zeros(count, inputs)
    if rows.shape == (len(context.frames), inputs):
        known = torch.cat([led[:1], rows[:-1]])[:: max(1, -(-len(rows) // count))]
        return known if len(known) == count else led
    if context.latents is None:
        raise WorldError(
            f"the context's actions are {tuple(rows.shape)} where its {len(context.frames)} frames need "
            f"({len(context.frames)}, {inputs})"
        )
    return led  # latents may come without their frames and actions
