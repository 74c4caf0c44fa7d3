"""What a state looks at besides its past: the prompt, image and place of its context."""

from collections.abc import Sequence

import numpy as np
import torch

from playhead.world.context import Context, check_context
from playhead.world.state import WorldState
from playhead.world.world import World


@torch.no_grad()
def bind(world: World, state: WorldState, context: Context) -> None:
    """Has a state look at a context: computes the keys and values of its prompt or image, if need be."""
    g = world.config.generator
    if state.context is context and state.bound_prompt == state.prompt:
        return
    check_context(world.config, context)
    rows = context.prompts[state.prompt] if g.text_dim else context.features if g.image_dim else None
    if rows is not None:
        embedding = torch.from_numpy(np.asarray(rows, dtype=np.float32))[None]
        embedding = embedding.to(world.device, world.dtype).expand(state.batch, -1, -1)
        for name, model in world.generators.items():
            state.keep_context(name, model.embed_context(embedding))
    if context.condition is not None and world.config.looks_at_picture:
        z = torch.from_numpy(np.asarray(context.condition, dtype=np.float32)).to(world.device)
        mask = z.new_zeros(len(z), g.condition_channels - z.shape[1], *z.shape[2:])
        mask[0] = 1
        state.condition_source = torch.cat([mask, z], 1)
    label(world, state, [context.place] * state.batch)
    state.context, state.bound_prompt = context, state.prompt


def label(world: World, state: WorldState, places: Sequence[str]) -> None:
    """Tells the generator where each session of a state is, for as long as it is not told otherwise."""
    rows = torch.tensor([world.config.label(place) for place in places], device=world.device)
    state.action[..., world.config.generator.inputs :] = rows.view(state.batch, 1, -1)


@torch.no_grad()
def switch_prompt(world: World, state: WorldState, number: int, how: str | None = None) -> None:
    """Goes on under another prompt of the state's context; nothing if there is none of that number.

    `how`: `recache` commits the last latents again under the new prompt, as LongLive does, `flush`
    forgets everything but the sink; None is the world's own way.
    """
    context = state.context
    if context is None or number == state.prompt or not 0 <= number < len(context.prompts):
        return
    state.prompt = number
    bind(world, state, context)
    if state.rest is not None:
        state.rest.restart()  # under another prompt the world moves
    flush = (how or world.config.prompt_switch) == "flush"
    cache, size = state.cache, state.latent.shape[1]
    kept = min(state.recent.shape[1], (cache.length - min(cache.sink, cache.length)) // size * size)
    cache.flush(cache.length - (0 if flush else kept))
    if flush or not kept:
        return
    held = state.latent.clone()
    for block in state.recent[:, -kept:].clone().split(size, 1):
        state.latent.copy_(block)
        world.recommit(state)
    state.latent.copy_(held)
