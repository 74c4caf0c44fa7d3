"""Whole sequences in one pass: what a rolling cache makes a tick see, as an attention mask.

A world whose last denoise pass commits is one causal sequence: each frame sees its window of frames up to and
with itself, in the layers of a far memory also what that holds, and one pass trains all of them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from playhead.world.attention import Attend, attention
from playhead.world.config import SamplingConfig
from playhead.world.kv_cache import FarMemory
from playhead.world.sampler import Schedule


def visible(frames: int, window: int, far: FarMemory | None = None) -> Tensor:
    """Which frame sees which, bool `(frames, frames)`: a row a query. `far`: in the layers that have it."""
    return _sees(torch.arange(frames)[:, None], torch.arange(frames)[None, :], window, far)


def _sees(query: Tensor, key: Tensor, window: int, far: FarMemory | None) -> Tensor:
    near = (key <= query) & (key > query - window)
    return near if far is None else near | far.sees(query, key, window)


def causal_attend(
    frames: int, sampling: SamplingConfig, tokens: int, device: torch.device, fused: bool
) -> Attend:
    """An `Attend` over sequences of `frames` frames, as play attends with the cache of `sampling`.

    `fused`: by compiled flex attention, which skips what is masked.
    """
    far = sampling.far
    near = _masked(frames, sampling.window, None, tokens, device, fused)
    if far is None:
        return near
    wide = _masked(frames, sampling.window, far, tokens, device, fused)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (wide if layer in far.layers else near)(layer, q, k, v)

    return attend


@lru_cache(maxsize=8)
def _masked(
    frames: int, window: int, far: FarMemory | None, tokens: int, device: torch.device, fused: bool
) -> Attend:
    if not fused:
        seen = visible(frames, window, far).to(device)
        mask = seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, mask)

        return attend

    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return _sees(q // tokens, k // tokens, window, far)

    length = frames * tokens
    block_mask = create_block_mask(rule, None, None, length, length, device=str(device))
    kernel = _flex()

    def flex_attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q.to(v.dtype), k.to(v.dtype), v, block_mask=block_mask)

    return flex_attend


@lru_cache
def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def shifted(latents: Tensor) -> Tensor:
    """What came before each latent of `(B, F, C, h, w)`: the one before it, and nothing before the first."""
    return torch.cat([torch.zeros_like(latents[:, :1]), latents[:, :-1]], 1)


def play_levels(sampling: SamplingConfig, counts: Sequence[int]) -> list[tuple[float, ...]]:
    """The noise levels (sigmas) of a tick at each of `counts` denoise steps, highest first."""
    return [Schedule.from_steps(sampling.steps_for(n), sampling.shift).sigmas for n in counts]
