"""Muon for every weight that is a matrix, convolutions included, many matrices at a time.

Muon (Keller Jordan et al., https://kellerjordan.github.io/posts/muon/) steps along the nearest orthogonal
matrix to the momentum. A convolution's weight `(out, in, h, w)` is the matrix `(out, in * h * w)`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class MatrixMuon(torch.optim.Muon):
    """`torch.optim.Muon` over weights of two or more dimensions, each seen as a matrix `(out, rest)`.

    What torch does to one matrix after the other is done to all of one shape together: a small network's
    matrices are many, and each by itself leaves a GPU idle. The matrices share the weights' memory, so the
    weights must stay where they are from here on.
    """

    holds: ClassVar = {"momentum_buffer"}
    """What there is of each weight beside itself, by name."""

    def __init__(self, weights: Iterable[nn.Parameter], learning_rate: float) -> None:
        self.weights = list(weights)
        super().__init__(
            [nn.Parameter(_matrix(weight.detach(), weight)) for weight in self.weights],
            lr=learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it calls nothing
        """One step along the gradients of the weights."""
        (group,) = self.param_groups
        alike: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, Tensor]]] = {}
        for weight, matrix in zip(self.weights, group["params"], strict=True):
            if weight.grad is not None:
                pair = matrix, _matrix(weight.grad, weight)
                alike.setdefault((matrix.shape, matrix.device), []).append(pair)
        for pairs in alike.values():
            self._step(group, *map(list, zip(*pairs, strict=True)))

    def _step(self, group: dict[str, Any], matrices: list[Tensor], gradients: list[Tensor]) -> None:
        """The step of matrices of one shape."""
        held = [self.state[matrix] for matrix in matrices]
        for state, matrix in zip(held, matrices, strict=True):
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [state["momentum_buffer"] for state in held]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        ways = orthogonal(torch.stack(ahead), group["ns_coefficients"], group["ns_steps"], group["eps"])
        ways = self._scaled(held, ways)
        lr, size = group["lr"], max(matrices[0].shape)
        torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
        ways = ways.to(matrices[0].dtype).mul_(-lr * 0.2 * size**0.5)  # the step AdamW would make, by size
        torch._foreach_add_(matrices, list(ways.unbind()))

    def _scaled(self, held: list[dict[str, Any]], ways: Tensor) -> Tensor:
        """The orthogonal `ways` `(n, out, rest)` as they are gone; `held` is what there is of each."""
        return ways

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with what a checkpoint holds. Raises ValueError if that is of another optimizer."""
        if any(set(held) != self.holds for held in state_dict["state"].values()):
            raise ValueError(f"the state is not of {type(self).__name__}")
        super().load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Nearly the nearest orthogonal matrix to each of `(n, out, rest)`, bfloat16, by Newton and Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    a, b, c = coefficients
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _matrix(values: Tensor, weight: Tensor) -> Tensor:
    """`values`, shaped like `weight`, as `(out, rest)`; columns in the order in which `weight` lies."""
    channels_last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return (values.permute(0, 2, 3, 1) if channels_last else values).reshape(len(weight), -1)
