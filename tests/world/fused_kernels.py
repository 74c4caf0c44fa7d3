"""The fused kernels beside their twins in plain torch, in Triton's interpreter: prints JSON.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.fused_kernels`, since Triton asks when it is
imported. Of each operation the largest error, over the largest number there, in so many random cases.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from playhead.world.fused import ops
from playhead.world.fused.ops import Norm, Turn
from playhead.world.rounding import EIGHT_BIT, Rounded

CASES = 12


def both(work: Callable[[], Tensor | tuple[Tensor, ...]]) -> float:
    """How far what kernels return is from what their twins do."""
    ops.INTERPRETED = False
    wanted = work()
    ops.INTERPRETED = True
    found = work()
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (wanted, found)), strict=True)
    return max(float((a.float() - b.float()).abs().max() / a.float().abs().max()) for a, b in pairs)


def modulations(draw: random.Random, frames: int, d: int) -> Norm:
    """Scales and shifts as play has them: parts of wider rows, or one row for all."""
    if draw.random() < 0.5:
        m = torch.randn(frames, 6, d)
        return Norm(m[:, 1], m[:, 0], 1e-6, one=True)
    return Norm(torch.randn(1, d), torch.randn(1, d), 1e-6)


def add_norm(draw: random.Random) -> float:
    frames, rows, d = draw.randint(1, 3), draw.randint(1, 9), 2 * draw.randint(1, 100)
    x, y = torch.randn(2, frames * rows, d)
    gate = torch.randn(frames, 6, d)[:, 2] if draw.random() < 0.5 else None
    by = modulations(draw, frames, d)
    return max(
        both(lambda: ops.norm(x, by)),
        both(lambda: ops.add(x, y, gate)),
        both(lambda: ops.add_norm(x, y, by, gate)),
    )


def turn(draw: random.Random) -> float:
    batch, frames, n = draw.randint(1, 2), draw.randint(1, 3), draw.randint(1, 5)
    heads, size = draw.randint(1, 5), 2 * draw.randint(1, 20)
    d, length, per_head = heads * size, frames * n, draw.random() < 0.5
    entries = frames if per_head else length
    table = torch.randn((2, batch, entries, size) if draw.random() < 0.5 else (2, entries, size))
    x = torch.randn(batch * length, 3 * d)[:, d : 2 * d]
    gain = torch.randn(d) if not per_head else None
    turned = Turn(heads, 1e-6, gain, table, per_head, n if per_head else 1)
    normed, plain = Turn(heads, 1e-6, gain, None, per_head), Turn(heads)

    def slots(how: Turn) -> Tensor:  # the block's own among those of a cache
        held = torch.zeros(batch, heads, length + 7, size)
        ops.turn(x, how, batch, held[:, :, 3 : 3 + length])
        return held

    def apart(how: Turn) -> Tensor:  # a cache for every position
        held = torch.zeros(batch, n, heads, frames + 2, size)
        ops.turn(x, how, batch, held[..., 1 : 1 + frames, :])
        return held

    ways = (lambda how: ops.turn(x, how, batch), slots, apart)
    return max(both(lambda w=w, how=how: w(how)) for w in ways for how in (turned, normed, plain))


def merge_parts(draw: random.Random) -> float:
    parts, heads, queries, size = draw.randint(2, 4), draw.randint(1, 3), draw.randint(1, 20), 16
    found = torch.randn(parts, queries, heads, size).transpose(1, 2)
    sums = 20 * torch.randn(parts, heads, queries)
    return both(lambda: ops.merge_parts(found, sums))


def few_keys(draw: random.Random) -> float:
    batch, frames, rows, heads, size = draw.randint(1, 2), draw.randint(1, 3), draw.randint(1, 4), 3, 16
    keys, shared = draw.randint(1, 15), draw.random() < 0.5
    q = torch.randn(batch * frames * rows, heads, size)
    k, v = torch.randn(2, batch * (1 if shared else rows), heads, keys + 2, size)[..., :keys, :]
    return both(lambda: ops.few_keys(q, k, v, frames * rows, 1 if shared else rows))


def bias_gelu(draw: random.Random) -> float:
    frames, rows, d = draw.randint(1, 3), draw.randint(1, 5), draw.randint(1, 70)
    x, bias = 3 * torch.randn(frames * rows, d), torch.randn(frames, d)
    return both(lambda: ops.bias_gelu(x, bias))


def rounded(draw: random.Random) -> float:
    """Relative L1 distance: what lies between two of the 256 numbers may go to either.

    Of `int8`: the interpreter halves an fp8 number that is rounded up to a power of two (`on_gpu` has both).
    """
    rows, d, precision = draw.randint(1, 9), 2 * draw.randint(1, 100), "int8"
    x, y = torch.randn(2, rows, d)
    x[0] = float("nan") if draw.random() < 0.2 else x[0]
    by = replace(modulations(draw, 1, d), precision=precision)

    def apart(work: Callable[[], Rounded]) -> float:
        found = []
        for ops.INTERPRETED in (False, True):
            kept, scale = work()
            assert kept.dtype == EIGHT_BIT[precision] and scale.shape == (rows, 1)
            found.append(kept.float() * scale)
        one, other = (torch.nan_to_num(x, 0.0) for x in found)
        assert torch.equal(*(x.isnan().any(1) for x in found))
        return float((one - other).abs().sum() / one.abs().sum().clamp_min(1e-9))

    return max(
        apart(lambda: ops.norm(x, by)),
        apart(lambda: ops.add_norm(x, y, by)[1]),
        apart(lambda: ops.gelu_round(x, precision)),
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    found = {}
    for case in (add_norm, turn, merge_parts, few_keys, bias_gelu, rounded):
        draw = random.Random(case.__name__)
        found[case.__name__] = max(case(draw) for _ in range(CASES))
    print(json.dumps(found))
