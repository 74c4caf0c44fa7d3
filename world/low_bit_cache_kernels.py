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
from playhead.world.rounding import TOPS

TOP = tl.constexpr(TOPS["fp8"])
TOKENS = 64
"""How many tokens of a head a program rounds."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _tile(  # noqa: ANN202
    x, unit, k, v, v_column, start, last, most, total, found,
    SIZE: tl.constexpr, KEYS: tl.constexpr, PRODUCTS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A tile of keys more, by online softmax in base 2; not `WHOLE`: those from `last` on are nobody's."""
    key = start + tl.arange(0, KEYS)
    column = tl.arange(0, SIZE)
    known = tl.load(k + key[None, :] * SIZE + column[:, None])
    values = tl.load(v + column[:, None] * v_column + key[None, :])
    if not PRODUCTS:
        known, values = known.to(tl.float16), values.to(tl.float16)
    scores = tl.dot(x, known) * unit
    if not WHOLE:
        scores = tl.where((key < last)[None, :], scores, float("-inf"))
    higher = tl.maximum(most, tl.max(scores, 1))
    weights = tl.exp2(scores - (higher - 8.0)[:, None])  # up to 256, since small numbers of 8 bits are coarse
    fading = tl.exp2(most - higher)
    total = total * fading + tl.sum(weights, 1)
    found = tl.dot(weights.to(values.dtype), tl.trans(values), found * fading[:, None])
    return higher, total, found


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _read(
    q, k, v, out, sums, scale, queries, keys, each, k_head, v_head, v_column,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRODUCTS: tl.constexpr,
) -> None:  # fmt: skip
    """Queries `(heads, queries, SIZE)`; of `keys` this part has `each`.

    Values lie by column, as fp8 products want them. The last tile is read whole: under a mask keys and values
    could not be loaded ahead.
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
    first = part * each
    last = tl.minimum(first + each, keys)
    whole = first + (last - first) // KEYS * KEYS
    for start in range(first, whole, KEYS):
        most, total, found = _tile(
            x, unit, k, v, v_column, start, last, most, total, found, SIZE, KEYS, PRODUCTS, True
        )
    if whole < last:
        most, total, found = _tile(
            x, unit, k, v, v_column, whole, last, most, total, found, SIZE, KEYS, PRODUCTS, False
        )
    found = found / total[:, None]
    to = part.to(tl.int64) * heads * queries * SIZE + of_row
    tl.store(out + to, found.to(out.dtype.element_ty), mask=here[:, None])
    logarithm = (most - 8.0 + tl.log2(total)) * 0.6931471805599453
    tl.store(sums + (part * heads + head) * queries + row, logarithm, mask=here)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _put(
    x, held, tokens, heads, x_batch, x_head, x_token, held_head, held_token, held_column,
    SIZE: tl.constexpr, TOKENS: tl.constexpr,
) -> None:  # fmt: skip
    """Rounds tokens `(B, heads, tokens, SIZE)` to fp8; what is beyond its range becomes its end."""
    head = tl.program_id(1)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, SIZE)
    here = (token < tokens)[:, None]
    x += (head // heads).to(tl.int64) * x_batch + (head % heads).to(tl.int64) * x_head
    wide = tl.load(x + token[:, None] * x_token + column[None, :], mask=here, other=0.0).to(tl.float32)
    # What is no number may not look like one.
    rounded = tl.clamp(wide, -TOP, TOP, propagate_nan=tl.PropagateNan.ALL).to(held.dtype.element_ty)
    held += head.to(tl.int64) * held_head
    tl.store(held + token[:, None] * held_token + column[None, :] * held_column, rounded, mask=here)


def read_fp8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tile_queries: int,
    tile_keys: int,
    warps: int,
    stages: int,
    parts: int,
    products: bool,
) -> Tensor:
    """Attention of `q` `(B, heads, queries, head_dim)` to fp8 `k` and `v`, which may be parts of a cache.

    `v` lies by column: its tokens are next to each other. Behind a head's last key there is room, of finite
    numbers, up to a multiple of `tile_keys`. `products`: queries and weights are rounded to fp8 too, and
    multiplied so; else keys and values are widened to float16 on the way. Raises ValueError for a head whose
    size is no power of two, what lies otherwise, or keys of which a part would be empty.
    """
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    each = -(-keys // parts)
    each = -(-each // tile_keys) * tile_keys
    parts = -(-keys // each)  # of few keys there are fewer
    apart = [x.stride(0) == heads * x.stride(1) or batch == 1 for x in (k, v)]
    lies = k.stride()[2:] == (size, 1) and v.stride(2) == 1
    whole = -(-keys // tile_keys) * tile_keys
    room = min(k.stride(1) // size, v.stride(3))
    if size & (size - 1) or not lies or not all(apart) or room < whole:
        raise ValueError(f"heads of {size} that lie {k.stride()} and {v.stride()} apart")
    q = q.contiguous()
    out = q.new_empty((parts, batch * heads, queries, size))
    sums = torch.empty((parts, batch * heads, queries), dtype=torch.float32, device=q.device)
    grid = (triton.cdiv(queries, tile_queries), batch * heads, parts)
    with torch.cuda.device_of(q):
        _read[grid](
            q, k, v, out, sums, size**-0.5 / math.log(2), queries, keys, each,
            k.stride(1), v.stride(1), v.stride(3),
            SIZE=size, QUERIES=tile_queries, KEYS=tile_keys, PRODUCTS=products,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    found = merge_parts(out, sums) if parts > 1 else out
    each_session: Tensor = found.unflatten(1, (batch, heads)).squeeze(0)
    return each_session


def put_fp8(x: Tensor, held: Tensor) -> None:
    """Rounds `x` `(B, heads, tokens, head_dim)` into fp8 `held`, as large: `low_bit_cache.rounded`.

    Both may be parts of a cache, and `held` may lie by row or by column. Raises ValueError for a head whose
    size is no power of two or an `x` that lies by column.
    """
    batch, heads, tokens, size = x.shape
    if size & (size - 1) or x.stride(3) != 1:
        raise ValueError(f"heads of {size} that lie {x.stride()} apart")
    with torch.cuda.device_of(x):
        _put[(triton.cdiv(tokens, TOKENS), batch * heads)](
            x, held, tokens, heads, *x.stride()[:3], *held.stride()[1:], SIZE=size, TOKENS=TOKENS, num_warps=4
        )
