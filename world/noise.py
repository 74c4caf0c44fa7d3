"""The only randomness there is: `noise(seed, tick, step)`.

Counter based (Philox 4x64: key = seed, counter = (tick, step)), so any tick's noise can be drawn without the
ticks before it. Raw bits become normal numbers by additions, multiplications, divisions and square roots of
float64 alone, which IEEE 754 fixes to the last bit: it is the same on every processor and on every GPU. A
library's logarithm and cosine are not: they differ in their last bits from one processor to the next.
"""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from playhead.world import acceleration, philox

CPU = torch.device("cpu")
GROUP = 4
"""Sessions whose noise one thread draws at a time."""


def noise(seed: int, tick: int, step: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise of `shape`, a function of `seed`, `tick` and `step` alone."""
    return noises([seed], tick, step, shape)[0]


def noises(
    seeds: Sequence[int], tick: int, step: int, shape: Sequence[int], device: torch.device = CPU
) -> Tensor:
    """The `noise` of many sessions at once, `(len(seeds), *shape)`: the same numbers, bit for bit.

    Many sessions share the cores, or are drawn on a GPU as `device`, and lie there. The noise of few lies in
    main memory.
    """
    if len(seeds) <= GROUP:
        out = torch.empty((len(seeds), *shape), dtype=torch.float32)
        _fill(seeds, tick, step, out)
        return out
    return _Begun(seeds, tick, step, shape, device).wait()


_Draw = tuple[int, int, tuple[int, ...], tuple[int, ...]]


class PrefetchedNoise:
    """`noises`, with those of the next tick drawn by other threads while this one is played.

    Several worlds may share one, at about the same tick; what is equal for them is then drawn once. `device`:
    where it is needed; a GPU draws that of many sessions, and makes that of few of what those threads draw.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self._device = device
        self._begun: dict[_Draw, _Begun] = {}

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        now, following = ((t, step, tuple(seeds), tuple(shape)) for t in (tick, tick + 1))
        for key in (now, following):
            if key not in self._begun:
                self._begun[key] = _Begun(seeds, key[0], step, shape, self._device)
        for key in [k for k in self._begun if not tick - 1 <= k[0] <= tick + 1]:
            del self._begun[key]
        return self._begun[now].wait()


class DeviceNoise:
    """Noise for measuring, drawn by a device's own generator: not that of play, but at no cost to the CPU.

    A function of tick, step and the number of sessions; `seeds` only say how many there are.
    """

    def __init__(self, device: torch.device) -> None:
        self._draw = torch.Generator(device)

    def __call__(self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int]) -> Tensor:
        self._draw.manual_seed((tick << 8) + step)
        return torch.randn((len(seeds), *shape), generator=self._draw, device=self._draw.device)


class _Begun:
    """Noise while it is drawn: by threads, for a GPU its bits alone, or those of many sessions by the GPU."""

    def __init__(
        self, seeds: Sequence[int], tick: int, step: int, shape: Sequence[int], device: torch.device = CPU
    ) -> None:
        self._shape = (len(seeds), *shape)
        self._device = device
        self._noise: Tensor | None = None
        gpu = device.type == "cuda"
        pairs = 2 * _half(math.prod(shape))
        if gpu and len(seeds) > GROUP:  # as long as it has other work, only what this asks of it takes time
            self._parts: list[Future[None]] = []
            self._noise = _recorded(tuple(seeds), step, tuple(shape), device).draw(tick)
            return
        if gpu:  # memory that it fetches while the caller goes on
            self._drawn = torch.empty((len(seeds), pairs), dtype=torch.float64, pin_memory=True)
        else:
            self._drawn = torch.empty(self._shape, dtype=torch.float32)
        fill: Callable[..., None] = _fill_uniform if gpu else _fill
        drawn: Any = self._drawn.numpy() if gpu else self._drawn
        self._parts = [
            _threads().submit(fill, seeds[i : i + GROUP], tick, step, drawn[i : i + GROUP])
            for i in range(0, len(seeds), GROUP)
        ]

    def wait(self) -> Tensor:
        if self._noise is None:
            for part in self._parts:
                part.result()
            self._noise = self._drawn
            if self._device.type == "cuda":
                self._noise = _made_of(self._drawn.to(self._device, non_blocking=True), self._shape)
        return self._noise


class RecordedNoise:
    """The noise of many sessions, drawn by a GPU in one recorded graph.

    It is some hundreds of small operations: to ask for one after the other takes longer than a tick.
    """

    def __init__(self, seeds: Sequence[int], step: int, shape: Sequence[int], device: torch.device) -> None:
        self._seeds, self._step = tuple(seeds), step
        self._tick = torch.zeros((), dtype=torch.int64, device=device)
        self._noise = torch.zeros((len(seeds), *shape), device=device)
        self._graphs = acceleration.Graphs(device)
        self._turn = threading.Lock()

    def draw(self, tick: int) -> Tensor:
        """That of a tick, `(sessions, *shape)`, the caller's own."""
        with self._turn:
            self._tick.fill_(tick)
            self._graphs.run("noise", self._draw)
            return self._noise.clone()

    def _draw(self) -> None:
        pairs = 2 * _half(math.prod(self._noise.shape[1:]))
        drawn = philox.uniforms(self._seeds, self._tick, self._step, pairs)
        self._noise.copy_(_made_of(drawn, self._noise.shape))


