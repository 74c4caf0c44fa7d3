"""What a KV cache holds: it can be read, copied and restored, and a block that does not fit is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.joined_caches import JoinedCaches
from playhead.world.kv_cache import FarMemory, KVCache
from tests.world.caches import (
    SIDE,
    TOKENS,
    PlainMemory,
    Shape,
    cache_of,
    close,
    generator,
    held,
    modest,
    new_cache,
    noises,
    play,
    play_block,
    same,
    shapes,
)


@modest
@given(shapes(), st.integers(1, 6), st.booleans())
def test_a_restored_state_goes_on_bit_for_bit(shape: Shape, more: int, endless: bool) -> None:
    """In the cache it was taken from, long after, and in a fresh one."""
    span = shape.frames if endless else None
    memory = cache_of(shape, span)
    play(memory, shape.blocks, shape.seed)
    state = memory.state()
    blocks = [shape.blocks[-1]] * more
    first = play(memory, blocks, shape.seed + 1)
    for other in (memory, cache_of(shape, span)):
        other.load_state(state)
        assert other.length == sum(shape.blocks)
        assert same(play(other, blocks, shape.seed + 1), first)


@modest
@given(shapes(least_blocks=2), st.booleans())
def test_a_state_is_taken_back_as_it_was(shape: Shape, endless: bool) -> None:
    """What `state` gave is a copy: later play does not reach it, and restoring gives the same state again."""
    memory = cache_of(shape, shape.frames if endless else None)
    play(memory, shape.blocks[:-1], shape.seed)
    state = memory.state()
    kept = {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}
    play(memory, shape.blocks, shape.seed)
    memory.load_state(state)
    again = memory.state()
    for key, value in kept.items():
        for other in (state[key], again[key]):
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other


@modest
@given(shapes(), st.booleans())
def test_an_abandoned_block_leaves_no_trace(shape: Shape, endless: bool) -> None:
    """A state taken between denoising and commit goes on like one taken before."""
    span = shape.frames if endless else None
    memory = cache_of(shape, span)
    play(memory, shape.blocks, shape.seed)
    before = memory.state()
    (x,) = noises(shape.blocks[-1:], shape.seed + 1)
    memory.begin(x.shape[1])
    positions = range(memory.length, memory.length + x.shape[1])
    cos_sin = generator().rope_table(positions, SIDE, SIDE)
    generator()(x, torch.full(x.shape[:2], 900.0), cos_sin, memory.attend)
    between = memory.state()
    flows = []
    for state in (before, between):
        memory.load_state(state)
        flows.append(play(memory, shape.blocks[-1:] * 3, shape.seed + 2))
    assert same(*flows)


@modest
@given(shapes(), st.booleans())
def test_a_state_goes_on_in_a_ring_of_the_other_kind(shape: Shape, endless: bool) -> None:
    """But for rounding, as frames are read in another order then."""
    shape, span = shape._replace(far=None), shape.frames if endless else None
    memory, other = (
        cache_of(shape._replace(steady=steady), span) for steady in (shape.steady, not shape.steady)
    )
    play(memory, shape.blocks, shape.seed)
    other.load_state(memory.state())
    following = shape.blocks[-1:] * 6
    assert close(play(other, following, shape.seed + 1), play(memory, following, shape.seed + 1))


def test_a_state_takes_room_for_what_is_there_alone_and_goes_on_the_same() -> None:
    """A session whose world can be told to return to its start has a state of that for good."""
    memory, later = new_cache(5, 2, span=6), new_cache(5, 2, span=6)
    assert not any(part.numel() for part in memory.state().values() if isinstance(part, torch.Tensor))
    for count in (1, 2, 2):
        play(memory, [1], count)
        state = memory.state()
        base = state["sink_base"]
        assert isinstance(base, torch.Tensor) and base.shape[3] == count * TOKENS
        later.restart()
        later.load_state(state)
        assert same(play(later, [1] * 9, 7), play(memory, [1] * 9, 7))
        memory.load_state(state)


@modest
@given(shapes())
def test_frames_can_be_read_oldest_first(shape: Shape) -> None:
    memory, plain = cache_of(shape), PlainMemory(shape.frames, shape.sink, None, shape.far)
    play(memory, shape.blocks, shape.seed)
    play(plain, shape.blocks, shape.seed)
    frames = held(memory, memory.length)
    for layer in range(2):
        expected = [
            torch.cat(parts, 2) for parts in zip(*(plain.past[layer][f] for f in frames), strict=True)
        ]
        assert close(memory.ordered(layer), expected)


@pytest.mark.parametrize(("frames", "sink"), [(0, 0), (3, 3), (3, 4), (3, -1)])
def test_a_cache_without_a_ring_is_refused(frames: int, sink: int) -> None:
    with pytest.raises(ValueError, match=f"^a cache of {frames} frames cannot keep a sink of {sink}$"):
        new_cache(frames, sink)


def test_a_block_that_does_not_fit_is_refused_before_anything_changes() -> None:
    memory = new_cache(4, 2)
    play(memory, [1, 1, 1, 1], 0)
    before = memory.k.clone(), memory.v.clone()
    with pytest.raises(ValueError, match=r"^a block of 3 frames does not fit a ring of 2$"):
        memory.begin(3)
    assert same((memory.k, memory.v), before) and memory.length == 4


def test_a_cache_with_a_backend_of_its_own_attends_to_the_same() -> None:
    plain, chosen = new_cache(4, 1), new_cache(4, 1)
    chosen.backend = "torch"
    for x in noises([1] * 6, 3):
        torch.testing.assert_close(play_block(chosen, x), play_block(plain, x))


def test_a_new_cache_is_empty_and_of_the_size_and_kind_that_were_asked_for() -> None:
    far = FarMemory(2, 3, (1,))
    sizes = {"layers": 2, "batch": 3, "heads": 4, "frames": 5, "tokens": 6, "head_dim": 8}
    for dtype in (torch.float32, torch.bfloat16):
        memory = KVCache(**sizes, sink=0, far=far, dtype=dtype)
        assert memory.k.shape == memory.v.shape == (2, 3, 4, (5 + 2) * 6, 8)
        assert memory.k.dtype == memory.v.dtype == memory.sink_base.dtype == dtype
        assert not memory.k.any() and not memory.v.any()
        assert (memory.length, memory.slots, memory.visible, memory.distant) == (0, [], 0, 0)
        moving = KVCache(**sizes, sink=2, span=9, dtype=dtype)
        assert moving.k.shape == (2, 3, 4, 5 * 6, 8) and moving.sink_base.shape == (2, 3, 4, 2 * 6, 8)
        assert moving.sink_base.dtype == dtype and not moving.sink_base.any()
        assert KVCache(**sizes, sink=2, dtype=dtype).sink_base.numel() == 0
    where = KVCache(**sizes, sink=2, span=9, device="meta")
    assert all(t.device.type == "meta" for t in (where.k, where.v, where.sink_base, where._held))


def test_attention_is_asked_for_by_the_name_of_the_backend() -> None:
    for backend in (None, "math", "sage"):
        memory = KVCache(layers=1, batch=1, heads=1, frames=2, sink=0, tokens=2, head_dim=4, backend=backend)
        asked: list[dict[str, str]] = []

        def attend(q: Tensor, k: Tensor, v: Tensor, asked: list = asked, **options: str) -> Tensor:
            asked.append(options)
            return q

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("playhead.world.kv_cache.attention", attend)
            memory.begin(1)
            memory.attend(0, *torch.randn(3, 1, 1, 2, 4))
        assert asked == [{} if backend is None else {"backend": backend}]


def test_caches_that_share_a_pass_answer_each_its_own() -> None:
    blocks = [torch.randn(3, 2, 1, 1, 2, 4) for _ in range(3)]  # q, k and v of two states
    sizes = {"layers": 1, "batch": 1, "heads": 1, "frames": 2, "sink": 0, "tokens": 2, "head_dim": 4}
    alone, together = ([KVCache(**sizes) for _ in range(2)] for _ in range(2))
    for block in blocks:
        for memory in (*alone, *together):
            memory.begin(1)
        each = [m.attend(0, *block[:, i : i + 1, 0]) for i, m in enumerate(alone)]
        assert torch.equal(JoinedCaches(together).attend(0, *block[:, :, 0]), torch.cat(each))
        for memory in (*alone, *together):
            memory.end()
    assert all(torch.equal(a.k, b.k) for a, b in zip(alone, together, strict=True))
