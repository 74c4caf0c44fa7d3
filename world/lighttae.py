"""LightTAE: the tiny video autoencoder, as a configuration.

Architecture of TAEHV (github.com/madebyollin/taehv) and of LightX2V's LightTAE weights: 2-D convolutions
over `(N * T, C, H, W)`, with time handled by three blocks named for what they do to it: `MemBlock` sees its
own input of the step before, `TPool` merges steps, `TGrow` splits them. The public Wan 2.1 configuration is
`LightTAEConfig()`; the shipped world's has a time factor of 1 and packs 4 x 4 pixels into channels first.

Pixels are in [0, 1], `(N, T, 3, H, W)`; latents are `(N, T, C, h, w)`.
"""

from itertools import pairwise

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world.bounds import Size

Memory = list[Tensor]
"""The inputs that each `MemBlock` saw at the last step, in order; `(N, C, h, w)` each."""


class LightTAEConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Widths run from the pixel side to the latent side in the encoder, the other way in the decoder.

    `patch` packs patch x patch pixels into channels. The three `*_space` and `*_time` flags say, stage by
    stage, whether space is halved (doubled) and time pooled (grown) by two.
    """

    latent_channels: Size = 16
    patch: Size = 1
    encoder_widths: tuple[Size, Size, Size, Size] = (64, 64, 64, 64)
    decoder_widths: tuple[Size, Size, Size, Size] = (256, 128, 64, 64)
    encoder_space: tuple[bool, bool, bool] = (True, True, True)
    encoder_time: tuple[bool, bool, bool] = (True, True, False)
    decoder_space: tuple[bool, bool, bool] = (True, True, True)
    decoder_time: tuple[bool, bool, bool] = (False, True, True)

    @property
    def time_factor(self) -> int:
        """Frames per latent."""
        return 1 << sum(self.decoder_time)

    @property
    def space_factor(self) -> int:
        """Pixels per latent position along one axis."""
        return self.patch << sum(self.decoder_space)


def conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


def _innermost(x: Tensor) -> Tensor:
    """`(…, C, H, W)` as `(…, H, W, C)`: how convolutions are fastest, and what a copy of this view keeps."""
    return x.movedim(-3, -1)


def _outermost(x: Tensor) -> Tensor:
    """Back again; channels stay innermost in memory."""
    return x.movedim(-1, -3)


def in_grey_levels(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1], and beyond, `(N, T, 3, H, W)` as frames uint8 `(N, T, H, W, 3)`."""
    return pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)


class Clamp(nn.Module):
    """A soft clamp to (-3, 3) that leaves typical latents nearly untouched."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """A residual block over `[x, past]`, where `past` is its own input one step earlier (zeros at first)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(2 * n, n), nn.ReLU(inplace=True), conv(n, n), nn.ReLU(inplace=True), conv(n, n)
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        both = torch.cat([_innermost(x), _innermost(past)], -1)
        found: Tensor = F.relu(self.conv(_outermost(both)) + x)
        return found


