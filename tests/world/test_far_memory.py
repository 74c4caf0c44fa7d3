"""A far memory promises: the window, and every so many-th frame of what fell out of it, the last of them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.kv_cache import FarMemory, KVCache

LAYERS, HEADS, TOKENS, WIDTH = 2, 1, 3, 4
modest = settings(max_examples=60, deadline=None)
fars = st.builds(FarMemory, frames=st.integers(1, 4), every=st.integers(1, 5), layers=st.just((1,)))


def new_cache(window: int, far: FarMemory, padded: bool = False, spare: int = 0) -> KVCache:
    sizes = {"layers": LAYERS, "batch": 1, "heads": HEADS, "tokens": TOKENS, "head_dim": WIDTH}
    return KVCache(**sizes, frames=window, sink=0, far=far, padded=padded, spare=spare)


def pass_over(cache: KVCache, frame: int) -> None:
    """A tick whose values say which frame they are of."""
    cache.begin(1)
    mark = torch.full((1, HEADS, TOKENS, WIDTH), float(frame))
    for layer in range(LAYERS):
        cache.attend(layer, mark, mark, mark)


def seen(cache: KVCache, layer: int) -> list[int]:
    """Which frames a layer looks at while a block is under way, in order."""
    count = cache.visible + (cache.distant if layer == 1 else 0)
    values: Tensor = cache.v[layer, 0, 0, : count * TOKENS : TOKENS, 0]
    return sorted(int(value) for value in values)


@modest
@given(window=st.integers(2, 6), far=fars, ticks=st.integers(1, 60))
def test_a_layer_sees_just_the_frames_that_the_definition_says(
    window: int, far: FarMemory, ticks: int
) -> None:
    cache = new_cache(window, far)
    buffer = cache.k.data_ptr()
    for frame in range(ticks):
        pass_over(cache, frame)
        near = list(range(max(0, frame - window + 1), frame + 1))
        gone = [f for f in range(max(0, frame - window + 1)) if f % far.every == 0]
        assert seen(cache, 0) == near
        assert seen(cache, 1) == gone[-far.frames :] + near
        told = far.sees(torch.tensor(frame), torch.arange(frame + 1), window).nonzero().flatten().tolist()
        assert told == gone[-far.frames :]
        cache.end()
    assert cache.k.data_ptr() == buffer


@modest
@given(window=st.integers(2, 6), far=fars, before=st.integers(1, 40), after=st.integers(1, 20))
def test_it_goes_on_from_its_state_whatever_was_in_the_other(
    window: int, far: FarMemory, before: int, after: int
) -> None:
    one, other = new_cache(window, far), new_cache(window, far)
    for frame in range(before):
        pass_over(one, frame)
        one.end()
    for frame in range(after):
        pass_over(other, 1000 + frame)
        other.end()
    other.load_state(one.state())
    for frame in range(before, before + after):
        for cache in (one, other):
            pass_over(cache, frame)
        assert [seen(one, layer) for layer in (0, 1)] == [seen(other, layer) for layer in (0, 1)]
        one.end()
        other.end()


@modest
@given(far=fars, ticks=st.integers(8, 40))
def test_a_pass_that_is_done_again_moves_nothing_twice(far: FarMemory, ticks: int) -> None:
    once, twice = new_cache(4, far), new_cache(4, far)
    for frame in range(ticks):
        pass_over(once, frame)
        pass_over(twice, -frame)
        pass_over(twice, frame)
        assert seen(once, 1) == seen(twice, 1)
        once.end()
        twice.end()


@modest
@given(
    window=st.integers(2, 6),
    far=fars,
    ticks=st.integers(1, 60),
    again=st.integers(0, 60),
    spare=st.integers(0, 1),
)
def test_a_ring_that_is_padded_while_it_fills_reads_the_same_at_few_places(
    window: int, far: FarMemory, ticks: int, again: int, spare: int
) -> None:
    plain, padded = new_cache(window, far), new_cache(window, far, padded=True, spare=spare)
    padded.v.fill_(9.0)  # what is not held may be anything
    draw, graph_key, state = torch.Generator().manual_seed(0), set(), {}
    for tick in range(ticks):
        if tick == again:
            state = padded.state()
        plain.begin(1), padded.begin(1)
        assert padded.slots == plain.slots
        graph_key.add(padded.graph_key)
        for layer in range(LAYERS):
            q, k, v = torch.randn((3, 1, HEADS, TOKENS, WIDTH), generator=draw)
            torch.testing.assert_close(padded.attend(layer, q, k, v), plain.attend(layer, q, k, v))
        plain.end(), padded.end()
    assert len(graph_key) <= 3 * window  # while the window fills, while the far ring does, and from then on
    if state:
        padded.load_state(state)
        padded.begin(1)
        count = (padded.visible + padded.distant) * TOKENS
        assert padded._held[:, :count].all() and not padded._held[:, max(count, window * TOKENS) :].any()


def test_a_state_holds_no_more_of_the_far_ring_than_there_is() -> None:
    """A snapshot is kept many times over, and most are taken while the ring fills."""
    far = FarMemory(frames=3, every=2, layers=(1,))
    cache = new_cache(4, far)
    for frame in range(14):
        pass_over(cache, frame)
        cache.end()
        gone = [f for f in range(frame + 1 - 4) if f % far.every == 0][-far.frames :]
        kept = cache.state()["far"]
        assert isinstance(kept, Tensor) and kept.shape == (1, 2, 1, HEADS, len(gone) * TOKENS, WIDTH)
        assert sorted({int(value) for value in kept.flatten()}) == gone
