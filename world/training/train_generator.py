"""Training the generator of a world whose last denoise pass commits: one causal sequence a clip.

Every frame of a clip is denoised at a level of its own, most often those that play commits at, given the keys
and values that the frames before it left in the same pass, and the clean latents of the one just before it.
Three things make play on its own frames nothing new to it:

- Those clean latents carry a little noise (GameNGen, Valevski et al. 2024).
- Later in a run a batch stays for `turns` steps, and what the generator found in one takes the place of most
  of those latents in the next (scheduled sampling, at no pass more): errors as they pile up tick by tick.
- Some of the noisy latents, too, are of what it found itself, as the second step of play is.

A share of the batches is of long clips, so that a far memory is learned.
"""

import random
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor, nn

from playhead.world import acceleration, checkpoint
from playhead.world.attention import Attend
from playhead.world.config import SamplingConfig
from playhead.world.experts import Experts
from playhead.world.generator import Generator, GeneratorConfig, linear_layers
from playhead.world.sampler import Schedule
from playhead.world.training.filming import Filming
from playhead.world.training.footage import Footage
from playhead.world.training.learner import Learner
from playhead.world.training.muon import MatrixMuon
from playhead.world.training.normuon import NorMuon
from playhead.world.training.run import Run, trapezoid
from playhead.world.training.sequence import causal_attend, play_levels, shifted
from playhead.world.training.validation import Validation

LEAST = 0.02
"""The lowest noise level (sigma) that is trained."""

Optimizer = Literal["muon", "adamw", "normuon"]
"""What the matrices of the blocks learn by. All else learns by AdamW."""
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)


