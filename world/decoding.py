"""Decoding latents to frames: of a state, with the memory that it carries, or apart from any."""

import numpy as np
import torch

from playhead.world.config import WorldConfig
from playhead.world.lighttae import LightTAE, MemBlock, Memory
from playhead.world.packed_decoder import PackedDecoder
from playhead.world.state import WorldState


class FrameDecoder:
    """The decoder of a world's autoencoder on a device, and the world's measure of latents.

    `packed`: the same laid out for a CPU, which serves play where there is one.
    """

    def __init__(
        self, config: WorldConfig, autoencoder: LightTAE, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.packed: PackedDecoder | None = None
        self._factor = config.autoencoder.time_factor
        self._decoder, self._latent = autoencoder.decoder, config.latent
        self._device, self._dtype = device, dtype
        self._mean = torch.tensor(config.latent.mean, device=device)[:, None, None]
        self._std = torch.tensor(config.latent.std, device=device)[:, None, None]

    @property
    def span(self) -> int:
        """Ticks after which the decoder's memory no longer depends on what it was."""
        return sum(isinstance(layer, MemBlock) for layer in self._decoder)

    def pack(self) -> None:
        """Lays the decoder out for a CPU, one latent at a time."""
        self.packed = PackedDecoder(self._decoder, self._latent.height, self._latent.width)

    def count(self, state: WorldState) -> int:
        """How many frames the latents of a state yield: the first block of a stream may have fewer."""
        return state.latent.shape[1] * self._factor - (self._factor - 1 if state.fresh else 0)

    def decode(self, state: WorldState) -> None:
        """Decodes `state.latent` into the state's pictures of that count, and keeps the decoder's memory."""
        z = (state.latent * self._std + self._mean).to(self._dtype)
        if self.packed is None or state.fresh:
            pixels, memory = self._decoder(z, None if state.fresh else state.decoder_memory)
            frames = pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        else:
            ahead = state.decoder_ahead or self._ahead(state)
            assert ahead is not None  # a decoder that is not fresh has a memory
            pictures, memory = self.packed(z[:, 0], ahead)
            frames = pictures.unsqueeze(1)
        count = frames.shape[1]
        if count not in state.pictures:
            state.pictures[count] = torch.empty_like(frames, memory_format=torch.contiguous_format)
        state.pictures[count].copy_(frames)
        state.keep_decoder_memory(memory)
        state.fresh = False

    def look_ahead(self, state: WorldState) -> None:
        """Does what can be done of the next decode before its latent is known, if that is not done yet."""
        if not state.fresh and state.decoder_ahead is None:
            state.decoder_ahead = self._ahead(state)

    def _ahead(self, state: WorldState) -> Memory | None:
        """What a packed decoder makes of a state's memory."""
        if self.packed is None or state.decoder_memory is None:
            return None
        return self.packed.ahead(state.decoder_memory)

    @torch.no_grad()
    def picture(self, latents: np.ndarray) -> np.ndarray:
        """The last frame, uint8 `(H, W, 3)`, of latents `(T, C, h, w)`, decoded apart from any state.

        After `span` ticks it is what play shows, but for the rounding of a decode of many at once.
        """
        z = torch.from_numpy(np.array(latents)).to(self._device)[None]
        pixels, _ = self._decoder((z * self._std + self._mean).to(self._dtype))
        last: np.ndarray = (
            pixels[0, -1].float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        )
        return last
