"""Self-rollout: the generator dreams on from its own frames while it is trained (Self Forcing).

The ticks run through `KVCache` and the sampler in the number type of play, eviction included, recorded as
CUDA graphs where there is a GPU; sessions go on from call to call, for as many ticks as wanted. Every session
leaves a tick's schedule after a step of its own, which commits it.

The rollout itself carries no gradient. `RolloutReplay` computes the exit steps of a stretch of ticks once
more, all in one pass, each with the cached keys and values that it had: the gradient of a tick reaches its
exit step and, the cache being constants by then, nothing else. Memory depends on the length of the stretch
alone, whatever the rollout's.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playhead.world import acceleration
from playhead.world.attention import attention
from playhead.world.config import SamplingConfig
from playhead.world.experts import Experts
from playhead.world.kv_cache import KVCache
from playhead.world.sampler import Schedule, estimates


@dataclass(frozen=True)
class RolloutSegment:
    """Some ticks of a rollout: latents `(B, S, C, h, w)`, and what their exit steps began from, `entries`.

    `entries` `(B, S, in_channels, h, w)`: noisy latents and, where they are given, those of the tick before.

    `estimates` are what the exit steps made of those: the latents themselves, unless ticks were run to their
    end. `sigmas` `(B, S)` are the noise levels of `entries`. `first` is the absolute index of the first,
    `actions` `(B, S, told)` led to each, the label included.
    """

    latents: Tensor
    entries: Tensor
    estimates: Tensor
    sigmas: Tensor
    actions: Tensor
    first: int


class SelfRollout:
    """Rollouts of `player`, `batch` sessions side by side, one latent `(C, h, w)` a tick.

    `player` is the generator (or its experts) as play has it: in the number type of play and joined. `follow`
    brings it up to date with the weights in training. `full`: every tick goes through all of its steps and is
    committed so; the exit step is then only the one that a gradient is wanted of. A session that has left
    is given what it had at its exit step again, so that the keys and values in the cache stay those of it.
    """

    def __init__(
        self,
        player: Experts,
        sampling: SamplingConfig,
        schedule: Schedule,
        batch: int,
        shape: tuple[int, int, int],
        full: bool = False,
    ) -> None:
        config, weight = player.last.config, player.last.head.head.weight
        self.player, self.sampling, self.schedule, self.full = player, sampling, schedule, full
        self.device, size = weight.device, shape[1:]
        self.cache = KVCache(
            layers=config.layers,
            batch=batch,
            heads=config.heads,
            frames=sampling.window,
            sink=sampling.sink,
            tokens=player.last.tokens(*size),
            head_dim=config.head_dim,
            span=sampling.window if sampling.positions == "endless" else None,
            far=sampling.far,
            device=self.device,
            dtype=weight.dtype,
        )
        block = (batch, 1, *shape)
        self.latent = torch.zeros(block, device=self.device)
        self.previous = torch.zeros(block if sampling.previous else (batch, 1, 0, *size), device=self.device)
        self.entry = torch.zeros((batch, 1, config.in_channels, *size), device=self.device)
        self.estimate = torch.zeros(block, device=self.device)
        self.noises = torch.zeros((len(schedule), *block), device=self.device)
        self.action = torch.zeros((batch, 1, config.told), device=self.device)
        self.leave = torch.zeros((batch, 1, 1, 1, 1), dtype=torch.int64, device=self.device)
        self.cos_sin = player.last.rope_table([0], *size).to(self.device)
        self.sigmas = torch.tensor(schedule.sigmas, device=self.device)
        self.graphs = acceleration.Graphs(self.device)

    @torch.no_grad()
    def begin(self, past: Tensor, actions: Tensor, noises: Tensor) -> None:
        """Starts all sessions anew from real latents `(B, P, C, h, w)` and the actions that led to each.

        `noises` `(P, B, 1, C, h, w)`: what the last denoise pass of each had been given.
        """
        self.cache.restart()
        self.previous.zero_()
        self.leave.fill_(len(self.schedule))
        sigma = self.schedule.sigmas[-1]
        for latent, action, fresh in zip(past.split(1, 1), actions.split(1, 1), noises, strict=True):
            self.latent.copy_(latent)
            self.action.copy_(action)
            self.entry.copy_(self._given((1 - sigma) * latent + sigma * fresh))
            self._make_room()
            self.graphs.run(("past", *self.cache.graph_key), lambda: self._flow(self.entry, 1000 * sigma))
            self.commit()

    @torch.no_grad()
    def advance(
        self, actions: Tensor, noises: Tensor, exits: Tensor, replay: "RolloutReplay | None" = None
    ) -> RolloutSegment:
        """Dreams S ticks on. `replay` is told what the cache held at each of them.

        `actions` `(B, S, told)` led to each; `noises` `(S, steps, B, 1, C, h, w)` are drawn for every
        denoise step; `exits` `(B, S)` says after which step, from 1 on, each session leaves each tick.
        """
        first = self.cache.length
        latents: list[Tensor] = []
        entries: list[Tensor] = []
        found: list[Tensor] = []
        if replay is not None:
            replay.begin(self.cache)
        for tick in range(actions.shape[1]):
            self.action.copy_(actions[:, tick : tick + 1])
            self.noises.copy_(noises[tick])
            self.leave.copy_(exits[:, tick, None, None, None, None])
            self.denoise()
            latents.append(self.latent.clone())
            entries.append(self.entry.clone())
            found.append(self.estimate.clone())
            slot = self.cache.slots[0]
            self.commit()
            if replay is not None:
                replay.remember(self.cache, slot)
        sigmas = self.sigmas[exits - 1]
        return RolloutSegment(
            torch.cat(latents, 1), torch.cat(entries, 1), torch.cat(found, 1), sigmas, actions, first
        )

    def denoise(self) -> None:
        """One tick's latent, and what its exit step began from, into `latent` and `entry`."""
        self._make_room()
        self.graphs.run(("denoise", *self.cache.graph_key), self._denoise)

    def commit(self) -> None:
        """Counts a tick as past: its keys and values are there since its last pass."""
        if self.sampling.previous:
            self.previous.copy_(self.latent)
        self.cache.end()

    def follow(self, model: Experts) -> None:
        """Takes over the weights of the model in training."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.player.parameters()), list(model.parameters()))

    def state(self) -> dict[str, Any]:
        return {**self.cache.state(), "previous": self.previous.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.cache.load_state(state)
        self.previous.copy_(state["previous"])

    def _make_room(self) -> None:
        self.cache.begin(1)
        self.cos_sin.copy_(self.player.last.rope_table([self.cache.length], *self.latent.shape[-2:]))

    def _denoise(self) -> None:
        step = 0

        def predict(x: Tensor, timestep: float) -> Tensor:
            nonlocal step
            step += 1
            here = self._given(x)
            self.entry.copy_(torch.where(self.leave >= step, here, self.entry))
            if self.full or step == 1:
                return self._flow(here, timestep)
            return self._flow(self.entry, timestep)

        for estimate in estimates(predict, self.noises.unbind(0), self.schedule):
            self.estimate.copy_(torch.where(self.leave == step, estimate, self.estimate))
        self.latent.copy_(estimate if self.full else self.estimate)

    def _given(self, x: Tensor) -> Tensor:
        """Noisy latents and the tick before's, as a generator is given them."""
        return torch.cat([x, self.previous], 2)

    def _flow(self, x: Tensor, timestep: float) -> Tensor:
        """The flow of `x`, each session's at the level that it has come to."""
        own = 1000 * self.sigmas[(self.leave - 1).flatten()]
        timesteps = torch.full_like(own, timestep) if self.full else own.clamp_min(timestep)
        timesteps = timesteps.unsqueeze(1)
        flow: Tensor = self.player.at(timestep)(x, timesteps, self.cos_sin, self.cache.attend, self.action)
        return flow


