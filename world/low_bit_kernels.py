"""What `world.low_bit` does beside its products, as Triton kernels: each reads its numbers once.

Importing this raises ImportError where there is no Triton.
"""

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from playhead.world.fused.kernels import round_row

COLUMNS = 1024
"""How many numbers of a row a program rescales."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _quantise(x, found, scales, columns, top, least, WHOLE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    wide = tl.load(x + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    scaled, scale = round_row(wide, top, least, WHOLE)
    tl.store(found + row * columns + at, scaled.to(found.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _rescale(x, by_row, by_column, bias, found, columns, BIASED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    wide = tl.load(x + row * columns + at, mask=inside, other=0).to(tl.float32)
    wide = wide * tl.load(by_row + row) * tl.load(by_column + at, mask=inside, other=0.0)
    if BIASED:
        wide += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(found + row * columns + at, wide.to(found.dtype.element_ty), mask=inside)


def quantise_rows(x: Tensor, dtype: torch.dtype, top: float, least: float) -> tuple[Tensor, Tensor]:
    """As `rounding.quantise`, of contiguous rows `(M, K)` on a GPU; may differ in the last bit of a scale."""
    rows, columns = x.shape
    found = torch.empty_like(x, dtype=dtype)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(columns)
    with torch.cuda.device_of(x):
        _quantise[(rows,)](
            x, found, scales, columns, top, least,
            WHOLE=dtype == torch.int8, BLOCK=block, num_warps=min(16, max(4, block // 1024)),
        )  # fmt: skip
    return found, scales


def rescale(x: Tensor, by_row: Tensor, by_column: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Sums int32 `(M, N)` times their scales `(M, 1)` and `(N, 1)`, plus `bias` `(N)`, in `dtype`."""
    rows, columns = x.shape
    found = torch.empty_like(x, dtype=dtype)
    with torch.cuda.device_of(x):
        _rescale[(rows, triton.cdiv(columns, COLUMNS))](
            x, by_row, by_column, bias if bias is not None else by_column, found, columns,
            BIASED=bias is not None, BLOCK=COLUMNS,
        )  # fmt: skip
    return found
