"""KV caches for tests: of any shape, played through a tiny generator, beside one that keeps everything."""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.world import rope
from playhead.world.attention import Attend
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import FarMemory, KVCache

SIDE, TOKENS, HEADS, HEAD_DIM = 4, 4, 2, 12  # latents of 4 x 4 in patches of 2 x 2
modest = settings(max_examples=30, deadline=None)


class Shape(NamedTuple):
    """A cache of `frames` frames, `sink` of them kept, and the block sizes that go through it.

    `far`: what its second layer remembers beyond them. `steady`: whether its ring is.
    """

    frames: int
    sink: int
    blocks: list[int]
    seed: int
    far: FarMemory | None
    steady: bool = False


fars = st.builds(FarMemory, frames=st.integers(1, 3), every=st.integers(1, 4), layers=st.just((1,)))


@st.composite
def shapes(draw: st.DrawFn, least_sink: int = 0, least_blocks: int = 1) -> Shape:
    """Any cache, and blocks of one size as play has them, perhaps after single given frames."""
    sink, size = draw(st.integers(least_sink, 3)), draw(st.integers(1, 3))
    frames = draw(st.integers(sink + size, sink + size + 4))
    given_frames = draw(st.integers(0, 2))
    blocks = draw(st.integers(least_blocks, least_blocks + 9))
    far = draw(st.none() | fars) if not sink else None
    steady = draw(st.booleans()) if far is None else False
    return Shape(frames, sink, [1] * given_frames + [size] * blocks, draw(st.integers(0, 2**32)), far, steady)


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


def new_cache(
    frames: int, sink: int, span: int | None = None, far: FarMemory | None = None, steady: bool = False
) -> KVCache:
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
        steady=steady,
    )


def cache_of(shape: Shape, span: int | None = None) -> KVCache:
    return new_cache(shape.frames, shape.sink, span, shape.far, shape.steady)


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
