"""The kernels of an fp8 cache beside their twins, in Triton's interpreter: prints the largest errors.

A process of its own: `TRITON_INTERPRET=1 python -m tests.world.low_bit_cache_kernel`, since Triton asks when
it is imported. Of random sizes, parts of a larger cache, in so many cases; relative L1 of what is read
without fp8 products, with them from the twin, and with them from an exact reading of numbers rounded so; last
of a cache that rolls, without them from one that is read by the twin.
"""

import random

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

from playhead.world.low_bit_cache import CacheReader, LowBitCache, rounded, twin

CASES = 10
FP8 = torch.float8_e4m3fn


def round_right() -> None:
    """The interpreter halves an fp8 number that is rounded up to a power of two: torch rounds instead."""
    convert = interpreter._convert_float

    def right(x: np.ndarray, given: object, wanted: object, mode: object) -> np.ndarray:
        if str(given) == "fp32" and str(wanted) == "fp8e4nv":
            rounded = torch.from_numpy(x.view(np.float32).copy()).to(FP8)
            return rounded.view(torch.uint8).numpy().reshape(x.shape)
        return convert(x, given, wanted, mode)

    interpreter._convert_float = right


def distance(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    return float((found - wanted).abs().sum() / wanted.abs().sum())


def rounded_reading(q: Tensor, k: Tensor, v: Tensor, tile: int) -> Tensor:
    """Attention with queries and weights in fp8, whole rows at once: weights are not rounded as in tiles."""
    found = []
    for some in q.split(tile, 2):
        unit = some.abs().amax((2, 3), keepdim=True) / 448
        scores = (some / unit).to(FP8).float() @ k.float().mT * unit * q.shape[-1] ** -0.5
        exponent = scores / torch.log(torch.tensor(2.0))
        weights = torch.exp2(exponent - exponent.amax(-1, keepdim=True) + 8)
        found.append(weights.to(FP8).float() @ v.float() / weights.sum(-1, keepdim=True))
    return torch.cat(found, 2)


def errors(draw: random.Random) -> tuple[float, float, float]:
    batch, heads, size = draw.randint(1, 2), draw.randint(1, 3), draw.choice([16, 32])
    queries, keys, spare = draw.randint(1, 40), draw.randint(1, 90), draw.randint(0, 20)
    q = torch.randn(batch, heads, queries, size)
    parts = draw.randint(1, 4)
    tile = 16, draw.choice([16, 32]), 4, 1, parts
    plain, products = CacheReader((*tile, False)), CacheReader((*tile, True))
    laid = plain.lay((batch, heads, keys + spare, size), FP8, "cpu")
    k, v = (held[:, :, :keys] for held in laid)
    for held, mean, spread in ((k, 0.5, 1.0), (v, 0.0, draw.choice([0.1, 1.0, 300.0]))):
        x = spread * (torch.randn(batch, heads, keys, size) + mean)
        plain.put(x, held)
        assert torch.equal(held.float(), rounded(x, FP8).float())
    given = q, k, v
    found = products(*given)
    # In one part and one tile weights are rounded as in whole rows.
    exact = distance(found, rounded_reading(*given, 16)) if keys <= tile[1] else 0.0
    return distance(plain(*given), twin(*given)), distance(found, twin(*given)), exact


def rolling_error() -> float:
    """Of blocks that fall out of a window, and of one that goes on from a state: to the same bits."""
    sizes = {
        "layers": 1,
        "batch": 1,
        "heads": 2,
        "frames": 4,
        "tokens": 6,
        "head_dim": 16,
        "sink": 1,
        "span": 4,
    }
    kernel = CacheReader((16, 16, 4, 1, 2, False))
    widened, read, again = (LowBitCache(**sizes, reader=r) for r in (CacheReader(), kernel, kernel))
    caches, worst = [widened, read], 0.0
    for number in range(9):
        if number == 6:
            again.load_state(read.state())
            caches.append(again)
        q, k, v = torch.randn(3, 1, 2, 6, 16)
        for cache in caches:
            cache.begin(1)
        wanted, found, *more = [cache.attend(0, q, k, v) for cache in caches]
        assert all(torch.equal(found, one) for one in more)
        worst = max(worst, distance(found, wanted))
        for cache in caches:
            cache.end()
    return worst


if __name__ == "__main__":
    round_right()
    torch.manual_seed(0)
    draw = random.Random(0)
    worst = [max(column) for column in zip(*(errors(draw) for _ in range(CASES)), strict=True)]
    print(*worst, rolling_error())
