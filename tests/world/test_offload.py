"""Offload: worlds that memory does not hold dream what they dream where it does, bit for bit."""

from pathlib import Path

import pytest
import torch

from playhead.world.world import World
from tests.world.offloading import LAYERS, budget_of, dream, make_world, same

WORLDS = ("causal-forcing", "sgf-plus", "matrix-game-2")
"""A prompt's; one whose commit has weights of its own; one with keyboard and mouse modules."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))


@pytest.mark.parametrize("name", WORLDS)
def test_it_dreams_what_it_dreams_in_memory(name: str) -> None:
    folder, config = make_world(name)
    wanted = dream(World.load(folder, "cpu", torch.float32))
    for count in (3, 4, LAYERS):
        world = World.load(folder, "cpu", torch.float32, budget=budget_of(config, count))
        assert world.plan is not None and len(world.plan.layers) == count
        assert same(dream(world), wanted), count
