"""From pictures to latents: the half of an autoencoder that scenes are made by, and that play never needs."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playhead.world import checkpoint
from playhead.world.config import WorldConfig, load_config
from playhead.world.errors import WorldError
from playhead.world.lighttae import LightTAE, Memory
from playhead.world.size import check_size
from playhead.world.world_folders import find_world

CHUNK = 16
"""Frames that are encoded at a time."""


class FrameEncoder:
    """A world's autoencoder, from frames to the latents that its generator works on."""

    def __init__(
        self, config: WorldConfig, autoencoder: LightTAE, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self._encoder = autoencoder.to(device, dtype).eval().requires_grad_(False).encoder
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (config.latent.mean, config.latent.std)
        )

    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 `(T, H, W, 3)` to normalised latents `(T / time factor, C, h, w)`, float32.

        Raises WorldError for frames of another shape or type than the world's.
        """
        size = (self.config.frame_height, self.config.frame_width, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != size or not len(frames):
            raise WorldError(
                f"frames are {frames.dtype} {frames.shape} where the world `{self.config.name}` needs "
                f"uint8 (T, {', '.join(map(str, size))}); resize them first"
            )
        return self._encode(torch.from_numpy(frames), 255)

    def encode_clip(self, clip: np.ndarray) -> Tensor:
        """The same of a clip float32 `(T, H, W, 3)` in [0, 1]."""
        return self._encode(torch.from_numpy(clip), 1)

    @torch.no_grad()
    def _encode(self, clip: Tensor, white: float) -> Tensor:
        """At a time factor of 1 every frame is encoded on its own: its latent depends on nothing else."""
        latents: list[Tensor] = []
        memory: Memory | None = None
        for chunk in clip.split(CHUNK):
            pixels = chunk.to(self.device).permute(0, 3, 1, 2).to(self.dtype) / white
            if self.config.autoencoder.time_factor == 1:
                z, _ = self._encoder(pixels[:, None])
                latents.append(z[:, 0].float())
            else:
                z, memory = self._encoder(pixels[None], memory)
                latents.append(z[0].float())
        return (torch.cat(latents) - self._mean) / self._std


def load_autoencoder(folder: Path, config: WorldConfig, device: torch.device, dtype: torch.dtype) -> LightTAE:
    """The autoencoder of a world's folder. Raises WorldError where its weights are missing or do not fit."""
    with checkpoint.without_memory():
        autoencoder = LightTAE(config.autoencoder)
    check_size(config, [autoencoder], device, dtype, sessions=0)
    checkpoint.load_weights(autoencoder, folder, config.autoencoder_weights, device, dtype)
    return autoencoder


def load_frame_encoder(name: str | Path) -> FrameEncoder:
    """What makes scenes of a world given by name or folder, on the CPU, without loading its generator.

    Raises WorldError as `World.load` does.
    """
    folder, device = find_world(name), torch.device("cpu")
    config = load_config(folder / "world.toml")
    autoencoder = load_autoencoder(folder, config, device, torch.float32)
    return FrameEncoder(config, autoencoder, device, torch.float32)
