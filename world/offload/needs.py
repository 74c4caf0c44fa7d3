"""What a world needs of memory, counted from its configuration before anything of it is allocated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from playhead.world.fused.fused_decoder import fits
from playhead.world.fused.ops import available
from playhead.world.low_bit import Kinds, number_type, rounded_parts, shapes
from playhead.world.offload.slab import SlabLayout
from playhead.world.size import cache_bytes, has_steady_ring

if TYPE_CHECKING:
    import torch

    from playhead.world.config import WorldConfig
    from playhead.world.generator import Generator
    from playhead.world.lighttae import LightTAE

RESERVE = 128 * 2**20
"""Bytes that libraries take on a GPU for their products, and what the allocator cannot hand out."""
DECODED = 3.2
"""The decoder's widest picture is there so many times at once: 2.6 were counted, kernels work in the rest."""
DECODED_FUSED = 0.6
"""Of a fused decode it is there in part: 0.5 of it were seen on an H200."""
RECORDED = 5
"""Recorded passes keep the room of so many passes: 4.5 were seen on an H200, kernels work in that too."""
RECORDED_FULL = 2
"""Those of a full window alone, one in a steady ring: a guess; where it is too little, none is recorded."""


@dataclass(frozen=True)
class Needs:
    """Bytes, but for `layers` and `generators`. `layout` and `contexts`: of a block's two slabs.

    `weights`: those that never leave the device. `cache`: of the sessions that are planned for. `work`: what
    a pass and a decode need beside, and what libraries take; `recorded`: what recorded passes keep on top of
    that, `recorded_full` those of a full window alone. `laid_out`: a resident block's weights, once more, as
    a CPU's kernels have them. `plain_decode`: what a decode takes more if it is not fused after all.
    """

    weights: int
    cache: int
    work: int
    layout: SlabLayout
    contexts: SlabLayout
    layers: int
    generators: int
    laid_out: int
    recorded: int = 0
    recorded_full: int = 0
    plain_decode: int = 0

    @property
    def slabs(self) -> int:
        """Of a block's slabs, together."""
        return self.layout.size + self.contexts.size

    @property
    def buffer(self) -> int:
        """Of a buffer that holds either of a block's slabs."""
        return max(self.layout.size, self.contexts.size)

    def on_device(self, offloaded: int) -> int:
        """What it takes of a device if so many blocks of each generator are offloaded, nothing recorded."""
        kept = self.generators * (self.layers - offloaded) * self.slabs
        return self.weights + self.cache + self.work + kept + (2 * self.buffer if offloaded else 0)

    def least(self, file: bool) -> int:
        """The least that would do; `file`: whether blocks may leave."""
        return min(self.on_device(count) for count in range((self.layers if file else 0) + 1))

    def as_ever(self) -> int:
        """What it takes of a device without a budget, where a CPU's weights are laid out."""
        return self.on_device(0) + self.generators * self.layers * self.laid_out


def count_needs(
    config: "WorldConfig",
    generators: "Sequence[Generator]",
    autoencoder: "LightTAE",
    device: "torch.device",
    dtype: "torch.dtype",
    precision: str | None = None,
    sessions: int = 0,
    low_bit_cache: bool = False,
    fused: bool | None = None,
) -> Needs:
    """Counts them; the models may be on the meta device. `sessions`: bytes for caches, at least one's.

    `fused`: whether decodes are, None: wherever they can be.
    """
    block, size = generators[0].blocks[0], dtype.itemsize
    layout = SlabLayout(shapes(block), lambda many: number_type(many, precision, dtype))
    contexts = SlabLayout(shapes(block, of_context=True), lambda _: dtype)
    kinds: Kinds = {**shapes(block), **shapes(block, of_context=True)}
    large = sum(out * inside for many in kinds.values() for out, inside in many) * generators[0].config.layers
    rounded = rounded_parts(block, precision).values() if precision else ()
    scales = 4 * sum(layer.out_features for many in rounded for layer in many)
    weights = sum(p.numel() for p in autoencoder.parameters()) * size
    may_fuse = fused is not False and device.type == "cuda" and available(device)
    decodes_fused = may_fuse and fits(autoencoder.decoder)
    if decodes_fused:  # its weights are there once more
        weights += sum(p.numel() for p in autoencoder.decoder.parameters()) * size
    for model in generators:
        weights += (sum(p.numel() for p in model.parameters()) - large) * size
        weights += model.config.layers * scales
    work, one_pass = _work(config, size, device.type == "cuda", decodes_fused)
    plain, _ = _work(config, size, device.type == "cuda", False)
    full = RECORDED_FULL if has_steady_ring(config, device) else RECORDED
    return Needs(
        weights=weights,
        cache=max(session_bytes(config, size, len(generators), low_bit_cache), sessions),
        work=work,
        layout=layout,
        contexts=contexts,
        layers=generators[0].config.layers,
        generators=len(generators),
        laid_out=_laid_out(shapes(block)) * size if device.type == "cpu" and precision is None else 0,
        recorded=RECORDED * one_pass,
        recorded_full=full * one_pass,
        plain_decode=plain - work,
    )


