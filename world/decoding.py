"""Decoding latents to frames: of a state, with the memory that it carries, or apart from any.

A world has the decoder of its own autoencoder, and may name others (`WorldConfig.decoders`). All have one
face: from latents and the memory of a stream to pixels and the next memory. What is dreamed is the same,
whichever shows it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.config import OWN_DECODER, WorldConfig
from playhead.world.encoding import load_autoencoder
from playhead.world.fused.choice import FusedChoice, choose_fused_decoder
from playhead.world.fused.fused_decoder import FusedDecoder
from playhead.world.lighttae import Decoder, Memory, in_grey_levels
from playhead.world.packed_decoder import PackedDecoder
from playhead.world.size import check_size
from playhead.world.state import WorldState
from playhead.world.wan_vae import WAN_MEAN, WAN_STD, WanDecoder, WanVAE, memory_bytes


class FrameDecoder:
    """A decoder of a world's latents on a device, and its measure of them.

    `name`: what the world calls it. `packed`: the same laid out for a CPU, `fused`: for a GPU, one of which
    serves play where there is one.
    """

    def __init__(
        self,
        config: WorldConfig,
        decoder: Decoder | WanDecoder,
        device: torch.device,
        dtype: torch.dtype,
        name: str = OWN_DECODER,
    ) -> None:
        self.name, self.network = name, decoder
        self.packed: PackedDecoder | None = None
        self.fused: FusedDecoder | None = None
        self._latent, self._latents = config.latent, config.sampling.latents_per_tick
        self.device, self._dtype = device, dtype
        wan = isinstance(
            decoder, WanDecoder
        )  # which takes Wan's latents, whatever those of the world's own are
        measure = (WAN_MEAN, WAN_STD) if wan else (config.latent.mean, config.latent.std)
        self._mean, self._std = (torch.tensor(values, device=device)[:, None, None] for values in measure)

    @property
    def span(self) -> int:
        """Ticks after which the decoder's memory no longer depends on what it was."""
        own = isinstance(self.network, Decoder)  # of which each block is counted as a tick
        return self.network.span if own else -(-self.network.span // self._latents)

    @cached_property
    def carried(self) -> int:
        """Bytes that a session keeps for it from tick to tick, where they count beside a cache: a Wan
        VAE's."""
        if isinstance(self.network, Decoder):
            return 0
        size = self._latent.height, self._latent.width
        return memory_bytes(self.network.width, *size, self._dtype.itemsize)

    def pack(self) -> None:
        """Lays the decoder out for a CPU, one latent at a time, where it is one that can be."""
        if isinstance(self.network, Decoder):
            self.packed = PackedDecoder(self.network, self._latent.height, self._latent.width)

    @torch.no_grad()
    def fuse(self, wanted: bool | None, tight: bool = False) -> FusedChoice:
        """Has decodes fused where that is right and faster, or as is `wanted`; see `choose_fused_decoder`.

        `tight`: there is little memory, and it is tried with small latents.
        """
        self.fused = None
        if not isinstance(self.network, Decoder):
            return FusedChoice(False)
        size = self._latent.height, self._latent.width
        tried = [max(1, side // 4) if tight else side for side in size]
        draw = torch.Generator(self.device).manual_seed(0)
        shape = 1, self._latents, self._latent.channels, *tried
        drawn = torch.randn(shape, generator=draw, device=self.device)
        latents = (drawn * self._std + self._mean).to(self._dtype)
        choice, self.fused = choose_fused_decoder(self.network, latents, size, wanted)
        return choice

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Meanwhile decodes are not fused, as whoever looks into their layers needs it."""
        kept, self.fused = self.fused, None
        try:
            yield
        finally:
            self.fused = kept

    def count(self, state: WorldState) -> int:
        """How many frames the latents of a state yield: the first block of a stream may have fewer."""
        factor = self.network.time_factor
        return state.latent.shape[1] * factor - (factor - 1 if state.fresh else 0)

    def pictures(self, latents: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Frames uint8 `(B, n, H, W, 3)` of latents `(B, F, C, h, w)`, the next of a stream, and its next
        memory.

        `memory`: what the part of the stream before left; None: this is its first.
        """
        z = (latents * self._std + self._mean).to(self._dtype)
        if self.fused is not None:
            return self.fused(z, memory)
        pixels, carried = self.network(z, memory)
        return in_grey_levels(pixels), carried

    def decode(self, state: WorldState) -> None:
        """Decodes `state.shown` into the state's pictures of that count, and keeps the decoder's memory."""
        if self.packed is None or state.fresh:
            frames, memory = self.pictures(state.shown, None if state.fresh else state.decoder_memory)
        else:
            z = (state.shown * self._std + self._mean).to(self._dtype)
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
        frames, _ = self.pictures(torch.from_numpy(np.array(latents)).to(self.device)[None], None)
        last: np.ndarray = frames[0, -1].cpu().numpy()
        return last


def load_decoder(
    folder: Path, config: WorldConfig, name: str, device: torch.device, dtype: torch.dtype
) -> FrameDecoder:
    """One of a world's decoders, from its folder.

    Raises WorldError for a name that the world has not, and for weights that are missing or do not fit.
    """
    chosen = config.further_decoder(name)
    network: Decoder | WanDecoder
    if chosen is None:
        network = load_autoencoder(folder, config, device, dtype).decoder
    else:
        with checkpoint.without_memory():
            vae = WanVAE(chosen.width)
        check_size(config, [vae], device, dtype, sessions=0)
        checkpoint.load_weights(vae, folder, chosen.weights, device, dtype)
        network = WanDecoder(vae)
    acceleration.channels_innermost(network.eval().requires_grad_(False), device, dtype)
    return FrameDecoder(config, network, device, dtype, name)
