"""The rolling KV cache: exactly the window, at the right distances, for ever, in one piece of memory."""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world import rope
from playhead.world.attention import Attend
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import FarMemory, JoinedCaches, KVCache

SIDE, TOKENS, HEADS, HEAD_DIM = 4, 4, 2, 12  # latents of 4 x 4 in patches of 2 x 2
modest = settings(max_examples=30, deadline=None)


class Shape(NamedTuple):
    """A cache of `frames` frames, `sink` of them kept, and the block sizes that go through it.

    `far`: what its second layer remembers beyond them.
    """

    frames: int
    sink: int
    blocks: list[int]
    seed: int
    far: FarMemory | None


fars = st.builds(FarMemory, frames=st.integers(1, 3), every=st.integers(1, 4), layers=st.just((1,)))


@st.composite
def shapes(draw: st.DrawFn, least_sink: int = 0, least_blocks: int = 1) -> Shape:
    """Any cache, and blocks of one size as play has them, perhaps after single given frames."""
    sink, size = draw(st.integers(least_sink, 3)), draw(st.integers(1, 3))
    frames = draw(st.integers(sink + size, sink + size + 4))
    given_frames = draw(st.integers(0, 2))
    blocks = draw(st.integers(least_blocks, least_blocks + 9))
    far = draw(st.none() | fars) if not sink else None
    return Shape(frames, sink, [1] * given_frames + [size] * blocks, draw(st.integers(0, 2**32)), far)


@cache
def generator(layers: int = 2) -> Generator:
    """A tiny generator with every weight drawn large enough for attention to matter."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        dim=HEADS * HEAD_DIM,
        heads=HEADS,
        layers=layers,
        ffn_dim=32,
        in_channels=2,
        out_channels=2,
        time_features=8,
    )
    model = Generator(config).requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.copy_(torch.randn_like(weight) / math.sqrt(weight[0].numel()))
    return model


def new_cache(frames: int, sink: int, span: int | None = None, far: FarMemory | None = None) -> KVCache:
    return KVCache(
        layers=2,
        batch=1,
        heads=HEADS,
        frames=frames,
        sink=sink,
        tokens=TOKENS,
        head_dim=HEAD_DIM,
        span=span,
        far=far,
    )


def cache_of(shape: Shape, span: int | None = None) -> KVCache:
    return new_cache(shape.frames, shape.sink, span, shape.far)


class Memory(Protocol):
    """What `play` needs of a cache."""

    length: int
    attend: Attend

    def begin(self, count: int) -> None: ...
    def end(self) -> None: ...


class PlainMemory:
    """The reference: keeps every frame for ever and picks the visible ones by the definition of the window.

    Keys are kept as they came and turned to where they count anew in every pass; softmax is written out.
    """

    def __init__(self, frames: int, sink: int, span: int | None = None, far: FarMemory | None = None) -> None:
        self.frames, self.sink, self.span, self.far = frames, sink, span, far
        self.length = 0
        self.since = 0  # the first frame after the last flush
        self.past: list[list[tuple[Tensor, Tensor]]] = [[], []]
        self.block: list[list[tuple[Tensor, Tensor]]] = [[], []]

    def begin(self, count: int) -> None:
        self.count = count

    def place(self, frame: int, k: Tensor) -> Tensor:
        """A frame's keys, sink frames no further from the newest frame than `span - 1`."""
        newest = self.length + self.count - 1
        if self.span is None or frame >= self.sink or newest < self.span:
            return k
        side = SIDE // 2
        there = rope.grid_angles([frame + newest - (self.span - 1)], side, side, HEAD_DIM)
        unrotated = rope.rotate(k, rope.table(-rope.grid_angles([frame], side, side, HEAD_DIM)))
        return rope.rotate(unrotated, rope.table(there))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.block[layer] = list(zip(k.split(TOKENS, 2), v.split(TOKENS, 2), strict=True))
        frames = self.past[layer] + self.block[layer]
        first = max(self.sink, self.since, len(frames) - (self.frames - self.sink))
        window = range(first, len(frames))
        visible = [*range(min(self.sink, len(frames))), *window]
        if self.far is not None and layer in self.far.layers:
            visible += range(0, window.start, self.far.every)[-self.far.frames :]
        keys = torch.cat([self.place(i, frames[i][0]) for i in visible], 2).double()
        values = torch.cat([frames[i][1] for i in visible], 2).double()
        scores = q.double() @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (scores.softmax(-1) @ values).float()

    def end(self) -> None:
        for past, block in zip(self.past, self.block, strict=True):
            past.extend(block)
        self.length += self.count

    def flush(self, length: int) -> None:
        """Nothing between the sink and frame `length` is seen from here on."""
        self.past = [past[:length] for past in self.past]
        self.length = self.since = length


