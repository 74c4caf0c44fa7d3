"""A pass of one width for many sessions, each at a tick of its own: recorded once, whoever takes part.

What a kernel makes of a row may hang on how many rows there are. So a wide world has all its sessions go by
passes over the same number of rows, alone or in company: those who take no part are computed along, and
nothing of theirs changes. Where each one's frames lie, how far it sees and what it draws is told to the
device in numbers, so that one recorded CUDA graph serves every tick of everybody.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from playhead.world import rope
from playhead.world.acceleration import Graphs
from playhead.world.attention import attention
from playhead.world.decoding import FrameDecoder
from playhead.world.flow import Flow
from playhead.world.kv_cache import KVCache
from playhead.world.noise import device_noises, noise
from playhead.world.sampler import Schedule, denoise
from playhead.world.state import StateLayout, WorldState
from playhead.world.wide.frame_blocks import FrameBlocks
from playhead.world.wide.row_states import RowCache, row_of

ACTIVE, SLOT, VISIBLE, DISTANT, SOURCE, TARGET, FIRST, TICK, SEED = range(9)
"""What a row is told of its tick: whether it takes part; the slot of its block, ring and far slots that hold
something; which slot is copied to which far one; the index of its block, its tick, the bits of its seed."""


@dataclass(frozen=True)
class PassModel:
    """What a pass is made of: how states are laid out, the generator's passes, the decoder.

    `schedule`: the noise levels of a tick of a new session's.
    """

    layout: StateLayout
    flow: Flow
    decoder: FrameDecoder
    schedule: Callable[[], Schedule]


class _PoolCache:
    """What a pass asks of a cache: each row writes into a slot of its own and reads as far as it may."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        far = cache.far
        self._far = frozenset(far.layers) if far is not None else frozenset()
        self._ends = cache.frames * cache.tokens, (cache.k.shape[3] // cache.tokens - 1) * cache.tokens
        device = cache.k.device
        self._slot_of = torch.arange(cache.k.shape[3], device=device) // cache.tokens
        self._token = torch.arange(cache.tokens, device=device)
        self._where: Tensor | None = None  # of the pass under way: tokens that are written,
        self._masks: tuple[Tensor, Tensor] | None = None  # and what is added to scores, with and without far

    def begin(self, told: Tensor) -> None:
        """Copies what is due into the far ring, and takes in where rows write and how far they read."""
        cache = self._cache
        if cache.far is not None:
            source, target = (self._tokens(told[:, column]) for column in (SOURCE, TARGET))
            for layer in cache.far.layers:
                for held in (cache.k[layer], cache.v[layer]):
                    size = (*held.shape[:2], cache.tokens, held.shape[3])
                    moved = held.gather(2, source[:, None, :, None].expand(size))
                    held.scatter_(2, target[:, None, :, None].expand(size), moved)
        self._where = self._tokens(told[:, SLOT])[:, None, :, None]
        ring, far_end = self._ends
        near = (self._slot_of < told[:, VISIBLE, None])[:, :ring]
        behind = self._slot_of[ring:far_end] - cache.frames < told[:, DISTANT, None]
        masks = near, torch.cat([near, behind], 1)
        zero = torch.zeros((), device=near.device, dtype=cache.k.dtype)
        near_mask, far_mask = (zero.masked_fill(~m, float("-inf"))[:, None, None] for m in masks)
        self._masks = near_mask, far_mask

    def _tokens(self, slots: Tensor) -> Tensor:
        """The tokens of each row's slot, `(rows, tokens)`."""
        return slots[:, None] * self._cache.tokens + self._token

    def own(self, layer: int) -> None:
        """There is no one place for all."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert self._where is not None and self._masks is not None
        keys, values, far = self._cache.k[layer], self._cache.v[layer], layer in self._far
        where = self._where.expand(k.shape)
        keys.scatter_(2, where, k)
        values.scatter_(2, where, v)
        end = self._ends[far]
        return attention(q, keys[:, :, :end], values[:, :, :end], self._masks[far])


class WidePass:
    """Rows for `width` sessions of a world, and the pass over all of them."""

    def __init__(self, model: PassModel, width: int) -> None:
        config, device = model.layout.config, model.layout.device
        self._model, self.width = model, width
        quiet = replace(model.layout, recorded="nothing")
        self._pool = pool = WorldState.allocate(quiet, width, model.schedule(), spare=1)
        with torch.no_grad():
            model.decoder.decode(pool)  # which allocates its memory
        self._free = list(range(width))[::-1]
        g, latent, count = config.generator, config.latent, config.sampling.latents_per_tick
        self._cache = _PoolCache(pool.cache)
        self._trash = pool.cache.k.shape[3] // pool.cache.tokens - 1
        self._told = torch.zeros((width, 9), dtype=torch.int64, device=device)
        self._held = torch.zeros((width, count, g.inputs), device=device)
        self._noises = torch.zeros_like(pool.noises)
        self._pictures = torch.empty_like(next(iter(pool.pictures.values())))
        self._frames = FrameBlocks(self._pictures)
        cuda = device.type == "cuda"
        self._tell = torch.zeros(self._told.shape, dtype=torch.int64, pin_memory=cuda)
        self._hold = torch.zeros(self._held.shape, pin_memory=cuda)
        t = rope.split_pairs(g.head_dim)[0]
        self._turns = rope.axis_angles([1], t)[0].to(device)
        grid = rope.grid_angles([0], latent.height // g.patch, latent.width // g.patch, g.head_dim)
        self._space = grid[:, t:].to(device)
        self._joint = replace(
            pool,
            cache=cast(KVCache, self._cache),
            cos_sin=torch.zeros((2, width, 1, *pool.cos_sin.shape[1:]), device=device),
            action=torch.zeros_like(pool.action),
            condition=torch.zeros_like(pool.condition),
        )
        self._graphs = Graphs(device)

    @property
    def room(self) -> int:
        """Rows that no session has."""
        return len(self._free)

    def row(self) -> WorldState:
        """A state in a free row, which is free again once nobody has the state any more."""
        row = self._free.pop()
        state = row_of(self._pool, row)
        state.schedule = self._model.schedule()
        state.restart()
        weakref.finalize(state, self._free.append, row).atexit = False
        return state

    @torch.no_grad()
    def tick(
        self,
        states: Sequence[WorldState],
        held: Tensor,
        seeds: Sequence[int],
        ticks: Sequence[int],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[np.ndarray]:
        """A tick of some of its states, committed. Returns each one's frames, the caller's own.

        `held` `(n, F, inputs)`: their actions. All have equal steps. `meanwhile` is called while a GPU is
        at work; a CPU is done by then.
        """
        rows = [cast(int, state.row) for state in states]
        schedule = states[0].schedule
        self._announce(states, rows, held, seeds, ticks)
        if self._told.device.type != "cuda":  # whose noise is drawn by numpy
            for step in range(len(schedule)):
                for row, seed, tick in zip(rows, seeds, ticks, strict=True):
                    self._noises[step, row] = noise(seed, tick, step, self._noises.shape[2:])
        self._told.copy_(self._tell, non_blocking=True)
        self._held.copy_(self._hold, non_blocking=True)
        self._graphs.run(("tick", schedule.sigmas), lambda: self._work(schedule))
        self._frames.start()
        arrived = torch.cuda.Event() if self._told.is_cuda else None
        if arrived is not None:
            arrived.record(torch.cuda.current_stream(self._told.device))
        try:
            meanwhile()
        finally:  # the tick is made whatever that came to, and what the device is told lies here until then
            if arrived is not None:
                arrived.synchronize()
            for state in states:
                state.cache.end()
        return self._frames.take(rows)

    def _announce(
        self,
        states: Sequence[WorldState],
        rows: Sequence[int],
        held: Tensor,
        seeds: Sequence[int],
        ticks: Sequence[int],
    ) -> None:
        """Writes down what each row is told of the tick; those who take no part write where nothing reads."""
        told = self._tell.numpy()
        trash = self._trash
        told[:] = (0, trash, 1, 0, trash, trash, 0, 0, 0)
        for state, row, seed, tick in zip(states, rows, seeds, ticks, strict=True):
            cache = state.cache
            assert isinstance(cache, RowCache)
            cache.waits = True
            cache.begin(1)
            cache.waits = False
            source, target = cache.due or (trash, trash)
            cache.due = None
            signed = seed - 2**64 if seed >= 2**63 else seed
            told[row] = (
                1, cache.slots[0], cache.visible, cache.distant, source, target, cache.length, tick, signed,
            )  # fmt: skip
            if state.fresh:  # to a decoder whose time factor is 1 no memory is one of zeros
                for memory in state.decoder_memory or []:
                    memory.zero_()
                state.fresh = False
        self._hold.numpy()[rows] = held.numpy()

    def _work(self, schedule: Schedule) -> None:
        """The tick of all rows, as it is recorded."""
        pool, joint, told, model = self._pool, self._joint, self._told, self._model
        active = told[:, ACTIVE].bool()
        self._cache.begin(told)
        self._turn(told[:, FIRST])
        joint.action.copy_(pool.action)  # with its label
        joint.action[..., : self._held.shape[2]] = self._held
        if pool.previous is not None:
            joint.condition.copy_(pool.previous)
        if told.is_cuda:
            shape = self._noises.shape[2:]
            draws = [device_noises(told[:, SEED], told[:, TICK], n, shape) for n in range(len(schedule))]
        else:
            draws = [*self._noises[: len(schedule)]]
        latent = denoise(lambda x, t: model.flow.predict(joint, x, t), draws, schedule)
        frames, memory = model.decoder.pictures(latent, pool.decoder_memory)
        self._pictures.copy_(frames)
        committed = latent
        if pool.rest is not None:
            still = self._held.flatten(1).any(1).logical_not()
            _keep(pool.rest.ticks, (pool.rest.ticks + 1) * still, active)
            resting = pool.rest.ticks > pool.rest.after
            committed = torch.where(_wide(resting, latent), pool.rest.kept, latent)
            _keep(pool.rest.kept, committed, active)
        if pool.previous is not None:
            _keep(pool.previous, committed, active)
        _keep(pool.latent, latent, active)
        assert pool.decoder_memory is not None
        for buffer, new in zip(pool.decoder_memory, memory, strict=True):
            _keep(buffer, new, active)

    def _turn(self, first: Tensor) -> None:
        """Has the pass hold the rope table of each row's block."""
        time = first.double()[:, None] * self._turns  # (rows, pairs of time)
        tokens = len(self._space)
        angles = torch.cat([time[:, None].expand(-1, tokens, -1), self._space.expand(len(first), -1, -1)], -1)
        self._joint.cos_sin.copy_(rope.table(angles).unsqueeze(2))


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    """A value for each row, shaped so that it holds for all of the row."""
    return rows.view(-1, *[1] * (like.ndim - 1))


def _keep(buffer: Tensor, new: Tensor, active: Tensor) -> None:
    """Overwrites the rows that take part."""
    buffer.copy_(torch.where(_wide(active, buffer), new, buffer))
