"""A context: the past that a session starts from, and what its generator looks at besides."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from playhead.world.errors import WorldError

if TYPE_CHECKING:  # which imports torch, and scenes are read without it
    from playhead.world.config import WorldConfig


@dataclass(frozen=True)
class Context:
    """The past that a session starts from: frames uint8 `(T, H, W, 3)` and the actions held on each.

    `actions` uint8 `(T, buttons)`: row t is held from frame t to frame t + 1, as in an episode. The last
    row is not used: what is held on the last frame is the first action that the player gives. `place` says
    where they were taken, which a world that knows the place by name is told.

    Of public worlds, float32: `prompts`, the text embeddings `(rows, text_dim)` to choose from; `features` of
    an image `(rows, image_dim)`; `condition`, its latents `(L, C, h, w)`, the last of them repeated without
    end; `latents` `(T, C, h, w)`, which stand for the frames where these are not to be encoded. `frames` may
    be empty there; where they are there, one after the other, the actions tell what led to each latent.
    """

    frames: np.ndarray
    actions: np.ndarray
    prompts: tuple[np.ndarray, ...] = ()
    features: np.ndarray | None = None
    condition: np.ndarray | None = None
    latents: np.ndarray | None = None
    place: str = ""


def check_context(config: "WorldConfig", context: Context) -> None:
    """Raises WorldError for a context that lacks what the world's generator looks at."""
    g, latent = config.generator, config.latent_shape
    if g.text_dim and not context.prompts:
        raise WorldError(f"the world `{config.name}` needs a scene with a prompt; see `scenes new --prompt`")
    for rows in context.prompts if g.text_dim else ():
        if rows.ndim != 2 or rows.shape[1] != g.text_dim or not 0 < len(rows) <= g.text_length:
            raise WorldError(
                f"a prompt's embedding is {rows.shape} where the world `{config.name}` needs up to "
                f"{g.text_length} rows of {g.text_dim}; make the scene again by `scenes new --prompt`"
            )
    if g.image_dim:
        rows = context.features
        if rows is None or rows.ndim != 2 or rows.shape[1] != g.image_dim:
            raise WorldError(
                f"the world `{config.name}` needs a scene with image features of {g.image_dim} values; see "
                "`scenes new --image`"
            )
    if config.looks_at_picture:
        z = context.condition
        if z is None or z.ndim != 4 or z.shape[1:] != latent or not len(z):
            raise WorldError(
                f"the world `{config.name}` needs a scene with condition latents (L, "
                f"{', '.join(map(str, latent))}); see `scenes new --image`"
            )
    z = context.latents
    if z is not None and (z.ndim != 4 or z.shape[1:] != latent):
        raise WorldError(f"the context's latents are {z.shape} where the world needs (T, *{latent})")
