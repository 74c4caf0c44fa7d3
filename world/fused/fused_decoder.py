"""The decoder of a tiny autoencoder on a GPU: convolutions with all that lies between them, a kernel each.

What a `TGrow` and an upsampling do is in the weights of the convolution after them: of the nine taps of a
pixel of twice the size four differ. What a `MemBlock` reads of its past is read from where it lies. The
pixels' own convolution is taken of each position while it is at hand, and nine of those are summed after.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world import acceleration
from playhead.world.lighttae import Decoder, MemBlock, Memory, TGrow

try:
    from playhead.world.fused import convolution_kernels as _loaded

    _kernels: ModuleType | None = _loaded
except ImportError:  # torch for a CPU comes without Triton
    _kernels = None

PLANES = 27
"""What is taken of a position for its pixel and the eight around it: nine times three colours."""
LEAST = 16
"""The fewest channels that a product of tensor cores takes."""


def fits(decoder: Decoder) -> bool:
    """Whether a decoder can be fused: one that makes pixels, of whole tiles of channels."""
    widths = decoder.config.decoder_widths
    last = widths[-1] in (16, 32, 64, 128)  # which are one tile
    return decoder.config.patch == 1 and last and all(width % LEAST == 0 for width in widths)


class FusedDecoder:
    """`decoder`, whose weights no longer change; it stays as it is. Raises ValueError where none fits."""

    def __init__(self, decoder: Decoder) -> None:
        if not fits(decoder):
            raise ValueError("a fused decoder makes pixels, of channels that are whole tiles")
        self._factor = decoder.config.time_factor
        self._first = nn.Sequential(*list(decoder)[:3])  # of few channels and no size to speak of
        *layers, _, pixels = list(decoder)[3:]
        self._stages: list[_Block | _Convolution] = []
        for at, layer in enumerate(layers):
            if isinstance(layer, MemBlock):
                self._stages.append(_Block(layer))
            elif isinstance(layer, nn.Upsample):
                grow, conv = layers[at + 1 : at + 3]
                self._stages.append(_Convolution.grown(layer, grow, conv))
        last = self._stages.pop()
        assert isinstance(last, _Convolution) and isinstance(pixels, nn.Conv2d)
        self._pixels = _Pixels(last, pixels)

    def __call__(self, latents: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Latents `(N, T, C, h, w)` to frames uint8 `(N, T * time factor, H, W, 3)`, and the next memory.

        Which frames there are, and the memory, are as `Decoder.forward` has them.
        """
        n = len(latents)
        x = _innermost(self._first(latents.flatten(0, 1)))
        carried: Memory = []
        for stage in self._stages:
            if isinstance(stage, _Block):
                ends = x.unflatten(0, (n, -1))[:, -1]
                before = torch.zeros_like(ends) if memory is None else _innermost(memory[len(carried)])
                carried.append(ends.movedim(-1, 1))
                x = stage(x, before)
            else:
                x = stage(x)
        frames = self._pixels(x).unflatten(0, (n, -1))
        return (frames if memory is not None else frames[:, self._factor - 1 :]), carried

    def compile(self, latents: Tensor) -> None:
        """Has the kernels compiled that such latents run, side by side: one by one they take ten seconds.

        They serve pictures of every size, and nothing is run. Raises nothing: what fails will when it runs.
        """
        n, t, _, height, width = latents.shape
        first = self._first[1]
        assert isinstance(first, nn.Conv2d)
        x = latents.new_empty((n * t, height, width, first.out_channels))
        kernels: dict[object, Callable[[], object]] = {}
        for stage in self._stages:
            if isinstance(stage, _Block):
                kernels |= stage.kernels(x, n)
            else:
                kernels[stage] = partial(stage, x, run=False)
                x = x.new_empty(stage.shape(x))
        kernels["pixels"] = partial(self._pixels, x, run=False)

        def build(kernel: Callable[[], object]) -> None:
            with contextlib.suppress(Exception):
                kernel()

        with ThreadPoolExecutor(acceleration.cores()) as pool:
            list(pool.map(build, kernels.values()))


class _Block:
    """A `MemBlock`."""

    def __init__(self, block: MemBlock) -> None:
        first, second, third = (layer for layer in block.conv if isinstance(layer, nn.Conv2d))
        self._first, self._second = _Convolution.of(first, past=True), _Convolution.of(second)
        self._third = _Convolution.of(third)

    def __call__(self, x: Tensor, before: Tensor) -> Tensor:
        """Pictures `(images, H, W, C)`, each session's one after the other; `before`: what preceded them."""
        return self._third(self._second(self._first(x, before=before)), adds=x)

    def kernels(self, x: Tensor, sessions: int) -> dict[object, Callable[[], object]]:
        """Its kernels over pictures like `x`, to be compiled, by what other blocks have them in common by."""
        channels = x.shape[-1]
        return {
            (channels, 1): partial(self._first, x, before=x[:sessions], run=False),
            (channels, 2): partial(self._second, x, run=False),
            (channels, 3): partial(self._third, x, adds=x, run=False),
        }


