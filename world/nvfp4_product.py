"""The product of a layer in NVFP4: by a Blackwell GPU, or the long way by its twin on any device."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.low_bit_rows import fused, rescaled, rescaled_fast
from playhead.world.nvfp4 import Packed, quantise, values

CAPABILITY, CUDA = (10, 0), (12, 8)
"""The first GPUs, and the first CUDA, that multiply NVFP4."""


class Nvfp4Product:
    """What a layer in NVFP4 computes, `(…, in)` to `(…, out)`, both in one number type.

    `weight` is of `(out, in)`. `fast`: by a GPU's own product, else by the twin.
    """

    def __init__(self, weight: Packed, bias: Tensor | None, fast: bool = False) -> None:
        self._weight, self._bias, self._fast = weight, bias, fast

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self._fast:
            given = quantise_fast(rows)
            sums = product(given, self._weight)
            found = rescaled_fast(sums, given.scale, self._weight.scale, self._bias, x.dtype)
        else:
            found = twin(rows, self._weight, self._bias)
        return found.view(*x.shape[:-1], -1)


def twin(x: Tensor, weight: Packed, bias: Tensor | None) -> Tensor:
    """The product of rows `(M, K)`, as any device computes it: what a GPU's own is compared with."""
    given = quantise(x)
    sums = values(given) @ values(weight).t()
    return rescaled(sums, given.scale, weight.scale, bias, x.dtype)


def product(x: Packed, weight: Packed) -> Tensor:
    """Sums `(M, N)`, bfloat16, of rows without their float32 scales, by a Blackwell GPU's own product."""
    recipe, tiles = F.ScalingType.BlockWise1x16, F.SwizzleType.SWIZZLE_32_4_4
    pairs = torch.float4_e2m1fn_x2
    found: Tensor = F.scaled_mm(
        x.codes.view(pairs), weight.codes.view(pairs).t(), x.blocks, recipe, weight.blocks, recipe,
        tiles, tiles, output_dtype=torch.bfloat16,
    )  # fmt: skip
    return found


def quantise_fast(x: Tensor) -> Packed:
    """`quantise`, in one pass over the rows where there is Triton."""
    if not fused(x):
        return quantise(x)
    from playhead.world.nvfp4_kernels import quantise_rows

    return quantise_rows(x.contiguous())


@cache
def missing(device: torch.device) -> str:
    """What a GPU, or this torch, lacks to multiply NVFP4, in words; "" where nothing is."""
    if not hasattr(F, "scaled_mm") or not hasattr(torch, "float4_e2m1fn_x2"):
        return f"torch {torch.__version__} has no product for it; use torch 2.11 or later"
    cuda = tuple(map(int, (torch.version.cuda or "0.0").split(".")[:2]))
    if cuda < CUDA:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        return f"torch {torch.__version__} is built for {built}; use one for CUDA 12.8 or later"
    if (capability := torch.cuda.get_device_capability(device)) < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"{name} has compute capability {'.'.join(map(str, capability))}; try --precision fp8"
    return ""