class GeneratorTraining(msgspec.Struct, frozen=True):
    """Settings of a run. A batch is `clips` clips of `length` latents, on each GPU.

    `long`: the share of batches that are of clips of `long_length`, as many as make as many frames. Each clip
    is trained to be played in one step a tick (a share `one_step`) or in two: a frame is at the level that
    commits it (`committed` of them), at any level at all (`anywhere`), or at another one of its schedule.
    `shift` warps the levels in between. `previous_noise`: the most noise (sigma) on the latents of the frame
    before. After `own_from` of the run, in all but the first of `turns` steps of a batch, `own` of those
    latents are the generator's own. `unlabelled`: the share of clips that are not told their place.
    """

    clips: int = 96
    length: int = 24
    long: float = 0.25
    long_length: int = 160
    learning_rate: float = 1e-3
    optimizer: Optimizer = "muon"
    one_step: float = 0.6
    committed: float = 0.65
    anywhere: float = 0.15
    shift: float = 1.5
    previous_noise: float = 0.3
    own_from: float = 0.3
    turns: int = 4
    own: float = 0.8
    unlabelled: float = 0.1
    compile: bool = True

    def long_clips(self, footage: Footage, draw: torch.Generator) -> Tensor:
        """Frame indices `(count, length)` of a batch of long clips, as long as there are, on the CPU."""
        length = min(self.long_length, footage.longest())
        return footage.clip_index(max(1, self.clips * self.length // length), length, draw)


class Trainer:
    """The generator, its optimizers and its loss; `train_generator` runs it.

    The generator is a new one, from the weights of `start` on if those are given; or it is `model`. `size`:
    of a latent, `(h, w)`.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        sampling: SamplingConfig,
        settings: GeneratorTraining,
        size: tuple[int, int],
        device: torch.device,
        start: Path | None = None,
        model: Generator | None = None,
    ) -> None:
        self.settings, self.sampling, self.size, self.device = settings, sampling, size, device
        if model is None:
            torch.manual_seed(0)
            model = Generator(config)
            initialise(model)
            if start is not None:
                checkpoint.fill(model, checkpoint.read_float(start), start)
            model.to(device)
        self.model = model
        self.fused = settings.compile and device.type == "cuda"
        if self.fused:
            acceleration.compile_blocks(self.model)
        self.autocast = acceleration.pick_dtype(device) == torch.bfloat16
        self._layouts: dict[int, tuple[Tensor, Attend]] = {}
        one, two = play_levels(sampling, (1, 2))
        self.schedules = torch.tensor([[*one, *one], two], device=device)  # (1 or 2 steps, step)

    @cached_property
    def learner(self) -> Learner:
        """Made when it is first asked for: a model that only predicts needs none."""
        return Learner(self.model, optimizers(self.model, self.settings, self.device), decay=0.9995)

    def _layout(self, frames: int) -> tuple[Tensor, Attend]:
        """The rope table and the attention of clips of so many frames."""
        if frames not in self._layouts:
            tokens = self.model.tokens(*self.size)
            attend = causal_attend(frames, self.sampling, tokens, self.device, self.fused)
            table = self.model.rope_table(range(frames), *self.size).to(self.device)
            self._layouts[frames] = table, attend
        return self._layouts[frames]

    def predict(self, x: Tensor, previous: Tensor, levels: Tensor, told: Tensor) -> Tensor:
        """The clean latents found of noisy `x` `(B, F, C, h, w)` at `levels` (sigmas) `(B, F)`.

        `previous`, like `x`: the clean latents before each, where the world is given them. `told`
        `(B, F, told)`.
        """
        table, attend = self._layout(x.shape[1])
        given = torch.cat([x, previous], 2) if self.sampling.previous else x
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            flow = self.model(given, 1000 * levels, table, attend, told)
        clean: Tensor = x - levels[:, :, None, None, None] * flow
        return clean

    def levels(self, batch: int, frames: int, draw: torch.Generator) -> Tensor:
        """Sigmas `(batch, frames)`, most of them those that play has."""
        s = self.settings
        u, pick = torch.rand((2, batch, frames), generator=draw, device=self.device)
        count = torch.rand((batch, 1), generator=draw, device=self.device) >= s.one_step
        first, last = self.schedules[count.long()].expand(-1, frames, -1).unbind(-1)
        anywhere = (s.shift * u / (1 + (s.shift - 1) * u)).clamp_min(LEAST)
        return torch.where(pick < s.committed, last, torch.where(pick < 1 - s.anywhere, first, anywhere))

    def loss(
        self, latents: Tensor, told: Tensor, draw: torch.Generator, found: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss over one batch of normalised latents `(B, F, C, h, w)`, and what was found of them.

        It is the squared error of the clean latents; of a generator that predicts the flow, of that. `found`:
        what this batch's last step found; it takes the place of a part of what the generator is given.
        """
        s, (batch, frames) = self.settings, latents.shape[:2]

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=draw, device=self.device)

        def normal() -> Tensor:
            return torch.randn(latents.shape, generator=draw, device=self.device)

        def mixed(share: float) -> Tensor:
            if found is None:
                return latents
            return torch.where((rand(batch, frames) < share)[:, :, None, None, None], found, latents)

        levels = self.levels(batch, frames, draw)
        noise = s.previous_noise * rand(batch, frames).square() * (rand(batch, 1) > 0.3)
        previous = noised(shifted(mixed(s.own)), noise, normal())
        previous[:, 0] = 0
        clean = self.predict(noised(mixed(s.own / 2), levels, normal()), previous, levels, told)
        error = (clean - latents).square()
        if self.model.config.predicts == "flow":
            error = error / levels.square()[:, :, None, None, None]
        # The first frame of a sequence has no past: it teaches nothing that play asks for.
        return error[:, 1:].mean(), clean.detach()


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
    (projection,) = linear_layers(model.time_projection)
    nn.init.normal_(projection.weight, std=0.01)
    nn.init.zeros_(projection.bias)
    nn.init.zeros_(model.head.head.weight)
    nn.init.zeros_(model.head.head.bias)


def optimizers(
    model: Generator, settings: GeneratorTraining, device: torch.device
) -> list[torch.optim.Optimizer]:
    """The optimizer of the matrices of the blocks, AdamW for the rest (or for everything)."""
    matrices = [
        p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2
    ] if settings.optimizer != "adamw" else []  # fmt: skip
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    lr = settings.learning_rate
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    ]
    if matrices:
        kind = NorMuon if settings.optimizer == "normuon" else MatrixMuon
        found.append(kind(matrices, lr))
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
    filming: Filming | None = None,
) -> Generator:
    """Trains (or goes on training) in `run.folder`; writes the averaged weights to `out` at every save.

    `latents` `(N, C, h, w)` are normalised, one a frame of `footage`. `start`: weights to begin from.
    `filming`: goes on filming meanwhile, and adds to both. Returns the averaged generator.
    """
    trainer = Trainer(config, sampling, settings, (latents.shape[-2], latents.shape[-1]), device, start)
    learner = trainer.learner
    clips, found = torch.empty(0, dtype=torch.int64), None  # a batch, and what its last step found

    def load(state: dict[str, Any]) -> None:
        nonlocal clips, found
        learner.load_state(state)
        if not len(state["found"]) or filming is not None or run.world_size > 1:
            return  # films are not there any more, and of several processes one kept its batch: begin another
        if int(state["clips"].max()) < len(latents):
            clips, found = state["clips"].to(device), state["found"].to(device)

    run.resume(load)
    led = footage.led().to(device)
    alone = Experts([trainer.model], Schedule.from_steps(sampling.steps, sampling.shift))
    validation = Validation(alone, sampling, latents, led, footage, device)
    long = bool(settings.long) and footage.longest() >= settings.long_length

    def save() -> dict[str, Any]:
        if run.rank == 0:
            learner.keep(out)
        return {**learner.state(), "clips": clips, "found": found if found is not None else torch.empty(0)}

    for step in run.loop("generator", save, device):
        if validation.is_due(run.seconds):
            run.log(**validation.measure(alone.whole([learner.average])))
        number = step * run.world_size + run.rank
        draw = torch.Generator(device).manual_seed(number)
        turn, own = step % settings.turns, run.progress >= settings.own_from
        if not own or not turn or found is None:
            if filming is not None:
                latents, led = filming.gather(latents, led, footage)
                run.log(frames=torch.tensor(float(len(led))))
            pick = torch.Generator().manual_seed(number)
            if long and random.Random(step).random() < settings.long:
                index = settings.long_clips(footage, pick)
            else:
                index = footage.clip_index(settings.clips, settings.length, pick)
            clips, found = index.to(device), None
        told = unlabelled(led[clips], config.labels, settings.unlabelled, draw)
        loss, found = trainer.loss(latents[clips].float(), told, draw, found)
        loss.backward()
        run.log(loss=loss, gradient=learner.step(trapezoid(run.progress)))
        if not own:
            found = None
    learner.take_average()
    return trainer.model
