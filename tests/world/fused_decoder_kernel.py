"""Fused decoders beside plain ones, in Triton's interpreter: prints JSON.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.fused_decoder_kernel`, since Triton asks when
it is imported. Of each configuration: how many grey levels of how many pixels differ, how much the pixels
vary, and the largest error of what is carried.
"""

import json

import torch

from playhead.world.fused.fused_decoder import FusedDecoder
from playhead.world.lighttae import Decoder, LightTAEConfig, Memory, in_grey_levels

PUBLIC = {"decoder_space": (True, True, True), "decoder_time": (False, True, True)}
CASES = {
    "public": (LightTAEConfig(decoder_widths=(32, 16, 16, 16), **PUBLIC), 1, 1, (3, 2)),
    "clips of two sessions": (LightTAEConfig(decoder_widths=(16, 48, 16, 32), **PUBLIC), 2, 2, (1, 2)),
    "a stage of one size": (
        LightTAEConfig(
            decoder_widths=(16, 16, 16, 16),
            decoder_space=(True, False, False),
            decoder_time=(True, False, True),
        ),
        1,
        1,
        (5, 7),
    ),
}


@torch.no_grad()
def compare(config: LightTAEConfig, sessions: int, latents: int, size: tuple[int, int]) -> dict[str, float]:
    torch.manual_seed(0)
    decoder = Decoder(config).eval()
    last = decoder[-1]
    last.weight.mul_(6)
    last.bias.add_(0.5)  # so that pixels are neither all black nor all white
    fused = FusedDecoder(decoder)
    found = {"differ": 0, "of": 0, "varies": 0.0, "carried": 0.0}
    memory: Memory | None = None
    other: Memory | None = None
    for _ in range(2):
        z = torch.randn(sessions, latents, config.latent_channels, *size)
        pixels, memory = decoder(z, memory)
        frames, other = fused(z, other)
        wanted = in_grey_levels(pixels)
        assert frames.shape == wanted.shape and frames.dtype == wanted.dtype
        away = (frames.int() - wanted.int()).abs()
        found["differ"] += int(away.sum())
        found["of"] += away.numel()
        found["varies"] = max(found["varies"], float(wanted.float().std()))
        for a, b in zip(memory, other, strict=True):
            assert a.shape == b.shape
            found["carried"] = max(found["carried"], float((a - b).abs().max() / a.abs().max()))
    return found


if __name__ == "__main__":
    print(json.dumps({name: compare(*case) for name, case in CASES.items()}))
