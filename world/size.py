"""How large a world and its ticks may be, before anything of it is allocated."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from playhead.world.errors import WorldError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from playhead.world.config import WorldConfig

MAX_STEPS = 8
"""Denoise steps that a tick may have."""


GRAPH_TOKENS = 1024
"""Up to so many tokens a pass, a whole tick is recorded as one CUDA graph."""


def is_large(config: "WorldConfig") -> bool:
    """Whether a whole tick is too long to be recorded as one CUDA graph, in each of its slots."""
    latent, patch = config.latent, config.generator.patch
    tokens = (latent.height // patch) * (latent.width // patch)
    return tokens * config.sampling.latents_per_tick > GRAPH_TOKENS


def has_steady_ring(config: "WorldConfig", device: "torch.device") -> bool:
    """Whether a cache that is read whole has its newest block in the same slots (`world.steady_ring`).

    Where passes are recorded, one graph then serves all ticks of a full window. It is so whether they are
    recorded or not: in another order attention rounds otherwise.
    """
    return device.type == "cuda" and is_large(config) and config.sampling.far is None


def cache_bytes(config: "WorldConfig", itemsize: int, low_bit: bool = False) -> int:
    """Bytes of one session's KV cache, nearly all of its memory, in numbers of `itemsize` bytes.

    `low_bit`: in numbers of 8 bits (`world.low_bit_cache`).
    """
    g, latent, sampling = config.generator, config.latent, config.sampling
    tokens = (latent.height // g.patch) * (latent.width // g.patch)
    frames = sampling.window + (sampling.far.frames if sampling.far is not None else 0)
    token = g.dim * (1 if low_bit else itemsize)
    return 2 * g.layers * token * frames * tokens


def check_size(
    config: "WorldConfig",
    models: "Iterable[nn.Module]",
    device: "torch.device",
    dtype: "torch.dtype",
    sessions: int = 1,
    *,
    precision: str | None = None,
    low_bit_cache: bool = False,
    shares: int = 1,
) -> None:
    """Raises WorldError for models of a world, and sessions, that the memory of `device` cannot hold.

    `models` may be on the meta device; `precision`: of generators' large layers, if low bit, and
    `low_bit_cache`: whether the cache is; `shares`: on how many devices it is, a part on each.
    """
    models = list(models)
    weights = sum(p.numel() for model in models for p in model.parameters()) * dtype.itemsize
    if precision is not None:
        from playhead.world.generator import Generator
        from playhead.world.low_bit import saved_bytes

        weights -= sum(saved_bytes(m, dtype.itemsize, precision) for m in models if isinstance(m, Generator))
    session = cache_bytes(config, dtype.itemsize, low_bit_cache) // shares + _tick_bytes(config)
    needed = weights + sessions * session
    there = memory(device)
    if there is not None and needed > there:
        option = {"cuda": "--vram", "cpu": "--ram"}.get(device.type)
        within = f", or give a budget by {option}, within which blocks are offloaded" if option else ""
        raise WorldError(
            f"the world `{config.name}` needs {needed / 2**30:,.1f} GiB of memory, of which {device} has "
            f"{there / 2**30:,.1f}; correct its world.toml, load it on a larger device{within}"
        )


def _tick_bytes(config: "WorldConfig") -> int:
    """Bytes of what a tick is made of, at the least: its noise for every step, and its pictures."""
    latent, autoencoder = config.latent, config.autoencoder
    noise = 64 * config.sampling.latents_per_tick * latent.channels * latent.height * latent.width * 4
    return noise + config.frames_per_tick * config.frame_height * config.frame_width * (
        3 + 4 * max(autoencoder.decoder_widths) // max(autoencoder.patch, 1) ** 2
    )


def memory(device: "torch.device") -> int | None:
    """Bytes of a device's memory; None where that cannot be told."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
