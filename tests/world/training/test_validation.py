"""Validation compares moments of a run by the weights alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from playhead.world.experts import Experts
from playhead.world.sampler import Schedule
from playhead.world.training.footage import Footage
from playhead.world.training.validation import Validation
from tests.conftest import make_tiny_world
from tests.world.game import write_footage
from tests.world.training.runs import CONFIG, CPU


def model(seed: int) -> Experts:
    sampling = CONFIG.sampling
    schedule = Schedule.from_steps(sampling.steps, sampling.shift)
    return Experts([make_tiny_world(seed, one_pass=True).generator], schedule)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    footage = Footage.load(write_footage(tmp_path_factory.mktemp("footage"), 3, 24), CPU)
    latents = torch.randn(len(footage.frames), 8, 4, 4, generator=torch.Generator().manual_seed(1))
    return Validation(model(0), CONFIG.sampling, latents, footage.led(), footage, CPU)


def test_equal_weights_measure_equal_and_others_differ(validation: Validation) -> None:
    one, other = (model(seed).state_dict() for seed in (0, 1))
    torch.manual_seed(3)
    first = validation.measure(one)
    torch.manual_seed(4)
    assert first == validation.measure(one)
    assert set(first) == {"valid_1", "valid_8", "valid_detail"}  # as far as the footage goes
    assert first["valid_1"] != validation.measure(other)["valid_1"]


def test_training_draws_are_left_alone(validation: Validation) -> None:
    before = torch.random.get_rng_state()
    validation.measure(model(0).state_dict())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_run_is_measured_at_once_and_then_every_minute(tmp_path: Path) -> None:
    footage = Footage.load(write_footage(tmp_path, 1, 24), CPU)
    latents = torch.zeros(len(footage.frames), 8, 4, 4)
    fresh = Validation(model(0), CONFIG.sampling, latents, footage.led(), footage, CPU)
    assert [fresh.is_due(seconds) for seconds in (0.0, 1.0, 59.0, 60.5, 100.0, 120.4, 121.0)] == [
        True, False, False, True, False, False, True
    ]  # fmt: skip


def test_measuring_takes_a_twentieth_of_a_run_at_most(
    validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 30.0))  # a slow machine: half a minute a validation
    assert validation.is_due(1000.0)
    monkeypatch.setattr("playhead.world.training.validation.time", SimpleNamespace(monotonic=clock.__next__))
    validation.measure(model(0).state_dict())
    assert not validation.is_due(1000.0 + 599.0) and validation.is_due(1000.0 + 600.5)
