"""Evaluation of a world that is the game itself: perfect where it obeys, and seen where it does not."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from playhead.world.action import ActionSpace
from playhead.world.evaluation import HORIZONS, LOOKS, Evaluation
from playhead.world.inverse import AFTER, BEFORE, InverseDynamics, f1, held_buttons
from playhead.world.training.footage import Footage
from playhead.world.training.run import Run
from playhead.world.training.train_inverse import InverseTraining, train_inverse
from tests.conftest import BUTTONS
from tests.world.game import LAMPS, film, next_frame, write_footage
from tests.world.measuring import run, wall_clip


class GameItself:
    """Stands for a world whose latents are frames and which dreams exactly what the game would show.

    `lag`: how many ticks late it obeys. `dim_from`: the tick from which on it shows half the brightness.
    """

    decoder_span = 0

    def __init__(self, lag: int = 0, dim_from: int = 10**9) -> None:
        self.lag, self.dim_from = lag, dim_from
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(
            name="game",
            action=ActionSpace(BUTTONS),
            generator=SimpleNamespace(inputs=len(BUTTONS)),
            sampling=SimpleNamespace(latents_per_tick=1),
            label=lambda place: [],  # the game knows where it is
        )

    def encode(self, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(frames).float()

    def new_state(self, batch: int = 1) -> SimpleNamespace:
        shape = (batch, 1, 64, 64, 3)
        return SimpleNamespace(
            batch=batch,
            latent=torch.zeros(shape),
            action=torch.zeros(batch, 1, 8),
            frames=torch.zeros(shape, dtype=torch.uint8),
            held=[torch.zeros(batch, 8)] * self.lag,
            tick=0,
        )

    def relive(
        self, state: SimpleNamespace, actions: Tensor, latents: Tensor, seeds: Sequence[int], tick: int
    ) -> None:
        state.latent.copy_(latents)

    def denoise(self, state: SimpleNamespace, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        state.held.append(actions[:, 0])
        rows, state.tick = state.held.pop(0), tick + 1
        frames = state.latent[:, 0].to(torch.uint8).numpy()
        after = [next_frame(f, row) for f, row in zip(frames, rows.to(torch.uint8).numpy(), strict=True)]
        state.latent.copy_(torch.from_numpy(np.stack(after))[:, None])

    def decode(self, state: SimpleNamespace) -> Tensor:
        dim = 2 if state.tick >= self.dim_from else 1
        state.frames.copy_(state.latent.div(dim, rounding_mode="floor").to(torch.uint8))
        return state.frames  # the same memory every time, as a world's

    def commit(self, state: SimpleNamespace) -> None:
        pass


@pytest.fixture(scope="module")
def inverse(tmp_path_factory: pytest.TempPathFactory) -> InverseDynamics:
    """Trained to tell the lamps of the game from its pictures."""
    folder = tmp_path_factory.mktemp("inverse")
    footage = Footage.load(write_footage(folder / "footage", 20, 60), torch.device("cpu"))
    run = Run(folder / "run", steps=300)
    return train_inverse(run, footage, InverseTraining(clips=16), torch.device("cpu")).eval()


def test_the_buttons_seen_are_those_held_at_that_very_frame(inverse: InverseDynamics) -> None:
    """On a wall never seen before; against the actions of a tick sooner or later the score falls."""
    frames, actions = film(200, 900_000)
    seen = held_buttons(inverse, torch.from_numpy(frames))
    assert len(seen) == 200 - BEFORE - AFTER

    def score(shift: int) -> float:
        held = torch.from_numpy(actions)[BEFORE + shift : len(seen) + BEFORE + shift] > 0
        return float(f1(seen, held).nanmean())

    assert score(0) > 0.9
    assert score(1) < score(0) - 0.1
    assert score(-1) < score(0) - 0.1


def test_windows_in_parts_are_the_windows_one_by_one(inverse: InverseDynamics) -> None:
    frames = torch.from_numpy(film(150, 3)[0])
    seen = held_buttons(inverse, frames)
    for t in (0, 63, 64, 100, len(seen) - 1):  # across the parts that are judged at once
        assert torch.equal(held_buttons(inverse, frames[t : t + BEFORE + 1 + AFTER])[0], seen[t])


@pytest.fixture(scope="module")
def obedient(inverse: InverseDynamics) -> Evaluation:
    """The game itself, dreamed through four chunks of ticks."""
    game: Any = GameItself()
    measured = Evaluation(game, [wall_clip(900_000 + i, f"place {i}") for i in range(3)], inverse)
    run(measured, 256)
    return measured


def test_a_dream_that_is_the_game_is_perfect_at_every_horizon(obedient: Evaluation) -> None:
    scores = obedient.scores(ceiling=obedient.ceiling())
    assert scores.ceiling == pytest.approx(60)
    assert scores.dreamed == pytest.approx(dict.fromkeys(HORIZONS, 60))
    assert all(copied < 30 for copied in scores.copied.values())


def test_a_dream_that_obeys_follows_as_well_as_real_footage(obedient: Evaluation) -> None:
    scores = obedient.scores()
    assert scores.following_real > 0.9
    assert scores.following.keys() == {64, 256}
    assert all(score > 0.9 for score in scores.following.values())
    assert {name for name, score in scores.following_buttons.items() if score > 0.9} == set(LAMPS)
    assert all(math.isnan(scores.following_buttons[name]) for name in set(BUTTONS) - set(LAMPS))


@pytest.mark.parametrize("lag", [1, 2])
def test_a_dream_that_obeys_late_does_not_follow(lag: int, inverse: InverseDynamics) -> None:
    game: Any = GameItself(lag=lag)
    measured = Evaluation(game, [wall_clip(900_000)], inverse)
    run(measured, 256)
    scores = measured.scores()
    assert all(score < scores.following_real - 0.1 for score in scores.following.values())
    assert scores.dreamed[1] < 30  # the lamps are wrong


def test_a_dream_that_is_the_game_looks_like_it_and_one_that_fades_does_not(obedient: Evaluation) -> None:
    scores = obedient.scores()
    assert scores.sharpness.keys() == set(LOOKS) & {16, 64, 256}
    for tick in scores.sharpness:
        assert scores.sharpness[tick] == pytest.approx(1, abs=0.1)
        assert scores.contrast[tick] == pytest.approx(1, abs=0.15)
        assert scores.colour[tick] < 0.15
    game: Any = GameItself(dim_from=60 - 8)
    faded = Evaluation(game, obedient.clips, None)
    run(faded, 64)
    half = faded.scores()
    assert half.sharpness[16] == pytest.approx(scores.sharpness[16])
    assert half.sharpness[64] == pytest.approx(0.5 * scores.sharpness[64], rel=0.1)
    assert half.contrast[64] == pytest.approx(0.5 * scores.contrast[64], rel=0.1)
    assert half.colour[64] > 0.4
