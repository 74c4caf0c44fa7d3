"""The state of a world: everything that changes while it is played, in buffers that are allocated once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.action_module import ActionMemory
from playhead.world.config import WorldConfig
from playhead.world.context import Context
from playhead.world.joined_caches import JoinedCaches
from playhead.world.kv_cache import KVCache
from playhead.world.lighttae import Memory
from playhead.world.low_bit_cache import CacheReader, LowBitCache
from playhead.world.parallel.split import Split
from playhead.world.rest import Rest
from playhead.world.sampler import Schedule
from playhead.world.size import MAX_STEPS, has_steady_ring, is_large
from playhead.world.sparse_attention import SPARSE

KeysValues = list[tuple[Tensor, Tensor]]
"""Cross-attention keys and values, a pair a layer."""


@dataclass(frozen=True)
class PassBuffers:
    """Where a recorded pass finds its noisy latents and their timesteps, and leaves the flow.

    `full`: only those of a full window are recorded.
    """

    graphs: acceleration.Graphs
    latent: Tensor
    timesteps: Tensor
    flow: Tensor
    full: bool = False


@dataclass(frozen=True)
class StateLayout:
    """What the buffers of a state hang on: a world's configuration, and where and how it is computed.

    `tokens`: of one latent frame. `attention`: a backend of `world.attention`, or None for the usual one.
    `recorded`: what is recorded as CUDA graphs: ticks, passes, those of a full window alone where one graph
    serves them all, or nothing; None: whole ticks of small worlds, passes of large ones.
    `reader`: of a cache in fp8, None for one in full. `split`: what of it is this rank's, None for all.
    `shown_on`: the decoder's device, where that is another.
    """

    config: WorldConfig
    tokens: int
    device: torch.device
    dtype: torch.dtype
    attention: str | None = None
    recorded: Literal["ticks", "passes", "full", "nothing"] | None = None
    reader: CacheReader | None = None
    split: Split | None = None
    shown_on: torch.device | None = None

    @property
    def own_tokens(self) -> int:
        """Of one latent frame, those that are computed on this device."""
        return self.tokens if self.split is None else self.split.own_tokens

    @property
    def steady(self) -> bool:
        """Whether the ring of the cache is; a sparse rule knows how old a frame is by its slot."""
        return self.attention not in SPARSE and has_steady_ring(self.config, self.device)

    @property
    def cache_sizes(self) -> tuple[int, int]:
        """Heads, and tokens of a frame, in the cache of this device."""
        split = self.split
        return (self.config.generator.heads, self.tokens) if split is None else split.cache_sizes


@dataclass(eq=False, kw_only=True)
class WorldState:
    """Everything that changes while a world is played; buffers are overwritten in place.

    No field has a default: a new one has to be given by `allocate` and by `join`, or neither works.
    """

    batch: int
    cache: KVCache
    latent: Tensor
    shown: Tensor  # the same where the decoder is, a copy if that is another device
    schedule: Schedule
    noises: Tensor
    action: Tensor
    memory: ActionMemory | None
    rest: Rest | None
    cos_sin: Tensor  # the rope table of a block,
    turned: int  # whose first latent has this index; -1: there is none yet
    foreseen: dict[Hashable, Tensor]  # what `World.foresee` made of the next tick
    context: Context | None  # what `keys_values` and `condition_source` were computed from
    prompt: int
    bound_prompt: int
    keys_values: dict[str, KeysValues]  # by the name of the world's generator
    condition: Tensor
    condition_source: Tensor
    previous: Tensor | None  # the last tick's clean latents, if the generator is given them
    recent: Tensor  # the last committed latents, for a recache
    decoder_memory: Memory | None
    decoder_ahead: Memory | None  # what a packed decoder made of it already, if anything
    fresh: bool  # nothing was decoded yet: the decoder's memory does not count
    frames: Tensor
    pictures: dict[int, Tensor]  # a buffer for each number of frames that a block may yield
    graphs: acceleration.Graphs
    decoding: acceleration.Graphs  # of the decode, which a large world records too
    passes: PassBuffers | None
    row: int | None  # of the wide pass that all its ticks go by (`world.wide`)

    @classmethod
    def allocate(cls, layout: StateLayout, batch: int, schedule: Schedule, spare: int = 0) -> "WorldState":
        """That of `batch` sessions that step together, with no past yet, which play at `schedule`.

        `spare`: slots of the cache that nothing reads.
        """
        config, device, dtype = layout.config, layout.device, layout.dtype
        g, sampling = config.generator, config.sampling
        count = sampling.latents_per_tick
        block = (batch, count, *config.latent_shape)
        latent = torch.zeros(block, device=device)
        condition = torch.zeros((*block[:2], g.condition_channels, *block[3:]), device=device)
        kept = (sampling.window - sampling.sink) // count * count if g.text_dim else 0
        # A small world's tick is recorded whole, every slot of it while the session warms up. Of a large one
        # each pass is, at the second that a place sees in play; a full window has one place (`steady`).
        recorded = layout.recorded or ("passes" if is_large(config) else "ticks")
        heads, tokens = layout.cache_sizes
        state = cls(
            batch=batch,
            cache=(KVCache if layout.reader is None else partial(LowBitCache, reader=layout.reader))(
                layers=g.layers,
                batch=batch,
                heads=heads,
                frames=sampling.window,
                sink=sampling.sink,
                tokens=tokens,
                head_dim=g.head_dim,
                span=sampling.window if sampling.positions == "endless" else None,
                far=sampling.far,
                backend=layout.attention,
                device=device,
                dtype=dtype,
                spare=spare,
                steady=layout.steady and not spare,
            ),
            latent=latent,
            shown=latent if layout.shown_on is None else torch.zeros(block, device=layout.shown_on),
            schedule=schedule,
            noises=torch.zeros((MAX_STEPS, *block), device=device),
            action=torch.zeros((*block[:2], g.told), device=device),
            memory=_action_memory(layout, batch),
            rest=Rest(config.rest_after, latent) if config.rest_after else None,
            cos_sin=torch.zeros((2, count * layout.own_tokens, g.head_dim), device=device),
            turned=-1,
            foreseen={},
            context=None,
            prompt=0,
            bound_prompt=0,
            keys_values={},
            condition=condition,
            condition_source=condition[0],
            previous=torch.zeros_like(latent) if sampling.previous else None,
            recent=torch.zeros((batch, kept, *block[2:]), device=device),
            decoder_memory=None,
            decoder_ahead=None,
            fresh=True,
            frames=torch.zeros((batch, 0), dtype=torch.uint8, device=device),
            pictures={},
            graphs=acceleration.Graphs(device, recorded == "ticks"),
            decoding=acceleration.Graphs(layout.shown_on or device),
            passes=None,
            row=None,
        )
        of_full = recorded == "full" and layout.steady
        if device.type == "cuda" and (recorded == "passes" or of_full):
            state.record_passes(of_full)
        return state

    @classmethod
    def join(cls, states: Sequence["WorldState"]) -> "WorldState":
        """States that have begun a tick, side by side for one pass, which `scatter_…` shares out again.

        Caches stay each state's own; all else is a copy. For those that `World.may_join`.
        """
        first = states[0]
        latent = torch.cat([state.latent for state in states])
        rests = [state.rest for state in states if state.rest is not None]
        memories = [state.decoder_memory or [] for state in states]
        return cls(
            batch=len(states),
            cache=cast(KVCache, JoinedCaches([state.cache for state in states])),
            latent=latent,
            shown=latent,
            schedule=first.schedule,
            noises=torch.cat([state.noises for state in states], 1),
            action=torch.cat([state.action for state in states]),
            memory=None,
            rest=Rest.beside(rests) if rests else None,
            # (2, B, 1, tokens, head_dim): each state is at an index of its own
            cos_sin=torch.stack([state.cos_sin for state in states], 1).unsqueeze(2),
            turned=-1,
            foreseen={},
            context=None,
            prompt=0,
            bound_prompt=0,
            keys_values={},
            condition=torch.cat([state.condition for state in states]),
            condition_source=first.condition_source,
            previous=None,  # it is in `condition` already
            recent=torch.cat([state.recent for state in states]),
            decoder_memory=[torch.cat(parts) for parts in zip(*memories, strict=True)],
            decoder_ahead=None,
            fresh=False,
            frames=first.frames[:0],
            pictures={},
            graphs=acceleration.Graphs(first.latent.device, False),
            decoding=acceleration.Graphs(first.latent.device, False),
            passes=None,
            row=None,
        )

    def scatter_latents(self, states: Sequence["WorldState"]) -> None:
        """Hands the states that were joined here what was dreamed of each."""
        for state, latent in zip(states, self.latent.split(1), strict=True):
            state.latent.copy_(latent)

    def scatter_frames(self, states: Sequence["WorldState"]) -> None:
        """Hands the states that were joined here their pictures and their decoder's memory."""
        ((count, pictures),) = self.pictures.items()
        assert self.decoder_memory is not None
        for i, state in enumerate(states):
            if count not in state.pictures:
                state.pictures[count] = torch.empty_like(pictures[i : i + 1])
            state.pictures[count].copy_(pictures[i : i + 1])
            state.frames = state.pictures[count]
            state.keep_decoder_memory([m[i : i + 1] for m in self.decoder_memory])

    def record_passes(self, full: bool = False) -> None:
        """Has passes go through buffers of their own, so that each may be recorded by itself.

        `full`: those of a full window alone.
        """
        batch, latents = self.latent.shape[:2]
        self.passes = PassBuffers(
            acceleration.Graphs(self.latent.device),
            torch.zeros_like(self.latent),
            torch.zeros(batch, latents, device=self.latent.device),
            torch.zeros_like(self.latent),
            full,
        )

    def restart(self) -> None:
        """Forgets everything but what it is bound to; the buffers stay."""
        self.cache.restart()
        if self.memory is not None:
            self.memory.restart()
        if self.rest is not None:
            self.rest.restart()
        if self.previous is not None:
            self.previous.zero_()
        self.fresh = True
        self.prompt = 0

    def begin(self, count: int) -> None:
        """Makes room in the caches for a block of `count` latents, and takes over its condition."""
        self.cache.begin(count)
        if self.memory is not None:
            self.memory.begin(count)
        if self.previous is not None:
            self.condition.copy_(self.previous)
        elif self.condition.shape[2]:
            first, last = self.cache.length, len(self.condition_source) - 1
            self.condition.copy_(self.condition_source[[min(first + i, last) for i in range(count)]])

    @property
    def graph_key(self) -> tuple[int, ...]:
        """Where in the caches the block under way is written, and how far they are read."""
        caches = [self.cache, *((self.memory.keyboard, self.memory.mouse) if self.memory is not None else ())]
        return tuple(number for cache in caches for number in cache.graph_key)

    def end(self) -> None:
        """Counts the block under way as committed."""
        if self.previous is not None:
            self.previous.copy_(self.committed())
        self.cache.end()
        if self.memory is not None:
            self.memory.end()

    def committed(self) -> Tensor:
        """The latents that the future knows of the block under way: those dreamed, or kept by `rest`."""
        return self.rest.committed(self.latent) if self.rest is not None else self.latent

    def remember(self) -> None:
        """Keeps the block that was committed, for a recache."""
        if self.recent.shape[1]:
            count = self.latent.shape[1]
            self.recent.copy_(torch.cat([self.recent[:, count:], self.committed()], 1))

    def keep_context(self, name: str, new: KeysValues) -> None:
        """Overwrites cross-attention keys and values in place where they exist."""
        if name not in self.keys_values:
            self.keys_values[name] = new
            return
        for held, pair in zip(self.keys_values[name], new, strict=True):
            for buffer, tensor in zip(held, pair, strict=True):
                buffer.copy_(tensor)

    def state(self) -> dict[str, Any]:
        """A copy of all that the next tick depends on, besides the context."""
        memory = [] if self.fresh or self.decoder_memory is None else self.decoder_memory
        return {
            "cache": self.cache.state(),
            "actions": self.memory.state() if self.memory is not None else {},
            "rest": self.rest.state() if self.rest is not None else {},
            "previous": self.previous.clone() if self.previous is not None else {},
            "prompt": self.prompt,
            "recent": self.recent.clone(),
            "decoder_memory": [m.clone() for m in memory],
            "fresh": self.fresh,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over a copy made by `state`; `binding.bind` has to follow."""
        self.cache.load_state(state["cache"])
        if self.memory is not None:
            self.memory.load_state(state["actions"])
        if self.rest is not None:
            self.rest.load_state(state["rest"])
        if self.previous is not None:
            self.previous.copy_(state["previous"])
        self.prompt = state["prompt"]
        self.recent.copy_(state["recent"])
        self.fresh = state["fresh"]
        if not self.fresh:
            self.keep_decoder_memory(state["decoder_memory"])

    def keep_decoder_memory(self, memory: Memory) -> None:
        """Overwrites the decoder's memory in place where it exists, so that captured graphs still see it."""
        self.decoder_ahead = None
        if self.decoder_memory is None:
            here = self.shown.device
            self.decoder_memory = [m.clone() if m.device == here else m.to(here) for m in memory]
            return
        for held, new in zip(self.decoder_memory, memory, strict=True):
            held.copy_(new)


def _action_memory(layout: StateLayout, batch: int) -> ActionMemory | None:
    """What the keyboard and mouse modules of a world remember, if it has any."""
    config = layout.config
    if not config.generator.action:
        return None
    return ActionMemory(
        config.generator.action,
        batch=batch,
        tokens=layout.own_tokens,
        frames=config.sampling.window,
        latents=config.sampling.latents_per_tick,
        device=layout.device,
        dtype=layout.dtype,
    )
