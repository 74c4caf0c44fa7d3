"""Training really learns, goes on exactly where it was interrupted, and leaves a world that can be played."""

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from playhead.world.checkpoint import read_weights, save_weights
from playhead.world.errors import PlayheadError
from playhead.world.lighttae import LightTAE
from playhead.world.training import distributed
from playhead.world.training.autoencoder import (
    AutoencoderTraining,
    encode_frames,
    latent_statistics,
    train_autoencoder,
)
from playhead.world.training.distill import distill
from playhead.world.training.dreams import Dreams
from playhead.world.training.footage import Footage
from playhead.world.training.objectives import OBJECTIVES, DistillTraining, Objective
from playhead.world.training.run import Run, trapezoid
from playhead.world.training.scorer import ScorerTraining, train_scorer
from playhead.world.training.sequence import play_levels
from playhead.world.training.sharpen import SharpenTraining, train_sharpness
from playhead.world.training.steady import FREE
from playhead.world.training.train_generator import GeneratorTraining, Trainer, train_generator
from playhead.world.training.train_inverse import InverseTraining, train_inverse
from tests.conftest import make_tiny_world
from tests.world.game import write_footage
from tests.world.training.runs import CONFIG, CPU, ROOT, metrics, read_checkpoint, same

STEPS, STOP = 14, 6


class Watched(Run):
    """A run that remembers its losses, and may be interrupted from the keyboard after `stop` steps."""

    def __init__(self, folder: Path, steps: int, stop: int | None = None) -> None:
        super().__init__(folder, steps=steps, report_every=math.inf)  # however slow the machine
        self.stop = stop
        self.losses: dict[str, list[float]] = {}
        self.seen: set[int] = set()

    def log(self, **losses: Tensor) -> None:
        super().log(**losses)
        self.seen.add(self.step)
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value.detach()))
        if self.step + 1 == self.stop:
            signal.raise_signal(signal.SIGINT)

    def fall(self, name: str) -> float:
        """The mean loss of the last tenth of the steps, as a part of that of the first tenth."""
        values = self.losses[name]
        count = len(values) // 10
        return sum(values[-count:]) / sum(values[:count])


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return Footage.load(write_footage(tmp_path_factory.mktemp("footage"), 6, 24), CPU)


@pytest.fixture(scope="module")
def latents(footage: Footage) -> Tensor:
    """The footage in the latents of a fresh autoencoder, normalised."""
    torch.manual_seed(0)
    found = encode_frames(LightTAE(CONFIG.autoencoder), footage.frames, CPU)
    mean, std = latent_statistics(found)
    return (found - mean[:, None, None]) / std[:, None, None]


def autoencoder(run: Run, footage: Footage) -> LightTAE:
    settings = AutoencoderTraining(clips=4, length=3, learning_rate=3e-3)
    return train_autoencoder(run, footage, CONFIG.autoencoder, settings, CPU)


def generator(run: Run, footage: Footage, latents: Tensor, muon: bool = True) -> nn.Module:
    settings = GeneratorTraining(clips=6, length=8, learning_rate=3e-3, muon=muon)
    out = run.folder / "generator.safetensors"
    return train_generator(run, latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, out)


def inverse(run: Run, footage: Footage) -> nn.Module:
    return train_inverse(run, footage, InverseTraining(clips=8), CPU)


