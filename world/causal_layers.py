"""The layers of Wan's video autoencoder, which see a frame and those before it.

Videos are `(N, C, T, H, W)` with the channels innermost in memory, which is how convolutions are fastest.
What a layer remembers of the frames before is handed through by a `Past`, so that a clip gives the same
whether it goes through at once or frame by frame, and a stream can be left and gone on with anywhere.

Structure and names of parameters are those of `wan/modules/vae.py` (github.com/Wan-Video/Wan2.1), whose
weights load unchanged.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.world.lighttae import Memory


class Past:
    """What each causal convolution of a network saw last, in the order in which a clip meets them.

    `memory`: as the part of the stream before left it in `after`; None: nothing came before, the stream is
    `fresh`. Entries are `(N, frames, H, W, C)` and are only ever read.
    """

    def __init__(self, memory: Memory | None) -> None:
        self.fresh = memory is None
        self.after: Memory = []
        self._before = memory or []

    def extend(self, x: Tensor, frames: int, first: Tensor | None = None) -> Tensor:
        """A video with the last `frames` frames before it here, and takes note of its own last ones.

        Before a fresh stream there are zeros, or the frames of `first`.
        """
        video = x.movedim(1, -1)
        if not self.fresh:
            before = self._before[len(self.after)]
        elif first is not None:
            before = first.movedim(1, -1)
        else:
            n, _, h, w, c = video.shape
            before = video.new_zeros(n, frames, h, w, c)
        joined = torch.cat([before, video], 1)
        self.after.append(joined[:, -frames:].clone())  # else all of a decode's layers would be kept for it
        return joined.movedim(-1, 1)


class CausalConv(nn.Conv3d):
    """A convolution over `time` frames, none of them later, and `space` x `space` positions; bias
    included."""

    def __init__(self, n_in: int, n_out: int, time: int = 3, space: int = 3, stride: int = 1) -> None:
        """`stride`: of time."""
        half = space // 2
        super().__init__(n_in, n_out, (time, space, space), (stride, 1, 1), (0, half, half))
        self.remembered = time - stride

    def forward(self, x: Tensor, past: Past, first: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`first`: what to see before a fresh stream, in place of zeros."""
        if self.remembered:
            x = past.extend(x, self.remembered, first)
        folded = x.device.type == "cpu" and x.dtype == torch.float32
        return self._fold(x) if folded else super().forward(x)

    def _fold(self, x: Tensor) -> Tensor:
        """The same over positions alone, the frames side by side as channels.

        A CPU takes a quarter of the time for it in float32, where torch's convolutions over time are slow;
        elsewhere those are the faster.
        """
        (time, *_), (stride, *_) = self.kernel_size, self.stride
        video = x.movedim(1, -1)  # (N, T, H, W, C)
        last = video.shape[1] - time
        side_by_side = torch.cat([video[:, i : i + last + 1 : stride] for i in range(time)], -1)
        weight = self.weight.movedim(2, 1).flatten(1, 2)
        frames = side_by_side.flatten(0, 1).movedim(-1, 1)
        return _video(F.conv2d(frames, weight, self.bias, padding=self.padding[1:]), x.shape[0])


class ChannelNorm(nn.Module):
    """Each position's channels at a root mean square of 1, times `gamma`; no length in 16 bits.

    `axes`: 3 in videos, 2 in single frames, which alone decides the shape of `gamma`.
    """

    def __init__(self, dim: int, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=exact)
        factor = x.shape[1] ** 0.5 / length.clamp_min(1e-12)
        found: Tensor = x * factor.to(x.dtype) * self.gamma
        return found


class ResidualBlock(nn.Module):
    """Two causal convolutions, each after a norm and a SiLU, beside a shortcut."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(n_in), nn.SiLU(inplace=True), CausalConv(n_in, n_out),
            ChannelNorm(n_out), nn.SiLU(inplace=True), nn.Identity(), CausalConv(n_out, n_out),
        )  # fmt: skip  # public files count a dropout as a layer
        self.shortcut = CausalConv(n_in, n_out, 1, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, past: Past) -> Tensor:
        return through(self.residual, x, past) + through([self.shortcut], x, past)


class FrameAttention(nn.Module):
    """Self-attention of one head among the positions of each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = _frames(x)
        n, _, h, w = frames.shape
        tokens = self.to_qkv(self.norm(frames)).movedim(1, -1).reshape(n, 1, h * w, -1)
        seen = F.scaled_dot_product_attention(*tokens.chunk(3, -1))
        found = self.proj(seen.reshape(n, h, w, -1).movedim(-1, 1))
        return x + _video(found, x.shape[0])


class Downsample(nn.Module):
    """Half the height and width, and where `time`, one frame of two; a stream's first stays one by itself."""

    def __init__(self, dim: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = CausalConv(dim, dim, 3, 1, stride=2) if time else None

    def forward(self, x: Tensor, past: Past) -> Tensor:
        """`x` has an even number of frames, and the first of a stream before them."""
        x = _video(self.resample(_frames(x)), x.shape[0])
        if self.time_conv is None:
            return x
        first, later = _alone(x, past)
        if not later.shape[2]:
            past.extend(later, self.time_conv.remembered, first)
            return first
        return torch.cat([first, self.time_conv(later, past, first)], 2)


class Upsample(nn.Module):
    """Twice the height and width with half the channels, and where `time`, two frames of one.

    A stream's first frame stays one, and the convolution over time never sees it.
    """

    def __init__(self, dim: int, time: bool) -> None:
        super().__init__()
        grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.resample = nn.Sequential(grow, nn.Conv2d(dim, dim // 2, 3, padding=1))
        self.time_conv = CausalConv(dim, 2 * dim, 3, 1) if time else None

    def forward(self, x: Tensor, past: Past) -> Tensor:
        if self.time_conv is not None:
            x = self._grown(self.time_conv, x, past)
        return _video(self.resample(_frames(x)), x.shape[0])

    def _grown(self, conv: CausalConv, x: Tensor, past: Past) -> Tensor:
        first, later = _alone(x, past)
        if not later.shape[2]:
            past.extend(later, conv.remembered)
            return first
        pairs = conv(later, past).movedim(1, -1).unflatten(-1, (2, -1))  # (N, T, H, W, 2, C)
        grown = pairs.movedim(-2, 2).flatten(1, 2).movedim(-1, 1)
        return torch.cat([first, grown], 2) if past.fresh else grown


def through(layers: Iterable[nn.Module], x: Tensor, past: Past) -> Tensor:
    """A video after `layers`, one after the other."""
    for layer in layers:
        remembers = isinstance(layer, CausalConv | ResidualBlock | Downsample | Upsample)
        x = layer(x, past) if remembers else layer(x)
    return x


def _alone(x: Tensor, past: Past) -> tuple[Tensor, Tensor]:
    """The frames of a video that stay one each, which is a stream's first one alone, and those after them."""
    count = int(past.fresh)
    return x[:, :, :count], x[:, :, count:]


def _frames(x: Tensor) -> Tensor:
    """`(N, C, T, H, W)` as `(N * T, C, H, W)`."""
    return x.movedim(1, -1).flatten(0, 1).movedim(-1, 1)


def _video(x: Tensor, n: int) -> Tensor:
    """Back again."""
    found: Tensor = x.movedim(1, -1).unflatten(0, (n, -1)).movedim(-1, 1)
    return found
