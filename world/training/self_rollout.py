"""Self-rollout: the generator dreams on from its own frames while it is trained (Self Forcing).

The ticks run through `KVCache` and the sampler, as in play, eviction included. Every session leaves a tick's
schedule after a step of its own; a gradient flows through that step alone, and never into the cache.
"""

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from world.config import SamplingConfig
from world.generator import Generator
from world.kv_cache import KVCache
from world.noise import noise
from world.sampler import Schedule, estimates


class SelfRollout:
    """Rollouts of `generator` from a real past, one latent a tick; `(B, F, C, h, w)` latents."""

    def __init__(self, generator: Generator, sampling: SamplingConfig, schedule: Schedule) -> None:
        self.generator, self.sampling, self.schedule = generator, sampling, schedule

    def cache(self, latents: Tensor, dtype: torch.dtype) -> KVCache:
        """An empty cache for the sessions of `latents`."""
        config, sampling = self.generator.config, self.sampling
        return KVCache(
            layers=config.layers,
            batch=len(latents),
            heads=config.heads,
            frames=sampling.window,
            sink=sampling.sink,
            tokens=self.generator.tokens(*latents.shape[-2:]),
            head_dim=config.head_dim,
            span=sampling.window if sampling.positions == "endless" else None,
            device=latents.device,
            dtype=dtype,
        )

    def ticks(
        self, past: Tensor, actions: Tensor, seeds: list[int], exits: Tensor, dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """Dreams on from `past` `(B, P, C, h, w)`: yields each tick's latent `(B, 1, C, h, w)`.

        `actions` `(B, P + ticks, buttons)` led to each frame. `exits` `(B, ticks)` says after which step,
        from 1 on, each session leaves each tick. Under `torch.enable_grad` a latent carries the gradient of
        its exit step; call `backward` on it before the next, so that memory does not grow with the rollout.
        Equal seeds and exits give equal rollouts.
        """
        cache = self.cache(past, dtype)
        for frame in range(past.shape[1]):
            self._commit(cache, past[:, frame : frame + 1], actions[:, frame : frame + 1])
        shape = (1, *past.shape[2:])
        for tick, leave in enumerate(exits.unbind(1)):
            action = actions[:, past.shape[1] + tick][:, None]
            last = int(leave.max())
            draws = [
                torch.stack([noise(seed, tick, step, shape) for seed in seeds]).to(past.device)
                for step in range(last)
            ]
            cache.begin(1)
            predict = self._exits_with_gradient(cache, action, set(leave.tolist()))
            each = estimates(predict, draws, Schedule(self.schedule.sigmas[:last]))
            leave = leave.to(past.device)[:, None, None, None, None]
            clean = torch.zeros_like(draws[0])
            for step, estimate in enumerate(each, 1):
                clean = torch.where(leave == step, estimate, clean)
            yield clean
            self._commit(cache, clean.detach(), action)

    def _exits_with_gradient(
        self, cache: KVCache, action: Tensor, exits: set[int]
    ) -> Callable[[Tensor, float], Tensor]:
        """A `predict` that records gradients, where they are wanted at all, in the steps of `exits` alone."""
        wanted, calls = torch.is_grad_enabled(), count(1)

        def predict(x: Tensor, timestep: float) -> Tensor:
            with torch.set_grad_enabled(wanted and next(calls) in exits):
                return self._flow(cache, x, timestep, action)

        return predict

    @torch.no_grad()
    def _commit(self, cache: KVCache, latent: Tensor, action: Tensor) -> None:
        cache.begin(1)
        self._flow(cache, latent, self.sampling.context_noise, action)
        cache.end()

    def _flow(self, cache: KVCache, x: Tensor, timestep: float, action: Tensor) -> Tensor:
        timesteps = torch.full(x.shape[:2], timestep, device=x.device)
        cos_sin = self.generator.rope_table([cache.length], *x.shape[-2:]).to(x.device)
        return self.generator(x, timesteps, cos_sin, cache.attend, action)
