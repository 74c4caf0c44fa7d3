"""A KV cache that forgets: after a flush or a restart nothing is left of what came before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.kv_cache import FarMemory
from tests.world.caches import (
    PlainMemory,
    Shape,
    cache_of,
    close,
    modest,
    new_cache,
    noises,
    play,
    play_block,
    same,
    shapes,
)


def test_a_far_memory_goes_with_no_sink_and_cannot_be_flushed() -> None:
    with pytest.raises(ValueError, match=r"^a far memory and a sink do not go together$"):
        new_cache(4, 1, far=FarMemory(2, 3, (1,)))
    memory = new_cache(4, 0, far=FarMemory(2, 3, (1,)))
    play(memory, [1] * 9, 0)
    before = memory.state()
    with pytest.raises(ValueError, match=r"^a cache with a far memory cannot be flushed$"):
        memory.flush(memory.length)
    assert same([v for v in memory.state().values() if isinstance(v, Tensor)],
                [v for v in before.values() if isinstance(v, Tensor)])  # fmt: skip
    assert memory.length == 9


@modest
@given(shapes(least_blocks=2), st.integers(0, 12), st.booleans(), st.booleans())
def test_after_a_flush_the_sink_and_what_came_since_are_seen(
    shape: Shape, back: int, endless: bool, restored: bool
) -> None:
    """At the same positions, however far it went back, again and again; from a state of it too."""
    span = shape.frames if endless and shape.sink else None
    shape = shape._replace(far=None)  # which cannot be flushed
    memory, plain = cache_of(shape, span), PlainMemory(shape.frames, shape.sink, span)
    for turn in range(2):
        assert close(*(play(m, shape.blocks, shape.seed + turn) for m in (memory, plain)))
        length = max(min(shape.sink, memory.length), memory.length - back)
        memory.flush(length)
        plain.flush(length)
        assert (memory.length, memory.slots, memory.visible) == (length, [], 0)
        for layer in range(2):  # nothing but the sink
            expected = [torch.cat(parts, 2) for parts in zip(*plain.past[layer][: shape.sink], strict=True)]
            if expected:
                assert close(memory.ordered(layer), expected)
        if restored:
            state, memory = memory.state(), cache_of(shape, span)
            memory.load_state(state)
    assert close(*(play(m, shape.blocks, shape.seed + 2) for m in (memory, plain)))
    memory.begin(1)
    assert memory.visible <= shape.frames


@pytest.mark.parametrize(("sink", "played", "lengths"), [(2, 6, (1, 7)), (2, 1, (0, 2)), (0, 3, (-1, 4))])
def test_a_flush_goes_back_to_no_frame_of_the_sink_and_to_none_that_was_not(
    sink: int, played: int, lengths: tuple[int, ...]
) -> None:
    memory = new_cache(4, sink)
    play(memory, [1] * played, 0)
    for length in lengths:
        with pytest.raises(ValueError, match=f"^a cache of {played} .* go on from frame {length}$"):
            memory.flush(length)
    assert memory.length == played
    for length in (played, min(sink, played)):
        memory.flush(length)
        assert memory.length == length


def test_a_sink_that_was_moved_along_is_back_where_it_began_once_the_play_is() -> None:
    """As when a prompt is switched just after the cache has filled: the last latents are committed again."""
    memory, fresh = (new_cache(4, 1, span=4) for _ in range(2))
    blocks = noises([1] * 6, 0)
    for x in blocks:  # frame 4 is the first to move the sink, frame 5 does so again
        play_block(memory, x)
    memory.flush(1)
    play_block(fresh, blocks[0])
    for x in noises([1] * 8, 1):
        assert torch.equal(play_block(memory, x), play_block(fresh, x))


@modest
@given(shapes(), st.booleans())
def test_a_restarted_cache_is_a_new_one(shape: Shape, endless: bool) -> None:
    span = shape.frames if endless else None
    memory, fresh = cache_of(shape, span), cache_of(shape, span)
    play(memory, [*shape.blocks, shape.blocks[-1]], shape.seed + 1)
    memory.begin(1)
    memory.restart()
    assert (memory.length, memory.slots, memory.visible, memory.distant) == (0, [], 0, 0)
    for x in noises(shape.blocks * 2, shape.seed):
        assert torch.equal(play_block(memory, x), play_block(fresh, x))
        assert memory.graph_key == fresh.graph_key and memory.distant == fresh.distant


def test_after_a_flush_and_a_restart_nothing_of_the_flush_is_left() -> None:
    memory, fresh = new_cache(4, 1), new_cache(4, 1)
    play(memory, [1] * 7, 1)
    memory.flush(5)
    memory.restart()
    assert same(play(memory, [1] * 6, 2), play(fresh, [1] * 6, 2))
    assert [memory.slot(frame) for frame in range(8)] == [fresh.slot(frame) for frame in range(8)]


def test_a_copy_after_a_flush_holds_what_is_left_and_no_more() -> None:
    memory = new_cache(4, 1)
    play(memory, [1] * 7, 1)
    tokens = memory.tokens
    assert memory.state()["k"].shape[3] == 4 * tokens
    memory.flush(7)
    assert memory.state()["k"].shape[3] == tokens  # the sink
    play(memory, [1], 2)
    kept = memory.state()
    assert kept["k"].shape[3] == kept["v"].shape[3] == 2 * tokens
