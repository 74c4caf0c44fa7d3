"""A world's observations and actions as Gymnasium's spaces."""

import numpy as np
from gymnasium.spaces import Box, MultiBinary

from playhead.world.action import ActionSpace


def observations(size: tuple[int, int]) -> Box:
    """One frame of `size` (H, W): uint8 `(H, W, 3)`."""
    return Box(0, 255, (*size, 3), np.uint8)


def actions(space: ActionSpace) -> Box | MultiBinary:
    """For each button whether it is held and, if there are axes, how far each is moved."""
    if space.binary:
        return MultiBinary(len(space.names))
    return Box(np.array(space.lows, np.float32), 1, dtype=np.float32)
