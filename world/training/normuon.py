"""NorMuon: Muon whose neurons all take steps of about one size.

The rows of an orthogonal matrix of more rows than columns are of unlike lengths, so that under Muon some
neurons learn much faster than others. NorMuon (Li et al. 2025, arXiv 2510.05491) divides each row by the root
of its mean square, averaged over steps, and scales the whole matrix back to the size that it had.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from playhead.world.training.muon import MatrixMuon

BETA2 = 0.95
"""What of a row's mean square stays from one step to the next."""
EPS = 1e-10


class NorMuon(MatrixMuon):
    """`MatrixMuon` with steps that are normalised row by row: a weight's first dimension, its neurons."""

    holds: ClassVar = {"momentum_buffer", "second_moment"}

    def _scaled(self, held: list[dict[str, Any]], ways: Tensor) -> Tensor:
        ways = ways.float()
        squares = list(ways.square().mean(2, keepdim=True).unbind())
        for state, square in zip(held, squares, strict=True):
            if "second_moment" not in state:
                state["second_moment"] = torch.zeros_like(square)
        seconds = [state["second_moment"] for state in held]
        torch._foreach_lerp_(seconds, squares, 1 - BETA2)
        even = ways / (torch.stack(seconds).sqrt() + EPS)
        size, became = (x.norm(dim=(1, 2), keepdim=True) for x in (ways, even))
        scaled: Tensor = even * (size / (became + EPS))
        return scaled
