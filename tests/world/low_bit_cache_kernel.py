"""The kernel that reads an fp8 cache beside its twin, in Triton's interpreter: prints the largest error.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.low_bit_cache_kernel`, since Triton asks when
it is imported. Of random sizes, parts of a larger cache, in so many cases; relative L1.
"""

import random

import torch

from playhead.world.low_bit import quantise
from playhead.world.low_bit_cache import CacheReader, twin

CASES = 10


def error(draw: random.Random) -> float:
    batch, heads, size = draw.randint(1, 2), draw.randint(1, 3), draw.choice([16, 32])
    queries, keys, spare = draw.randint(1, 40), draw.randint(1, 90), draw.randint(0, 20)
    q = torch.randn(batch, heads, queries, size)
    held = []
    for mean in (0.5, 0.0):
        rounded, scale = quantise(torch.randn(batch, heads, keys + spare, size) + mean, "fp8")
        held += [(rounded[:, :, :keys], scale.squeeze(-1)[:, :, :keys])]
    (k, k_scale), (v, v_scale) = held
    reader = CacheReader((16, draw.choice([16, 32]), 4, 1, draw.randint(1, 4)))
    found, wanted = reader(q, k, v, k_scale, v_scale), twin(q, k, v, k_scale, v_scale)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    return float((found - wanted).abs().sum() / wanted.abs().sum())


if __name__ == "__main__":
    torch.manual_seed(0)
    draw = random.Random(0)
    print(max(error(draw) for _ in range(CASES)))
