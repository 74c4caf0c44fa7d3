"""Self-rollout: the generator dreams on from its own frames while it is trained (Self Forcing).

The ticks run through `KVCache` and `sampler.denoise`, as in play, eviction included. A tick leaves the
schedule at a random step; a gradient flows through that step alone, and never into the cache.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from world.config import SamplingConfig
from world.generator import Generator
from world.kv_cache import KVCache
from world.noise import noise
from world.sampler import Schedule, denoise


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
        self, past: Tensor, actions: Tensor, seeds: list[int], exits: list[int], dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """Dreams on from `past` `(B, P, C, h, w)`: yields each tick's latent `(B, 1, C, h, w)`.

        `actions` `(B, P + ticks, buttons)` led to each frame. `exits` holds a step, from 1 on, for each tick.
        Under `torch.enable_grad` a latent carries the gradient of its exit step; call `backward` on it
        before the next, so that memory does not grow with the rollout. Equal seeds give equal rollouts.
        """
        cache = self.cache(past, dtype)
        for frame in range(past.shape[1]):
            self._commit(cache, past[:, frame : frame + 1], actions[:, frame : frame + 1])
        wanted = torch.is_grad_enabled()
        for tick, exit_step in enumerate(exits):
            action = actions[:, past.shape[1] + tick][:, None]
            shape = (1, *past.shape[2:])
            draws = [
                torch.stack([noise(seed, tick, step, shape) for seed in seeds]).to(past.device)
                for step in range(exit_step)
            ]
            cache.begin(1)
            predict = self._last_with_gradient(cache, past, action, exit_step, wanted)
            clean = denoise(predict, draws, Schedule(self.schedule.sigmas[:exit_step]))
            yield clean
            self._commit(cache, clean.detach(), action)

    def _last_with_gradient(
        self, cache: KVCache, like: Tensor, action: Tensor, exit_step: int, wanted: bool
    ) -> Callable[[Tensor, float], Tensor]:
        calls = 0

        def predict(x: Tensor, timestep: float) -> Tensor:
            nonlocal calls
            calls += 1
            with torch.set_grad_enabled(wanted and calls == exit_step):
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
