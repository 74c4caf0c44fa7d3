"""Rules of sparse attention: what must be read is read, and no more than the budget."""

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.world.sparse_attention import mask
from playhead.world.sparse_rules import (
    FAR,
    HeldSlots,
    Tiles,
    budget,
    hierarchical,
    pool,
    radial,
    radial_frame,
    tile_numbers,
    tile_size,
    tiles_of,
)

CPU = torch.device("cpu")
modest = settings(max_examples=40, deadline=None)


@st.composite
def windows(draw: st.DrawFn, most_tokens: int = 40, least_past: int = 0) -> HeldSlots:
    """A ring in any order after a sink of some frames, part of it perhaps not there yet, and far frames."""
    sink, own = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    past = draw(st.integers(least_past, 6))
    ring, missing = own + past, draw(st.integers(0, 3))
    turned = draw(st.integers(0, ring - 1)) if not missing else 0
    far = draw(st.integers(0, 3)) if not sink else 0
    in_time = [sink + (turned + i) % ring for i in range(ring)]  # the ring's slots, oldest first
    places = [*range(sink), *(sink + in_time.index(slot) for slot in range(sink, sink + ring)), *[FAR] * far]
    tokens = draw(st.integers(1, most_tokens))
    return HeldSlots(tokens, tuple(places), tuple(in_time[-own:]), sink + ring + missing + far)


def draw_keys(window: HeldSlots, seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random queries and keys of a window, of two heads of 8."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [window.tokens * count for count in (len(window.own), len(window.places))]
    q, k = (torch.randn((batch, 2, size, 8), generator=draw) for size in sizes)
    return q, k


def frames_read(tiles: Tiles, window: HeldSlots) -> torch.Tensor:
    """How many tiles of each slot each tile of queries reads, `(B, heads, tiles of queries, slots)`."""
    seen = mask(tiles, window, window.tokens * len(window.own))
    n = tiles_of(window.tokens)
    first = torch.tensor([i for i in range(window.tokens) if i % tile_size(window.tokens) == 0])
    starts = torch.cat([first + i * window.tokens for i in range(len(window.places))])
    rows = torch.cat([first + i * window.tokens for i in range(len(window.own))])
    return seen[:, :, rows][..., starts].unflatten(-1, (-1, n)).sum(-1)


@modest
@given(windows(), st.sampled_from([None, 0.1, 0.25, 0.5, 1.0]), st.integers(0, 99))
def test_every_query_sees_its_own_frame(window: HeldSlots, fraction: float | None, seed: int) -> None:
    q, k = draw_keys(window, seed)
    tiles = radial(window, CPU) if fraction is None else hierarchical(q, k, window, fraction)
    seen = mask(tiles, window, q.shape[2])
    for i, slot in enumerate(window.own):
        block = seen[..., i * window.tokens : (i + 1) * window.tokens, :]
        assert block[..., slot * window.tokens : (slot + 1) * window.tokens].all()


@modest
@given(windows(), st.floats(0.01, 1), st.integers(0, 99))
def test_the_budget_is_kept(window: HeldSlots, fraction: float, seed: int) -> None:
    """So many tiles of the past for each head and tile of queries, in at most so many frames."""
    q, k = draw_keys(window, seed)
    read = frames_read(hierarchical(q, k, window, fraction), window)
    frames, count = budget(window, fraction)
    assert (read[..., list(window.own)] == tiles_of(window.tokens)).all()
    past = read[..., list(window.past)]
    assert (past.sum(-1) == count).all() and ((past > 0).sum(-1) <= frames).all()
    most = (window.frames - len(window.own)) * tiles_of(window.tokens)
    assert count == min(ceil(fraction * most), len(window.past) * tiles_of(window.tokens))


@modest
@given(windows(), st.integers(0, 99))
def test_at_full_budget_everything_is_read(window: HeldSlots, seed: int) -> None:
    q, k = draw_keys(window, seed)
    assert mask(hierarchical(q, k, window, 1.0), window, q.shape[2]).all()


@modest
@given(windows(least_past=3), st.integers(0, 99))
def test_tiles_come_from_the_best_frames_and_are_the_best_in_them(window: HeldSlots, seed: int) -> None:
    """By the definition, one head and tile of queries at a time."""
    q, k = draw_keys(window, seed, batch=1)
    frames, count = budget(window, 0.25)
    tiles = hierarchical(q, k, window, 0.25)
    n = tiles_of(window.tokens)
    queries, keys = pool(q, window.tokens)[0], pool(k, window.tokens)[0].unflatten(1, (-1, n))
    for head in range(2):
        for i, query in enumerate(queries[head]):
            score = {slot: float(keys[head, slot].mean(0) @ query) for slot in window.past}
            best = sorted(window.past, key=lambda slot: -score[slot])[:frames]
            inside = {slot * n + t: float(keys[head, slot, t] @ query) for slot in best for t in range(n)}
            wanted = sorted(inside, key=lambda at: -inside[at])[:count]
            own = [slot * n + t for slot in window.own for t in range(n)]
            assert tiles.numbers[0, head, i].tolist() == sorted(own + wanted)


@modest
@given(windows(), st.integers(0, 99))
def test_tokens_are_pooled_by_tile(window: HeldSlots, seed: int) -> None:
    _, k = draw_keys(window, seed)
    numbers = tile_numbers(window.tokens, k.shape[2], CPU)
    wanted = torch.stack([k[:, :, numbers == t].mean(2) for t in range(int(numbers.max()) + 1)], 2)
    torch.testing.assert_close(pool(k, window.tokens), wanted)


@modest
@given(windows())
def test_radial_goes_by_distance_in_time_wherever_the_slots_are(window: HeldSlots) -> None:
    read = mask(radial(window, CPU), window, window.tokens * len(window.own))[0, 0]
    n, numbers = window.tokens, tile_numbers(window.tokens, window.tokens, CPU)
    for i, own in enumerate(window.own):
        for slot, place in enumerate(window.places):
            found = read[i * n : (i + 1) * n, slot * n : (slot + 1) * n]
            if place in (0, FAR):  # the oldest frame, and what is thinned out already
                assert found.all()
            else:
                wanted = radial_frame(n, abs(window.places[own] - place))
                assert torch.equal(found, wanted[numbers][:, numbers])


@pytest.mark.parametrize("tokens", [40, 880, 1560])
def test_radial_reads_less_the_further_away(tokens: int) -> None:
    """A frame whole, half of its neighbours and more, then by octaves of distance never more than before."""
    share = [float(radial_frame(tokens, d).float().mean()) for d in range(64)]
    assert share[0] == 1 and 0.5 < share[1] < 0.9
    octaves = [sum(share[a : 2 * a]) / a for a in (1, 2, 4, 8, 16, 32)]
    assert octaves == sorted(octaves, reverse=True) and octaves[0] > octaves[1] and octaves[-1] < 0.2


def test_radial_leaves_frames_out_where_a_tile_would_reach_too_far() -> None:
    """At 1,560 tokens every second frame from a distance of 16 on, every fourth from 32 on."""
    read = [d for d in range(2, 64) if radial_frame(1560, d).any()]
    assert read == [*range(2, 16), *range(16, 32, 2), *range(32, 64, 4)]


def test_radial_is_as_sparse_as_it_was_published() -> None:
    """0.325 over a whole film of 21 frames of 1,560 tokens, where tiles do not begin with each frame."""
    frames = tuple(range(21))
    tiles = radial(HeldSlots(1560, frames, frames, 21), CPU)
    assert int(tiles.counts.sum()) / (21 * 13) ** 2 == pytest.approx(0.325, abs=0.02)
