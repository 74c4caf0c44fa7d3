"""What all kinds of low bit share: how a product's sums get their size back."""

from functools import cache

import torch
from torch import Tensor


def rescaled(
    found: Tensor, by_row: Tensor, by_column: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Sums `(M, N)` times their scales, float32 `(M, 1)` and `(N, 1)`, plus `bias` `(N)`, in `dtype`."""
    found = found.float() * by_row * by_column.t()
    return (found if bias is None else found + bias.float()).to(dtype)


def rescaled_fast(
    found: Tensor, by_row: Tensor, by_column: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`rescaled`, in one pass where there is Triton; all but `found` contiguous."""
    if not fused(found):
        return rescaled(found, by_row, by_column, bias, dtype)
    from playhead.world.low_bit_kernels import rescale

    return rescale(found, by_row, by_column, bias, dtype)


def fused(x: Tensor) -> bool:
    """Whether there are Triton kernels for numbers that lie where `x` does."""
    return x.device.type == "cuda" and _has_triton()


@cache
def _has_triton() -> bool:
    try:
        import playhead.world.low_bit_kernels  # noqa: F401  (whether it can be loaded)
    except (ImportError, RuntimeError):
        return False
    return True
