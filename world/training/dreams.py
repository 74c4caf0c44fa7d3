"""What a world's generator makes of footage, for a decoder to learn from: latents that err as play's do.

A decoder that has seen the latents of real frames alone paints what a generator gets a little wrong as it is:
soft, or with a grain that no frame has. So a clip is dreamed over: every frame of it anew, each from its own
past, all in one pass. In further passes what was found takes the place of the frames before, so that errors
lie on errors, a tick more with each pass.
"""

from pathlib import Path

import torch
from torch import Tensor

from playhead.world.config import WorldConfig
from playhead.world.sampler import Schedule
from playhead.world.training.sequence import shifted
from playhead.world.training.train_generator import GeneratorTraining, Trainer


class Dreams:
    """Clips dreamed over by the generator of a world whose last denoise pass commits; its weights stay.

    `past`: the frames that a clip has to begin with, which are seen and not looked at.
    """

    def __init__(self, config: WorldConfig, weights: Path, device: torch.device) -> None:
        size = (config.latent.height, config.latent.width)
        settings = GeneratorTraining(compile=False)
        self._trainer = Trainer(config.generator, config.sampling, settings, size, device, weights)
        self._trainer.model.requires_grad_(False)
        self._sigmas = Schedule.from_steps(config.sampling.steps, config.sampling.shift).sigmas
        self._mean, self._std = (
            torch.tensor(v, device=device)[:, None, None] for v in (config.latent.mean, config.latent.std)
        )
        self.past = config.sampling.window

    @torch.no_grad()
    def __call__(self, z: Tensor, told: Tensor, passes: int) -> Tensor:
        """Raw latents `(B, F, C, h, w)` dreamed over; the first frame, which has no past, stays.

        `told` `(B, F, told)`: what the generator is told of each.
        """
        real = (z.float() - self._mean) / self._std
        found = real
        for _ in range(passes):
            previous, clean = shifted(found), torch.zeros_like(real)
            for sigma in self._sigmas:
                levels = real.new_full(real.shape[:2], sigma)
                noisy = (1 - sigma) * clean + sigma * torch.randn_like(real)
                clean = self._trainer.predict(noisy, previous, levels, told).float()
            found = torch.cat([real[:, :1], clean[:, 1:]], 1)
        return (found * self._std + self._mean).to(z.dtype)
