"""Which keys a query reads where it does not read all: rules for windows of many frames.

Tokens of a frame are cut into tiles, and a rule names the tiles of keys that each tile of queries reads.
`radial` goes by distance in time alone (Radial Attention, Li et al. 2025, as LightX2V has it);
`hierarchical` by what is there: it first chooses past frames, then tiles in them, by scores of pooled queries
and keys (Light Forcing, Lv et al. 2026, which found that better where frames are made one after the other).

A full ring of slots is not in the order of time, so a rule is told each slot's place in it. Places follow
from the slots of the block under way and how many are visible, which CUDA graphs are recorded by. B sessions.
"""

from functools import cache
from math import ceil, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 128
"""Tokens of a tile, where a frame has at least four of them; of smaller frames a tile is a quarter."""
DECAY = 0.2
"""Radial's reach at a distance of two frames or more, as a share of a frame: LightX2V's factor."""
FAR = -1
"""The place of what a far memory keeps: older than all else, and thinned out already."""


class HeldSlots(NamedTuple):
    """The slots of a cache that a layer reads, the block's own among them, and where in time they stand.

    `tokens`: of a frame. `places`: of each slot, 0 for the oldest frame and one more for each after it, as if
    a sink came right before the ring; or `FAR`. `own`: the slots of the block under way, in the order of its
    frames. `frames`: how many slots are read once the cache is full.
    """

    tokens: int
    places: tuple[int, ...]
    own: tuple[int, ...]
    frames: int

    @property
    def past(self) -> tuple[int, ...]:
        """The slots before the block under way."""
        return tuple(slot for slot in range(len(self.places)) if slot not in self.own)


class Tiles(NamedTuple):
    """The tiles of keys that each tile of queries reads, by slot and then by tile of its frame.

    `numbers` int32 `(B or 1, heads or 1, tiles of queries, most)`, of which the first `counts` int32, without
    the last axis, are meant.
    """

    numbers: Tensor
    counts: Tensor


