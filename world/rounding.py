"""Rows of numbers in 8 bits, each with a scale of its own: what low-bit products read."""

from typing import NamedTuple

import torch
from torch import Tensor

EIGHT_BIT = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
"""Number types of 8 bits, by what `--precision` calls them."""
TOPS = {"fp8": 448.0, "int8": 127.0}
"""The largest number of each that is used."""
LEAST = 1e-12
"""A row whose numbers are all below this counts as that large: rows of zeros have a scale too."""


class Rounded(NamedTuple):
    """Rows `(M, K)` in 8 bits, and each one's scale, float32 `(M, 1)`, by which they are to be multiplied."""

    rows: Tensor
    scale: Tensor


def quantise(x: Tensor, precision: str) -> Rounded:
    """Rows `(M, K)` in 8 bits: a row's largest number is the largest there is."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min(LEAST) / TOPS[precision]
    scaled = wide * (1 / scale)
    return Rounded((scaled.round() if precision == "int8" else scaled).to(EIGHT_BIT[precision]), scale)
