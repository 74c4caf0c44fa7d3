"""Rounding to NVFP4 by its Triton kernel and by plain torch, in Triton's interpreter: prints JSON.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.nvfp4_kernel`, since Triton asks when it is
imported. Of random rows, how many there were and which parts of them differ in a bit.
"""

import json
import random

import torch

from playhead.world import nvfp4
from playhead.world.nvfp4_kernels import quantise_rows


def row(draw: random.Random, columns: int) -> torch.Tensor:
    """Normal numbers, such of all magnitudes, zeros, or numbers on ties at a scale of one."""
    kind = draw.randrange(6)
    x = torch.randn(columns) * 10.0 ** draw.randint(-14, 4)
    if kind == 0:
        x = torch.randint(-24, 25, (columns,)) / 4
        x[::16], x[0] = 6, 6 * 448
    return 0 * x if kind == 1 else x * torch.randn(columns).mul(3).exp() if kind < 4 else x


def different(x: torch.Tensor) -> list[str]:
    """The parts that differ in a bit."""
    pairs = zip(nvfp4.Packed._fields, nvfp4.quantise(x), quantise_rows(x), strict=True)
    return [
        f"{name} of {tuple(x.shape)} {x.dtype}"
        for name, wanted, found in pairs
        if wanted.shape != found.shape
        or wanted.dtype != found.dtype
        or not torch.equal(wanted.view(torch.uint8), found.view(torch.uint8))
    ]


def main() -> None:
    draw = random.Random(0)
    torch.manual_seed(0)
    large, small = (
        torch.stack([row(draw, columns) for _ in range(rows)]) for rows, columns in ((130, 200), (20, 40))
    )
    differ = different(large.bfloat16()) + different(small)
    small[2, 5] = float("nan")
    if quantise_rows(small).scale.flatten().isnan().nonzero().tolist() != [[2]]:
        differ.append("a NaN")
    print(json.dumps({"numbers": large.numel() + small.numel(), "differ": differ}))


if __name__ == "__main__":
    main()