def tile_size(tokens: int) -> int:
    """Tokens of a tile; the last one of a frame may have fewer."""
    return min(TILE, -(-tokens // 4))


def tiles_of(tokens: int) -> int:
    """Tiles of a frame."""
    return -(-tokens // tile_size(tokens))


def tile_numbers(tokens: int, count: int, device: torch.device) -> Tensor:
    """The tile of each of the first `count` tokens of several frames, int64 `(count)`."""
    at = torch.arange(count, device=device)
    return at // tokens * tiles_of(tokens) + at % tokens // tile_size(tokens)


@cache
def radial_frame(tokens: int, distance: int) -> Tensor:
    """Which tiles of a frame the tiles of one `distance` frames away read, bool `(tiles, tiles)`.

    Its own it reads whole; of its neighbours what is half a frame of tokens away or less. Further off the
    reach halves with each doubling of the distance, down to a tile; where it would be less than that, frames
    are left out in its place. A tile is read if more than 0.6 of its tokens that are reached at all are
    reached by more than a third of the queries.
    """
    size, n = tile_size(tokens), tiles_of(tokens)
    shrunk = 2.0 ** (tokens.bit_length() - distance.bit_length())
    at = torch.arange(n * size)
    apart = (at[:, None] - at).abs()
    if distance == 0:
        reached = apart >= 0
    elif distance == 1:
        reached = apart <= tokens // 2
    elif shrunk < size and distance % int(size / shrunk):
        reached = apart < 0
    else:
        reached = apart <= max(shrunk * DECAY, size)
    there = at < tokens
    reached = reached & there & there[:, None]
    rows = there.view(n, size).sum(1)[:, None, None]
    by = reached.view(n, size, n, size).sum(1)  # (n, n, size): of a tile's queries, how many reach each token
    return (3 * by > rows).sum(-1) > 0.6 * (by > 0).sum(-1)


@cache
def radial(held: HeldSlots, device: torch.device) -> Tiles:
    """Tiles by distance in time; the oldest frame, which is the sink's first, and far ones are read whole.

    Kept for good, since CUDA graphs read them: one set a slot that a block may take.
    """
    whole = torch.ones(2 * (tiles_of(held.tokens),), dtype=torch.bool)
    rows = []
    for slot in held.own:
        apart = (abs(held.places[slot] - place) if place > 0 else None for place in held.places)
        parts = [whole if d is None else radial_frame(held.tokens, d) for d in apart]
        rows.append(torch.cat(parts, 1))
    seen = torch.cat(rows)
    count = seen.sum(1)
    index = seen.byte().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    return Tiles(index.int()[None, None].to(device), count.int()[None, None].to(device))


def budget(held: HeldSlots, fraction: float) -> tuple[int, int]:
    """How many past frames `hierarchical` chooses, and how many tiles in them.

    They are those of a full window, so that everything is read while few frames are there: errors would be
    carried on from the first ones the longest.
    """
    n, past = tiles_of(held.tokens), len(held.past)
    most = held.frames - len(held.own)
    return min(ceil(sqrt(fraction) * most), past), min(ceil(fraction * most * n), past * n)


def hierarchical(q: Tensor, k: Tensor, held: HeldSlots, fraction: float) -> Tiles:
    """The block's own frames, and of the past as many tiles as `fraction` allows, for each head its own.

    `q`, `k`: `(B, heads, tokens, head_dim)`, the keys those of `held`. A tile or a frame scores what its
    mean key makes with the mean query of a tile. Asks the device for nothing.
    """
    n = tiles_of(held.tokens)
    own, past = _tile_indices(held, q.device)
    queries, keys = pool(q, held.tokens), pool(k, held.tokens)
    chosen = own.expand(*queries.shape[:3], -1)
    frames, count = budget(held, fraction)
    if count:
        keys = keys.index_select(2, past).unflatten(2, (-1, n))
        scores = queries @ keys.flatten(2, 3).transpose(-1, -2)
        if frames < keys.shape[2]:
            of_frames = queries @ keys.mean(3).transpose(-1, -2)
            kept = torch.zeros_like(of_frames, dtype=torch.bool)
            kept.scatter_(-1, of_frames.topk(frames, sorted=False).indices, True)
            scores = scores.masked_fill(~kept.repeat_interleave(n, -1), -torch.inf)
        chosen = torch.cat([chosen, past[scores.topk(count, sorted=False).indices]], -1)
    # In order, so that sums hang on which tiles there are alone.
    return Tiles(chosen.sort(-1).values.int(), _full(*chosen.shape, q.device))


def pool(x: Tensor, tokens: int) -> Tensor:
    """Mean queries or keys of each tile, float32 `(B, heads, tiles, head_dim)`."""
    size = tile_size(tokens)
    whole = tokens // size
    x = x.unflatten(2, (-1, tokens))
    means = x[:, :, :, : whole * size].unflatten(3, (whole, size)).mean(4, dtype=torch.float32)
    if tokens % size:
        rest = x[:, :, :, whole * size :].mean(3, keepdim=True, dtype=torch.float32)
        means = torch.cat([means, rest], 3)
    found: Tensor = means.flatten(2, 3)
    return found


@cache
def _tile_indices(held: HeldSlots, device: torch.device) -> tuple[Tensor, Tensor]:
    """The block's own tiles, and those before it."""
    n = tiles_of(held.tokens)
    own, past = (
        torch.tensor([slot * n + tile for slot in slots for tile in range(n)], dtype=torch.int64)
        for slots in (held.own, held.past)
    )
    return own.to(device), past.to(device)


@cache
def _full(batch: int, heads: int, tiles: int, count: int, device: torch.device) -> Tensor:
    return torch.full((batch, heads, tiles), count, dtype=torch.int32, device=device)
