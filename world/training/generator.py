"""Training the generator of a world on latents: flow matching, every frame from its own window of the past.

What the past looks like in training is the method (`GeneratorTraining.method`):

- `teacher_forcing`: real and clean.
- `diffusion_forcing`: every frame at a noise level of its own, and later frames see it as noisy as it is
  (Chen et al. 2024, causal).
- `context_noise`: real, with noise of a level that the generator is told (GameNGen, Valevski et al. 2024).
- `own_context`: context noise, and in the later part of a run some frames are the generator's own
  predictions (parallel scheduled sampling), so that play on its own frames is nothing new to it.
- `ode`: the student of CausVid's initialisation (Yin et al. 2025): the weights a run starts from, frozen,
  denoise each frame in many deterministic steps, and the generator learns to land where they ended, from
  the noise levels of play.
"""

import copy
import random
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor, nn

from world import acceleration, checkpoint
from world.config import SamplingConfig
from world.errors import PlayheadError
from world.experts import Experts
from world.generator import Generator, GeneratorConfig
from world.sampler import Schedule, denoise
from world.training.footage import Footage
from world.training.learner import Learner
from world.training.muon import MatrixMuon
from world.training.run import Run, trapezoid
from world.training.sequence import masked_attend
from world.training.validation import Validation

Method = Literal["teacher_forcing", "diffusion_forcing", "context_noise", "own_context", "ode"]
METHODS: tuple[str, ...] = get_args(Method)


class GeneratorTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` clips of `length` latents, on each GPU.

    Noise levels (sigmas): a target's is drawn uniformly and warped by `shift`, or is pure noise with chance
    `pure_noise`; a context frame's is below `context_sigma`, or zero for a share `clean_context` of clips.
    `own_context` is the share of batches, after `own_context_from` of the run, whose contexts are in part
    the generator's own predictions; `own_frames` the share of frames replaced in them. `unlabelled`: the
    share of clips that are not told their place. `ode_steps`: how many the frozen teacher of `ode` takes.
    """

    method: Method = "own_context"
    clips: int = 48
    length: int = 24
    learning_rate: float = 1e-3
    muon: bool = True
    shift: float = 3.0
    pure_noise: float = 0.25
    context_sigma: float = 0.5
    clean_context: float = 0.3
    own_context: float = 0.5
    own_context_from: float = 0.4
    own_frames: float = 0.7
    unlabelled: float = 0.1
    ode_steps: int = 16
    compile: bool = True


class Trainer:
    """The generator, its optimizers and its loss; `train_generator` runs it.

    The generator is a new one, from the weights of `start` on if those are given; or it is `model`.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        settings: GeneratorTraining,
        schedule: Schedule,
        window: int,
        size: tuple[int, int],
        device: torch.device,
        start: Path | None = None,
        model: Generator | None = None,
    ) -> None:
        self.settings, self.schedule, self.device = settings, schedule, device
        if model is None:
            torch.manual_seed(0)
            model = Generator(config)
            initialise(model)
            if start is not None:
                checkpoint.fill(model, checkpoint.read_float(start), start)
            model.to(device)
        self.model = model
        self.teacher: Generator | None = None
        if settings.method == "ode":
            if start is None:
                raise PlayheadError(
                    "the method ode learns from a trained generator: give its weights by --start"
                )
            self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        fused = settings.compile and device.type == "cuda"
        self.attend = masked_attend(settings.length, window, self.model.tokens(*size), device, fused=fused)
        table = self.model.rope_table(range(settings.length), *size)
        self.cos_sin = torch.cat([table, table], 1).to(device)
        if fused:
            acceleration.compile_blocks(*filter(None, (self.model, self.teacher)))
        self.autocast = acceleration.pick_dtype(device) == torch.bfloat16

    @cached_property
    def learner(self) -> Learner:
        """Made when it is first asked for: a model that only predicts needs none."""
        return Learner(self.model, optimizers(self.model, self.settings, self.device), decay=0.9995)

    def predict(
        self,
        contexts: Tensor,
        context_levels: Tensor,
        x: Tensor,
        levels: Tensor,
        actions: Tensor,
        model: Generator | None = None,
    ) -> Tensor:
        """Flow of the targets `x`. Latents `(B, F, C, h, w)`, levels (sigmas) `(B, F)`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            flow = (model or self.model)(
                torch.cat([contexts, x], 1),
                1000 * torch.cat([context_levels, levels], 1),
                self.cos_sin,
                self.attend,
                torch.cat([actions, actions], 1),
            )
        return flow[:, contexts.shape[1] :]

    def levels(self, batch: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sigmas of contexts and of targets, `(batch, F)` each."""
        s, shape = self.settings, (batch, self.settings.length)
        u = torch.rand((4, *shape), generator=draw, device=self.device)
        context = s.context_sigma * u[0].square() * (u[1, :, :1] >= s.clean_context)
        target = s.shift * u[2] / (1 + (s.shift - 1) * u[2])
        target = torch.where(u[3] < s.pure_noise, 1.0, target)
        if s.method == "diffusion_forcing":
            return target, target
        if s.method in ("teacher_forcing", "ode"):
            return torch.zeros_like(context), target
        return context, target

    @torch.no_grad()
    def trajectory(
        self, latents: Tensor, actions: Tensor, fresh: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The frozen teacher's deterministic way from noise `fresh`, each frame after a clean, real past.

        Returns where it ended, and a point of it for every frame with its level `(B, F)`, drawn
        from the levels of play.
        """
        assert self.teacher is not None
        zero = torch.zeros(fresh.shape[:2], device=self.device)
        count, shift = self.settings.ode_steps, self.settings.shift
        grid = {shift * u / (1 + (shift - 1) * u) for u in (i / count for i in range(count + 1))}
        sigmas = sorted(grid | set(self.schedule.sigmas), reverse=True)
        wanted = torch.tensor(self.schedule.sigmas, device=self.device)
        pick = torch.randint(len(wanted), zero.shape, generator=draw, device=self.device)
        levels = wanted[pick]
        x, point = fresh, fresh
        for sigma, lower in pairwise(sigmas):
            here = torch.full_like(zero, sigma)
            point = torch.where((levels == here)[:, :, None, None, None], x, point)
            flow = self.predict(latents, zero, x, here, actions, self.teacher)
            x = x + (lower - sigma) * flow
        return x, point, levels

    def loss(self, latents: Tensor, actions: Tensor, own: bool, draw: torch.Generator) -> Tensor:
        """Mean squared error of the flow over one batch of normalised latents `(B, F, C, h, w)`.

        `own`: contexts are in part the generator's own predictions.
        """
        settings = self.settings
        if settings.method == "ode":
            fresh = torch.randn(latents.shape, generator=draw, device=self.device)
            goal, point, levels = self.trajectory(latents, actions, fresh, draw)
            flow = self.predict(latents, torch.zeros_like(levels), point, levels, actions)
            found = point - levels[:, :, None, None, None] * flow
            return (found - goal)[:, 1:].square().mean()

        def normal() -> Tensor:
            return torch.randn(latents.shape, generator=draw, device=self.device)

        context_levels, levels = self.levels(len(latents), draw)
        past = latents
        if own:
            with torch.no_grad():
                dreamt = denoise(
                    lambda x, t: self.predict(
                        noised(latents, context_levels, normal()), context_levels, x,
                        torch.full_like(levels, t / 1000), actions,
                    ),
                    [normal() for _ in range(len(self.schedule))],
                    self.schedule,
                )  # fmt: skip
                replaced = torch.rand(levels.shape, generator=draw, device=self.device) < settings.own_frames
                past = torch.where(replaced[:, :, None, None, None], dreamt, latents)
        fresh = normal()
        x = noised(latents, levels, fresh)
        contexts = x if settings.method == "diffusion_forcing" else noised(past, context_levels, normal())
        flow = self.predict(contexts, context_levels, x, levels, actions)
        # The first frame of a sequence has no past: it teaches nothing that play asks for.
        return (flow - (fresh - latents))[:, 1:].square().mean()


def led_actions(footage: Footage, device: torch.device) -> Tensor:
    """What the generator is told of each frame `(N, told)`: what led to it, then the place's label.

    That action is the one held on the frame before. To an episode's first frame, as to the first frame of a
    context in play, none led.
    """
    led = torch.cat([footage.actions[:1], footage.actions[:-1]]).float()
    led[footage.starts] = 0
    return torch.cat([led, footage.labels()], 1).to(device)


def unlabelled(told: Tensor, labels: int, chance: float, draw: torch.Generator) -> Tensor:
    """Takes the label from some clips of `told` `(B, F, inputs + labels)`, each with the same `chance`."""
    kept = torch.rand((len(told), 1, 1), generator=draw, device=told.device) >= chance
    inputs = told.shape[-1] - labels
    return torch.cat([told[..., :inputs], told[..., inputs:] * kept], -1)


def noised(x: Tensor, levels: Tensor, fresh: Tensor) -> Tensor:
    """Moves latents `(B, F, C, h, w)` to the noise levels `(B, F)`."""
    sigma = levels[:, :, None, None, None]
    return (1 - sigma) * x + sigma * fresh


def initialise(model: Generator) -> None:
    """Residual branches start closed: gates at zero, the last projection at zero (as in DiT)."""
    for block in model.blocks:
        nn.init.normal_(block.modulation, std=0.02)
    nn.init.normal_(model.head.modulation, std=0.02)
    nn.init.normal_(model.time_projection[1].weight, std=0.01)
    nn.init.zeros_(model.time_projection[1].bias)
    nn.init.zeros_(model.head.head.weight)
    nn.init.zeros_(model.head.head.bias)


def optimizers(
    model: Generator, settings: GeneratorTraining, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest (or for everything)."""
    matrices = [
        p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2
    ] if settings.muon else []  # fmt: skip
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    lr = settings.learning_rate
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    ]
    if matrices:
        found.append(MatrixMuon(matrices, lr))
    return found


def train_generator(
    run: Run,
    latents: Tensor,
    footage: Footage,
    config: GeneratorConfig,
    settings: GeneratorTraining,
    sampling: SamplingConfig,
    device: torch.device,
    out: Path,
    start: Path | None = None,
) -> Generator:
    """Trains (or goes on training) in `run.folder`; writes the averaged weights to `out` at every save.

    `latents` `(N, C, h, w)` are normalised, one a frame of `footage`. `start`: weights to begin from.
    Returns the averaged generator.
    """
    size = (latents.shape[-2], latents.shape[-1])
    schedule = Schedule.from_steps(sampling.steps, sampling.shift)
    trainer = Trainer(config, settings, schedule, sampling.window, size, device, start)
    learner = trainer.learner
    run.resume(learner.load_state)
    led = led_actions(footage, device)
    alone = Experts([trainer.model], schedule)
    validation = Validation(alone, sampling, latents, led, footage, device)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(out)
        return learner.state()

    for step in run.loop("generator", save, device):
        if validation.is_due(run.seconds):
            run.log(**validation.measure(alone.whole([learner.average])))
        number = step * run.world_size + run.rank
        clips = footage.clip_index(settings.clips, settings.length, torch.Generator().manual_seed(number)).to(
            device
        )
        draw = torch.Generator(device).manual_seed(number)
        own = (
            settings.method == "own_context"
            and run.progress >= settings.own_context_from
            and random.Random(step).random() < settings.own_context
        )
        told = unlabelled(led[clips], config.labels, settings.unlabelled, draw)
        loss = trainer.loss(latents[clips].float(), told, own, draw)
        loss.backward()
        run.log(loss=loss, gradient=learner.step(trapezoid(run.progress)))
    learner.take_average()
    return trainer.model
