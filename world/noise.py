"""The only randomness there is: `noise(seed, tick, step)`.

Counter based (Philox 4x64: key = seed, counter = (tick, step)), so any tick's noise can be drawn without the
ticks before it; drawn on the CPU from raw bits, so it is the same on every device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def noise(seed: int, tick: int, step: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise of `shape`, a function of `seed`, `tick` and `step` alone."""
    count = int(np.prod(shape))
    half = (count + 1) // 2
    # The first counter word is the stream's own position; ours start above it.
    bits = np.random.Philox(key=seed % 2**128, counter=[0, step, tick, 0]).random_raw(2 * half)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), never an end
    radius = np.sqrt(-2.0 * np.log(uniform[:half]))  # Box-Muller
    angle = 2.0 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))
