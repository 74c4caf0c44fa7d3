"""Rotary position embedding over three axes (time, row, column), as in Wan 2.1.

A head's channels are interleaved pairs; pairs are split time / row / column, theta is 10000 on each axis.
Angles are computed in float64 from plain integers, without a table, so that no position is too large.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def split_pairs(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's `head_dim / 2` pairs turn with time, row and column."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def axis_angles(positions: Sequence[int], pairs: int, theta: float = THETA) -> Tensor:
    """Angles `(len(positions), pairs)` of one axis, float64."""
    frequencies = theta ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    return torch.outer(torch.tensor(positions, dtype=torch.float64), frequencies)


def grid_angles(frames: Sequence[int], height: int, width: int, head_dim: int) -> Tensor:
    """Angles `(frames * height * width, head_dim / 2)` of a block's tokens, by frame, row and column."""
    t, h, w = split_pairs(head_dim)
    shape = (len(frames), height, width)
    parts = (
        axis_angles(frames, t)[:, None, None].expand(*shape, t),
        axis_angles(range(height), h)[None, :, None].expand(*shape, h),
        axis_angles(range(width), w)[None, None, :].expand(*shape, w),
    )
    return torch.cat(parts, -1).flatten(0, 2)


def time_angles(shift: int, head_dim: int) -> Tensor:
    """Angles `(head_dim / 2)` that move a token `shift` frames in time and nowhere in space."""
    t, h, w = split_pairs(head_dim)
    return torch.cat([axis_angles([shift], t)[0], torch.zeros(h + w, dtype=torch.float64)])


def table(angles: Tensor) -> Tensor:
    """What `rotate` needs of angles `(…, pairs)`: float32 `(2, …, 2 * pairs)`.

    The cosine of each pair twice, and its sine with the sign that the pair's partner takes.
    """
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, cos], -1), torch.stack([-sin, sin], -1)]).flatten(-2).float()


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Turns the pairs of `x` `(…, tokens, head_dim)` by a table `(2, tokens, head_dim)`; keeps the dtype."""
    cos, sin = cos_sin
    partners = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, partners, sin).to(x.dtype)
