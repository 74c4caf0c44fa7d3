"""Layers of weights that no longer change, laid out as a CPU's kernels want them.

Torch lays weights out anew in every call otherwise, and adds to a product, or bends it, in passes of their
own, which these kernels do while it is at hand.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_kernels = torch.ops.mkldnn


def available(dtype: torch.dtype) -> bool:
    """Whether torch was built with these kernels, and the processor runs them in this number type."""
    needed = ("_reorder_linear_weight", "_linear_pointwise", "_reorder_convolution_weight")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(_kernels, name) for name in needed):
        return False
    try:
        weight = torch.zeros(16, 16, dtype=dtype)
        PackedLinear(weight, None, 1)(weight[:1])
        PackedConv(weight.view(16, 16, 1, 1), None, (1, 16, 1, 1))(weight[:1].view(1, 16, 1, 1))
    except RuntimeError:  # bfloat16 on a processor without instructions for it
        return False
    return True


class PackedLinear:
    """A linear layer `(…, in)` to `(…, out)`, laid out for inputs of about `rows`.

    `then`: "none" or "gelu", by the tanh formula, of the sum before it is rounded.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int, then: str = "none") -> None:
        self._weight = _kernels._reorder_linear_weight(weight.detach().contiguous(), rows)
        self._bias, self._then = bias, then

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = _kernels._linear_pointwise(x, self._weight, self._bias, self._then, [], "tanh")
        return found


class PackedConv:
    """A convolution `(N, in, h, w)` to `(N, out, h', w')`, channels innermost, laid out for inputs of `size`.

    Inputs of another size `(N, in, h, w)` are computed too, though the layout may be laid out anew for them.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, size: Sequence[int], padding: int = 0) -> None:
        weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self._padding, self._ones = [padding] * 2, [1, 1]
        self._weight = _kernels._reorder_convolution_weight(
            weight, self._padding, self._ones, self._ones, 1, list(size)
        )
        self._bias = bias

    def __call__(self, x: Tensor, then: str = "none") -> Tensor:
        """`then`: "none" or "relu", of the sum before it is rounded."""
        found: Tensor = _kernels._convolution_pointwise(
            x, self._weight, self._bias, self._padding, self._ones, self._ones, 1, then, [], ""
        )
        return found

    def add_relu(self, x: Tensor, other: Tensor) -> Tensor:
        """The same plus `other` `(N, out, h', w')`, then the positive part."""
        how: tuple[object, ...] = self._padding, self._ones, self._ones, 1, "add", 1.0, "relu", [], ""
        found: Tensor = _kernels._convolution_pointwise(x, other, self._weight, self._bias, *how)
        return found