def _laid_out(kinds: Mapping[str, Sequence[tuple[int, int]]]) -> int:
    """Numbers of a block's layers that a CPU has laid out."""
    return sum(out * inside for kind, many in kinds.items() if "cross" not in kind for out, inside in many)


def session_bytes(
    config: "WorldConfig", itemsize: int, generators: int = 1, low_bit_cache: bool = False
) -> int:
    """Bytes of what one session has: its caches, its context's keys and values, its latents and noise."""
    g, latent, sampling, tae = config.generator, config.latent, config.sampling, config.autoencoder
    found = cache_bytes(config, itemsize, low_bit_cache)
    frame = (latent.height // g.patch) * (latent.width // g.patch)
    if sampling.positions == "endless":
        found += g.layers * g.dim * sampling.sink * frame * itemsize  # the sink's unmoved copy
    rows = g.text_length if g.text_dim else 257 if g.image_dim else 0
    found += generators * 2 * g.layers * g.dim * rows * itemsize
    if g.action:
        per_frame = frame * g.action.mouse_dim * bool(g.action.mouse) + g.action.keyboard_dim
        found += 2 * len(g.action.blocks) * per_frame * sampling.window * itemsize
    one = latent.channels * latent.height * latent.width * 4
    found += one * (16 * sampling.latents_per_tick + (sampling.window if g.text_dim else 0))
    area = latent.height * latent.width
    for width, doubles in zip(tae.decoder_widths, tae.decoder_space, strict=False):
        found += 3 * width * area * itemsize  # the decoder's memory, three maps a stage
        area <<= 2 * doubles
    # The first block of a stream has pictures of its own, being fewer.
    return found + 2 * 3 * config.frames_per_tick * config.frame_height * config.frame_width


def _work(config: "WorldConfig", itemsize: int, cuda: bool, decodes_fused: bool) -> tuple[int, int]:
    """What a pass and a decode hold, which follow each other; and what a pass does that may be recorded."""
    g, latent, tae = config.generator, config.latent, config.autoencoder
    tokens = config.sampling.latents_per_tick * (latent.height // g.patch) * (latent.width // g.patch)
    # A row of the feed-forward, and what attention has at once: queries, keys and values, in float32 while
    # they are turned, and what up to eight parts of the keys gave.
    one_pass = tokens * (2 * g.ffn_dim + 24 * g.dim) * itemsize
    picture = config.frames_per_tick * config.frame_height * config.frame_width // tae.patch**2
    decode = int((DECODED_FUSED if decodes_fused else DECODED) * picture * tae.decoder_widths[-1] * itemsize)
    if cuda:
        return max(one_pass, decode) + RESERVE, one_pass
    if itemsize == 2:  # scores and weights, which a CPU with bfloat16 has whole (`attention._two_products`)
        keys = config.sampling.reach * (tokens // config.sampling.latents_per_tick)
        one_pass += 2 * g.heads * tokens * keys * itemsize
    return max(one_pass, decode), 0
