"""The decoder of a world whose ticks are one pass, laid out for a CPU: the same sums in fewer steps.

For time factor 1, a latent at a time. `TGrow` then is a product of each position's channels, taken into the
convolution after it. What a `MemBlock` makes of its past hangs on the tick before alone, so `ahead` computes
it while nobody waits for a frame.
"""

import torch
from torch import Tensor, nn

from playhead.world.lighttae import Decoder, MemBlock, Memory, TGrow
from playhead.world.packed import PackedConv


class PackedDecoder:
    """`decoder`, whose weights no longer change, for latents of `height` x `width`; it stays as it is."""

    def __init__(self, decoder: Decoder, height: int, width: int) -> None:
        if decoder.config.time_factor != 1:
            raise ValueError("a packed decoder makes one frame of a latent")
        self._patch = decoder.config.patch
        self._stages: list[_Memory | _Conv | nn.Module] = []
        size, grow = (height, width), None
        *layers, last = decoder
        for layer, following in zip(layers, [*layers[1:], last], strict=True):
            if isinstance(layer, MemBlock):
                self._stages.append(_Memory(layer, size))
            elif isinstance(layer, TGrow):
                grow = layer
            elif isinstance(layer, nn.Conv2d):
                weight = layer.weight if grow is None else _joined(layer, grow)
                relu = isinstance(following, nn.ReLU)
                self._stages.append(_Conv(weight, layer.bias, size, relu))
                grow = None
            elif isinstance(layer, nn.Upsample):
                size = tuple(int(side * layer.scale_factor) for side in size)
                if layer.scale_factor != 1:
                    self._stages.append(layer)
            elif not isinstance(layer, nn.ReLU):
                self._stages.append(layer)
        self._stages.append(_Conv(self._by_pixel(last.weight), self._by_pixel(last.bias), size))

    def _by_pixel(self, x: Tensor) -> Tensor:
        """Puts what is by colour, row and column of a patch by row, column and colour, as in pictures."""
        return x.unflatten(0, (3, self._patch, self._patch)).movedim(0, 2).flatten(0, 2)

    def ahead(self, memory: Memory) -> list[Tensor]:
        """What the blocks make of their pasts, `(N, C, h, w)` each."""
        blocks = [stage for stage in self._stages if isinstance(stage, _Memory)]
        return [block.ahead(past) for block, past in zip(blocks, memory, strict=True)]

    def __call__(self, latents: Tensor, ahead: list[Tensor]) -> tuple[Tensor, Memory]:
        """Latents `(N, C, h, w)` to frames uint8 `(N, H, W, 3)` and the next memory."""
        x, carried = latents, []
        for stage in self._stages:
            if isinstance(stage, _Memory):
                carried.append(x)
                x = stage(x, ahead[len(carried) - 1])
            else:
                x = stage(x)
        return self._pictures(x), carried

    def _pictures(self, x: Tensor) -> Tensor:
        """Patches `(N, patch * patch * 3, h, w)`, as `_by_pixel` has them, to frames uint8 `(N, H, W, 3)`."""
        patches = x.permute(0, 2, 3, 1).clamp(0, 1).float().mul_(255).round_().to(torch.uint8)
        rows = patches.unflatten(-1, (self._patch, -1)).transpose(2, 3)  # (N, h, row, w, column and colour)
        n, h, p, w, _ = rows.shape
        return rows.reshape(n, h * p, w * p, 3)


class _Memory:
    """A `MemBlock` at one `size`, its first convolution in two: that of its input and that of its past."""

    def __init__(self, block: MemBlock, size: tuple[int, int]) -> None:
        first, second, third = (layer for layer in block.conv if isinstance(layer, nn.Conv2d))
        now, past = first.weight.chunk(2, 1)
        shape = (1, now.shape[1], *size)
        self._now, self.ahead = PackedConv(now, None, shape, 1), PackedConv(past, first.bias, shape, 1)
        self._second, self._third = (PackedConv(c.weight, c.bias, shape, 1) for c in (second, third))

    def __call__(self, x: Tensor, ahead: Tensor) -> Tensor:
        y = self._second(self._now.add_relu(x, ahead), "relu")
        return self._third.add_relu(y, x)


class _Conv:
    """A convolution at one `size`, and the positive part of it where `relu`."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, size: tuple[int, int], relu: bool = False
    ) -> None:
        self._conv = PackedConv(weight, bias, (1, weight.shape[1], *size), 1)
        self._then = "relu" if relu else "none"

    def __call__(self, x: Tensor) -> Tensor:
        return self._conv(x, self._then)


def _joined(conv: nn.Conv2d, grow: TGrow) -> Tensor:
    """The weight of a convolution that follows a product of each position's channels."""
    product = torch.einsum("ocyx,ci->oiyx", conv.weight.float(), grow.conv.weight[:, :, 0, 0].float())
    return product.to(conv.weight.dtype)