class TPool(nn.Module):
    """Merges `stride` consecutive steps into one: `(N * T, C, H, W)` to `(N * T / stride, C, H, W)`."""

    def __init__(self, n: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(n * stride, n, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        found: Tensor = self.conv(x.reshape(-1, self.stride * c, h, w))
        return found


class TGrow(nn.Module):
    """Splits each step into `stride` steps: `(N * T, C, H, W)` to `(N * T * stride, C, H, W)`."""

    def __init__(self, n: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(n, n * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x)
        if self.stride == 1:
            return found
        steps = _innermost(found).unflatten(-1, (self.stride, -1)).movedim(-2, 1)
        return _outermost(steps.flatten(0, 1).contiguous())


def _run(layers: nn.Sequential, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
    """Runs `layers` over a clip `(N, T, C, H, W)`, from `memory` (None: a fresh stream) to the next memory.

    The same code serves a whole clip and a stream of single steps, so the two agree by construction.
    """
    n = x.shape[0]
    x = x.flatten(0, 1)
    carried: Memory = []
    for layer in _cheapest(layers):
        if not isinstance(layer, MemBlock):
            x = layer(x)
            continue
        before = memory[len(carried)] if memory is not None else torch.zeros_like(x[:n])
        steps = x.unflatten(0, (n, -1))  # (N, T, C, H, W)
        carried.append(steps[:, -1])
        if steps.shape[1] == 1:
            past = before
        else:
            earlier = torch.cat([_innermost(before).unsqueeze(1), _innermost(steps[:, :-1])], 1)
            past = _outermost(earlier.flatten(0, 1))
        x = layer(x, past)
    return x.unflatten(0, (n, -1)), carried


def _cheapest(layers: nn.Sequential) -> list[nn.Module]:
    """The layers in the order in which they cost least.

    A `TGrow` looks at each position alone: before an upsampling it makes the same of a quarter as many.
    """
    order = list(layers)
    for i, (layer, following) in enumerate(pairwise(layers)):
        if isinstance(layer, nn.Upsample) and isinstance(following, TGrow):
            order[i : i + 2] = [following, layer]
    return order


class Encoder(nn.Sequential):
    """Pixels `(N, T, 3, H, W)` to latents `(N, T / time_factor, C, h, w)`."""

    def __init__(self, config: LightTAEConfig) -> None:
        widths = config.encoder_widths
        layers: list[nn.Module] = [conv(3 * config.patch**2, widths[0]), nn.ReLU(inplace=True)]
        for n_in, n_out, space, time in zip(
            widths, widths[1:], config.encoder_space, config.encoder_time, strict=False
        ):
            layers += [TPool(n_in, 2 if time else 1)]
            layers += [conv(n_in, n_out, stride=2 if space else 1, bias=False)]
            layers += [MemBlock(n_out) for _ in range(3)]
        super().__init__(*layers, conv(widths[3], config.latent_channels))
        self.config = config

    def forward(self, pixels: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Encodes a clip. A last group shorter than the time factor is filled with copies of its end."""
        short = -pixels.shape[1] % (2 ** sum(self.config.encoder_time))
        if short:
            pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, short, -1, -1, -1)], 1)
        latents, carried = _run(self, F.pixel_unshuffle(pixels, self.config.patch), memory)
        return latents.contiguous(), carried


class Decoder(nn.Sequential):
    """Latents `(N, T, C, h, w)` to pixels `(N, T * time_factor, 3, H, W)`, not yet clamped to [0, 1]."""

    def __init__(self, config: LightTAEConfig) -> None:
        widths = config.decoder_widths
        layers: list[nn.Module] = [Clamp(), conv(config.latent_channels, widths[0]), nn.ReLU(inplace=True)]
        for n_in, n_out, space, time in zip(
            widths, widths[1:], config.decoder_space, config.decoder_time, strict=False
        ):
            layers += [MemBlock(n_in) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2 if space else 1)]
            layers += [TGrow(n_in, 2 if time else 1), conv(n_in, n_out, bias=False)]
        super().__init__(*layers, nn.ReLU(inplace=True), conv(widths[3], 3 * config.patch**2))
        self.config = config

    @property
    def time_factor(self) -> int:
        """Frames per latent."""
        return self.config.time_factor

    @property
    def span(self) -> int:
        """Latents after which its memory no longer hangs on what it was."""
        return sum(isinstance(layer, MemBlock) for layer in self)

    def forward(self, latents: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Decodes a clip or the next part of a stream.

        A fresh stream (`memory` None) starts with `time_factor - 1` frames that belong to no picture; they
        are dropped here, once: T latents give `time_factor * T - (time_factor - 1)` frames.
        """
        frames, carried = _run(self, latents, memory)
        frames = F.pixel_shuffle(frames, self.config.patch)
        return (frames if memory is not None else frames[:, self.config.time_factor - 1 :]), carried


class LightTAE(nn.Module):
    """Encoder and decoder under the key names of the public files (`encoder.N…`, `decoder.N…`)."""

    def __init__(self, config: LightTAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
