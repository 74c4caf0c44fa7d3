"""CUDA graphs of the tick path: what is run, recorded and replayed when, and what is played by it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from playhead.engine.session import Session
from playhead.world import acceleration
from playhead.world.action import Action
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World
from tests.conftest import make_tiny_world


class Graph:
    """A CUDA graph as far as `Graphs` can tell; `replay` is counted."""

    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> acceleration.Graphs:
    @contextmanager
    def record(*_: object, **__: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(Graph, "replays", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(acceleration, "recording", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 0)
    return acceleration.Graphs(torch.device("cuda"))


def test_a_key_is_run_then_recorded_then_replayed(graphs: acceleration.Graphs) -> None:
    runs: list[str] = []
    for _ in range(4):
        for key in ("a", "b"):
            graphs.run(key, lambda key=key: runs.append(key))
    assert runs == ["a", "b"] * 2
    assert (Graph.replays, graphs.recorded) == (6, 2)


def test_where_a_kernel_cannot_be_recorded_play_goes_on_without(
    graphs: acceleration.Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(len(runs))
        if len(runs) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")

    for _ in range(4):
        graphs.run("a", work)
    assert len(runs) == 5  # the one that failed was run again
    assert (Graph.replays, graphs.recorded, graphs.enabled) == (0, 0, False)
    assert "not recorded as CUDA graphs, and slower for it" in caplog.text
    assert "not permitted" in graphs.failure


@pytest.mark.parametrize("name", ["causal-forcing-1step", "sgf-plus", "longlive", "matrix-game-2"])
def test_passes_through_buffers_of_their_own_give_the_same_frames(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a large world plays on a GPU: each of its passes can be recorded apart."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    config = random_world(name, small=True)
    save_world_config(config)
    world = World.load(config.name, "cpu", torch.float32)
    world.side_by_side = False
    sessions = [Session(world, random_context(config), 4) for _ in range(2)]
    sessions[1]._state.record_passes()
    space, draw = config.action, np.random.default_rng(0)
    buttons = [b for b in space.buttons if b in {*space.seen, "prompt_1", "prompt_2"}]
    for _ in range(12):
        held = frozenset(draw.choice(buttons, 1).tolist())
        action = Action(held, {axis: float(draw.uniform(-1, 1)) for axis in space.axes})
        assert np.array_equal(*(session.step(action) for session in sessions))


def test_a_pass_is_recorded_once_for_all_steps_and_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the slots it writes; only weights of the commit's own make two of it."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    for name, weights in (("causal-forcing", 1), ("sgf-plus", 2)):
        config = random_world(name, small=True)
        save_world_config(config)
        world = World.load(config.name, "cpu", torch.float32)
        world.side_by_side = False
        session = Session(world, random_context(config), 4)
        session._state.record_passes()
        assert session._state.passes is not None
        keys: set[object] = set()
        counting = acceleration.Graphs(torch.device("cpu"))
        monkeypatch.setattr(counting, "run", lambda key, work, keys=keys: (keys.add(key), work()))
        session._state.passes = replace(session._state.passes, graphs=counting)
        ring = config.sampling.window - config.sampling.sink
        for _ in range(config.sampling.window + 2 * ring):
            session.step(Action())
        session.finish()
        assert len(keys) == weights * (config.sampling.window + ring - 1)


@pytest.mark.parametrize(
    ("halves", "dtype", "tiles", "threads"),
    [
        (True, torch.float32, False, 2),
        (True, torch.bfloat16, True, 2),  # a commit on the one half, a decode on the other
        (False, torch.float32, True, 4),
        (False, torch.bfloat16, False, 4),
        (False, torch.bfloat16, True, 1),
    ],
)
def test_a_tick_has_the_cores_that_make_it_faster(
    halves: bool, dtype: torch.dtype, tiles: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(acceleration, "cores", lambda: 4)
    assert acceleration.tick_threads(halves, dtype) == threads


@pytest.mark.parametrize(("cores", "ranks", "threads"), [(32, 2, 16), (2, 3, 1)])
def test_ranks_of_a_cpu_share_its_cores(
    cores: int, ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(acceleration, "cores", lambda: cores)
    assert acceleration.tick_threads(False, torch.float32, ranks) == threads


@pytest.mark.parametrize(
    ("cores", "decodes", "ranks", "threads"),
    [
        (32, False, 1, acceleration.HOST_THREADS),  # what is left to the processor beside a GPU is little
        (32, False, 2, acceleration.HOST_THREADS),
        (4, False, 2, 2),
        (2, False, 8, 1),
        (32, True, 1, 32),  # but pictures are much to a processor
        (32, True, 2, 16),
    ],
)
def test_beside_a_gpu_few_threads_are_taken_unless_the_processor_decodes(
    cores: int, decodes: bool, ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "cores", lambda: cores)
    assert acceleration.host_threads(decodes, ranks) == threads


def test_the_processs_threads_are_those_of_the_world_that_is_played_and_not_of_one_that_is_made() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        played = make_tiny_world()
        World(played.config, played.generator, played.autoencoder)
        assert torch.get_num_threads() == 3
        played.share_cores()
        halves = acceleration.cores() > 1
        assert torch.get_num_threads() == acceleration.tick_threads(halves, torch.float32)
    finally:
        torch.set_num_threads(before)


def test_a_processor_that_is_held_to_avx2_computes_in_float32() -> None:
    code = "import torch, playhead.world.acceleration as a; print(a.pick_dtype(torch.device('cpu')))"
    told = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": str(Path(__file__).parents[2])}
    said = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "torch.float32"
