"""How a GPU reads an fp8 cache, as a Triton kernel: attention whose keys and values stay 8 bits in memory.

Importing this raises ImportError where there is no Triton.
"""

import math

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from playhead.world.fused.ops import merge_parts


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _take(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, most, total, found, k, v, k_scale, v_scale, start, last, scale,  # noqa: ANN001
    SIZE: tl.constexpr, KEYS: tl.constexpr, PARTIAL: tl.constexpr,
):  # fmt: skip
    """Takes in a tile of keys, of which those from `last` on are none's if it is `PARTIAL`."""
    key = start + tl.arange(0, KEYS)
    place = key[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    if PARTIAL:
        inside = key < last
        known = tl.load(k + place, mask=inside[:, None], other=0)
        values = tl.load(v + place, mask=inside[:, None], other=0)
        by_key = tl.load(k_scale + key, mask=inside, other=0.0)
        by_value = tl.load(v_scale + key, mask=inside, other=0.0)
    else:
        known, values = tl.load(k + place), tl.load(v + place)
        by_key, by_value = tl.load(k_scale + key), tl.load(v_scale + key)
    known = known.to(tl.float8e4nv, bitcast=True).to(x.dtype)
    scores = tl.dot(x, tl.trans(known)) * (by_key * scale)[None, :]
    if PARTIAL:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    higher = tl.maximum(most, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    fading = tl.exp2(most - higher)
    total = total * fading + tl.sum(weights, 1)
    weights = (weights * by_value[None, :]).to(x.dtype)
    values = values.to(tl.float8e4nv, bitcast=True).to(x.dtype)
    found = found * fading[:, None] + tl.dot(weights, values)
    return higher, total, found


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _read(  # type: ignore[no-untyped-def]  # noqa: ANN202
    q, k, v, k_scale, v_scale, out, sums, scale, queries, keys, each, kv_head, scale_head,  # noqa: ANN001
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Queries `(heads, queries, SIZE)`; of `keys` this part has `each`. Online softmax, in base 2."""
    head, part = tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1)
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    here = row < queries
    of_row = (head.to(tl.int64) * queries + row)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    x = tl.load(q + of_row, mask=here[:, None], other=0.0)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    found = tl.zeros((QUERIES, SIZE), tl.float32)
    k, v = k + head.to(tl.int64) * kv_head, v + head.to(tl.int64) * kv_head
    k_scale, v_scale = k_scale + head.to(tl.int64) * scale_head, v_scale + head.to(tl.int64) * scale_head
    first = part * each
    last = tl.minimum(first + each, keys)
    whole = first + (last - first) // KEYS * KEYS
    for start in range(first, whole, KEYS):
        most, total, found = _take(
            x, most, total, found, k, v, k_scale, v_scale, start, last, scale, SIZE, KEYS, False
        )
    if whole < last:
        most, total, found = _take(
            x, most, total, found, k, v, k_scale, v_scale, whole, last, scale, SIZE, KEYS, True
        )
    found = found / total[:, None]
    to = part.to(tl.int64) * heads * queries * SIZE + of_row
    tl.store(out + to, found.to(out.dtype.element_ty), mask=here[:, None])
    logarithm = (most + tl.log2(total)) * 0.6931471805599453
    tl.store(sums + (part * heads + head) * queries + row, logarithm, mask=here)


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
) -> Tensor:
    """Attention of `q` `(B, heads, queries, head_dim)` to fp8 `k` and `v`, which may be parts of a cache.

    `k_scale` and `v_scale` float32 `(B, heads, keys)`. Raises ValueError for a head whose size is no power of
    two, or keys of which a part would be empty.
    """
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    each = -(-keys // parts)
    each = -(-each // tile_keys) * tile_keys
    parts = -(-keys // each)  # of few keys there are fewer
    if size & (size - 1) or k.stride(0) != heads * k.stride(1) or k.stride()[1:] != v.stride()[1:]:
        raise ValueError(f"heads of {size} that lie {k.stride()} and {v.stride()} apart")
    q = q.contiguous()
    out = q.new_empty((parts, batch * heads, queries, size))
    sums = torch.empty((parts, batch * heads, queries), dtype=torch.float32, device=q.device)
    grid = (triton.cdiv(queries, tile_queries), batch * heads, parts)
    with torch.cuda.device_of(q):
        _read[grid](
            q, k.view(torch.uint8), v.view(torch.uint8), k_scale, v_scale, out, sums,
            size**-0.5 / math.log(2), queries, keys, each, k.stride(1), k_scale.stride(1),
            SIZE=size, QUERIES=tile_queries, KEYS=tile_keys, num_warps=warps, num_stages=stages,
        )  # fmt: skip
    found = merge_parts(out, sums) if parts > 1 else out
    each_session: Tensor = found.unflatten(1, (batch, heads)).squeeze(0)
    return each_session
