"""Rounding to NVFP4 by its Triton kernel and by plain torch, in Triton's interpreter: prints JSON.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.nvfp4_kernel`, since Triton asks when it is
imported. Of random rows, how many numbers there were and which parts of them differ in a bit. Without the
interpreter it is compiled for a Blackwell GPU, which takes none: the size of what a GPU would be given.
"""

import json
import os
import random

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from playhead.world import nvfp4
from playhead.world.nvfp4_kernels import _quantise, quantise_rows


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


def compiled() -> int:
    """Bytes of machine code for rows of up to 16,384 numbers in bfloat16."""
    types = dict.fromkeys(("rows", "columns", "bytes_", "tiles"), "i32")
    types |= dict.fromkeys(("top", "inverse", "least"), "fp32")
    types |= {"x": "*bf16", "codes": "*u8", "blocks": "*u8", "scales": "*fp32", "BLOCK": "constexpr"}
    source = ASTSource(_quantise, {name: types[name] for name in _quantise.arg_names}, {"BLOCK": 16384})
    return len(
        triton.compile(source, target=GPUTarget("cuda", 100, 32), options={"num_warps": 16}).asm["cubin"]
    )


def main() -> None:
    if "TRITON_INTERPRET" not in os.environ:
        print(json.dumps({"bytes": compiled()}))
        return
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
