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

from playhead.world import acceleration

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
        out = torch.empty((len(seeds), *shape), dtype=torch.float32)
        _fill(seeds, tick, step, out)
        return out
    return _Begun(seeds, tick, step, shape).wait()


_Draw = tuple[int, int, tuple[int, ...], tuple[int, ...]]


class Ahead:
    """`noises`, with those of the next tick drawn by other threads while this one is played.

    Several worlds may share one, at about the same tick; what is equal for them is then drawn once. `pinned`:
    into memory that a GPU fetches while the caller goes on.
    """

    def __init__(self, pinned: bool = False) -> None:
        self._pinned = pinned
        self._begun: dict[_Draw, _Begun] = {}

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        now, following = ((t, step, tuple(seeds), tuple(shape)) for t in (tick, tick + 1))
        for key in (now, following):
            if key not in self._begun:
                self._begun[key] = _Begun(seeds, key[0], step, shape, self._pinned)
        for key in [k for k in self._begun if not tick - 1 <= k[0] <= tick + 1]:
            del self._begun[key]
        return self._begun[now].wait()


class OnDevice:
    """Noise for measuring, drawn by a device's own generator: not that of play, but at no cost to the CPU.

    A function of tick, step and the number of sessions; `seeds` only say how many there are.
    """

    def __init__(self, device: torch.device) -> None:
        self._draw = torch.Generator(device)

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        self._draw.manual_seed((tick << 8) + step)
        return torch.randn((len(seeds), *shape), generator=self._draw, device=self._draw.device)


class _Begun:
    """The noise of many sessions while threads draw it."""

    def __init__(
        self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int], pinned: bool = False
    ) -> None:
        self._noise = torch.empty((len(seeds), *shape), dtype=torch.float32, pin_memory=pinned)
        self._parts = [
            _threads().submit(_fill, seeds[i : i + GROUP], tick, step, self._noise[i : i + GROUP])
            for i in range(0, len(seeds), GROUP)
        ]

    def wait(self) -> Tensor:
        for part in self._parts:
            part.result()
        return self._noise


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(acceleration.cores(), thread_name_prefix="noise")


def _fill(seeds: Sequence[int], tick: int, step: int, noise: Tensor) -> None:
    for seed, row in zip(seeds, noise.flatten(1).numpy(), strict=True):
        _normal(seed, tick, step, row)


def _normal(seed: int, tick: int, step: int, out: np.ndarray) -> None:
    """Fills float32 `out` `(count)` with the noise of one session.

    In place, and by the session: what is in the making stays in a core's own cache. Larger arrays, fetched
    from the system and given back by many threads at once, cost more than the arithmetic.
    """
    count = len(out)
    half = (count + 1) // 2
    # The first counter word is the stream's own position; ours start above it.
    bits = np.random.Philox(key=seed % 2**128, counter=[0, step, tick, 0]).random_raw(2 * half)
    bits >>= np.uint64(11)
    uniform = bits.astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53  # in (0, 1], never 0
    radius, angle = uniform[:half], uniform[half:]
    np.log(radius, out=radius)  # Box-Muller
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle *= 2.0 * np.pi
    first = np.cos(angle)
    first *= radius
    out[:half] = first
    np.sin(angle, out=angle)
    angle *= radius
    out[half:] = angle[: count - half]
