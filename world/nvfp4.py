"""NVFP4: numbers of 4 bits, two a byte, in blocks of 16 that each have a scale of 8 bits.

A number is 0, 0.5, 1, 1.5, 2, 3, 4 or 6 with a sign (`float4_e2m1fn`); the first of a pair lies in the low
half of its byte. A block's scale is a `float8_e4m3fn`, and over those stands a scale in float32: one for a
weight, one a token for what it multiplies, so that a token's numbers hang on no other's. Rows are filled with
zeros to a multiple of 32.

Blackwell GPUs multiply this by themselves. They want the scales of blocks in tiles of 128 rows and 4 blocks,
as cuBLAS describes them: of 32 rows side by side, each one's 4 blocks and those of the rows 32, 64 and 96
below. What fills the last tiles is zero.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.rounding import LEAST

BLOCK = 16
"""Numbers that share a scale."""
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What codes mean; those of 8 and more are negative."""
TOP, TOP_SCALE = 6.0, 448.0
"""The largest number, and the largest scale of a block."""
MULTIPLE = 32
"""Rows are filled up to a multiple of so many numbers: 16 bytes, as the product wants them."""
ROWS, COLUMNS = 128, 4
"""Rows and blocks of a tile of scales."""


class Packed(NamedTuple):
    """Rows `(M, K)` as NVFP4.

    `codes` uint8 `(M, ceil(K / 32) * 16)`; `blocks` float8_e4m3fn, the scales of blocks in tiles, flat;
    `scale` float32 `(M, 1)`, by which they are all to be multiplied.
    """

    codes: Tensor
    blocks: Tensor
    scale: Tensor


def quantise(x: Tensor, together: bool = False) -> Packed:
    """Rows `(M, K)`, each with a float32 scale of its own or all `together` with one."""
    wide = x.float()
    most = wide.abs().amax(-1, keepdim=True)
    most = most.amax(0, keepdim=True).repeat(len(x), 1) if together else most
    scale = most.clamp_min(LEAST) * (1 / (TOP * TOP_SCALE))  # a GPU has no division by a constant either
    parts = F.pad(wide, (0, -x.shape[1] % MULTIPLE)).unflatten(-1, (-1, BLOCK))
    blocks = (parts.abs().amax(-1) * (1 / (TOP * scale))).to(torch.float8_e4m3fn)
    each = blocks.float() * scale
    by = torch.where(each > 0, 1 / each, 0.0)  # a block too small for a scale is zeros
    return Packed(_pack(_code(parts * by.unsqueeze(-1)).flatten(-2)), tile(blocks), scale)


def quantise_weights(weights: Sequence[Tensor]) -> Packed:
    """Weights `(N, K)` of layers that serve as one product, one below the other, a scale each."""
    found = [quantise(weight, together=True) for weight in weights]
    blocks = [untile(part.blocks, len(part.codes), part.codes.shape[1] * 2 // BLOCK) for part in found]
    codes, scale = (torch.cat([part[at] for part in found]) for at in (0, 2))
    return Packed(
        codes, tile(torch.cat([part.view(torch.uint8) for part in blocks]).view(blocks[0].dtype)), scale
    )


def packed_bytes(rows: int, columns: int) -> int:
    """What a weight takes, scales counted."""
    filled = -(-columns // MULTIPLE) * MULTIPLE
    tiles = -(-rows // ROWS) * -(-filled // (BLOCK * COLUMNS))
    return rows * filled // 2 + tiles * ROWS * COLUMNS + 4 * rows


def values(packed: Packed) -> Tensor:
    """The rows, float32, without the scale over those of blocks; with the zeros that fill them."""
    codes = torch.stack((packed.codes & 15, packed.codes >> 4), -1).flatten(-2)
    size = (codes & 7).float()  # by arithmetic, not by a table, which a GPU that records would have to fetch
    size = torch.where(size < 4, size / 2, torch.where(size < 6, size - 2, 2 * size - 8))
    parts = torch.where(codes < 8, size, -size).unflatten(-1, (-1, BLOCK))
    found: Tensor = parts * untile(packed.blocks, *parts.shape[:2]).float().unsqueeze(-1)
    return found.flatten(-2)


def tile(blocks: Tensor) -> Tensor:
    """Scales of blocks `(M, C)`, one byte each, to tiles, flat, filled with zeros."""
    rows, columns = blocks.shape
    filled = F.pad(blocks.view(torch.uint8), (0, -columns % COLUMNS, 0, -rows % ROWS))
    tiles = filled.view(-(-rows // ROWS), 4, 32, -(-columns // COLUMNS), COLUMNS)
    return tiles.permute(0, 3, 2, 1, 4).flatten().view(blocks.dtype)


def untile(blocks: Tensor, rows: int, columns: int) -> Tensor:
    """The reverse of `tile`, to `(rows, columns)`."""
    tiles = blocks.view(torch.uint8).view(-(-rows // ROWS), -(-columns // COLUMNS), 32, 4, COLUMNS)
    found = tiles.permute(0, 3, 2, 1, 4).reshape(-(-rows // ROWS) * ROWS, -1)
    return found[:rows, :columns].contiguous().view(blocks.dtype)


def _code(x: Tensor) -> Tensor:
    """The nearest number's code, of two the one with an even code; uint8. What is none is 0."""
    size = x.abs()
    found = torch.zeros_like(x, dtype=torch.uint8)
    for code, (low, high) in enumerate(pairwise(VALUES)):
        middle = (low + high) / 2
        found += (size > middle) if code % 2 == 0 else (size >= middle)
    return found + 8 * (x < 0).to(torch.uint8)


def _pack(codes: Tensor) -> Tensor:
    packed: Tensor = codes[..., ::2] + 16 * codes[..., 1::2]
    return packed
