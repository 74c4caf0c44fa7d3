"""Fused passes compute what plain ones do, to rounding, and are taken where they are right and faster."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from playhead.engine.session import Session
from playhead.render.bench.precision import layer_errors
from playhead.scenes.scene import Scene
from playhead.world.action import Action
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.fused import choice
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE
from playhead.world.randomise import random_context, random_world
from playhead.world.rounding import EIGHT_BIT
from playhead.world.world import World
from tests.command_line import ROOT
from tests.conftest import make_tiny_context, make_tiny_world, save_world

WORLDS = ("causal-forcing", "self-forcing", "longlive", "sgf", "matrix-game-2", "matrix-game-2-templerun")
FASTER, SLOWER, WRONG = (0.004, 3.0, 2.0), (0.004, 2.0, 3.0), (0.2, 3.0, 2.0)


def test_kernels_compute_what_their_twins_do() -> None:
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.world.fused_kernels"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout)
    assert errors.pop("rounded") < 1e-3
    assert set(errors) == {"add_norm", "turn", "merge_parts", "few_keys", "bias_gelu"}
    assert max(errors.values()) < 2e-6, errors


def build(config: WorldConfig, precision: str | None = None) -> World:
    torch.manual_seed(0)
    generator = Generator(config.generator)
    for parameter in generator.parameters():  # random weights of a trained size, gains and biases too
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else parameter.data.add_(
            0.1 * torch.randn_like(parameter)
        )
    return World(config, generator, LightTAE(config.autoencoder), precision=precision)


def play(world: World, fused: bool, ticks: int) -> np.ndarray:
    """The latents of each tick `(ticks, F, C, h, w)`, of random actions."""
    world._flow.fuse(fused)
    space, draw = world.config.action, np.random.default_rng(1)
    session = Session(world, random_context(world.config), 5)
    found = []
    for _ in range(ticks):
        held = frozenset(draw.choice(space.seen, 1).tolist() if space.seen else ())
        session.step(Action(held, {axis: float(draw.uniform(-1, 1)) for axis in space.axes}))
        found.append(session.latents)
    return np.stack(found)


@pytest.mark.parametrize("name", WORLDS)
def test_public_worlds_dream_the_same_fused(name: str) -> None:
    world = build(random_world(name, small=True))
    ticks = 2 * world.config.sampling.window // world.config.sampling.latents_per_tick
    plain, fused = (play(world, way, ticks) for way in (False, True))
    assert plain.std() > 0.1
    assert not np.array_equal(plain, fused), "these are the same passes"
    np.testing.assert_allclose(fused, plain, atol=1e-4)


@pytest.mark.parametrize("precision", EIGHT_BIT)
@pytest.mark.parametrize("name", ["causal-forcing", "matrix-game-2"])
def test_a_low_bit_world_dreams_the_same_fused(name: str, precision: str) -> None:
    """But for what lies between two numbers of 8 bits: norms and GELUs round for their products."""
    world = build(random_world(name, small=True), precision)
    plain, fused = (play(world, way, 1) for way in (False, True))
    assert np.abs(fused - plain).mean() < 0.01 * plain.std() and not np.array_equal(plain, fused)


def test_a_block_whose_slots_are_apart_dreams_the_same_fused() -> None:
    config = random_world("matrix-game-2", small=True)
    sampling = msgspec.structs.replace(config.sampling, window=7)  # three latents a tick go round it
    world = build(msgspec.structs.replace(config, sampling=sampling))
    np.testing.assert_allclose(play(world, True, 9), play(world, False, 9), atol=1e-4)


@pytest.mark.parametrize("one_pass", [False, True])
def test_sessions_of_one_pass_dream_the_same_fused(one_pass: bool) -> None:
    world = make_tiny_world(one_pass=one_pass, lay_out=False)
    found = []
    for fused in (False, True):
        world._flow.fuse(fused)
        sessions = [Session(world, make_tiny_context(), seed) for seed in (3, 4)]
        for tick in range(20):
            held = Action(frozenset({"forward"} if tick % 3 else ()))
            Session.step_joined(sessions, [held, Action()])
        found.append(np.stack([session.latents for session in sessions]))
    assert found[0].std() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_without_a_gpu_passes_are_plain(tiny_world: World) -> None:
    assert not tiny_world.fused.fused
    with pytest.raises(WorldError, match="--fused needs an NVIDIA GPU and Triton"):
        choice.choose_fused(
            tiny_world.generator, tiny_world.config, tiny_world.device, tiny_world.dtype, wanted=True
        )


def decide(world: World, wanted: bool | None = None) -> choice.FusedChoice:
    return choice.choose_fused(world.generator, world.config, world.device, world.dtype, wanted)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[float, float, float] | Exception]:
    """What the next measurements find, on a device that has the kernels, in a home of their own."""
    found: list[tuple[float, float, float] | Exception] = []
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    monkeypatch.setattr(choice.ops, "available", lambda device: True)
    monkeypatch.setattr(choice, "_measured", lambda _: found.pop(0))
    return found


def test_the_faster_right_way_is_taken_and_kept(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World
) -> None:
    measured += [FASTER, SLOWER]
    assert decide(tiny_world).fused
    assert decide(tiny_world).fused, "what is remembered holds, whatever a pass takes this time"
    measured += [WRONG]
    assert not decide(tiny_world).fused, "but not where it is wrong by now"
    assert not measured and not decide(tiny_world).fused


def test_what_is_remembered_is_compared_again_but_not_timed(
    measured: list[tuple[float, float, float] | Exception],
    tiny_world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[bool] = []
    monkeypatch.setattr(choice, "_measured", lambda compare: (timed.append(compare.args[-1]), FASTER)[1])
    assert decide(tiny_world).fused and decide(tiny_world).fused and decide(tiny_world, wanted=True).fused
    assert timed == [True, False, True]


def test_for_want_of_memory_it_is_plain_for_once(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World
) -> None:
    measured += [torch.OutOfMemoryError("CUDA out of memory"), FASTER]
    assert not decide(tiny_world).fused and decide(tiny_world).fused
    measured += [torch.OutOfMemoryError("CUDA out of memory"), FASTER]
    assert not decide(tiny_world).fused and decide(tiny_world).fused, "what was known is not forgotten for it"


def test_within_a_budget_the_way_is_kept_too_and_that_of_play_comes_first(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World
) -> None:
    """Its passes are not recorded to be timed, so that it may be another way."""

    def within() -> bool:
        given = tiny_world.generator, tiny_world.config, tiny_world.device, tiny_world.dtype
        return choice.choose_fused(*given, recorded=False).fused

    measured += [FASTER, SLOWER]
    assert within() and within(), "it holds, as numbers hang on it"
    measured += [SLOWER]
    assert not decide(tiny_world).fused and not within() and not measured


def test_low_bit_is_measured_for_itself(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World, tmp_path: Path
) -> None:
    measured += [SLOWER]
    low = World.load(save_world(tiny_world, tmp_path / "world"), "cpu", torch.float32, precision="int8")
    assert not low.fused.fused and not measured
    measured += [FASTER]
    assert decide(tiny_world).fused, "what was found of the one says nothing of the other"


def test_of_four_bits_more_rounding_is_taken_for_right(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World, tmp_path: Path
) -> None:
    folder = save_world(tiny_world, tmp_path / "world")
    for precision, error, fused in (("nvfp4", 0.09, True), ("nvfp4", 0.2, False), ("fp8", 0.09, False)):
        low = World.load(folder, "cpu", torch.float32, precision=precision, fused=False)
        measured += [(error, 3.0, 2.0)]
        assert decide(low).fused == fused


@pytest.mark.parametrize("found", [SLOWER, WRONG, RuntimeError("no compiler")])
def test_what_is_slower_or_wrong_or_fails_stays_plain(
    found: tuple[float, float, float] | Exception,
    measured: list[tuple[float, float, float] | Exception],
    tiny_world: World,
) -> None:
    measured += [found]
    assert not decide(tiny_world).fused


@pytest.mark.parametrize("found", [WRONG, RuntimeError("no compiler")])
def test_wanted_though_wrong_is_refused(
    found: tuple[float, float, float] | Exception,
    measured: list[tuple[float, float, float] | Exception],
    tiny_world: World,
) -> None:
    measured += [found]
    with pytest.raises(WorldError, match=r"--fused is refused here: .*; leave it out"):
        decide(tiny_world, wanted=True)


def test_wanted_is_taken_though_slower(
    measured: list[tuple[float, float, float] | Exception], tiny_world: World
) -> None:
    measured += [SLOWER]
    assert decide(tiny_world, wanted=True).fused
    assert not decide(tiny_world, wanted=False).fused


def test_what_compiles_ahead_ends_with_what_it_runs_beside_and_raises_nothing(
    tiny_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    monkeypatch.setattr(choice.ops, "available", lambda device: True)
    begun, drawn = threading.Event(), []

    def draw(*given: object) -> Callable[[], None]:
        drawn.append(given)
        begun.set()
        raise RuntimeError("no compiler")

    monkeypatch.setattr(choice, "draw_pass", draw)
    given = tiny_world.generator, tiny_world.config, tiny_world.autoencoder.decoder, tiny_world.dtype
    with pytest.raises(WorldError, match="meanwhile"), choice.compiling(*given):
        assert begun.wait(30)
        raise WorldError("meanwhile")
    assert len(drawn) == 1 and not [t for t in threading.enumerate() if t.name == "compile"]
    monkeypatch.setattr(choice.ops, "available", lambda device: False)
    with choice.compiling(*given):
        pass
    assert len(drawn) == 1, "without kernels there is nothing to compile"


def test_a_pass_both_ways_is_compared(tiny_world: World) -> None:
    given = tiny_world.generator, tiny_world.config, tiny_world.device, tiny_world.dtype
    error, *seconds = choice._compare(*given, recorded=True, timed=True)
    assert error < 1e-5 and min(seconds) > 0


def test_what_low_bit_costs_a_layer_is_measured_of_fused_worlds_too() -> None:
    config = random_world("causal-forcing", small=True)
    full, low = build(config), build(config, "fp8")
    context = random_context(config)
    scene = Scene("start", "Start", "Random.", config.name, 3, context)
    plain = list(layer_errors(full, low, scene, 2))
    low._flow.fuse()
    fused = list(layer_errors(full, low, scene, 2))
    assert fused == plain and all(0.001 < layer.error < 0.1 for layer in fused)
    assert low._flow.fused, "it plays on as before"
