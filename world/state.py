"""The state of a world: everything that changes while it is played, in buffers that are allocated once."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.action_module import ActionMemory
from playhead.world.kv_cache import KVCache
from playhead.world.lighttae import Memory
from playhead.world.rest import Rest

if TYPE_CHECKING:
    from playhead.world.context import Context
    from playhead.world.world import World

MAX_STEPS = 8

KeysValues = list[tuple[Tensor, Tensor]]
"""Cross-attention keys and values, a pair a layer."""


@dataclass(frozen=True)
class Passes:
    """Where a recorded pass finds its noisy latents and their timesteps, and leaves the flow."""

    graphs: acceleration.Graphs
    latent: Tensor
    timesteps: Tensor
    flow: Tensor


class WorldState:
    """Everything that changes while a world is played; buffers are overwritten in place."""

    passes: Passes | None = None

    def __init__(self, world: "World", batch: int) -> None:
        config, g = world.config, world.generator.config
        sampling = config.sampling
        self.cache = KVCache(
            layers=g.layers,
            batch=batch,
            heads=g.heads,
            frames=sampling.window,
            sink=sampling.sink,
            tokens=world.tokens,
            head_dim=g.head_dim,
            span=sampling.window if sampling.positions == "endless" else None,
            far=sampling.far,
            backend=world.attention,
            device=world.device,
            dtype=world.dtype,
        )
        block = (batch, sampling.latents_per_tick, *config.latent_shape)
        self.batch = batch
        self.latent = torch.zeros(block, device=world.device)
        self.schedule = world.schedule(world.steps)
        self.noises = torch.zeros((MAX_STEPS, *block), device=world.device)
        self.action = torch.zeros((*block[:2], g.told), device=world.device)
        self.memory: ActionMemory | None = None
        if g.action:
            self.memory = ActionMemory(
                g.action,
                batch=batch,
                tokens=world.tokens,
                frames=sampling.window,
                latents=sampling.latents_per_tick,
                device=world.device,
                dtype=world.dtype,
            )
        self.rest = Rest(config.rest_after, self.latent) if config.rest_after else None
        self.cos_sin = world.rope_table(0).to(world.device)
        self.turned = 0  # the frame that it is for
        self.foreseen: dict[Hashable, Tensor] = {}  # what `World.foresee` made of the next tick
        self.context: Context | None = None  # what `keys_values` and `condition_source` were computed from
        self.prompt = self.bound_prompt = 0
        self.keys_values: dict[str, KeysValues] = {}  # by the name of the world's generator
        self.condition = torch.zeros((*block[:2], g.condition_channels, *block[3:]), device=world.device)
        self.condition_source = self.condition[0]
        self.previous: Tensor | None = None  # the last tick's clean latents, if the generator is given them
        if sampling.previous:
            self.previous = torch.zeros_like(self.latent)
        # The last committed latents, for a recache.
        ring = sampling.window - sampling.sink
        kept = ring // sampling.latents_per_tick * sampling.latents_per_tick if g.text_dim else 0
        self.recent = torch.zeros((batch, kept, *block[2:]), device=world.device)
        self.decoder_memory: Memory | None = None
        self.decoder_ahead: Memory | None = None  # what a packed decoder made of it already, if anything
        self.fresh = True  # nothing was decoded yet: the decoder's memory does not count
        self.frames = torch.zeros(0, dtype=torch.uint8, device=world.device)
        self.pictures: dict[int, Tensor] = {}  # a buffer for each number of frames that a block may yield
        # A small world's tick is recorded whole, every slot of it while the session warms up. Of a large one,
        # whose slots are many and take long, each pass is, at the second pass that a slot sees in play.
        small = world.tokens * sampling.latents_per_tick <= GRAPH_TOKENS
        self.graphs = acceleration.Graphs(world.device, small)
        if not small and world.device.type == "cuda":
            self.record_passes()

    def record_passes(self) -> None:
        """Has passes go through buffers of their own, so that each may be recorded by itself."""
        batch, latents = self.latent.shape[:2]
        self.passes = Passes(
            acceleration.Graphs(self.latent.device),
            torch.zeros_like(self.latent),
            torch.zeros(batch, latents, device=self.latent.device),
            torch.zeros_like(self.latent),
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
    def places(self) -> tuple[int, ...]:
        """Where in the caches the block under way is written, and how far they are read."""
        caches = [self.cache, *((self.memory.keyboard, self.memory.mouse) if self.memory is not None else ())]
        return tuple(number for cache in caches for number in cache.places)

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
        """Takes over a copy made by `state`; `World.bind` has to follow."""
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
            self.decoder_memory = [m.clone() for m in memory]
            return
        for held, new in zip(self.decoder_memory, memory, strict=True):
            held.copy_(new)


GRAPH_TOKENS = 1024
"""Up to so many tokens a pass, a whole tick is recorded as one CUDA graph."""
