"""A Triton kernel that attends to some tiles of keys: softmax piece by piece, as in FlashAttention 2.

The queries of one frame are fewer tiles than a large GPU would like to have at once, so several programs
share the keys of each, and what they find is merged.

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
from playhead.world.sparse_rules import Tiles, tile_size, tiles_of

LOG2_E = 1.4426950408889634
LN_2 = tl.constexpr(0.6931471805599453)
MOST = 8
"""Parts at most in which the keys are."""
MERGING = 0.02
"""What one part more takes to merge, of the time of a round of programs that read all keys."""
AMPLE = 164_000
"""Bytes of shared memory from which a kernel may load two pieces of 128 keys ahead, and not one of 64; of
numbers of two bytes."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _attend(
    q,
    k,
    v,
    index,
    count,
    found,
    sums,
    scale,
    heads,
    queries,
    tokens,
    channels,
    per_frame,
    size,
    most,
    q_b,
    q_h,
    q_t,
    k_b,
    k_h,
    k_t,
    v_b,
    v_h,
    v_t,
    found_p,
    found_b,
    found_h,
    found_t,
    index_b,
    index_h,
    count_b,
    count_h,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """A tile of queries of a head: it reads the first `count` tiles of keys of `index`, `KEYS` at a time.

    Of those tiles each part has as many. `scale` holds the logarithm's base: weights are powers of two.
    """
    tile, part = tl.program_id(0), tl.program_id(2)
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    column = tl.arange(0, CHANNELS)
    inside = column < channels
    row = tile % per_frame * size + tl.arange(0, QUERIES)
    asks = (tl.arange(0, QUERIES) < size) & (row < tokens)
    query = (tile // per_frame * tokens + row).to(tl.int64)
    here = asks[:, None] & inside[None, :]
    asked = tl.load(q + batch * q_b + head * q_h + query[:, None] * q_t + column[None, :], here, 0.0)
    index += batch * index_b + head * index_h + tile * most
    read = tl.load(count + batch * count_b + head * count_h + tile)
    each = tl.cdiv(read, tl.num_programs(2))
    first = tl.minimum(part * each, read)
    last = tl.minimum(first + each, read)
    k += batch * k_b + head * k_h
    v += batch * v_b + head * v_h
    pieces = (size + KEYS - 1) // KEYS
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mean = tl.zeros([QUERIES, CHANNELS], tl.float32)
    for step in range(first * pieces, last * pieces):
        at = tl.load(index + step // pieces)
        of_tile = step % pieces * KEYS + tl.arange(0, KEYS)
        of_frame = at % per_frame * size + of_tile
        held = (of_tile < size) & (of_frame < tokens)
        key = (at // per_frame * tokens + of_frame).to(tl.int64)
        keys = tl.load(k + key[None, :] * k_t + column[:, None], held[None, :] & inside[:, None], 0.0)
        none = tl.where(held, 0.0, float("-inf"))
        scores = tl.dot(asked, keys, input_precision="ieee") * scale + none[None, :]
        higher = tl.maximum(top, tl.max(scores, 1))  # a tile's first piece always holds a key
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(v + key[:, None] * v_t + column[None, :], held[:, None] & inside[None, :], 0.0)
        mean = tl.dot(weights.to(values.dtype), values, mean * shrink[:, None], input_precision="ieee")
        top = higher
    # A part that has no tile is nothing, with the weight of nothing.
    norm = tl.where(total > 0.0, total, 1.0)
    found += part.to(tl.int64) * found_p + batch * found_b + head * found_h
    tl.store(
        found + query[:, None] * found_t + column[None, :],
        (mean / norm[:, None]).to(found.dtype.element_ty),
        here,
    )
    to = (part.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * queries + query
    tl.store(sums + to, (top + tl.log2(norm)) * LN_2, asks)


def attend(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles, tokens: int) -> Tensor:
    """Softmax attention `(B, heads, queries, head_dim)` to the tiles of frames of `tokens`.

    The last axis of all three has to be dense.
    """
    batch, heads, queries, channels = q.shape
    size, per_frame = tile_size(tokens), tiles_of(tokens)
    programs = queries // tokens * per_frame, batch * heads
    parts = parts_for(math.prod(programs), q.device)
    if parts > 1:
        found = q.new_empty((parts, batch, heads, queries, channels))
    else:  # as the next layer takes it
        found = q.new_empty((1, batch, queries, heads, channels)).transpose(2, 3)
    sums = torch.empty((parts, batch * heads, queries), dtype=torch.float32, device=q.device)
    index = tiles.numbers.contiguous().expand(batch, heads, -1, -1)
    count = tiles.counts.contiguous().expand(batch, heads, -1)
    rows = max(16, triton.next_power_of_2(size))
    ample = _shared_memory(q.device) >= AMPLE * q.element_size() // 2
    with torch.cuda.device_of(q):
        _attend[(*programs, parts)](
            q,
            k,
            v,
            index,
            count,
            found,
            sums,
            LOG2_E * channels**-0.5,
            heads,
            queries,
            tokens,
            channels,
            per_frame,
            size,
            index.shape[-1],
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            *found.stride()[:4],
            *index.stride()[:2],
            *count.stride()[:2],
            QUERIES=rows,
            KEYS=min(128 if ample else 64, rows),
            CHANNELS=max(16, triton.next_power_of_2(channels)),
            num_warps=8 if rows == 128 else 4,
            num_stages=3 if ample else 2,
        )
    if parts == 1:
        return found[0]
    merged: Tensor = merge_parts(found.flatten(1, 2), sums)[0].unflatten(0, (batch, heads))
    return merged


def parts_for(programs: int, device: torch.device) -> int:
    """In how many parts the keys of so many programs are to be read.

    A GPU runs a program a multiprocessor at a time, and its last round is as long as a full one: more and
    shorter programs leave less of it idle.
    """
    if device.type != "cuda":
        return 1
    count = torch.cuda.get_device_properties(device).multi_processor_count
    return min(range(1, MOST + 1), key=lambda parts: -(-programs * parts // count) / parts + MERGING * parts)


def _shared_memory(device: torch.device) -> int:
    """Bytes that a block of threads may have; 0 in the interpreter."""
    if device.type != "cuda":
        return 0
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", 0))
