"""A context: the past that a session starts from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Context:
    """The past that a session starts from: frames uint8 `(T, H, W, 3)` and the actions held on each.

    `actions` uint8 `(T, buttons)`: row t is held from frame t to frame t + 1, as in an episode. The last
    row is not used: what is held on the last frame is the first action that the player gives.
    """

    frames: np.ndarray
    actions: np.ndarray