class RolloutReplay:
    """What the cache held at each of `ticks` ticks of a rollout, and their exit steps with gradients.

    Rows of keys and values `(layers, B, heads, rows * tokens, head_dim)`: what a far memory held that is
    older than the window, then the window before the first tick, then the ticks themselves.
    """

    def __init__(self, cache: KVCache, ticks: int) -> None:
        self.tokens, self.ticks = cache.tokens, ticks
        self.old = cache.far.frames if cache.far is not None else 0
        self.reach = self.old + cache.frames - 1
        shape = (*cache.k.shape[:3], (self.reach + ticks) * cache.tokens, cache.head_dim)
        self.k, self.v = cache.k.new_zeros(shape), cache.v.new_zeros(shape)
        self.far, self.window = cache.far, cache.frames
        self._masks = [torch.empty(0)] * 2
        self._at = 0

    def begin(self, cache: KVCache) -> None:
        """Copies what is in the cache."""
        if cache.sink:
            raise ValueError("a sink moves from tick to tick and cannot be replayed")
        first = cache.length
        oldest = first - (self.window - 1)  # of the window before the first tick
        held = list(range(oldest, first + self.ticks))
        if self.far is not None:  # before the window, the multiples that the far memory may hold
            newest = (oldest - 1) // self.far.every
            held = [m * self.far.every for m in range(newest - self.old + 1, newest + 1)] + held
        for to, frame in enumerate(held[: self.reach]):
            if frame >= 0:
                far = self.far is not None and frame < first - self.window
                self._copy(cache, cache.far_slot(frame) if far else cache.slot(frame), to)
        key = torch.tensor(held)
        query = first + torch.arange(self.ticks)[:, None]
        near = (key >= 0) & (key < query) & (key > query - self.window)
        own = torch.eye(self.ticks, dtype=torch.bool)
        seen = [torch.cat([near[:, self.old :], own], 1)]
        if self.far is not None:
            distant = (key >= 0) & self.far.sees(query, key, self.window)
            seen.append(torch.cat([near | distant, own], 1))
        n = self.tokens
        self._masks = [
            mask.repeat_interleave(n, 0).repeat_interleave(n, 1).to(cache.k.device, non_blocking=True)
            for mask in seen
        ]
        self._at = self.reach

    def remember(self, cache: KVCache, slot: int) -> None:
        """Copies a frame that was committed to `slot` just now."""
        self._copy(cache, slot, self._at)
        self._at += 1

    def _copy(self, cache: KVCache, slot: int, to: int) -> None:
        n = self.tokens
        source, target = slice(slot * n, (slot + 1) * n), slice(to * n, (to + 1) * n)
        self.k[..., target, :].copy_(cache.k[..., source, :])
        self.v[..., target, :].copy_(cache.v[..., source, :])

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch gives it no types
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all ticks at once, each to the past that it had and to itself."""
        dtype = self.k.dtype
        wide = self.far is not None and layer in self.far.layers
        first = 0 if wide else self.old * self.tokens
        keys = torch.cat([self.k[layer, :, :, first:], k.to(dtype)], 2)
        values = torch.cat([self.v[layer, :, :, first:], v.to(dtype)], 2)
        return attention(q.to(dtype), keys, values, self._masks[wide])

    def latents(self, model: Experts, stretch: RolloutSegment) -> Tensor:
        """The latents of `stretch` `(B, S, C, h, w)` once more, as a function of `model`'s weights.

        Of experts, each computes all of it, and each latent is that of the expert it was left to.
        """
        frames = range(stretch.first, stretch.first + self.ticks)
        cos_sin = model.last.rope_table(frames, *stretch.entries.shape[-2:]).to(stretch.entries.device)
        given = stretch.entries, 1000 * stretch.sigmas, cos_sin, self.attend, stretch.actions
        flows = [generator(*given) for generator in model.generators]
        flow, left = flows[0], model.numbers(stretch.sigmas)[:, :, None, None, None]
        for number, other in enumerate(flows[1:], 1):
            flow = torch.where(left == number, other, flow)
        noisy = stretch.entries[:, :, : flow.shape[2]]
        clean: Tensor = noisy - stretch.sigmas[:, :, None, None, None] * flow
        return clean


def make_player(model: Experts, dtype: torch.dtype) -> Experts:
    """A copy of `model` as play has it: in the number type of play, joined, without gradients."""
    player = model.twin().to(dtype).eval().requires_grad_(False)
    for generator in player.generators:
        generator.join()
    return player
