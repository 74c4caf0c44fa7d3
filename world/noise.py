"""The only randomness there is: `noise(seed, tick, step)`.

Counter based (Philox 4x64: key = seed, counter = (tick, step)), so any tick's noise can be drawn without the
ticks before it; drawn on the CPU from raw bits, so it is the same on every device.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GROUP = 4
"""Sessions whose noise one thread draws at a time."""


def noise(seed: int, tick: int, step: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise of `shape`, a function of `seed`, `tick` and `step` alone."""
    return noises([seed], tick, step, shape)[0]


def noises(seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
    """The `noise` of many sessions at once, `(len(seeds), *shape)`: the same numbers, bit for bit.

    Logarithms and cosines take the time and let other threads run, so many sessions share the cores.
    """
    if len(seeds) <= GROUP:
        return _noises(seeds, tick, step, shape)
    groups = [seeds[i : i + GROUP] for i in range(0, len(seeds), GROUP)]
    return torch.cat(list(_threads().map(lambda group: _noises(group, tick, step, shape), groups)))


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="noise")


def _noises(seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
    count = int(np.prod(shape))
    half = (count + 1) // 2
    # The first counter word is the stream's own position; ours start above it.
    counter = [0, step, tick, 0]
    bits = np.stack([np.random.Philox(key=s % 2**128, counter=counter).random_raw(2 * half) for s in seeds])
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), never an end
    # One contiguous row of radii and one of angles, however many sessions: numpy's loops then do the same.
    radius = np.sqrt(-2.0 * np.log(np.ascontiguousarray(uniform[:, :half])))  # Box-Muller
    angle = 2.0 * np.pi * np.ascontiguousarray(uniform[:, half:])
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]
    return torch.from_numpy(normal.astype(np.float32)).reshape(len(seeds), *shape)
