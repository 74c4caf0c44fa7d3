"""How a GPU reads and writes an fp8 cache, as Triton kernels: attention whose keys and values stay 8 bits.

Importing this raises ImportError where there is no Triton.
"""
# ruff: noqa: ANN001  # Triton knows no annotation but that of a constant
# mypy: allow-untyped-defs, allow-incomplete-defs

import math

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from playhead.world.fused.ops import merge_parts
from playhead.world.rounding import LEAST, TOPS

TOP = tl.constexpr(TOPS["fp8"])
TOKENS = 64
"""How many tokens of a head a program rounds."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _read(
    q, k, v, k_scale, v_scale, out, sums, scale, queries, keys, each,
    k_head, v_head, v_column, k_scale_head, v_scale_head,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRODUCTS: tl.constexpr,
) -> None:  # fmt: skip
    """Queries `(heads, queries, SIZE)`; of `keys` this part has `each`. Online softmax, in base 2.

    Values lie by column, as fp8 products want them. A value's scale goes into the exponent of its weight, so
    that weights are at most 2^8 whatever the scales are; what is summed for the norm is without it. The last
    tile is read whole, its keys that are none's with the exponent -inf: under a mask values could not be
    loaded ahead.
    """
    head, part = tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1)
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    column = tl.arange(0, SIZE)
    here = row < queries
    of_row = (head.to(tl.int64) * queries + row)[:, None] * SIZE + column[None, :]
    x = tl.load(q + of_row, mask=here[:, None], other=0.0)
    unit = scale
    if PRODUCTS:
        wide = x.to(tl.float32)
        largest = tl.maximum(tl.max(tl.max(tl.abs(wide), 1), 0), 1e-12) / TOP
        unit = largest * scale
        x = (wide / largest).to(tl.float8e4nv)
    else:
        # float16 holds all fp8 numbers, which are one step from it, but not all that a query may be.
        x = tl.minimum(tl.maximum(x.to(tl.float32), -65504.0), 65504.0).to(tl.float16)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    found = tl.zeros((QUERIES, SIZE), tl.float32)
    k, v = k + head.to(tl.int64) * k_head, v + head.to(tl.int64) * v_head
    k_scale, v_scale = k_scale + head.to(tl.int64) * k_scale_head, v_scale + head.to(tl.int64) * v_scale_head
    first = part * each
    last = tl.minimum(first + each, keys)
    for start in range(first, last, KEYS):
        key = start + tl.arange(0, KEYS)
        inside = key < last
        known = tl.load(k + key[None, :] * SIZE + column[:, None])
        values = tl.load(v + column[:, None] * v_column + key[None, :])
        by_key = tl.load(k_scale + key) * unit
        by_value = tl.maximum(tl.load(v_scale + key), 1e-30)
        if not PRODUCTS:
            known, values = known.to(tl.float16), values.to(tl.float16)
        exponent = tl.where(inside, tl.log2(by_value), float("-inf"))
        scores = tl.dot(x, known) * by_key[None, :] + exponent[None, :]
        higher = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - (higher - 8.0)[:, None])
        fading = tl.exp2(most - higher)
        total = total * fading + tl.sum(weights * (1.0 / by_value)[None, :], 1)
        found = tl.dot(weights.to(values.dtype), tl.trans(values), found * fading[:, None])
        most = higher
    found = found / total[:, None]
    to = part.to(tl.int64) * heads * queries * SIZE + of_row
    tl.store(out + to, found.to(out.dtype.element_ty), mask=here[:, None])
    logarithm = (most - 8.0 + tl.log2(total)) * 0.6931471805599453
    tl.store(sums + (part * heads + head) * queries + row, logarithm, mask=here)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _put(
    x, held, scales, tokens, heads, x_batch, x_head, x_token, held_head, held_token, held_column, scale_head,
    least, SIZE: tl.constexpr, TOKENS: tl.constexpr,
) -> None:  # fmt: skip
    """Rounds tokens `(B, heads, tokens, SIZE)` to fp8, each of a head with a scale of its own."""
    head = tl.program_id(1)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, SIZE)
    here = (token < tokens)[:, None]
    x += (head // heads).to(tl.int64) * x_batch + (head % heads).to(tl.int64) * x_head
    wide = tl.load(x + token[:, None] * x_token + column[None, :], mask=here, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(wide), 1), least) / TOP
    rounded = (wide * (1.0 / scale)[:, None]).to(held.dtype.element_ty)
    held += head.to(tl.int64) * held_head
    tl.store(held + token[:, None] * held_token + column[None, :] * held_column, rounded, mask=here)
    tl.store(scales + head.to(tl.int64) * scale_head + token, scale, mask=token < tokens)


def read_fp8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    tile_queries: int,
    tile_keys: int,
    warps: int,
    stages: int,
    parts: int,
    products: bool,
) -> Tensor:
    """Attention of `q` `(B, heads, queries, head_dim)` to fp8 `k` and `v`, which may be parts of a cache.

    `v` lies by column: its tokens are next to each other. `k_scale` and `v_scale` float32 `(B, heads, keys)`.
    Behind a head's last key there is room, of finite numbers, up to a multiple of `tile_keys`. `products`:
    queries and weights are rounded to fp8 too, and multiplied so; else keys and values are widened to float16
    on the way. Raises ValueError for a head whose size is no power of two, what lies otherwise, or keys of
    which a part would be empty.
    """
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    each = -(-keys // parts)
    each = -(-each // tile_keys) * tile_keys
    parts = -(-keys // each)  # of few keys there are fewer
    apart = [x.stride(0) == heads * x.stride(1) or batch == 1 for x in (k, v, k_scale, v_scale)]
    lies = k.stride()[2:] == (size, 1) and v.stride(2) == 1 and k_scale.stride(2) == v_scale.stride(2) == 1
    whole = -(-keys // tile_keys) * tile_keys
    room = min(k.stride(1) // size, v.stride(3), k_scale.stride(1), v_scale.stride(1))
    if size & (size - 1) or not lies or not all(apart) or room < whole:
        raise ValueError(f"heads of {size} that lie {k.stride()} and {v.stride()} apart")
    q = q.contiguous()
    out = q.new_empty((parts, batch * heads, queries, size))
    sums = torch.empty((parts, batch * heads, queries), dtype=torch.float32, device=q.device)
    grid = (triton.cdiv(queries, tile_queries), batch * heads, parts)
    with torch.cuda.device_of(q):
        _read[grid](
            q, k, v, k_scale, v_scale, out, sums, size**-0.5 / math.log(2), queries, keys, each,
            k.stride(1), v.stride(1), v.stride(3), k_scale.stride(1), v_scale.stride(1),
            SIZE=size, QUERIES=tile_queries, KEYS=tile_keys, PRODUCTS=products,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    found = merge_parts(out, sums) if parts > 1 else out
    each_session: Tensor = found.unflatten(1, (batch, heads)).squeeze(0)
    return each_session


def put_fp8(x: Tensor, held: Tensor, scales: Tensor) -> None:
    """Rounds `x` `(B, heads, tokens, head_dim)` into fp8 `held`, as large, and `scales` `(B, heads, tokens)`.

    As `rounding.quantise`; may differ in the last bit of a scale. Both may be parts of a cache, and `held`
    may lie by row or by column. Raises ValueError for a head whose size is no power of two or an `x` that
    lies by column.
    """
    batch, heads, tokens, size = x.shape
    if size & (size - 1) or x.stride(3) != 1 or scales.stride(2) != 1:
        raise ValueError(f"heads of {size} that lie {x.stride()} apart")
    with torch.cuda.device_of(x):
        _put[(triton.cdiv(tokens, TOKENS), batch * heads)](
            x, held, scales, tokens, heads, *x.stride()[:3], *held.stride()[1:], scales.stride(1), LEAST,
            SIZE=size, TOKENS=TOKENS, num_warps=4,
        )  # fmt: skip
