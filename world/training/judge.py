"""Who judges a student's windows while it is distilled: a frozen teacher and a critic, or a discriminator.

Both learn beside the student, on what it dreams. What they say of a window is a direction: where each of its
latents has to move against to look more like footage. The objectives are told in `world.training.objectives`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from playhead.world.generator import GeneratorConfig
from playhead.world.training.chains import ScoredWindow
from playhead.world.training.discriminator import Discriminator, relativistic_loss
from playhead.world.training.learner import Learner
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.scorer import Scorer, ScorerTraining
from playhead.world.training.train_generator import noised


class Judge:
    """The critic that learns, by its `learner`, and the frozen teacher it is compared with, if there is one.

    `teacher` are the weights of a scorer, which both begin with.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        settings: DistillTraining,
        shape: tuple[int, int, int],
        device: torch.device,
        teacher: Path,
    ) -> None:
        self.settings, self.device, self.inputs = settings, device, config.inputs
        self.discriminator: Discriminator | None = None
        self.teacher: Scorer | None = None
        scoring = ScorerTraining(
            length=settings.length,
            past=settings.past,
            learning_rate=settings.critic_rate,
            optimizer="adamw",
            shift=settings.shift,
            compile=settings.compile,
        )
        self.critic = Scorer(config, scoring, shape[1:], device, teacher)
        if settings.objective == "gan":
            self.discriminator = Discriminator(self.critic)
            judge = torch.optim.AdamW(
                self.discriminator.parameters(), lr=settings.critic_rate, betas=(0.0, 0.99), weight_decay=0.0
            )
            self.learner = Learner(self.discriminator, [judge], decay=0.99)
        else:
            self.teacher = Scorer(config, scoring, shape[1:], device, teacher)
            self.teacher.model.requires_grad_(False)
            self.learner = self.critic.learner

    def learn(
        self, window: ScoredWindow, real: tuple[Tensor, Tensor], factor: float, draw: torch.Generator
    ) -> Tensor:
        """Teaches the critic the student's windows (and, a discriminator, `real` ones); returns its loss.

        `real`: windows of footage that begin, as those do once they are judged, with where they came from.
        """
        window = window.judged(self.inputs)
        if self.settings.objective == "phased":
            loss = self._phase_loss(window, draw)
        elif self.discriminator is None:
            loss = self.critic.loss(window.latents, window.actions, window.clean, draw)
        else:
            levels = self.critic.levels(len(window.latents), window.clean, draw)
            dreamed = window.latents, window.actions
            every = self.settings.penalty_every
            weight = 0.0 if self.learner.steps % every else every * self.settings.penalty
            penalty = weight, self.settings.penalty_noise
            loss = relativistic_loss(self.discriminator, real, dreamed, levels, penalty, draw)
        loss.backward()
        self.learner.step(factor)
        return loss.detach()

    def direction(self, window: ScoredWindow, real: tuple[Tensor, Tensor], draw: torch.Generator) -> Tensor:
        """Where the objective moves a window's latents against, `(B, length, C, h, w)`.

        `real` is what `learn` has.
        """
        window = window.judged(self.inputs)
        if self.settings.objective == "phased":
            x, t, *_ = self._in_phase(window, draw)
            return self._difference(window, x, t)
        levels = self.critic.levels(len(window.latents), window.clean, draw)
        fresh = torch.randn(window.latents.shape, generator=draw, device=self.device)
        if self.settings.objective == "dmd":
            return self._difference(window, noised(window.latents, levels, fresh), levels)
        if self.settings.objective == "sid":
            return self._sid(window, levels, fresh)
        return self._gan(window, real, levels, fresh)

    @torch.no_grad()
    def _difference(self, window: ScoredWindow, x: Tensor, levels: Tensor) -> Tensor:
        """Critic's estimate minus the teacher's, over how far, window by window, the teacher's is away."""
        assert self.teacher is not None
        real = self.teacher.estimate(x, levels, window.actions)
        fake = self.critic.estimate(x, levels, window.actions)
        return (fake - real) / _distance(window.latents, real)

    def _sid(self, window: ScoredWindow, levels: Tensor, fresh: Tensor) -> Tensor:
        """Gradient of `(real - fake) * ((real - x) - (real - fake))`, or `(real - fake) * (fake - x)`."""
        assert self.teacher is not None
        dream = window.latents.detach().requires_grad_()
        x = noised(dream, levels, fresh)
        real = self.teacher.estimate(x, levels, window.actions)
        fake = self.critic.estimate(x, levels, window.actions)
        loss = ((real - fake) * (fake - dream) / _distance(dream, real).detach()).sum()
        return torch.autograd.grad(loss, dream)[0]

    def _gan(
        self, window: ScoredWindow, real: tuple[Tensor, Tensor], levels: Tensor, fresh: Tensor
    ) -> Tensor:
        """Gradient of the relativistic loss; scaled to windows whose every value counts 1, as the others."""
        assert self.discriminator is not None
        dream = window.latents.detach().requires_grad_()
        with torch.no_grad():
            true = self.discriminator(noised(real[0], levels, fresh), levels, real[1])
        false = self.discriminator(noised(dream, levels, fresh), levels, window.actions)
        gradient = torch.autograd.grad(F.softplus(true - false).sum(), dream)[0]
        return gradient / gradient.square().mean().sqrt().clamp_min(1e-8)

    def _in_phase(self, window: ScoredWindow, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A window noised to its phase's lowest level s, and on to a level t of the phase.

        Returns `x_t`, its levels t `(B, F)`, and of the way from s to t the noise and its share b `(B, F)`.
        """
        low, high = window.phase[:, :1], window.phase[:, 1:]
        u = torch.rand(low.shape, generator=draw, device=self.device)
        s = low.repeat(1, window.latents.shape[1])
        t = (low + (high - low) * (0.05 + 0.93 * u)).repeat(1, window.latents.shape[1])
        s[:, : window.clean], t[:, : window.clean] = 0, 0
        before, noise = (
            torch.randn(window.latents.shape, generator=draw, device=self.device) for _ in range(2)
        )
        a = (1 - t) / (1 - s)
        b = (t.square() - (a * s).square()).clamp_min(0).sqrt()
        wide = (slice(None), slice(None), None, None, None)
        x = a[wide] * noised(window.latents, s, before) + b[wide] * noise
        return x, t, noise, b

    def _phase_loss(self, window: ScoredWindow, draw: torch.Generator) -> Tensor:
        """Score matching within a phase, in units of the noise: `(b / t) E[noise of x_t] = e` on average."""
        x, t, noise, b = self._in_phase(window, draw)
        clean = self.critic.estimate(x, t, window.actions)
        share = (b / t.clamp_min(1e-4).square())[:, :, None, None, None]
        found = share * (x - (1 - t)[:, :, None, None, None] * clean)
        return (found - noise)[:, window.clean :].square().mean()


def _distance(window: Tensor, real: Tensor) -> Tensor:
    """How far the teacher's estimate is from each window, `(B, 1, 1, 1, 1)`."""
    return (window - real).abs().mean((1, 2, 3, 4), keepdim=True).clamp_min(1e-3)