def resting(footage: Footage) -> Footage:
    """Footage in which nothing is held from half-way on."""
    actions = footage.actions.clone()
    actions[len(actions) // 2 :] = 0
    return Footage(footage.frames, actions, footage.starts, footage.places)


def distilled(run: Run, footage: Footage, latents: Tensor, objective: Objective = "dmd") -> None:
    start = run.folder / "start" / "generator.safetensors"
    start.parent.mkdir(exist_ok=True)
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    settings = DistillTraining(objective=objective, clips=2, length=6, past=3, critic_steps=2, horizon=9)
    if objective == "rest":
        footage = resting(footage)
    out = run.folder / "generator.safetensors"
    distill(run, latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, start, start, out)


def scorer(run: Run, footage: Footage, latents: Tensor) -> None:
    settings = ScorerTraining(clips=6, length=8, past=3, learning_rate=3e-3)
    out = run.folder / "scorer.safetensors"
    train_scorer(run, latents, footage, CONFIG.generator, settings, CPU, out)


def sharpened(run: Run, footage: Footage, **settings: float) -> None:
    start = run.folder / "start" / "autoencoder.safetensors"
    start.parent.mkdir(exist_ok=True)
    save_weights(start, make_tiny_world(one_pass=True).autoencoder.state_dict())
    chosen = SharpenTraining(clips=4, length=3, **settings)
    dreams = new_dreams(start.parent) if chosen.dreamed else None
    out = run.folder / "autoencoder.safetensors"
    train_sharpness(run, footage, CONFIG.autoencoder, chosen, CPU, start, out, dreams)


def new_dreams(folder: Path) -> Dreams:
    weights = folder / "generator.safetensors"
    save_weights(weights, make_tiny_world(one_pass=True).generator.state_dict(), torch.float32)
    return Dreams(CONFIG, weights, CPU)


Stage = Callable[[Run, Footage, Tensor], object]
STAGES: dict[str, Stage] = {
    "autoencoder": lambda run, footage, latents: autoencoder(run, footage),
    "sharpen": lambda run, footage, latents: sharpened(run, footage),
    "sharpen dreams": lambda run, footage, latents: sharpened(run, footage, dreamed=0.5),
    "generator": generator,
    "generator without Muon": lambda run, footage, latents: generator(run, footage, latents, muon=False),
    "scorer": scorer,
    **{f"distill {name}": partial(distilled, objective=name) for name in OBJECTIVES},
    "inverse": lambda run, footage, latents: inverse(run, footage),
}
every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


@pytest.mark.parametrize("wrong", [{"steady": 0.0}, {"rest": 0.0}, {}], ids=str)
def test_rest_is_not_taught_where_there_is_nothing_to_teach(
    footage: Footage, latents: Tensor, tmp_path: Path, wrong: dict[str, float]
) -> None:
    settings = DistillTraining(objective="rest", clips=2, length=6, past=3, **wrong)
    start = tmp_path / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict(), torch.float32)
    run, sampling = Watched(tmp_path / "run", steps=2), CONFIG.sampling
    filmed = resting(footage) if wrong else footage
    with pytest.raises(PlayheadError, match="the objective rest has nothing to teach"):
        distill(
            run, latents, filmed, CONFIG.generator, settings, sampling, CPU, start, None, run.folder / "out"
        )
    assert not (run.folder / "out").exists()


