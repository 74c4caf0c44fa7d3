"""Sessions whose cache has a steady ring, as large worlds have on a GPU, keep all that sessions promise."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from playhead.engine.fingerprint import differences, environment
from playhead.engine.session import Session
from playhead.scenes.scene import read_context
from playhead.world.acceleration import Graphs
from playhead.world.action import Action
from playhead.world.state import StateLayout
from playhead.world.world import World
from tests.engine.parallel.on_ranks import play
from tests.engine.parallel.test_parallel import CLOSE, save_start


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("causal-forcing", None),
        ("sgf-plus", None),
        ("longlive", None),
        ("matrix-game-2", None),
        ("self-forcing", "fp8"),
    ],
    ids=["a latent a tick", "a sink that moves", "a sink and a recache", "keyboard and mouse", "in fp8"],
)
def test_what_is_dreamed_is_that_of_a_rolling_ring_and_ways_back_are_exact(
    name: str, cache: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = save_start(tmp_path / name, name)

    def load() -> World:
        return World.load(start.world, "cpu", torch.float32, cache=cache)

    rolling = load()
    wanted, usual = play(rolling, start.context), environment(rolling)
    monkeypatch.setattr(StateLayout, "steady", True)
    steady = load()
    found = play(steady, start.context)
    assert steady.new_state().cache._steady is not None
    for part in ("ticks", "retraced", "other"):
        assert np.abs(found[part].astype(int) - wanted[part]).max() <= CLOSE, part
    assert np.array_equal(found["again"], found["ticks"])
    for way in ("forked", "returned"):
        assert np.array_equal(found[way], found["ticks"][-len(found[way]) :]), way
    (said,) = differences(usual, environment(steady))
    assert said == "where the cache has its frames (recorded rolling, here steady)"


class Counted(Graphs):
    """How often what is recorded by each key would be run."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.runs: Counter[Hashable] = Counter()

    def run(self, key: Hashable, work: Callable[[], object]) -> None:
        self.runs[key] += 1
        work()


@pytest.mark.parametrize("full", [False, True])
def test_one_recorded_pass_serves_all_ticks_of_a_full_window(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a budget it is the only one."""
    monkeypatch.setattr(StateLayout, "steady", True)
    start = save_start(tmp_path / "start", "causal-forcing")
    world = World.load(start.world, "cpu", torch.float32)
    session = Session(world, read_context(start.context, len(world.config.action.buttons)), 3)
    session._state.record_passes(full)
    passes = session._state.passes
    assert passes is not None and passes.full == full
    counted = Counted()
    session._state.passes = replace(passes, graphs=counted)
    window, steps = world.config.sampling.window, len(world.config.sampling.steps)
    for _ in range(window + 5):
        session.step(Action())
    session.finish()
    filling = 0 if full else window - 1
    assert sorted(counted.runs.values()) == [steps + 1] * filling + [6 * (steps + 1)]
