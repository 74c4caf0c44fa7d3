"""A context: the past that a session starts from, and what its generator looks at besides."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Context:
    """The past that a session starts from: frames uint8 `(T, H, W, 3)` and the actions held on each.

    `actions` uint8 `(T, buttons)`: row t is held from frame t to frame t + 1, as in an episode. The last
    row is not used: what is held on the last frame is the first action that the player gives.

    Of public worlds, float32: `prompts`, the text embeddings `(rows, text_dim)` to choose from; `features` of
    an image `(rows, image_dim)`; `condition`, its latents `(L, C, h, w)`, the last of them repeated without
    end; `latents` `(T, C, h, w)`, which stand for the frames where these are not to be encoded. `frames` may
    be empty there.
    """

    frames: np.ndarray
    actions: np.ndarray
    prompts: tuple[np.ndarray, ...] = ()
    features: np.ndarray | None = None
    condition: np.ndarray | None = None
    latents: np.ndarray | None = None
