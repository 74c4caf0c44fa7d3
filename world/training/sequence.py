"""Whole sequences in one pass: what a rolling cache makes a tick see, as an attention mask.

A sequence of F frames is laid out twice: the context copies (what a commit pass would have cached) and
then the targets (what a denoise pass works on). A context frame sees the window of context frames up to
itself; a target frame sees the context frames of the window before it, and itself. One pass so trains all
F frames, each with just the past that play gives it (teacher forcing with a window).
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from world.attention import Attend, attention


def visible(frames: int, window: int) -> Tensor:
    """Which frame copies see which, bool `(2 F, 2 F)`: contexts first, then targets."""
    query = torch.arange(frames)[:, None]
    key = torch.arange(frames)[None, :]
    context = (key <= query) & (key > query - window)
    past = (key < query) & (key > query - window)
    top = torch.cat([context, torch.zeros_like(context)], 1)
    bottom = torch.cat([past, torch.eye(frames, dtype=torch.bool)], 1)
    return torch.cat([top, bottom])


@lru_cache(maxsize=4)
def masked_attend(frames: int, window: int, tokens: int, device: torch.device, fused: bool) -> Attend:
    """An `Attend` over a doubled sequence. `fused`: compiled flex attention, which skips what is masked."""
    seen = visible(frames, window).to(device)
    if not fused:
        mask = seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, mask)

        return attend

    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return seen[q // tokens, k // tokens]

    length = 2 * frames * tokens
    block_mask = create_block_mask(rule, None, None, length, length, device=str(device))
    kernel: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)

    def flex_attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q.to(v.dtype), k.to(v.dtype), v, block_mask=block_mask)

    return flex_attend
