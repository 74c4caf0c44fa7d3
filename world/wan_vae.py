"""The video autoencoder of Wan 2.1, of any width: 96 is Wan's own, 24 is LightX2V's LightVAE.

One class for both: the keys are those of `Wan2.1_VAE.pth` (`encoder.conv1`, `encoder.downsamples.N`, `conv1`,
`conv2`, `decoder.middle.0.residual.0.gamma`, …), as `wan/modules/vae.py` of github.com/Wan-Video/Wan2.1 gives
them and `lightvaew2_1.pth` has them too; LightX2V builds it by the same class with every width times 0.25.

4 frames a latent, 8 x 8 pixels a position, 16 channels; a stream's first latent is one frame by itself.
Latents are those that the autoencoder itself knows: a Wan generator works on `(z - WAN_MEAN) / WAN_STD`.
"""

import torch
from torch import Tensor, nn

from playhead.world.causal_layers import (
    CausalConv,
    ChannelNorm,
    Downsample,
    FrameAttention,
    Past,
    ResidualBlock,
    Upsample,
    through,
)
from playhead.world.checkpoint import without_memory
from playhead.world.lighttae import Memory

WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Of Wan 2.1's latents: the generator works on `(z - mean) / std`."""

WIDTH = 96
"""Channels at the pixels' size of the full one."""
CHANNELS = len(WAN_MEAN)
"""Of a latent."""
TIME_FACTOR, SPACE_FACTOR = 4, 8
"""Frames a latent, and pixels a latent's position along one axis."""
MULTIPLIERS = (1, 2, 4, 4)
"""Of the width, from the pixels to the latents, a stage each; the first three end by halving."""
HALVES_TIME = (False, True, True)
"""Whether the end of a stage halves time, besides space."""
BLOCKS = 2
"""Residual blocks of a stage; the decoder has one more."""
SPAN = 38
"""Latents after which a decoder's memory no longer hangs on what it was.

Twelve convolutions over three frames work at one frame a latent, 7 at two and 13 at four: a latent's first
frame sees 26 frames back at four a latent, from there 14 at two and 24 at one, rounded up wherever two frames
become one.
"""


class CausalEncoder(nn.Module):
    """Videos `(N, 3, T, H, W)` in [-1, 1] to `(N, 2 * CHANNELS, T', h, w)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in MULTIPLIERS]
        self.conv1 = CausalConv(3, width)
        stages: list[nn.Module] = []
        before = width
        for stage, after in enumerate(widths):
            for _ in range(BLOCKS):
                stages.append(ResidualBlock(before, after))
                before = after
            if stage < len(HALVES_TIME):
                stages.append(Downsample(after, HALVES_TIME[stage]))
        self.downsamples = nn.Sequential(*stages)
        self.middle = _middle(before)
        self.head = _head(before, 2 * CHANNELS)

    def forward(self, video: Tensor, past: Past) -> Tensor:
        layers = (self.conv1, *self.downsamples, *self.middle, *self.head)
        return through(layers, video, past)


class CausalDecoder(nn.Module):
    """`(N, CHANNELS, T, h, w)` to videos `(N, 3, T', H, W)`, about in [-1, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in reversed(MULTIPLIERS)]
        before = widths[0]
        self.conv1 = CausalConv(CHANNELS, before)
        self.middle = _middle(before)
        stages: list[nn.Module] = []
        for stage, after in enumerate(widths):
            for _ in range(BLOCKS + 1):
                stages.append(ResidualBlock(before, after))
                before = after
            if stage < len(HALVES_TIME):
                stages.append(Upsample(after, HALVES_TIME[-1 - stage]))
                before = after // 2
        self.upsamples = nn.Sequential(*stages)
        self.head = _head(before, 3)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        layers = (self.conv1, *self.middle, *self.upsamples, *self.head)
        return through(layers, x, past)


class WanVAE(nn.Module):
    """Both halves under the key names of the public files. `width`: channels at the pixels' size."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.encoder = CausalEncoder(width)
        self.conv1 = CausalConv(2 * CHANNELS, 2 * CHANNELS, 1, 1)
        self.conv2 = CausalConv(CHANNELS, CHANNELS, 1, 1)
        self.decoder = CausalDecoder(width)


class WanDecoder(nn.Module):
    """The half that play needs: latents `(N, T, C, h, w)` to pixels `(N, T', 3, H, W)`.

    They are about in [0, 1], not yet clamped. A stream's first latent is one frame, each later one four: T
    latents of a fresh stream give 4 T - 3 frames.
    """

    time_factor, span = TIME_FACTOR, SPAN

    def __init__(self, vae: WanVAE) -> None:
        super().__init__()
        self.width = vae.width
        self.conv2, self.decoder = vae.conv2, vae.decoder

    def forward(self, latents: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Decodes a clip or the next part of a stream, and returns what its next part needs.

        Latent by latent, so that however a stream is cut, the same sums make it, and no more memory is needed
        than for one.
        """
        parts = []
        for latent in latents.split(1, 1):
            past = Past(memory)
            parts.append(self.decoder(self.conv2(latent.transpose(1, 2), past), past))
            memory = past.after
        assert memory is not None  # a clip has a latent
        return torch.cat(parts, 2).transpose(1, 2).add(1).div(2), memory


def memory_bytes(width: int, height: int, wide: int, itemsize: int) -> int:
    """Bytes of a stream's memory in a decoder of `width`, for latents of `height` x `wide`; found by shapes
    alone."""
    with without_memory():
        _, memory = WanDecoder(WanVAE(width)).forward(torch.zeros(1, 1, CHANNELS, height, wide))
    return itemsize * sum(part.numel() for part in memory)


class WanEncoder(nn.Module):
    """The half that scenes need: pixels `(N, T, 3, H, W)` in [0, 1] to latents `(N, T', C, h, w)`."""

    def __init__(self, vae: WanVAE) -> None:
        super().__init__()
        self.encoder, self.conv1 = vae.encoder, vae.conv1

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes a clip: 1 + T // 4 latents of 1 + T frames; what is left of T divided by 4 is left out.

        They are the mean of what the autoencoder holds possible.
        """
        video = pixels.transpose(1, 2).mul(2).sub(1)
        whole = 1 + (video.shape[2] - 1) // TIME_FACTOR * TIME_FACTOR
        first, later = video[:, :, :1], video[:, :, 1:whole]
        parts: list[Tensor] = []
        memory: Memory | None = None
        for part in (first, *(later.split(TIME_FACTOR, 2) if whole > 1 else ())):
            past = Past(memory)
            parts.append(self.conv1(self.encoder(part, past), past))
            memory = past.after
        mean, _ = torch.cat(parts, 2).chunk(2, 1)
        return mean.transpose(1, 2).contiguous()


def _middle(dim: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim), FrameAttention(dim), ResidualBlock(dim, dim))


def _head(dim: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(ChannelNorm(dim), nn.SiLU(inplace=True), CausalConv(dim, n_out))