def play_block(memory: Memory, x: Tensor, model: Generator | None = None) -> Tensor:
    """Two passes over a block, `(1, F, 2, 4, 4)`, the second of which commits it; both flows.

    `begin` comes before each pass, as in play, where the commit is a phase of its own.
    """
    model = model or generator()
    flows = []
    for level in (700.0, 0.0):
        memory.begin(x.shape[1])
        positions = range(memory.length, memory.length + x.shape[1])
        cos_sin = model.rope_table(positions, SIDE, SIDE)
        flows.append(model(x, torch.full(x.shape[:2], level), cos_sin, memory.attend))
        x = x - 0.5 * flows[-1]
    memory.end()
    return torch.cat(flows)


def noises(blocks: Sequence[int], seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(1, size, 2, SIDE, SIDE, generator=draw) for size in blocks]


def play(memory: Memory, blocks: Sequence[int], seed: int, model: Generator | None = None) -> list[Tensor]:
    return [play_block(memory, x, model) for x in noises(blocks, seed)]


def close(a: Sequence[Tensor], b: Sequence[Tensor], atol: float = 2e-5) -> bool:
    return all(torch.allclose(x, y, atol=atol) for x, y in zip(a, b, strict=True))


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def slot_of(memory: KVCache, frame: int) -> tuple[Tensor, Tensor]:
    """Copies of what the cache holds for a frame."""
    return at_slot(memory, memory.slot(frame))


def at_slot(memory: KVCache, slot: int) -> tuple[Tensor, Tensor]:
    place = slice(slot * TOKENS, (slot + 1) * TOKENS)
    return memory.k[..., place, :].clone(), memory.v[..., place, :].clone()


def held(memory: KVCache, length: int) -> list[int]:
    """The frames in the window once `length` frames are there."""
    ring = memory.frames - memory.sink
    return [*range(min(memory.sink, length)), *range(max(memory.sink, length - ring), length)]


def held_far(memory: KVCache, length: int) -> list[int]:
    """The frames beyond the window once `length` frames are there."""
    if memory.far is None:
        return []
    return list(range(0, max(0, length - memory.frames), memory.far.every)[-memory.far.frames :])


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
    rolling = play(new_cache(shape.frames, shape.sink, span), shape.blocks, shape.seed)
    plain = play(PlainMemory(shape.frames, shape.sink, span), shape.blocks, shape.seed)
    assert close(rolling, plain)


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
        assert all(same(at_slot(memory, slot), before[frame]) for frame, slot in staying.items())
        assert all(same(at_slot(memory, memory.far_slot(f)), beyond[f]) for f in distant)
        for frame, left in leaving.items():  # into the far ring of the layer that has one
            there = at_slot(memory, memory.far_slot(frame))
            assert same([part[1] for part in there], [part[1] for part in left])


@modest
@given(shapes(least_sink=1, least_blocks=4))
def test_moving_the_sink_changes_its_keys_alone(shape: Shape) -> None:
    memory = new_cache(shape.frames, shape.sink, span=shape.frames)
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


def test_a_block_that_does_not_fit_is_refused_before_anything_changes() -> None:
    memory = new_cache(4, 2)
    play(memory, [1, 1, 1, 1], 0)
    before = memory.k.clone(), memory.v.clone()
    with pytest.raises(ValueError, match=r"^a block of 3 frames does not fit a ring of 2$"):
        memory.begin(3)
    assert same((memory.k, memory.v), before) and memory.length == 4


@modest
@given(shapes(least_blocks=2), st.integers(0, 12), st.booleans(), st.booleans())
def test_after_a_flush_the_sink_and_what_came_since_are_seen(
    shape: Shape, back: int, endless: bool, restored: bool
) -> None:
    """At the same positions, however far it went back, again and again; from a state of it too."""
    span = shape.frames if endless and shape.sink else None
    memory, plain = new_cache(shape.frames, shape.sink, span), PlainMemory(shape.frames, shape.sink, span)
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
            state, memory = memory.state(), new_cache(shape.frames, shape.sink, span)
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


def test_a_cache_with_a_backend_of_its_own_attends_to_the_same() -> None:
    plain, chosen = new_cache(4, 1), new_cache(4, 1)
    chosen.backend = "torch"
    for x in noises([1] * 6, 3):
        torch.testing.assert_close(play_block(chosen, x), play_block(plain, x))


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
