"""The rolling KV cache: `sink` frames that stay and a ring of the last ones, allocated once.

Keys are stored rotated at their absolute frame index. RoPE makes scores depend on distances alone and
angles come from integers in float64 (`world.rope`), so the ring needs no re-rotation and never runs out of
positions. Only sink frames would drift ever further away; in `endless` positions they are moved along, a
few frames once a tick, from a base copy kept at their first position, so that they never look further away
than the generator was trained for (the "top aligned" positions of Self Gradient Forcing).

Eviction copies nothing: a new frame takes the slot of the one that falls out. The order of slots does not
matter to attention. (But for a ring in which a block has the same slots in every tick: `world.steady_ring`.)

Some layers may look further: of the frames that fall out of the ring, every so many-th goes on into a far
ring of theirs (`FarMemory`), so that a few frames reach back many times as far as the window.
"""

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from playhead.world import rope
from playhead.world.attention import attention
from playhead.world.bounds import Size
from playhead.world.sparse_attention import SPARSE, sparse_attention
from playhead.world.sparse_rules import FAR, HeldSlots
from playhead.world.steady_ring import SteadyRing

TURNED = 32 * 2**20
"""Bytes of a sink's keys that are moved along at once: the work takes several times as much."""


class FarMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `layers` remember of the frames that left the window: of every `every`-th the last `frames`."""

    frames: Size
    every: Size
    layers: tuple[Size, ...]

    def sees(self, query: Tensor, key: Tensor, window: int) -> Tensor:
        """Whether frame `query` finds frame `key` there, absolute indices, where a ring holds `window`."""
        gone = query - window  # the newest frame that has fallen out
        newer = gone.div(self.every, rounding_mode="floor") - key // self.every
        return (key % self.every == 0) & (key <= gone) & (newer < self.frames)


class KVCache:
    """Keys and values `(layers, B, heads, (frames + far.frames) * tokens, head_dim)`.

    At most `frames` latent frames are held, the block under way included, as `local_attn_size` counts them in
    Self-Forcing, and those of `far` after them. `span` is the number of frames that the generator was trained
    on, or None to leave the sink at its absolute positions. `backend`: of `world.attention` or
    `world.sparse_attention`, or None for the usual one. `padded`: a far ring is read whole while it fills,
    under a mask, so that a tick recorded as a CUDA graph may come again; None: on CUDA. `stored`: the number
    type of what is held, where that is not `dtype` (`world.low_bit_cache`). `spare`: slots behind all others,
    which nothing reads (`world.wide`). `steady`: the ring is a `SteadyRing`.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        frames: int,
        sink: int,
        tokens: int,
        head_dim: int,
        span: int | None = None,
        far: FarMemory | None = None,
        backend: str | None = None,
        padded: bool | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stored: torch.dtype | None = None,
        spare: int = 0,
        steady: bool = False,
    ) -> None:
        if not 0 <= sink < frames:
            raise ValueError(f"a cache of {frames} frames cannot keep a sink of {sink}")
        if far is not None and sink:
            raise ValueError("a far memory and a sink do not go together")
        if far is not None and steady:
            raise ValueError("a far memory and a steady ring do not go together")
        self.far = far
        slots = frames + (far.frames if far is not None else 0)
        shape = (layers, batch, heads, (slots + spare) * tokens, head_dim)
        self._place(shape, stored or dtype, device)
        self.frames, self.sink, self.tokens, self.head_dim, self.span = frames, sink, tokens, head_dim, span
        moving = sink if span is not None else 0
        self.sink_base = torch.zeros(
            (layers, batch, heads, moving * tokens, head_dim), device=device, dtype=dtype
        )
        self.backend = backend
        self.length = 0  # frames committed since the start
        self.origin = 0  # ring frames that were flushed away: the first one after them takes the first slot
        self.slots: list[int] = []  # where the block under way goes
        self.visible = 0  # slots that hold something, the block under way included
        self.distant = 0  # frames in the far ring
        self._steady = SteadyRing(sink, frames - sink) if steady else None
        self._moved = 0  # frames that have fallen out of the ring since the start
        self._padded = self.k.is_cuda if padded is None else padded
        self._held = torch.zeros((1, slots * tokens), dtype=torch.bool, device=device)  # of a full window
        self._count_far()

    def _place(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        """Allocates keys and values."""
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)

    def restart(self) -> None:
        """Forgets everything; the buffers stay."""
        self.length, self.slots, self.visible, self.origin = 0, [], 0, 0
        if self._steady is not None:
            self._steady.clear()
        self._moved = 0
        self._count_far()

    def flush(self, length: int) -> None:
        """Forgets every frame but the sink; the next block begins at absolute frame index `length`.

        Committing the frames from there on again is a recache; with `length` as it was, only the sink is
        left. A sink that is not complete is kept as far as it is there; one that was moved along stands where
        it began, since the next block may be too early to move it at all.
        """
        if self.far is not None:
            raise ValueError("a cache with a far memory cannot be flushed")
        if not min(self.sink, self.length) <= length <= self.length:
            raise ValueError(f"a cache of {self.length} frames cannot go on from frame {length}")
        if self.sink_base.shape[3] and self.length >= self.sink:
            self._set_sink(self.sink_base)
        self.length, self.slots, self.visible, self.origin = length, [], 0, max(0, length - self.sink)
        if self._steady is not None:
            self._steady.clear()

    def slot(self, frame: int) -> int:
        """The slot of absolute frame index `frame`; in a steady ring, of one that is committed."""
        if frame < self.sink:
            return frame
        return self._usual_slot(frame) if self._steady is None else self._steady.slot(frame)

    def _usual_slot(self, frame: int) -> int:
        return self.sink + (frame - self.sink - self.origin) % (self.frames - self.sink)

    def far_slot(self, frame: int) -> int:
        """The slot of absolute frame index `frame` in the far ring."""
        assert self.far is not None
        return self.frames + frame // self.far.every % self.far.frames

    def begin(self, count: int) -> None:
        """Makes room for a block of `count` frames; the oldest ring frames fall out, just enough of them."""
        if count > self.frames - self.sink:
            raise ValueError(f"a block of {count} frames does not fit a ring of {self.frames - self.sink}")
        if self._steady is None:
            self.slots = [self.slot(self.length + i) for i in range(count)]
        else:
            of_sink = range(self.length, min(self.sink, self.length + count))
            rest, moves = self._steady.make_room(count - len(of_sink))
            self.slots = [*of_sink, *rest]
            for source, target in moves:
                self._copy_slot(source, target)
        self.visible = min(self.length - self.origin + count, self.frames)
        if self.far is not None:
            self._move_far(self.length + count - self.frames)
        if self.sink_base.shape[3]:
            self._move_sink(self.length + count - 1)

    def _copy_slot(self, source: int, target: int) -> None:
        """Copies what all layers hold in a slot into another."""
        n = self.tokens
        for held in self._stored():
            held[:, :, :, target * n : (target + 1) * n] = held[:, :, :, source * n : (source + 1) * n]

    def _move_far(self, gone: int) -> None:
        """Takes into the far ring what is due of the first `gone` frames, before their slots are taken."""
        assert self.far is not None
        for frame in range(self._moved, gone):
            if frame % self.far.every == 0:
                self._carry(frame)
        if gone > self._moved:
            self._moved = gone
            self._count_far()

    def _carry(self, frame: int) -> None:
        """Copies a frame that falls out of the ring into the far one."""
        assert self.far is not None
        n, source, target = self.tokens, self.slot(frame), self.far_slot(frame)
        for layer in self.far.layers:
            for held in self._stored():
                held[layer, :, :, target * n : (target + 1) * n] = held[
                    layer, :, :, source * n : (source + 1) * n
                ]

    def _stored(self) -> tuple[Tensor, ...]:
        """All that is held of tokens, which are the fourth dimension."""
        return self.k, self.v

    def _count_far(self) -> None:
        """Takes note of how many frames the far ring holds."""
        if self.far is None:
            return
        self.distant = self._reached()
        if self._padded:
            end = (self.frames + self.distant) * self.tokens
            self._held[:, :end], self._held[:, end:] = True, False

    def _reached(self) -> int:
        """How many frames the far ring holds."""
        assert self.far is not None
        return min(-(-self._moved // self.far.every), self.far.frames)

    @property
    def _fills(self) -> bool:
        """Whether the far ring is read under a mask."""
        return (
            self.far is not None
            and self._padded
            and self.visible == self.frames
            and self.distant < self.far.frames
        )

    @property
    def full(self) -> bool:
        """Whether all slots hold something, with the block under way."""
        return self.visible == self.frames

    @property
    def graph_key(self) -> tuple[int, ...]:
        """Where the block under way is written, and how far the layers read."""
        if self.far is None:
            return (*self.slots, self.visible)
        return (*self.slots, self.visible, -1 if self._fills else self.distant)

    def _move_sink(self, newest: int) -> None:
        assert self.span is not None
        shift = max(0, newest - (self.span - 1))
        if shift == 0 or self.length < self.sink:
            return
        cos_sin = rope.table(rope.time_angles(shift, self.head_dim)).to(self.k.device)
        many = max(1, TURNED // max(1, self.sink_base[0].nbytes))  # layers at once, for room
        for first in range(0, len(self.sink_base), many):
            layers = slice(first, first + many)
            self._set_sink(rope.rotate(self.sink_base[layers], cos_sin[:, None]), layers)

    def _set_sink(self, keys: Tensor, layers: slice = slice(None)) -> None:
        """Puts the sink's keys of some layers where they are read."""
        self.k[layers, :, :, : self.sink * self.tokens] = keys

    def _keys(self, first: int, last: int) -> Tensor:
        """All layers' keys of some tokens, as they came."""
        return self.k[..., first:last, :]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Puts the block's keys and values into its own slots and attends to everything in the window.

        The slots of committed frames are only read. A block's slots are overwritten by each of its passes
        and count as committed after `end`.
        """
        self.put(layer, k, v)
        return self.read(layer, q)

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Puts the block's keys and values `(B, heads, tokens, head_dim)` into its own slots."""
        n = self.tokens
        for i, slot in enumerate(self.slots):
            self.k[layer, :, :, slot * n : (slot + 1) * n] = k[:, :, i * n : (i + 1) * n]
            self.v[layer, :, :, slot * n : (slot + 1) * n] = v[:, :, i * n : (i + 1) * n]

    def own(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """The block's own slots, for who writes keys and values there, where they follow each other."""
        first, count = self.slots[0], len(self.slots)
        if self.slots != list(range(first, first + count)):
            return None
        part = slice(first * self.tokens, (first + count) * self.tokens)
        return self.k[layer, :, :, part], self.v[layer, :, :, part]

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values that a layer reads, those of the block's own slots included."""
        wide = self.far is not None and layer in self.far.layers
        end = (self.visible + wide * self.distant) * self.tokens
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]

    def held_slots(self, layer: int) -> HeldSlots:
        """Where in time the slots stand that `held` gives, with a block under way.

        It hangs on `graph_key` alone: a sink counts as right before the ring, however long ago it was.
        """
        ring, newest = self.frames - self.sink, self.slots[-1]
        places = [
            slot if slot < self.sink else self.visible - 1 - (newest - slot) % ring
            for slot in range(self.visible)
        ]
        most = self.frames
        if self.far is not None and layer in self.far.layers:
            places += [FAR] * self.distant
            most += self.far.frames
        return HeldSlots(self.tokens, tuple(places), tuple(self.slots), most)

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attends to the window, and to the far ring where a layer has one: to all, or what a rule names.

        Under a mask, a far ring that fills is read whole whatever the backend.
        """
        if self._fills and self.far is not None and layer in self.far.layers:
            end = self._held.shape[1]  # behind which there may be a spare slot
            return attention(q, self.k[layer][:, :, :end], self.v[layer][:, :, :end], self._held)
        k, v = self.held(layer)
        if self.backend in SPARSE:
            return sparse_attention(q, k, v, self.backend, self.held_slots(layer))
        return attention(q, k, v) if self.backend is None else attention(q, k, v, backend=self.backend)

    def end(self) -> None:
        """Counts the block under way as committed."""
        n = self.tokens
        for i, slot in enumerate(self.slots):
            if self.length + i < self.sink and self.sink_base.shape[3]:
                self.sink_base[..., slot * n : (slot + 1) * n, :] = self._keys(slot * n, (slot + 1) * n)
            if self._steady is not None and self.length + i >= self.sink:
                self._steady.commit(self.length + i, slot)
        self.length += len(self.slots)
        self.slots = []

    def ordered(self, layer: int) -> tuple[Tensor, Tensor]:
        """Copies of a layer's committed keys and values, oldest first: `(B, heads, tokens, head_dim)`."""
        index = self._ordered_tokens()
        return self.k[layer].index_select(2, index), self.v[layer].index_select(2, index)

    def _ordered_tokens(self) -> Tensor:
        """Where committed tokens lie, oldest first."""
        held = self._usual_frames() if self._steady is None else self._steady.frames
        slots = [self.slot(f) for f in [*range(min(self.sink, self.length)), *held]]
        index = torch.cat([torch.arange(s * self.tokens, (s + 1) * self.tokens) for s in slots])
        return index.to(self.k.device)

    def _usual_frames(self) -> range:
        """Those of the ring that are committed, oldest first, where no block under way has pushed one out."""
        return range(max(self.sink + self.origin, self.length - (self.frames - self.sink)), self.length)

    def _far_part(self, layer: int, count: int) -> tuple[Tensor, Tensor]:
        """A layer's far keys and values, `(B, heads, count * tokens, head_dim)`."""
        part = slice(self.frames * self.tokens, (self.frames + count) * self.tokens)
        return self.k[layer, :, :, part], self.v[layer, :, :, part]

    def _far_state(self) -> Tensor:
        """A copy of what the far ring holds, `(far layers, 2, B, heads, tokens, head_dim)`."""
        assert self.far is not None
        return torch.stack([torch.stack(self._far_part(i, self.distant)) for i in self.far.layers])

    def state(self) -> "CacheState":
        """A copy of everything that the next tick depends on."""
        end = min(self.length - self.origin, self.frames) * self.tokens
        held: CacheState = {}
        if self.far is not None:
            held = {"far": self._far_state(), "moved": self._moved}
        if self._steady is not None:
            held = {"places": self._steady.state()}
        return {
            **held,
            "k": self.k[..., :end, :].clone(),
            "v": self.v[..., :end, :].clone(),
            "sink_base": self.sink_base[:, :, :, : min(self.length, self.sink) * self.tokens].clone(),
            "length": self.length,
            "origin": self.origin,
        }

    def load_state(self, state: "CacheState") -> None:
        """Takes over a copy made by `state`, whether that was of a steady ring or not."""
        k, v, base, length = state["k"], state["v"], state["sink_base"], state["length"]
        assert isinstance(k, Tensor) and isinstance(v, Tensor) and isinstance(base, Tensor)
        origin = state["origin"]
        assert isinstance(length, int) and isinstance(origin, int)
        self.k[..., : k.shape[3], :] = k
        self.v[..., : v.shape[3], :] = v
        self.sink_base[:, :, :, : base.shape[3]] = base
        self.length, self.slots, self.visible, self.origin = length, [], 0, origin
        places = state.get("places")
        if self._steady is not None:
            usual = [number for f in self._usual_frames() for number in (f, self._usual_slot(f))]
            self._steady.load_state(places if isinstance(places, list) else usual)
        elif isinstance(places, list):
            self._sort(places)
        if self.far is not None:
            far, moved = state["far"], state["moved"]  # one more than fell out, if a block was under way
            assert isinstance(far, Tensor) and isinstance(moved, int)
            self._moved = moved
            self._count_far()
            for layer, held in zip(self.far.layers, far, strict=True):
                for mine, kept in zip(self._far_part(layer, self.distant), held, strict=True):
                    mine.copy_(kept)

    def _sort(self, places: Sequence[int]) -> None:
        """Puts frames that lie as a steady ring had them where they belong."""
        index, tokens = torch.arange(self.frames), torch.arange(self.tokens)
        for frame, slot in zip(places[::2], places[1::2], strict=True):
            index[self.slot(frame)] = slot
        taken = (index[:, None] * self.tokens + tokens).flatten().to(self.k.device)
        for held in self._stored():
            held[:, :, :, : len(taken)] = held.index_select(3, taken)


CacheState = dict[str, Tensor | int | list[int]]
"""As `KVCache.state` gives it."""