def device_noises(seeds: Tensor, ticks: Tensor, step: int, shape: Sequence[int]) -> Tensor:
    """The `noise` of sessions that are each at a tick of its own, `(sessions, *shape)`, drawn by a GPU.

    `seeds`, their bits, and `ticks` are int64 `(sessions,)` and lie there.
    """
    keys = torch.stack([seeds, torch.zeros_like(seeds)])[..., None]
    drawn = philox.uniforms_of(keys, ticks[:, None], step, 2 * _half(math.prod(shape)))
    return _made_of(drawn, (len(seeds), *shape))


@lru_cache(16)  # of each the numbers of its sessions, a dozen times over
def _recorded(
    seeds: tuple[int, ...], step: int, shape: tuple[int, ...], device: torch.device
) -> RecordedNoise:
    return RecordedNoise(seeds, step, shape, device)


def _made_of(uniform: Tensor, shape: Sequence[int]) -> Tensor:
    """Noise of `shape`, sessions first, of pairs of numbers in (0, 1]."""
    made = torch.cat(gaussian(torch, *uniform.chunk(2, 1)), 1).float()
    return made[:, : math.prod(shape[1:])].reshape(tuple(shape))


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(acceleration.cores(), thread_name_prefix="noise")


def _fill(seeds: Sequence[int], tick: int, step: int, noise: Tensor) -> None:
    """Fills float32 `noise` `(len(seeds), *shape)`, session by session: what is in the making stays in a
    core's own cache."""
    rows = noise.flatten(1).numpy()
    uniform = np.empty((1, 2 * _half(rows.shape[1])))
    for seed, row in zip(seeds, rows, strict=True):
        _fill_uniform([seed], tick, step, uniform)
        cos, sin = gaussian(np, *np.split(uniform[0], 2))
        row[: len(cos)], row[len(cos) :] = cos, sin[: len(row) - len(cos)]


def _half(count: int) -> int:
    """Pairs of numbers that hold `count` of them."""
    return (count + 1) // 2


def _fill_uniform(seeds: Sequence[int], tick: int, step: int, uniform: np.ndarray) -> None:
    """Fills float64 `uniform` `(len(seeds), numbers)` with numbers in (0, 1], never 0.

    Those of the 53 highest bits, and half of the lowest one of them more. Other threads go on meanwhile.
    """
    for seed, row in zip(seeds, uniform, strict=True):
        # The first counter word is the stream's own position; ours start above it.
        philox = np.random.Philox(key=seed % 2**128, counter=[0, step, tick, 0])
        np.random.Generator(philox).random(out=row)
        row += 2.0**-54


Array = TypeVar("Array", np.ndarray, Tensor)
LOG = [1 / (2 * k + 1) for k in reversed(range(10))]
"""Of artanh(s) / s in powers of s squared; at most 0.03 here, so what is left out is below the last bit."""
SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in reversed(range(8))]
COS = [(-1) ** k / math.factorial(2 * k) for k in reversed(range(9))]
"""Of sin(x) / x and cos(x) in powers of x squared, for an eighth of a turn at most."""


def gaussian(library: ModuleType, first: Array, second: Array) -> tuple[Array, Array]:
    """Two arrays of standard normal float64 numbers of two of independent ones in (0, 1] (Box-Muller).

    Arrays of `library`: numpy, or torch on a GPU, to the same bits, as they have the same names for what is
    used here. (On a CPU torch takes square roots from MKL, which does not round all of them right.) One step
    after the other: a compiler that joined a multiplication and an addition would round once where this
    rounds twice.
    """
    radius = _log(library, first)
    radius *= -2.0
    radius = library.sqrt(radius)
    cos, sin = _cos_sin(library, second)
    cos *= radius
    sin *= radius
    return cos, sin


def _polynomial(library: ModuleType, z: Array, coefficients: Sequence[float]) -> Array:
    """By Horner's rule, the highest power's coefficient first."""
    found: Array = library.full_like(z, coefficients[0])
    for coefficient in coefficients[1:]:
        found *= z
        found += coefficient
    return found


def _log(library: ModuleType, x: Array) -> Array:
    """The natural logarithm of float64 in (0, 1], to about the last bit."""
    part, exponent = library.frexp(x)
    small = part < math.sqrt(0.5)
    part = library.where(small, part + part, part)  # from sqrt(1/2) to sqrt(2)
    s = part - 1.0
    part += 1.0
    s /= part
    found: Array = _polynomial(library, s * s, LOG)
    found *= s
    found *= 2.0
    whole = library.full_like(x, math.log(2))
    whole *= exponent - 1 * small
    found += whole
    return found


def _cos_sin(library: ModuleType, turns: Array) -> tuple[Array, Array]:
    """Cosine and sine of an angle in turns, float64 in [0, 1]: the nearest quarter, and what is beyond it."""
    quarter = 4.0 * turns
    quarter += 0.5
    quarter = library.floor(quarter)  # 0 to 4
    x = turns - 0.25 * quarter
    x *= 2.0 * math.pi
    z = x * x
    cos, sin = _polynomial(library, z, COS), _polynomial(library, z, SIN)
    sin *= x
    odd = (quarter == 1.0) | (quarter == 3.0)
    cos, sin = library.where(odd, sin, cos), library.where(odd, cos, sin)
    cos *= library.where((quarter == 1.0) | (quarter == 2.0), -1.0, 1.0)
    sin *= library.where((quarter == 2.0) | (quarter == 3.0), -1.0, 1.0)
    return cos, sin
