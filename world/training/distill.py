"""Self Forcing: the generator learns from rollouts of its own, whole windows of them matched to footage.

The *student* is the generator that plays in few steps. It dreams on through the cache of play, chains of up
to `horizon` ticks, and a window of the newest frames is scored: how far is it from footage? One of several
objectives (`world.training.objectives`) answers, by a judge that learns beside it (`world.training.judge`).

A session is told what the player of its own episode really held after its past, and its windows are paired
with what really followed, as long as that episode goes on.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from playhead.world import acceleration, checkpoint
from playhead.world.config import SamplingConfig
from playhead.world.errors import PlayheadError
from playhead.world.experts import Experts
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.sampler import Schedule
from playhead.world.training.chains import Chain, ScoredWindow
from playhead.world.training.footage import Footage
from playhead.world.training.judge import Judge
from playhead.world.training.learner import Learner
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.origins import Origins, with_origin
from playhead.world.training.run import Run, trapezoid
from playhead.world.training.self_rollout import RolloutReplay, SelfRollout, make_player
from playhead.world.training.steady import FREE, SteadyWindows
from playhead.world.training.train_generator import GeneratorTraining, Trainer
from playhead.world.training.validation import Validation

CHAINS = 3
"""Groups of sessions, of different ages, that take turns: the critic sees young and old dreams alike."""


class Distiller:
    """The student, the sessions that it dreams, and who judges them (`Judge`).

    `teacher` are the weights of a scorer; the objective `rest`, which needs no judge, needs none.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        sampling: SamplingConfig,
        settings: DistillTraining,
        shape: tuple[int, int, int],
        device: torch.device,
        start: Path,
        teacher: Path | None,
    ) -> None:
        self.settings, self.sampling, self.device = settings, sampling, device
        self.schedule = Schedule.from_steps(sampling.steps, sampling.shift)
        self.student = self._new_student(config, start)
        self.judge: Judge | None = None
        self.initial: Experts | None = None
        if settings.objective == "rest":
            self.initial = self.student.twin().requires_grad_(False)
        else:
            assert teacher is not None
            self.judge = Judge(config, settings, shape, device, teacher)
        self.dtype = acceleration.pick_dtype(device)
        self.player = make_player(self.student, self.dtype)
        optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=settings.learning_rate, betas=(0.0, 0.99), weight_decay=0.01
        )
        self.learner = Learner(self.student, [optimizer], decay=0.99)
        if settings.compile and device.type == "cuda":
            acceleration.compile_blocks(*self.student.generators)
        self.anchor: Trainer | None = None
        if settings.anchor:
            flow = GeneratorTraining(clips=settings.clips, length=settings.length, compile=settings.compile)
            self.anchor = Trainer(config, sampling, flow, shape[1:], device, model=self.student.last)
        self.chains = [self._chain(shape) for _ in range(CHAINS)]
        self.replay = RolloutReplay(self.chains[0].rollout.cache, settings.ticks)

    def _new_student(self, config: GeneratorConfig, start: Path) -> Experts:
        settings = self.settings
        if settings.experts and (settings.objective != "phased" or settings.anchor):
            raise PlayheadError(
                "experts are taught phase by phase: use --experts with --objective phased and no --anchor"
            )
        generators = [Generator(config) for _ in range(len(self.schedule) if settings.experts else 1)]
        for generator in generators:  # each reads the file: a model keeps the tensors that it is given
            checkpoint.fill(generator, checkpoint.read_float(start), start)
        return Experts(generators, self.schedule).to(self.device)

    def keep(self, weights: Path, experts: Sequence[Path] = ()) -> None:
        """Writes the averaged weights: of the last expert, or the only one, and of those before it."""
        for number, path in enumerate((*experts, weights)):
            checkpoint.save_weights(path, self.student.part(self.learner.average, number))

    def _chain(self, shape: tuple[int, int, int]) -> Chain:
        s = self.settings
        full = s.objective == "phased"
        rollout = SelfRollout(self.player, self.sampling, self.schedule, s.clips, shape, full)
        latents = torch.zeros((s.clips, s.past, *shape), device=self.device)
        actions = torch.zeros((s.clips, s.past, self.student.last.config.told), device=self.device)
        held = torch.zeros((s.clips, 1, self.student.last.config.inputs), device=self.device)
        chords, at = torch.full((s.clips,), FREE), torch.zeros(s.clips, dtype=torch.int64)
        view, origin = latents[:, :1].clone(), latents[:, : s.origin].clone()
        known = torch.ones(s.clips, dtype=torch.bool, device=self.device)
        return Chain(rollout, latents, actions, held, chords, view, origin, known, at)

    def dream(self, chain: Chain, actions: Tensor, draw: torch.Generator, keep: bool) -> ScoredWindow:
        """Dreams a chain on under `actions`. `keep`: so that a step of the student can follow."""
        ticks, batch, steps = actions.shape[1], len(actions), len(self.schedule)
        actions = chain.led(actions)
        shape = (ticks, steps, batch, 1, *chain.latents.shape[2:])
        noises = torch.randn(shape, generator=draw, device=self.device)
        # Per session: it plays on what it made in as many steps.
        exits = torch.randint(1, steps + 1, (batch, 1), generator=draw, device=self.device)
        stretch = chain.rollout.advance(
            actions, noises, exits.expand(batch, ticks), self.replay if keep else None
        )
        latents = torch.cat([chain.latents, stretch.latents], 1)
        scored = torch.cat([chain.latents, stretch.estimates], 1)
        bounds = torch.tensor([*self.schedule.sigmas, 0.0], device=self.device)
        phase = torch.cat([bounds[exits], bounds[exits - 1]], 1)
        led = torch.cat([chain.actions, actions], 1)
        window = ScoredWindow(
            scored, led, chain.real, stretch, phase, chain.rests(), chain.view, chain.origin
        )
        past = self.settings.past
        chain.latents.copy_(latents[:, -past:])
        chain.actions.copy_(window.actions[:, -past:])
        chain.real, chain.left = 0, chain.left - 1
        return window

    def direction(self, window: ScoredWindow, real: tuple[Tensor, Tensor], draw: torch.Generator) -> Tensor:
        """Where each newly dreamed latent has to move against, `(B, ticks, C, h, w)`.

        `real`: windows of footage as the judge is shown them; what followed their past is as it was.
        """
        if self.judge is not None:
            found = self.judge.direction(window, real, draw)[:, self.settings.past :]
        else:
            assert self.initial is not None
            with torch.no_grad():
                found = window.stretch.estimates - self._replayed(self.initial, window)
        if self.settings.truth and window.real:
            followed = real[0][:, self.settings.past :]
            found = found + self.settings.truth * (window.stretch.estimates - followed)
        if self.settings.rest:
            wrong = self.settings.rest * (window.stretch.estimates - window.still())
            if (
                self.judge is not None
            ):  # one that is lost stays where it is, and that has to look like footage
                wrong = wrong + window.lost() * found
            found = torch.where(window.rests[:, None, None, None, None], wrong, found)
        return found

    def _replayed(self, model: Experts, window: ScoredWindow) -> Tensor:
        """What `model` makes of the exit steps of the window dreamed last, `(B, ticks, C, h, w)`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.replay.latents(model, window.stretch)

    def student_step(
        self,
        window: ScoredWindow,
        direction: Tensor,
        anchored: tuple[Tensor, Tensor],
        factor: float,
        draw: torch.Generator,
    ) -> Tensor:
        """Computes the exit steps again, now with gradients; returns the gradient norm.

        `anchored`: latents and actions of footage that the anchor, if there is one, learns from.
        """
        latents = self._replayed(self.student, window)
        latents.backward(direction / direction.numel())
        if self.anchor is not None:
            (self.settings.anchor * self.anchor.loss(*anchored, draw)[0]).backward()
        norm = self.learner.step(factor)
        self.chains[0].rollout.follow(self.student)
        return norm

    def state(self) -> dict[str, Any]:
        chains = [chain.state() for chain in self.chains]
        critic = self.judge.learner.state() if self.judge is not None else {}
        return {"student": self.learner.state(), "critic": critic, "chains": chains}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["student"])
        if self.judge is not None:
            self.judge.learner.load_state(state["critic"])
        for chain, held in zip(self.chains, state["chains"], strict=True):
            chain.load_state(held)
        self.chains[0].rollout.follow(self.student)


def distill(
    run: Run,
    latents: Tensor,
    footage: Footage,
    config: GeneratorConfig,
    settings: DistillTraining,
    sampling: SamplingConfig,
    device: torch.device,
    start: Path,
    teacher: Path | None,
    out: Path,
    experts: Sequence[Path] = (),
) -> None:
    """Distils `start` (weights of a trained generator) in `run.folder`; writes the result to `out`.

    `experts`: where the weights of the experts of all steps but the last are written, if there are any.

    `latents` `(N, C, h, w)` are normalised, one a frame of `footage`; `teacher` are weights of a scorer. A
    step of the run is one update of the critic, if there is one; every `DistillTraining.turn`-th also updates
    the student.
    """
    _, channels, height, width = latents.shape
    shape = channels, height, width
    distiller = Distiller(config, sampling, settings, shape, device, start, teacher)
    run.resume(distiller.load_state)
    led = footage.led().to(device)
    past = settings.past
    steady, rest = SteadyWindows(footage, settings.length), 1.0 if settings.objective == "rest" else 0.5
    if settings.objective == "rest" and not (steady.rests and settings.steady and settings.rest):
        raise PlayheadError(
            "the objective rest has nothing to teach: it needs footage in which nothing is held for seconds "
            "(`train collect --steady 0.5`), and --steady and --rest above 0"
        )
    origins = Origins(footage, settings.origin, past)
    validation = Validation(distiller.student, sampling, latents, led, footage, device)

    def save() -> dict[str, Any]:
        if run.rank == 0:
            distiller.keep(out, experts)
        return distiller.state()

    for step in run.loop("distillation", save, device):
        if validation.is_due(run.seconds):
            run.log(**validation.measure(distiller.learner.average))
        number = step * run.world_size + run.rank
        choice = random.Random(step)  # the same on every process: all do the same amount of work
        chain = distiller.chains[choice.randrange(CHAINS)]
        index = torch.Generator().manual_seed(number)
        starts = chain.left == 0
        if not starts:
            turned = steady.turn(chain.chords, settings.steady, index, rest)
            chain.turn(turned, steady.held(turned).to(device))
        chords = steady.choose(settings.clips, settings.steady, index, rest) if starts else chain.chords
        clips = footage.clip_index(settings.clips, settings.length, index)
        if not starts:
            clips = footage.follow(clips, chain.at, settings.ticks)
        clips = steady.replace(clips, chords, index)
        chain.at.copy_(clips[:, 0])
        clips = clips.to(device)
        draw = torch.Generator(device).manual_seed(number)
        real, actions = latents[clips].float(), led[clips]
        if starts:
            most = max(1, round(settings.horizon / settings.ticks * min(1.0, 10 * run.progress)))
            # As many short lives as long ones, by their order of magnitude: dreams begin often and get old.
            stretches = int((most + 1) ** choice.random())
            held = steady.held(chords).to(device)
            noises = torch.randn((past, len(real), 1, *real.shape[2:]), generator=draw, device=device)
            chain.begin(real[:, :past], actions[:, :past], noises, chords, held, stretches)
        before = chain.shown(latents[origins.index(chain.at, chain.age).to(device)].float())
        judged = with_origin(real, actions, before, config.inputs)
        turn = (step + 1) % settings.turn == 0
        window = distiller.dream(chain, actions[:, past:], draw, keep=turn)
        factor = trapezoid(run.progress, decay=0.3)
        if distiller.judge is not None:
            run.log(critic=distiller.judge.learn(window, judged, factor, draw))
        if turn:
            direction = distiller.direction(window, judged, draw)
            anchored = real, actions
            if distiller.anchor is not None and choice.random() < settings.long:
                clips = distiller.anchor.settings.long_clips(footage, index).to(device)
                anchored = latents[clips].float(), led[clips]
            norm = distiller.student_step(window, direction, anchored, factor, draw)
            run.log(student=norm, gap=direction.abs().mean())
