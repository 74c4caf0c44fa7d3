"""The clips that a generator is trained on: how long, how noisy, and under which past."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch
from torch import Tensor

from playhead.world.checkpoint import save_weights
from playhead.world.training.distill import distill
from playhead.world.training.footage import Footage
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.sequence import play_levels
from playhead.world.training.train_generator import GeneratorTraining, Trainer, train_generator
from tests.conftest import make_tiny_world
from tests.world.training.runs import CONFIG, CPU, same
from tests.world.training.stages import Watched, generator, new_dreams


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
    settings = GeneratorTraining(clips=3, length=8, own_from=0.5, turns=4, optimizer="adamw")
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
    settings = GeneratorTraining(clips=6, length=8, long=0.5, long_length=long_length, optimizer="adamw")
    train_generator(
        Watched(tmp_path, 16), latents, footage, CONFIG.generator, settings, CONFIG.sampling, CPU,
        tmp_path / "generator.safetensors",
    )  # fmt: skip
    assert {tuple(call.latents.shape[:2]) for call in calls} == drawn


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
