"""Rounding rows to NVFP4, as a Triton kernel that reads them once: `world.nvfp4.quantise`, to the same bits.

Importing this raises ImportError where there is no Triton.
"""
# ruff: noqa: ANN001  # Triton knows no annotation but that of a constant
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from playhead.world import nvfp4
from playhead.world.rounding import LEAST


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _eight_bits(x):  # noqa: ANN202
    """float8_e4m3fn nearest to numbers of 0 to 448, as bits and as numbers.

    By whole numbers, which any GPU has, and Triton's interpreter, whose own conversion is another.
    """
    bits = x.to(tl.int32, bitcast=True)
    kept = (bits + 0x7FFFF + (bits >> 20 & 1)) >> 20  # three bits of the fraction, to the nearest, then even
    small = (x * 512.0 + 12582912.0) - 12582912.0  # below 2 ** -6 they are 512ths
    is_small = x < 0.015625
    found = tl.where(is_small, small.to(tl.int32), kept - 960)
    return found, tl.where(is_small, small / 512.0, (kept << 20).to(tl.float32, bitcast=True))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _quantise(
    x, codes, blocks, scales, rows, columns, bytes_, tiles, top, inverse, least, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK // 16)
    at = column[:, None] * 16 + tl.arange(0, 16)[None, :]
    live = (row < rows).to(tl.int32)  # what is below fills the last tiles
    wide = tl.load(x + row * columns + at, mask=at < columns * live, other=0.0).to(tl.float32)
    size = tl.abs(wide)
    greatest = tl.max(size, 1)
    scale = tl.maximum(tl.max(greatest, 0), least) * inverse
    scale += tl.sum(tl.sum(wide - wide, 1), 0)  # a maximum would lose one that is no number
    # Division to the last bit, so that the twin's numbers are these.
    block, meant = _eight_bits(greatest * tl.div_rn(1.0, top * scale))
    each = meant * scale
    by = tl.where(each > 0.0, tl.div_rn(1.0, tl.where(each > 0.0, each, 1.0)), 0.0)[:, None]
    size *= by
    code = (size > 0.25).to(tl.int32) + (size >= 0.75) + (size > 1.25) + (size >= 1.75)
    code += (size > 2.5).to(tl.int32) + (size >= 3.5) + (size > 5.0)
    code += 8 * (wide * by < 0.0).to(tl.int32)
    first, second = tl.split(tl.reshape(code, (BLOCK // 2, 2)))
    to = tl.arange(0, BLOCK // 2)
    tl.store(codes + row * bytes_ + to, (first + 16 * second).to(tl.uint8), mask=to < bytes_ * live)
    tile = row // 128 * tiles + column // 4
    inside = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4
    tl.store(blocks + inside, block.to(tl.uint8), mask=column < 4 * tiles)
    if row < rows:
        tl.store(scales + row, scale)


def quantise_rows(x: Tensor) -> nvfp4.Packed:
    """As `nvfp4.quantise`, of contiguous rows `(M, K)` on a GPU, each with a scale of its own."""
    rows, columns = x.shape
    filled = -(-columns // nvfp4.MULTIPLE) * nvfp4.MULTIPLE
    tiles = -(-filled // (nvfp4.BLOCK * nvfp4.COLUMNS))
    below = -(-rows // nvfp4.ROWS) * nvfp4.ROWS
    codes = torch.empty((rows, filled // 2), dtype=torch.uint8, device=x.device)
    blocks = torch.empty(below * tiles * nvfp4.COLUMNS, dtype=torch.uint8, device=x.device)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    # Enough for the blocks that fill the last tile.
    block = triton.next_power_of_2(tiles * nvfp4.BLOCK * nvfp4.COLUMNS)
    with torch.cuda.device_of(x):
        _quantise[(below,)](
            x, codes, blocks, scales, rows, columns, filled // 2, tiles,
            nvfp4.TOP, 1 / (nvfp4.TOP * nvfp4.TOP_SCALE), LEAST,
            BLOCK=block, num_warps=min(16, max(4, block // 1024)),
        )  # fmt: skip
    return nvfp4.Packed(codes, blocks.view(torch.float8_e4m3fn), scales)
