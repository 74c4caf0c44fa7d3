"""The rolling KV cache: exactly the window, at the right distances, for ever, in one piece of memory."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from playhead.world import kv_cache, rope
from playhead.world.kv_cache import FarMemory
from tests.world.caches import (
    HEAD_DIM,
    HEADS,
    SIDE,
    TOKENS,
    PlainMemory,
    Shape,
    at_slot,
    cache_of,
    close,
    held,
    held_far,
    modest,
    new_cache,
    noises,
    play,
    play_block,
    same,
    shapes,
    slot_of,
)


@modest
@given(shapes())
def test_rolling_play_sees_exactly_the_sink_the_last_frames_and_the_far_ones(shape: Shape) -> None:
    """Against a memory that keeps everything and picks what is seen by its definition."""
    rolling = play(cache_of(shape), shape.blocks, shape.seed)
    plain = play(PlainMemory(shape.frames, shape.sink, None, shape.far), shape.blocks, shape.seed)
    assert close(rolling, plain)


@modest
@given(shapes(least_sink=1, least_blocks=4), st.integers(0, 5))
def test_endless_play_keeps_the_sink_within_the_span(shape: Shape, extra: int) -> None:
    """Sink keys count as rotated to at most `span - 1` frames before the newest one."""
    span = shape.frames + extra
    rolling = play(cache_of(shape, span), shape.blocks, shape.seed)
    plain = play(PlainMemory(shape.frames, shape.sink, span), shape.blocks, shape.seed)
    assert close(rolling, plain)


@modest
@given(shapes(least_blocks=8))
def test_a_steady_ring_is_in_the_same_place_in_every_tick_of_a_full_window(shape: Shape) -> None:
    """So that one recorded graph serves them all, of all passes of a tick."""
    memory = cache_of(shape._replace(far=None, steady=True))
    count, seen = shape.blocks[-1], set()
    for _ in range(memory.frames // count + 6):
        for _ in range(2):
            memory.begin(count)
            if memory.length + count > memory.frames:
                seen.add(memory.graph_key)
        memory.end()
    assert seen == {(*range(memory.frames - count, memory.frames), memory.frames)}


@modest
@given(shapes(least_sink=1, least_blocks=4))
def test_a_sink_is_moved_along_the_same_in_parts(shape: Shape) -> None:
    """As a large one is, whose layers at once would take more room than a budget leaves."""
    whole, parts = (cache_of(shape, shape.frames) for _ in range(2))
    wanted = play(whole, shape.blocks, shape.seed)
    with patch.object(kv_cache, "TURNED", 1):
        found = play(parts, shape.blocks, shape.seed)
    assert same(found, wanted) and torch.equal(whole.k, parts.k)


def test_these_comparisons_would_notice_a_frame_too_many_or_a_sink_out_of_place() -> None:
    blocks = [1] * 12
    mine = play(new_cache(4, 1), blocks, 0)
    assert not close(mine, play(PlainMemory(5, 1), blocks, 0), atol=1e-3)
    assert not close(mine, play(PlainMemory(4, 0), blocks, 0), atol=1e-3)
    assert not close(mine, play(PlainMemory(4, 1, span=5), blocks, 0), atol=1e-3)
    mine = play(new_cache(4, 0, far=FarMemory(2, 3, (1,))), blocks, 0)
    assert close(mine, play(PlainMemory(4, 0, far=FarMemory(2, 3, (1,))), blocks, 0))
    for far in (
        None,
        FarMemory(1, 3, (1,)),
        FarMemory(3, 3, (1,)),
        FarMemory(2, 2, (1,)),
        FarMemory(2, 3, (0,)),
        FarMemory(2, 3, (0, 1)),
    ):
        assert not close(mine, play(PlainMemory(4, 0, far=far), blocks, 0), atol=1e-3), far


@modest
@given(shapes())
def test_only_what_falls_out_of_the_window_is_overwritten(shape: Shape) -> None:
    """Committed keys and values that are still seen stay as they are, bit for bit."""
    memory = cache_of(shape)
    for x in noises(shape.blocks, shape.seed):
        length = memory.length + x.shape[1]
        staying = {f: memory.slot(f) for f in held(memory, length) if f < memory.length}
        before = {frame: at_slot(memory, slot) for frame, slot in staying.items()}
        distant = set(held_far(memory, memory.length)) & set(held_far(memory, length))
        beyond = {frame: at_slot(memory, memory.far_slot(frame)) for frame in distant}
        leaving = {f: slot_of(memory, f) for f in set(held_far(memory, length)) - distant}
        play_block(memory, x)
        assert all(same(slot_of(memory, frame), kept) for frame, kept in before.items())
        assert shape.steady or all(memory.slot(frame) == slot for frame, slot in staying.items())
        assert all(same(at_slot(memory, memory.far_slot(f)), beyond[f]) for f in distant)
        for frame, left in leaving.items():  # into the far ring of the layer that has one
            there = at_slot(memory, memory.far_slot(frame))
            assert same([part[1] for part in there], [part[1] for part in left])


@modest
@given(shapes(least_sink=1, least_blocks=4))
def test_moving_the_sink_changes_its_keys_alone(shape: Shape) -> None:
    memory = cache_of(shape, shape.frames)
    for x in noises(shape.blocks, shape.seed):
        staying = [f for f in held(memory, memory.length + x.shape[1]) if f < memory.length]
        before = {frame: slot_of(memory, frame) for frame in staying}
        play_block(memory, x)
        for frame in staying:
            k, v = slot_of(memory, frame)
            assert torch.equal(v, before[frame][1])
            assert frame < shape.sink or torch.equal(k, before[frame][0])


def test_attention_writes_to_none_of_its_inputs() -> None:
    memory = new_cache(3, 1)
    memory.begin(1)
    q, k, v = torch.randn(3, 1, HEADS, TOKENS, HEAD_DIM)
    before = q.clone(), k.clone(), v.clone()
    first = memory.attend(0, q, k, v)
    inside = slot_of(memory, 0)
    again = memory.attend(0, q, k, v)
    assert same((q, k, v), before) and same(slot_of(memory, 0), inside)
    assert torch.equal(first, again)


@modest
@given(shapes(least_sink=1), st.integers(0, 5))
def test_endless_is_absolute_as_long_as_nothing_had_to_move(shape: Shape, extra: int) -> None:
    """Bit for bit, while the newest frame is within the span."""
    span = sum(shape.blocks) + shape.frames + extra
    endless = play(cache_of(shape, span), shape.blocks, shape.seed)
    absolute = play(cache_of(shape), shape.blocks, shape.seed)
    assert same(endless, absolute)


@pytest.mark.parametrize("length", [6, 7, 20, 1024, 10**5, 10**7])
def test_sink_keys_stand_at_the_same_distance_for_ever(length: int) -> None:
    """The newest frame is `span - 1` away from the first sink frame, with no error that grows."""
    sink, span, side = 2, 6, SIDE // 2
    memory = new_cache(5, sink, span)
    raw = torch.randn(1, HEADS, sink * TOKENS, HEAD_DIM)
    memory.begin(sink)
    for layer in range(2):
        k = rope.rotate(raw, rope.table(rope.grid_angles(range(sink), side, side, HEAD_DIM)))
        memory.attend(layer, k, k, raw)
    memory.end()
    for before in (span, length // 2, length - 1, length):  # moving it often is moving it once
        memory.length = max(before, sink)
        memory.begin(1)
    first = length - (span - 1)
    there = rope.rotate(raw, rope.table(rope.grid_angles(range(first, first + sink), side, side, HEAD_DIM)))
    assert torch.allclose(memory.k[:, 0, :, : sink * TOKENS], there[0].expand(2, -1, -1, -1), atol=1e-5)


@pytest.mark.parametrize("start", [1000, 1023, 10**7, 2**30 + 1])
@pytest.mark.parametrize(("sink", "span"), [(0, None), (0, 6), (2, 6)])
def test_play_far_beyond_the_positions_of_the_reference_is_play_near_the_start(
    start: int, sink: int, span: int | None
) -> None:
    """The reference ends at latent 1023; here only distances count, so a shifted start changes nothing."""
    blocks = [1, 2, 1, 3, 1, 1, 2, 1]

    def play_from(length: int) -> list[Tensor]:
        memory = new_cache(sink + 3, sink, span)
        if sink:
            play(memory, [sink], 1)
        memory.k[..., sink * TOKENS :, :] = 0  # a past that looks the same from everywhere
        memory.v[..., sink * TOKENS :, :] = 0
        memory.length = length
        return play(memory, blocks, 2)

    near, far = play_from(12), play_from(start)
    assert all(torch.isfinite(flow).all() for flow in far)
    assert close(near, far, atol=1e-4)


@pytest.mark.parametrize("position", [0, 1, 1023, 10**7, 2**30 + 1])
def test_angles_are_exact_however_far_a_position(position: int) -> None:
    angles = rope.axis_angles([position], 22)[0].tolist()
    assert angles == pytest.approx([position * 10000 ** (-j / 22) for j in range(22)], rel=1e-14)


@modest
@given(shapes(least_blocks=8), st.booleans())
def test_memory_never_grows(shape: Shape, endless: bool) -> None:
    """The buffers are allocated once, and a full cache's state has one size."""
    memory = cache_of(shape, shape.frames if endless else None)
    buffers = [memory.k, memory.v, memory.sink_base]
    graph_key = [(buffer.data_ptr(), buffer.untyped_storage().nbytes()) for buffer in buffers]
    sizes = []
    for x in noises(shape.blocks, shape.seed):
        play_block(memory, x)
        sizes.append(sum(t.numel() for t in memory.state().values() if isinstance(t, Tensor)))
    now = [memory.k, memory.v, memory.sink_base]
    assert [(buffer.data_ptr(), buffer.untyped_storage().nbytes()) for buffer in now] == graph_key
    assert max(sizes) <= sum(buffer.numel() for buffer in buffers)
    assert memory.length == sum(shape.blocks)
