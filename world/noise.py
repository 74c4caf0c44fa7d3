"""The only randomness there is: `noise(seed, tick, step)`.

Counter based (Philox 4x64: key = seed, counter = (tick, step)), so any tick's noise can be drawn without the
ticks before it; drawn on the CPU from raw bits, so it is the same on every device.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    return _together(_begin(seeds, tick, step, shape))


_Draw = tuple[int, int, tuple[int, ...], tuple[int, ...]]


class Ahead:
    """`noises`, with those of the next tick drawn by other threads while this one is played.

    Several worlds may share one, at about the same tick; what is equal for them is then drawn once. `pinned`:
    into memory that a GPU fetches while the caller goes on.
    """

    def __init__(self, pinned: bool = False) -> None:
        self._pinned = pinned
        self._begun: dict[_Draw, list[Future[Tensor]]] = {}
        self._drawn: dict[_Draw, Tensor] = {}

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        now, following = ((t, step, tuple(seeds), tuple(shape)) for t in (tick, tick + 1))
        for key in (now, following):
            if key not in self._begun and key not in self._drawn:
                self._begun[key] = _begin(seeds, key[0], step, shape)
        if now in self._begun:
            drawn = _together(self._begun.pop(now))
            self._drawn[now] = drawn.pin_memory() if self._pinned else drawn
        for held in (self._begun, self._drawn):
            for key in [k for k in held if not tick - 1 <= k[0] <= tick + 1]:
                del held[key]
        return self._drawn[now]


class OnDevice:
    """Noise for measuring, drawn by a device's own generator: not that of play, but at no cost to the CPU.

    A function of tick, step and the number of sessions; `seeds` only say how many there are.
    """

    def __init__(self, device: torch.device) -> None:
        self._draw = torch.Generator(device)

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        self._draw.manual_seed((tick << 8) + step)
        return torch.randn((len(seeds), *shape), generator=self._draw, device=self._draw.device)


def _begin(seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> list[Future[Tensor]]:
    groups = [seeds[i : i + GROUP] for i in range(0, len(seeds), GROUP)]
    return [_threads().submit(_noises, group, tick, step, shape) for group in groups]


def _together(parts: list[Future[Tensor]]) -> Tensor:
    return torch.cat([part.result() for part in parts])


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="noise")


def _noises(seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
    count = int(np.prod(shape))
    half = (count + 1) // 2
    # The first counter word is the stream's own position; ours start above it.
    counter = [0, step, tick, 0]
    bits = np.stack([np.random.Philox(key=s % 2**128, counter=counter).random_raw(2 * half) for s in seeds])
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1], never 0
    # One contiguous row of radii and one of angles, however many sessions: numpy's loops then do the same.
    radius = np.sqrt(-2.0 * np.log(np.ascontiguousarray(uniform[:, :half])))  # Box-Muller
    angle = 2.0 * np.pi * np.ascontiguousarray(uniform[:, half:])
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]
    return torch.from_numpy(normal.astype(np.float32)).reshape(len(seeds), *shape)
