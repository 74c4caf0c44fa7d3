"""Muon for every weight that is a matrix, convolutions included.

Muon (Keller Jordan et al., https://kellerjordan.github.io/posts/muon/) steps along the nearest orthogonal
matrix to the momentum. A convolution's weight `(out, in, h, w)` is the matrix `(out, in * h * w)`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MatrixMuon(torch.optim.Muon):
    """`torch.optim.Muon` over weights of two or more dimensions, each seen as a matrix `(out, rest)`.

    The matrices share the weights' memory, so the weights must stay where they are from here on.
    """

    def __init__(self, weights: Iterable[nn.Parameter], learning_rate: float) -> None:
        self.weights = list(weights)
        super().__init__(
            [nn.Parameter(_matrix(weight.detach(), weight)) for weight in self.weights],
            lr=learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        )

    def step(self, closure: None = None) -> None:
        """One step along the gradients of the weights."""
        for weight, matrix in zip(self.weights, self.param_groups[0]["params"], strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def _matrix(values: Tensor, weight: Tensor) -> Tensor:
    """`values`, shaped like `weight`, as `(out, rest)`; columns in the order in which `weight` lies."""
    channels_last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return (values.permute(0, 2, 3, 1) if channels_last else values).reshape(len(weight), -1)