def test_steady_sessions_hold_what_footage_holds_for_long(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    actions = torch.zeros_like(footage.actions)
    actions[len(actions) // 2 :, 2] = 1
    steady = Footage(footage.frames, actions, footage.starts, footage.places)
    settings = DistillTraining(clips=6, length=6, past=3, horizon=9, steady=0.7)
    start = tmp_path / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    run = Watched(tmp_path / "run", steps=4)
    generator, sampling = CONFIG.generator, CONFIG.sampling
    distill(run, latents, steady, generator, settings, sampling, CPU, start, start, run.folder / "out")
    held = set()
    for chain in torch.load(run.folder / "checkpoint.pt", weights_only=True)["chains"]:
        if chain["latents"].any():
            for chord, buttons in zip(chain["chords"].tolist(), chain["held"].tolist(), strict=True):
                held.add((chord, *(i for i, down in enumerate(buttons[0]) if down)))
    assert held == {(FREE,), (0,), (1, 2)}


def test_the_autoencoder_learns_to_rebuild_footage(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path, steps=80)
    autoencoder(run, footage)
    assert run.fall("l2") < 0.5


@pytest.mark.parametrize("muon", [True, False], ids=["Muon", "AdamW"])
def test_the_generator_learns_to_denoise(
    muon: bool, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, steps=60)
    generator(run, footage, latents, muon)
    assert run.losses["loss"][0] == pytest.approx(1, abs=0.1)  # it begins by finding 0, of unit latents
    assert run.fall("loss") < 0.75


@pytest.mark.parametrize("predicts", ["flow", "change"])
def test_whatever_it_predicts_the_generator_learns(
    predicts: Literal["flow", "change"], footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG.generator, predicts=predicts)
    settings = GeneratorTraining(clips=6, length=8, learning_rate=3e-3, muon=False, own_from=1.0)
    run = Watched(tmp_path, steps=60)
    train_generator(run, latents, footage, config, settings, CONFIG.sampling, CPU, tmp_path / "out")
    assert run.fall("loss") < 0.9


def test_the_first_frame_of_a_clip_teaches_nothing() -> None:
    """It has no past, which play never asks for: whatever it should have been, the loss is the same."""
    trainer = new_trainer(GeneratorTraining(previous_noise=0.0), window=1)
    z = torch.randn(2, 8, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    told = torch.zeros(2, 8, 8)
    other = z.clone()
    other[:, 0] += 3

    def of_frames(latents: Tensor) -> Tensor:
        loss, _ = trainer.loss(latents, told, torch.Generator().manual_seed(0))
        return loss.detach()

    assert of_frames(torch.cat([z[:, :1], z[:, 1:] + 1], 1)) != of_frames(z)
    assert trainer.model.head.head.weight.count_nonzero() == 0  # so that what it finds is 0
    assert torch.equal(of_frames(other), of_frames(z))


def new_trainer(settings: GeneratorTraining, window: int = 6) -> Trainer:
    """One with fresh weights."""
    sampling = msgspec.structs.replace(CONFIG.sampling, window=window)
    return Trainer(CONFIG.generator, sampling, settings, (4, 4), CPU)


def test_most_frames_are_at_the_levels_of_play() -> None:
    """A clip is for play in one step or in two, and most of its frames are at the level that commits."""
    settings = GeneratorTraining(one_step=0.6, committed=0.7, anywhere=0.1)
    levels = new_trainer(settings).levels(400, 24, torch.Generator().manual_seed(0))
    ((one,), (high, low)) = play_levels(CONFIG.sampling, (1, 2))
    assert one == high == 1.0
    assert levels.min() > 0 and levels.max() <= 1
    twice = (levels == low).any(1)
    assert 0.35 < twice.float().mean() < 0.45
    at_play = ((levels == high) | (levels == low)).float().mean()
    assert at_play == pytest.approx(0.9, abs=0.02)
    assert (levels[twice] == low).float().mean() == pytest.approx(0.7, abs=0.02)
    assert (levels[twice] == high).float().mean() == pytest.approx(0.2, abs=0.02)
    assert (levels[~twice] == high).float().mean() == pytest.approx(0.9, abs=0.02)


class Asked(NamedTuple):
    """What one step of training was asked for, and what it found."""

    latents: Tensor
    told: Tensor
    found_before: Tensor | None
    found: Tensor


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every call of `Trainer.loss`."""
    calls: list[Asked] = []
    loss = Trainer.loss

    def watched(
        self: Trainer, latents: Tensor, told: Tensor, draw: torch.Generator, found: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        value, now = loss(self, latents, told, draw, found)
        calls.append(Asked(latents, told, found, now))
        return value, now

    monkeypatch.setattr(Trainer, "loss", watched)
    return calls


def test_a_batch_stays_for_some_turns_once_own_predictions_enter(
    footage: Footage, latents: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before `own_from` every step has a batch of its own; then only every so many-th, and what was found."""
    calls = watch(monkeypatch)
    settings = GeneratorTraining(clips=3, length=8, own_from=0.5, turns=4, muon=False)
    train_generator(
        Watched(tmp_path, 24), latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU,
        tmp_path / "generator.safetensors",
    )  # fmt: skip
    assert len(calls) == 24
    for step, (before, now) in enumerate(pairwise(calls), 1):
        goes_on = step > 12 and step % 4 != 0
        assert torch.equal(before.latents, now.latents) == goes_on, step
        assert (now.found_before is before.found) == goes_on, step
        assert goes_on or now.found_before is None, step


def test_own_predictions_take_the_place_of_most_of_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of some of what is noised; the loss is still against footage."""
    trainer = new_trainer(GeneratorTraining(previous_noise=0.0, own=0.8))
    given: list[tuple[Tensor, ...]] = []

    def predict(*asked: Tensor) -> Tensor:
        given.append(asked)
        return torch.full_like(asked[0], 2.0)

    monkeypatch.setattr(trainer, "predict", predict)
    z, told = torch.full((16, 50, 8, 4, 4), 2.0), torch.zeros(16, 50, 8)
    own = torch.full_like(z, -1.0)

    def loss(found: Tensor | None) -> Tensor:
        return trainer.loss(z, told, torch.Generator().manual_seed(0), found)[0]

    assert loss(None) == loss(own) == 0
    (_, real, _, _), (x, mixed, levels, _) = given
    assert (real[:, 1:] == 2).all() and not real[:, 0].any() and not mixed[:, 0].any()
    owned = (mixed[:, 1:] == -1).all((2, 3, 4))
    assert torch.equal(~owned, (mixed[:, 1:] == 2).all((2, 3, 4)))  # a frame whole or not at all
    assert owned.float().mean() == pytest.approx(0.8, abs=0.05)
    middle = (levels > 0.1) & (levels < 0.9)
    centre = x.mean((2, 3, 4))[middle] / (1 - levels[middle])  # around 2 or -1, whatever the noise
    assert 0.2 < (centre < 0.5).float().mean() < 0.6


def test_what_came_before_carries_a_little_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """In most clips, and never more than `previous_noise`."""
    trainer = new_trainer(GeneratorTraining(previous_noise=0.3))
    given: list[Tensor] = []
    monkeypatch.setattr(trainer, "predict", lambda x, previous, *_: (given.append(previous), x)[1])
    z = torch.zeros(200, 12, 8, 4, 4)
    trainer.loss(z, torch.zeros(200, 12, 8), torch.Generator().manual_seed(0))
    (previous,) = given
    size = previous[:, 1:].std((2, 3, 4))
    noisy = size.amax(1) > 0
    assert noisy.float().mean() == pytest.approx(0.7, abs=0.1)
    assert 0 < size[noisy].mean() < 0.2 and size.max() < 0.4
    assert not previous[:, 0].any()


@pytest.mark.parametrize(("long_length", "drawn"), [(20, {(6, 8), (2, 20)}), (25, {(6, 8)})])
def test_long_clips_are_drawn_where_episodes_are_long_enough(
    long_length: int,
    drawn: set[tuple[int, int]],
    footage: Footage,
    latents: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many of them as make about as many frames."""
    calls = watch(monkeypatch)
    settings = GeneratorTraining(clips=6, length=8, long=0.5, long_length=long_length, muon=False)
    train_generator(
        Watched(tmp_path, 16), latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU,
        tmp_path / "generator.safetensors",
    )  # fmt: skip
    assert {tuple(call.latents.shape[:2]) for call in calls} == drawn


def test_the_scorer_learns_to_denoise_whole_windows(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, steps=60)
    scorer(run, footage, latents)
    assert run.fall("loss") < 0.75


def test_sharpening_makes_pictures_sharper_and_leaves_latents_as_they_are(
    footage: Footage, tmp_path: Path
) -> None:
    smooth = tmp_path / "smooth"
    autoencoder(Watched(smooth, 60), footage)
    run = Watched(tmp_path / "sharp", 120)
    settings = SharpenTraining(clips=4, length=3, learning_rate=2e-3, detail=0.1)
    start, out = smooth / "autoencoder.safetensors", tmp_path / "sharp" / "autoencoder.safetensors"
    train_sharpness(run, footage, CONFIG.autoencoder, settings, CPU, start, out)
    before, after = (
        sum(values) / 20 for values in (run.losses["sharpness"][:20], run.losses["sharpness"][-20:])
    )
    assert abs(after - 1) < 0.5 * abs(before - 1)
    was, became = read_weights(start), read_weights(out)
    assert all(torch.equal(value, became[name]) for name, value in was.items() if name.startswith("encoder."))
    assert not any(
        torch.equal(value, became[name]) for name, value in was.items() if name.startswith("decoder.")
    )


def test_a_clip_is_dreamed_over_frame_by_frame_each_from_its_own_past(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    dreams = new_dreams(tmp_path)
    z, told = latents[None, :10], footage.actions[None, :10].float()

    def dreamed(given: Tensor, told: Tensor, passes: int = 2) -> Tensor:
        torch.manual_seed(1)
        return dreams(given, told, passes)

    found = dreamed(z, told)
    assert torch.equal(found[:, 0], z[:, 0])  # it has no past
    assert (found[:, 1:] - z[:, 1:]).square().mean((0, 2, 3, 4)).min() > 0
    assert not torch.equal(found, dreamed(z, told, passes=1))
    later = z.clone()
    later[:, 6:] += 1
    pressed = told.clone()
    pressed[:, 6:] = 1 - pressed[:, 6:]
    for other in (dreamed(later, told), dreamed(z, pressed)):
        torch.testing.assert_close(other[:, :6], found[:, :6])
    assert not torch.allclose(dreamed(z, pressed)[:, 6], found[:, 6])
    assert not torch.allclose(dreamed(later, told, passes=1)[:, 7], dreamed(z, told, passes=1)[:, 7])


def test_the_anchor_of_a_distillation_is_of_long_clips_too(
    footage: Footage, latents: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = watch(monkeypatch)
    start = tmp_path / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    settings = DistillTraining(clips=6, length=6, past=3, critic_steps=1, horizon=9, anchor=0.5, long=0.5)
    generator, sampling, out = CONFIG.generator, CONFIG.sampling, tmp_path / "out"
    distill(
        Watched(tmp_path / "run", 12), latents, footage, generator, settings, sampling, CPU, start, start, out
    )
    assert {tuple(call.latents.shape[:2]) for call in calls} == {(6, 6), (1, max(footage.lengths))}


def test_the_generator_learns_what_the_buttons_do(footage: Footage, tmp_path: Path) -> None:
    """A frame is predicted best with what was held on the frame before it: neither later nor sooner."""
    lit = footage.actions[:-1, [0, 2, 6]].float()  # latents that show the three lamps and nothing else
    lamps = torch.cat([torch.zeros(1, 3), lit]).repeat(1, 3)[:, :8, None, None].expand(-1, -1, 4, 4)
    settings = GeneratorTraining(clips=6, length=8, learning_rate=1e-2, muon=False)
    run = Watched(tmp_path, steps=100)
    out = tmp_path / "generator.safetensors"
    trained = train_generator(run, lamps, footage, CONFIG.generator, settings, CONFIG.sampling, CPU, out)

    pure = GeneratorTraining(one_step=1.0, committed=1.0, anywhere=0.0)
    trainer = Trainer(CONFIG.generator, CONFIG.sampling, pure, (4, 4), CPU, model=trained)
    clips = footage.clip_index(48, 9, torch.Generator().manual_seed(5))[:, 1:]

    @torch.no_grad()
    def loss(actions: Tensor) -> float:
        draw = torch.Generator().manual_seed(0)
        return float(trainer.loss(lamps[clips], actions.float(), draw)[0])

    led = footage.actions[clips - 1]
    assert loss(footage.actions[clips]) > 1.3 * loss(led)
    assert loss(torch.cat([led[:, :1], led[:, :-1]], 1)) > 1.3 * loss(led)
    assert loss(torch.zeros_like(led)) > 1.3 * loss(led)


def test_a_generators_run_is_measured_on_fixed_contexts(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    generator(Watched(tmp_path, 3), footage, latents)
    (row,) = metrics(tmp_path)
    assert row["valid_1"] > 0 and row["valid_8"] > 0
    assert row["valid_detail"] == 0  # untrained, it predicts the same everywhere


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [trapezoid(i / 1000) for i in range(1001)]
    assert 0 < factors[0] < 0.01
    assert factors[10:600] == [1.0] * 590
    assert factors[:11] == sorted(factors[:11])
    assert factors[600:] == sorted(factors[600:], reverse=True)
    assert factors[-1] == 0


# ------------------------------------------------------------------------ interrupting, going on


@every_stage
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    """Interrupted and resumed, or in one go: the same weights and optimizers, bit for bit."""
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    stage(Watched(straight, STEPS), footage, latents)
    with pytest.raises(KeyboardInterrupt):
        stage(Watched(halves, STEPS, stop=STOP), footage, latents)
    assert read_checkpoint(halves)["step"] == STOP
    again = Watched(halves, STEPS)
    stage(again, footage, latents)
    assert again.seen == set(range(STOP, STEPS))
    assert same(read_checkpoint(straight), read_checkpoint(halves))
    (one,), (other,) = (folder.glob("*.safetensors") for folder in (straight, halves))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_goes_on_with_less_footage_than_it_began_with(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    """As after filming: the batch that it was interrupted in is not there any more, the next one is."""
    with pytest.raises(KeyboardInterrupt):
        generator(Watched(tmp_path, STEPS, stop=STOP), footage, latents)
    kept = read_checkpoint(tmp_path)
    assert len(kept["found"]) and kept["clips"].max() >= 24
    less = Footage(footage.frames[:24], footage.actions[:24], [0], footage.places[:1])
    again = Watched(tmp_path, STEPS)
    generator(again, less, latents[:24])
    assert again.seen == set(range(STOP, STEPS))


@every_stage
def test_an_interrupted_run_leaves_the_weights_and_metrics_up_to_there(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, STEPS, stop=STOP)
    with pytest.raises(KeyboardInterrupt):
        stage(run, footage, latents)
    (weights,) = tmp_path.glob("*.safetensors")
    assert read_weights(weights)
    (row,) = metrics(tmp_path)
    assert row["step"] == STOP
    for name, values in run.losses.items():
        assert row[name] == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-6)
    files = {path.suffix for path in tmp_path.iterdir() if path.is_file()}
    assert files == {".safetensors", ".pt", ".jsonl"}  # and nothing half written


def test_signals_are_the_callers_again_after_a_run(footage: Footage, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    autoencoder(Watched(tmp_path, 2), footage)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(tmp_path, 4, stop=3), footage)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_finished_run_stays_as_it_is(footage: Footage, tmp_path: Path) -> None:
    first = autoencoder(Watched(tmp_path, 3), footage)
    again = Watched(tmp_path, 3)
    assert same(first.state_dict(), autoencoder(again, footage).state_dict())
    assert not again.seen
    assert len(metrics(tmp_path)) == 1


def test_a_finished_run_can_be_lengthened(footage: Footage, tmp_path: Path) -> None:
    autoencoder(Watched(tmp_path, 3), footage)
    longer = Watched(tmp_path, 8)
    autoencoder(longer, footage)
    assert longer.seen == {3, 4, 5, 6, 7}
    assert [row["step"] for row in metrics(tmp_path)] == [3, 8]
    assert all(np.isfinite(list(row.values())).all() for row in metrics(tmp_path))


def test_minutes_bound_a_run_over_all_its_resumptions(footage: Footage, tmp_path: Path) -> None:
    run = Run(tmp_path, minutes=1e-4)
    autoencoder(run, footage)
    assert run.progress == 1
    assert run.step >= 1
    again = Run(tmp_path, minutes=1e-4)
    autoencoder(again, footage)
    assert again.step == run.step


def test_a_run_begins_from_given_weights(footage: Footage, tmp_path: Path) -> None:
    run = Watched(tmp_path / "first", 40)
    autoencoder(run, footage)
    settings = AutoencoderTraining(clips=4, length=3)
    second = Watched(tmp_path / "second", 4)
    start = tmp_path / "first" / "autoencoder.safetensors"
    train_autoencoder(second, footage, CONFIG.autoencoder, settings, CPU, start)
    assert second.losses["l2"][0] < 0.7 * run.losses["l2"][0]


@pytest.mark.parametrize("wider", [False, True], ids=["the same decoder", "another decoder"])
def test_a_decoder_can_be_taught_alone(wider: bool, footage: Footage, tmp_path: Path) -> None:
    """The encoder, and with it the latents, stay what they were, whatever the decoder was before."""
    start = tmp_path / "start.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).autoencoder.state_dict())
    config = CONFIG.autoencoder
    if wider:
        config = msgspec.structs.replace(config, decoder_widths=(16, 8, 8, 8))
    run = Watched(tmp_path / "run", 30)
    settings = AutoencoderTraining(clips=4, length=3, learning_rate=3e-3, decoder_only=True)
    train_autoencoder(run, footage, config, settings, CPU, start)
    was, became = read_weights(start), read_weights(tmp_path / "run" / "autoencoder.safetensors")
    encoder = [name for name in became if name.startswith("encoder.")]
    assert encoder and all(torch.equal(was[name], became[name]) for name in encoder)
    assert became["decoder.1.weight"].shape[0] == config.decoder_widths[0]
    assert run.fall("l2") < 0.9


def test_a_decoder_alone_needs_an_encoder_to_begin_with(footage: Footage, tmp_path: Path) -> None:
    settings = AutoencoderTraining(decoder_only=True)
    with pytest.raises(PlayheadError, match="give them by --start"):
        train_autoencoder(Watched(tmp_path, 2), footage, CONFIG.autoencoder, settings, CPU)


def test_no_action_leads_over_the_border_of_an_episode(tmp_path: Path) -> None:
    """What was held at the end of one episode has no part in the next, whose first frame nothing led to."""
    trained = []
    for held in (0, 1):
        frames = torch.zeros(16, 64, 64, 3, dtype=torch.uint8)
        actions = torch.zeros(16, 8, dtype=torch.uint8)
        actions[7] = actions[15] = held  # the last frames of two episodes
        latents = torch.randn(16, 8, 4, 4, generator=torch.Generator().manual_seed(0))
        two = Footage(frames, actions, [0, 8], ["", ""])
        trained.append(generator(Watched(tmp_path / str(held), 4), two, latents).state_dict())
    assert same(*trained)


# ----------------------------------------------------------------------------- the command line


def train_in_a_group(source: Path, folder: Path) -> None:
    """What each of two processes does: train, be interrupted (one of them), go on; and keep what it has."""
    rank, count = distributed.start()
    footage = Footage.load(source, CPU, rank, count)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(folder / "autoencoder", 14, stop=3 if rank == 1 else None), footage)
    torch.distributed.barrier()  # the first has written its checkpoint
    interrupted_at = torch.load(folder / "autoencoder" / "checkpoint.pt", weights_only=True)["step"]
    model = autoencoder(Watched(folder / "autoencoder", 14), footage)
    latents = encode_frames(model, footage.frames, CPU).float()
    with pytest.raises(KeyboardInterrupt):  # in the middle of a batch that stays for some turns
        generator(Watched(folder / "generator", 14, stop=3 if rank == 1 else None), footage, latents)
    torch.distributed.barrier()
    dreamer = generator(Watched(folder / "generator", 14), footage, latents)
    kept = {"frames": len(footage.frames), "interrupted_at": interrupted_at}
    kept |= {"autoencoder": model.state_dict(), "generator": dreamer.state_dict()}
    torch.save(kept, folder / f"{rank}.pt")


def test_two_processes_share_the_work_and_keep_the_same_weights(tmp_path: Path) -> None:
    source = write_footage(tmp_path / "footage", 3, 24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from tests.world.training.test_training import train_in_a_group\n"
        f"train_in_a_group(Path({str(source)!r}), Path({str(tmp_path)!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), str(program)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["frames"], second["frames"]) == (48, 24)  # episodes 0 and 2, and episode 1
    for stage in ("autoencoder", "generator"):
        assert same(first[stage], second[stage])
        assert [row["step"] for row in metrics(tmp_path / stage)] == [10, 14]
    # One of them was interrupted at step 3; both stopped, at the same later step.
    assert first["interrupted_at"] == second["interrupted_at"] == 10

    alone = autoencoder(Watched(tmp_path / "alone", 14), Footage.load(source, CPU))
    assert not same(alone.state_dict(), first["autoencoder"])  # the other's footage had a part in it
