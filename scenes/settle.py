"""A world started from a picture: encoded, stood before for a while, and dreamed on for some ticks."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from playhead.scenes.picture import read_picture
from playhead.scenes.scene import SceneError
from playhead.world.config import WorldConfig
from playhead.world.context import Context
from playhead.world.past import enter
from playhead.world.world import World

FIRST_TICK = 2**63
"""Noise of the settling is counted from here, where no play gets to: no tick of it repeats one."""
LONGEST = 1000


def settle_picture(
    world: World, picture: Path, length: int, ticks: int, seed: int, place: str = ""
) -> Context:
    """The context of a world that begins with a picture, scaled to cover and cut about its middle.

    The picture is encoded by the world's own encoder, `length` times over as if somebody had stood still
    before it (one that is seen once only is dreamed over at once), and the world dreams on from there for
    `ticks` ticks with nothing held. The context is the last `length` latents of all that, with their frames.
    `place`: which of its places the world is to take it for, if any. Raises SceneError for a file that is no
    picture, a length or ticks out of range, or a place that the world does not know.
    """
    _check(world.config, length, ticks, place)
    config = world.config
    shown = read_picture(picture, config.frame_height, config.frame_width)
    work = settling(world, shown, length, ticks, seed, place)
    while True:
        try:
            next(work)
        except StopIteration as ended:
            context: Context = ended.value
            return context


def settles(config: WorldConfig) -> bool:
    """Whether a picture alone can start a world: it looks at no prompt, and at no picture while it plays."""
    g = config.generator
    return not (g.text_dim or g.image_dim or config.looks_at_picture)


def settling(
    world: World, shown: np.ndarray, length: int, ticks: int, seed: int, place: str = ""
) -> Generator[None, None, Context]:
    """As `settle_picture`, a tick at a time, of a picture uint8 `(H, W, 3)` of the world's size."""
    _check(world.config, length, ticks, place)
    config = world.config
    still = np.repeat(shown[None], length, 0)
    held = np.zeros((length, len(config.action.buttons)), np.uint8)
    past = Context(still, held, latents=world.encode(still).cpu().numpy(), place=place)
    yield
    state = world.new_state()
    enter(world, state, past, [seed])
    latents, frames = [torch.from_numpy(past.latents)], [still]
    idle = state.action.new_zeros(*state.action.shape[:2], config.generator.inputs)
    for tick in range(FIRST_TICK, FIRST_TICK + ticks):
        yield
        world.denoise(state, idle, [seed], tick)
        frames.append(world.decode(state)[0].cpu().numpy())
        latents.append(state.latent[0].cpu().clone())
        world.commit(state)
    kept = torch.cat(latents)[-length:].numpy()
    return Context(np.concatenate(frames)[-length:], held, latents=kept, place=place)


def _check(config: WorldConfig, length: int, ticks: int, place: str) -> None:
    if not 1 <= length <= LONGEST:
        raise SceneError(f"a context has 1 to {LONGEST} frames, not --length {length}")
    if not 0 <= ticks <= LONGEST:
        raise SceneError(f"--settle is a number of ticks from 0 to {LONGEST}, not {ticks}")
    if place and place not in config.places:
        known = ", ".join(config.places) or "none"
        raise SceneError(f"the world `{config.name}` knows no place `{place}`; it knows {known}")