class _Pixels:
    """The last growth of a decoder and the convolution to pixels after it."""

    def __init__(self, growth: "_Convolution", pixels: nn.Conv2d) -> None:
        products = pixels.weight.permute(1, 2, 3, 0).flatten(1)  # (N, by tap and colour)
        padded = F.pad(products, (0, 32 - PLANES)).contiguous()
        self._growth = replace(growth, products=padded, relu=True)
        self._bias = pixels.bias

    def __call__(self, x: Tensor, run: bool = True) -> Tensor:
        """Pictures `(images, h, w, C)` to frames uint8 `(images * times, H, W, 3)`; see `_launch`."""
        assert _kernels is not None
        products = self._growth(x, run=run)
        _, images, _, height, width = products.shape
        scale = 2 if self._growth.grows else 1
        found = x.new_empty((images, height * scale, width * scale, 3), dtype=torch.uint8)
        pixels = 256
        grid = -(-height * width * scale**2 // pixels), images
        _launch(
            _kernels.colour, grid, run, products, self._bias, found, images, height, width,
            GROWS=self._growth.grows, PIXELS=pixels,
        )  # fmt: skip
        return found


@dataclass(frozen=True, eq=False)
class _Convolution:
    """Weights `(groups, K, N)` of a convolution of C channels to N, and what is done beside it.

    `times`, `grows`, `past`: as the kernel has them. `products`: the weights of products with what comes of
    it, `(N, 32)`, which are made in its place.
    """

    weight: Tensor
    bias: Tensor | None = None
    times: int = 1
    grows: bool = False
    past: bool = False
    relu: bool = True
    products: Tensor | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d, past: bool = False) -> "_Convolution":
        """One of a `MemBlock`, with the positive part that follows each. `past`: the first."""
        weight = conv.weight.permute(2, 3, 1, 0)  # by tap, input and output
        halves = weight.chunk(2, 2) if past else (weight,)
        rows = torch.cat([half.flatten(0, 2) for half in halves])
        return cls(rows[None].contiguous(), conv.bias, past=past)

    @classmethod
    def grown(cls, upsample: nn.Upsample, grow: nn.Module, conv: nn.Module) -> "_Convolution":
        """One after an upsampling and a `TGrow`, whose sums are taken beforehand."""
        assert isinstance(grow, TGrow) and isinstance(conv, nn.Conv2d)
        each = grow.conv.weight[:, :, 0, 0].float().unflatten(0, (grow.stride, -1))  # (steps, middle, input)
        joined = torch.einsum("omyx,smi->syxio", conv.weight.float(), each)
        grows = upsample.scale_factor == 2
        if grows:
            joined = torch.stack([_two_of_three(joined, 1, place) for place in (0, 1)], 1)
            joined = torch.stack([_two_of_three(joined, 3, place) for place in (0, 1)], 2)
        groups = grow.stride * (4 if grows else 1)
        weight = joined.reshape(groups, -1, joined.shape[-1]).to(conv.weight.dtype)
        return cls(weight.contiguous(), times=grow.stride, grows=grows, relu=False)

    def shape(self, x: Tensor) -> tuple[int, int, int, int]:
        """That of what comes of pictures."""
        images, height, width, _ = x.shape
        scale = 2 if self.grows else 1
        return images * self.times, height * scale, width * scale, self.weight.shape[2]

    def __call__(
        self, x: Tensor, before: Tensor | None = None, adds: Tensor | None = None, run: bool = True
    ) -> Tensor:
        """Of pictures `(images, H, W, C)`.

        `before` `(sessions, H, W, C)`: what preceded the first of each session's. `adds`: is added. `run`:
        see `_launch`.
        """
        assert _kernels is not None
        images, height, width, channels = x.shape
        groups, _, n = self.weight.shape
        scale = 2 if self.grows else 1
        positions = images * height * width
        planes = PLANES if self.products is not None else 0
        if planes:
            shape = (planes, images * self.times, scale * scale, height, width)
            kind = torch.float32 if x.dtype == torch.float32 else torch.float16
            out = x.new_empty(shape, dtype=kind)
        else:
            out = x.new_empty(self.shape(x))
        rows, columns, warps, stages = _tile(n) if not planes else (128, n, 4, 3)
        grid = -(-positions // rows) * (n // columns), groups
        given = [x if one is None else one for one in (before, self.bias, adds, self.products)]
        _launch(
            _kernels.convolve, grid, run, x, given[0], self.weight, *given[1:], out,
            positions, height, width, images // len(before) if before is not None else 1,
            C=channels, N=n, SIDE=2 if self.grows else 3, TIMES=self.times, GROWS=self.grows,
            PAST=self.past, ADDS=adds is not None, BIAS=self.bias is not None, RELU=self.relu,
            PLANES=planes, ROWS=rows, COLUMNS=columns, INNER=_whole(channels, 64),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return out


def _launch(
    kernel: Any,  # noqa: ANN401  # Triton has no types
    grid: tuple[int, int],
    run: bool,
    x: Tensor,
    *given: Tensor | int | None,
    **constants: int,
) -> None:
    """Runs a kernel on the device of `x`, its first argument; else it is compiled alone."""
    with torch.cuda.device_of(x):
        if run:
            kernel[grid](x, *given, **constants)
        else:
            kernel.warmup(x, *given, grid=grid, **constants)


def _innermost(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous()


def _two_of_three(taps: Tensor, axis: int, place: int) -> Tensor:
    """What three taps along an axis are after an upsampling by two, where two of them meet one position."""
    first, second, third = taps.unbind(axis)
    return torch.stack([first, second + third] if place == 0 else [first + second, third], axis)


def _whole(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides `size`."""
    return min(size & -size, most)


def _tile(n: int) -> tuple[int, int, int, int]:
    """Rows and columns of a tile, warps and stages: the fastest of fourteen on an H200, or nearly."""
    return (64, _whole(n, 256), 4, 3) if n >= 128 else (128, _whole(n, 64), 4, 3)
