"""A scorer: a generator that sees a whole window of frames at once, past and future, and denoises all of it.

Self Forcing matches whole rollouts to footage. What asks "how far is this window from footage?" has to judge
its frames together: a model that judges each frame by its own past follows the past wherever it drifts. So
the scorer is the generator without a causal mask, all frames of a window at one noise level (as the
bidirectional teacher of Self Forcing has it), real frames of the past at level 0. Actions condition it.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.attention import attention
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.training.footage import Footage
from playhead.world.training.learner import Learner
from playhead.world.training.origins import Origins, check_origin, with_origin
from playhead.world.training.run import Run, trapezoid
from playhead.world.training.train_generator import (
    GeneratorTraining,
    Optimizer,
    initialise,
    noised,
    optimizers,
)

OLDEST = 1024
"""Ticks that a window's origin lies back at most, while a scorer is trained: the horizon of distillation."""

KNOWN = 0.7
"""How often such a window's origin is there, as the sessions of which it is known (`Chain.known`)."""


def scorer_config(config: GeneratorConfig) -> GeneratorConfig:
    """The generator that scores for one of `config`: without what play is given beside the noisy latents."""
    predicts = "clean" if config.predicts == "change" else config.predicts
    return msgspec.structs.replace(config, in_channels=config.out_channels, predicts=predicts)


class ScorerTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` windows of `length` latents; in every second the first `past`
    are real and clean. `lowest`, `highest` bound the noise levels, uniform but for the warp by `shift`.
    `origin`: in every third batch so many of the first latents are, clean, those of some time before, and
    zeros in some of its windows, as a judge of a session that never held what footage did is shown them.

    Raises PlayheadError where the origin is longer than the past.
    """

    clips: int = 96
    length: int = 24
    past: int = 8
    learning_rate: float = 5e-4
    optimizer: Optimizer = "muon"
    shift: float = 3.0
    lowest: float = 0.02
    highest: float = 0.98
    origin: int = 0
    compile: bool = True

    def __post_init__(self) -> None:
        check_origin(self.origin, self.past)


def joint_attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every frame sees every frame."""
    return attention(q.to(v.dtype), k.to(v.dtype), v)


class Scorer:
    """Denoises windows `(B, F, C, h, w)`; levels are sigmas `(B, F)`, actions `(B, F, buttons)`."""

    def __init__(
        self,
        config: GeneratorConfig,
        settings: ScorerTraining,
        size: tuple[int, int],
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.settings, self.device = settings, device
        self.model = Generator(scorer_config(config))
        initialise(self.model)
        if start is not None:
            weights = checkpoint.read_float(start)
            given = weights["patch_embedding.weight"]  # of a generator, or of a scorer
            weights["patch_embedding.weight"] = given[:, : config.out_channels].contiguous()
            checkpoint.fill(self.model, weights, start)
        self.model.to(device)
        self.cos_sin = self.model.rope_table(range(settings.length), *size).to(device)
        if settings.compile and device.type == "cuda":
            acceleration.compile_blocks(self.model)
        self.autocast = acceleration.pick_dtype(device) == torch.bfloat16

    @cached_property
    def learner(self) -> Learner:
        """Made when it is first asked for: a teacher needs none."""
        s = self.settings
        flow = GeneratorTraining(learning_rate=s.learning_rate, optimizer=s.optimizer)
        return Learner(self.model, optimizers(self.model, flow, self.device), decay=0.999)

    def levels(self, batch: int, clean: int, draw: torch.Generator) -> Tensor:
        """One level a window, `(batch, F)`; 0 for the first `clean` frames."""
        s = self.settings
        u = s.lowest + (s.highest - s.lowest) * torch.rand((batch, 1), generator=draw, device=self.device)
        levels = (s.shift * u / (1 + (s.shift - 1) * u)).repeat(1, s.length)
        levels[:, :clean] = 0
        return levels

    def estimate(self, x: Tensor, levels: Tensor, actions: Tensor) -> Tensor:
        """The clean window that the noised `x` came from."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            flow = self.model(x, 1000 * levels, self.cos_sin, joint_attend, actions)
        clean: Tensor = x - levels[:, :, None, None, None] * flow
        return clean

    def loss(self, latents: Tensor, actions: Tensor, clean: int, draw: torch.Generator) -> Tensor:
        """Mean squared error of the flow over the frames that were noised."""
        levels = self.levels(len(latents), clean, draw)
        fresh = torch.randn(latents.shape, generator=draw, device=self.device)
        x = noised(latents, levels, fresh)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            flow = self.model(x, 1000 * levels, self.cos_sin, joint_attend, actions)
        loss: Tensor = (flow - (fresh - latents))[:, clean:].square().mean()
        return loss


def train_scorer(
    run: Run,
    latents: Tensor,
    footage: Footage,
    config: GeneratorConfig,
    settings: ScorerTraining,
    device: torch.device,
    out: Path,
    start: Path | None = None,
) -> Scorer:
    """Trains (or goes on training) in `run.folder`, from `start` on; writes averaged weights to `out`."""
    *_, height, width = latents.shape
    scorer = Scorer(config, settings, (height, width), device, start)
    learner = scorer.learner
    run.resume(learner.load_state)
    led = footage.led().to(device)
    origins = Origins(footage, settings.origin, settings.past)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(out)
        return learner.state()

    for step in run.loop("scorer", save, device):
        number = step * run.world_size + run.rank
        index = torch.Generator().manual_seed(number)
        clips = footage.clip_index(settings.clips, settings.length, index)
        draw = torch.Generator(device).manual_seed(number)
        here = clips.to(device)
        windows, told, clean = latents[here].float(), led[here], settings.past * (step % 2)
        if settings.origin and step % 3 == 2:
            ages = torch.randint(OLDEST + 1, (settings.clips,), generator=index)
            before = latents[origins.index(clips[:, 0], ages).to(device)].float()
            known = torch.rand((settings.clips, 1, 1, 1, 1), generator=draw, device=device) < KNOWN
            windows, told = with_origin(windows, told, before * known, config.inputs)
            clean = settings.origin
        loss = scorer.loss(windows, told, clean, draw)
        loss.backward()
        run.log(loss=loss, gradient=learner.step(trapezoid(run.progress)))
    learner.take_average()
    return scorer
