"""Self Forcing with distribution matching (DMD): the generator learns from rollouts of its own.

Three copies of one generator: the *student* that plays in few steps, a frozen *teacher* that scores what the
student dreamt as footage would score it, and a *critic*, trained on the student's rollouts all along, that
scores it as the student's own. The student moves along the difference (Distribution Matching Distillation,
as Self Forcing applies it to rollouts). All three see the actions; teacher and critic score every frame of
a rollout given its own past, in one pass (`world.training.sequence`).
"""

import random
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from world import acceleration, checkpoint
from world.config import SamplingConfig
from world.generator import Generator, GeneratorConfig
from world.sampler import Schedule
from world.training.footage import Footage
from world.training.generator import GeneratorTraining, Trainer, led_actions, noised
from world.training.learner import Learner
from world.training.run import Run, trapezoid
from world.training.self_rollout import SelfRollout


class DistillTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` rollouts of `length` latents, at most `past` of them real.

    `critic_steps`: updates of the critic for each of the student (two time scales). `lowest`, `highest`:
    the noise levels at which teacher and critic are asked.
    """

    clips: int = 32
    length: int = 24
    past: int = 8
    critic_steps: int = 4
    learning_rate: float = 1e-4
    critic_rate: float = 2e-4
    lowest: float = 0.05
    highest: float = 0.95
    compile: bool = True


class Distiller:
    """Student, teacher and critic, and the two kinds of steps."""

    def __init__(
        self,
        config: GeneratorConfig,
        sampling: SamplingConfig,
        settings: DistillTraining,
        size: tuple[int, int],
        device: torch.device,
        start: Path,
    ) -> None:
        self.settings, self.device = settings, device
        schedule = Schedule.from_steps(sampling.steps, sampling.shift)
        flow = GeneratorTraining(
            clips=settings.clips,
            length=settings.length,
            learning_rate=settings.critic_rate,
            muon=False,
            context_sigma=0.0,
            compile=settings.compile,
        )

        def trainer() -> Trainer:
            return Trainer(config, flow, schedule, sampling.window, size, device, start)

        self.critic, self.teacher = trainer(), trainer()
        self.teacher.model.requires_grad_(False)
        self.student = Generator(config)
        checkpoint.fill(self.student, checkpoint.read_float(start), start)
        self.student.to(device)
        self.rollout = SelfRollout(self.student, sampling, schedule)
        optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=settings.learning_rate, betas=(0.0, 0.99), weight_decay=0.01
        )
        self.learner = Learner(self.student, [optimizer], decay=0.99)
        self.dtype = acceleration.pick_dtype(device)
        self.autocast = self.dtype == torch.bfloat16

    def dream(self, past: Tensor, actions: Tensor, seeds: list[int], exits: Tensor) -> Tensor:
        """The student's rollout after `past`, without gradients: all of it, `(B, F, C, h, w)`."""
        with torch.no_grad(), self._autocast():
            ticks = list(self.rollout.ticks(past, actions, seeds, exits, self.dtype))
        return torch.cat([past, *ticks], 1)

    def critic_step(self, dream: Tensor, actions: Tensor, factor: float, draw: torch.Generator) -> Tensor:
        """Teaches the critic the student's distribution; returns its loss."""
        loss = self.critic.loss(dream, actions, False, draw)
        loss.backward()
        self.critic.learner.step(factor)
        return loss.detach()

    @torch.no_grad()
    def direction(self, dream: Tensor, actions: Tensor, past: int, draw: torch.Generator) -> Tensor:
        """Where each latent of a rollout has to move against: critic's estimate minus the teacher's.

        Scaled, frame by frame, by how far the teacher's estimate is away; zero for the real past.
        """
        s = self.settings
        levels = torch.rand(dream.shape[:2], generator=draw, device=self.device)
        levels = s.lowest + (s.highest - s.lowest) * levels
        fresh = torch.randn(dream.shape, generator=draw, device=self.device)
        x, zero = noised(dream, levels, fresh), torch.zeros_like(levels)
        sigma = levels[:, :, None, None, None]
        real = x - sigma * self.teacher.predict(dream, zero, x, levels, actions)
        fake = x - sigma * self.critic.predict(dream, zero, x, levels, actions)
        scale = (dream - real).abs().mean((2, 3, 4), keepdim=True).clamp_min(1e-3)
        difference = (fake - real) / scale
        difference[:, :past] = 0
        return difference

    def student_step(
        self,
        dream: Tensor,
        direction: Tensor,
        actions: Tensor,
        seeds: list[int],
        exits: Tensor,
        past: int,
        factor: float,
    ) -> Tensor:
        """Dreams the same rollout again, now with gradients, tick by tick; returns the gradient norm.

        A tick's graph is freed before the next begins, so memory does not depend on the rollout's length.
        """
        share = 1 / direction[:, past:].numel()
        with torch.enable_grad(), self._autocast():
            ticks = self.rollout.ticks(dream[:, :past], actions, seeds, exits, self.dtype)
            for tick, clean in enumerate(ticks):
                clean.backward(share * direction[:, past + tick : past + tick + 1])
        return self.learner.step(factor)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=False)

    def state(self) -> dict[str, Any]:
        return {"student": self.learner.state(), "critic": self.critic.learner.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["student"])
        self.critic.learner.load_state(state["critic"])


def distill(
    run: Run,
    latents: Tensor,
    footage: Footage,
    config: GeneratorConfig,
    settings: DistillTraining,
    sampling: SamplingConfig,
    device: torch.device,
    start: Path,
    out: Path,
) -> None:
    """Distils `start` (weights of a trained generator) in `run.folder`; writes the result to `out`.

    `latents` `(N, C, h, w)` are normalised, one a frame of `footage`. A step of the run is one update of the
    critic; every `critic_steps`-th also updates the student.
    """
    distiller = Distiller(config, sampling, settings, tuple(latents.shape[-2:]), device, start)
    run.resume(distiller.load_state)
    led = led_actions(footage, device)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            distiller.learner.keep(out)
        return distiller.state()

    for step in run.loop("distillation", save, device):
        number = step * run.world_size + run.rank
        choice = random.Random(step)  # the same on every process: all do the same amount of work
        past = choice.randint(1, settings.past)
        clips = footage.clip_index(settings.clips, settings.length, torch.Generator().manual_seed(number)).to(
            device
        )
        draw = torch.Generator(device).manual_seed(number)
        shape = (settings.clips, settings.length - past)
        exits = torch.randint(
            1, len(sampling.steps) + 1, shape, generator=torch.Generator().manual_seed(number)
        )
        seeds = [number * settings.clips + i for i in range(settings.clips)]
        actions = led[clips]
        dream = distiller.dream(latents[clips[:, :past]].float(), actions, seeds, exits)
        factor = trapezoid(run.progress, decay=0.3)
        run.log(critic=distiller.critic_step(dream, actions, factor, draw))
        if (step + 1) % settings.critic_steps == 0:
            direction = distiller.direction(dream, actions, past, draw)
            norm = distiller.student_step(dream, direction, actions, seeds, exits, past, factor)
            run.log(student=norm, gap=direction.abs().mean())
