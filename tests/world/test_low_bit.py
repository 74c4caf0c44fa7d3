"""Low bit: how far its layers may be from full precision, what a world in it keeps, and what is refused."""

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.engine.fingerprint import environment, fingerprint
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.engine.session import Session
from playhead.world import low_bit
from playhead.world.action import Action
from playhead.world.checkpoint import without_memory
from playhead.world.errors import WorldError
from playhead.world.generator import Generator
from playhead.world.low_bit import (
    PRECISIONS,
    LowBitProduct,
    low_bit_layers,
    product,
    quantised,
    twin,
)
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.rounding import quantise
from playhead.world.size import check_size
from playhead.world.world import World
from tests.conftest import THOROUGH, make_tiny_context, make_tiny_world, save_world
from tests.played import record_play

BOUNDS = {"fp8": 0.04, "int8": 0.02, "nvfp4": 0.15}
"""Relative L1 error of a layer on normal inputs."""
EIGHT_BITS = ("fp8", "int8")
"""What has one scale a row; `test_nvfp4.py` has the numbers of the other."""
WALK = [Action(frozenset({"forward"})), Action(frozenset({"turn_left", "attack"})), Action()] * 3


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().sum() / wanted.abs().sum())


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def low(precision: str, tiny_world_folder: Path) -> World:
    return World.load(tiny_world_folder, "cpu", torch.float32, precision=precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=15 * THOROUGH)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(32, 64),  # enough that the error is no accident
    size=st.sampled_from([(256, 256), (128, 1536)]),
    magnitude=st.sampled_from([1e-4, 1.0, 3e3]),
)
def test_a_layer_of_normal_numbers_errs_by_a_few_per_cent(
    precision: str, seed: int, rows: int, size: tuple[int, int], magnitude: float
) -> None:
    x, full = magnitude * drawn(seed, rows, size[1]), drawn(seed + 1, *size)
    assert apart(product(full, None, precision)(x), x @ full.t()) < BOUNDS[precision]


@pytest.mark.parametrize("precision", EIGHT_BITS)
@settings(max_examples=15 * THOROUGH)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=8),
    outlier=st.floats(1, 1e5, width=32),
)
def test_no_number_is_further_off_than_its_step_whatever_stands_beside_it(
    precision: str, values: list[float], outlier: float
) -> None:
    """int8: half of a 127th of the row's largest; fp8: a 16th of itself, or where it is small, as little."""
    row = torch.tensor([[*values, outlier * max(map(abs, values))]])
    rounded, scale = quantise(row, precision)
    step = scale / 2 if precision == "int8" else torch.maximum(row.abs() / 16, scale / 1024)
    assert ((rounded.float() * scale - row).abs() <= step * 1.001 + 1e-12).all()


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_an_outlier_spoils_its_own_row_alone(precision: str) -> None:
    x, full = drawn(0, 8, 256), drawn(1, 32, 256)
    spoilt, weight = x.clone(), full.clone()
    spoilt[3, 5] = 1e6
    weight[7, 9] = 1e6
    plain = LowBitProduct(*quantise(full, precision), None, precision)(x)
    found = LowBitProduct(*quantise(weight, precision), None, precision)(spoilt)
    rows, columns = (torch.arange(n) != at for n, at in ((8, 3), (32, 7)))
    assert torch.allclose(found[rows][:, columns], plain[rows][:, columns], rtol=1e-5, atol=1e-4)


def test_rows_of_zeros_give_the_bias(precision: str) -> None:
    full, bias = drawn(1, 32, 64), drawn(2, 32)
    full[5] = 0
    x = drawn(0, 4, 64)
    x[2] = 0
    found = product(full, bias, precision)(x)
    assert torch.equal(found[2], bias) and (found[:, 5] == bias[5]).all() and torch.isfinite(found).all()


def test_a_number_that_is_none_is_not_hidden(precision: str) -> None:
    x = drawn(0, 4, 64)
    x[2, 3] = float("nan")
    found = product(drawn(1, 32, 64), None, precision)(x)
    assert found[2].isnan().all() and torch.isfinite(found[[0, 1, 3]]).all()


def test_sums_of_int8_are_exact() -> None:
    """Also where float32 would round them: 8,960 products of 127 times 127 and of 1 times 127."""
    x = torch.full((2, 8960), 127.0)
    x[:, 1::2] = 1.0
    found = twin(x, torch.full((16, 8960), 127, dtype=torch.int8), torch.ones(16, 1), None, "int8")
    assert (found == 4480 * (127 * 127 + 127)).all() and 4480 * (127 * 127 + 127) > 2**24


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_kernels_give_what_the_twin_gives(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has the same products for a CPU; few rows and many, and inputs of several dimensions."""
    full, bias = drawn(1, 48, 64).bfloat16(), drawn(2, 48).bfloat16()
    weight = quantise(full, precision)
    for shape in ((1, 64), (16, 64), (2, 3, 17, 64)):
        x = drawn(0, *shape).bfloat16()
        found = LowBitProduct(*weight, bias, precision, fast=True)(x)
        wanted = LowBitProduct(*weight, bias, precision)(x)
        assert found.shape == wanted.shape and found.dtype == torch.bfloat16
        assert apart(found.float(), wanted.float()) < 0.003


@pytest.mark.parametrize("precision", EIGHT_BITS)
@pytest.mark.parametrize("fast", [False, True])
def test_rows_that_come_rounded_give_what_they_give_in_full(precision: str, fast: bool) -> None:
    full, bias = drawn(1, 48, 64).bfloat16(), drawn(2, 48).bfloat16()
    layer = LowBitProduct(*quantise(full, precision), bias, precision, fast)
    x = drawn(0, 17, 64).bfloat16()
    found = layer(quantise(x, precision))
    assert found.dtype == torch.bfloat16 and torch.equal(found, layer(x))


def test_the_layers_through_which_every_token_goes_are_low_bit_and_their_full_weights_gone(
    precision: str, low: World, tiny_world_folder: Path
) -> None:
    full = World.load(tiny_world_folder, "cpu", torch.float32)
    assert not low_bit_layers(full.generator)
    layers = low_bit_layers(low.generator)
    square = precision != "fp8"  # of few channels such layers are slower in fp8
    assert {kind for _, kind in layers} == {"qkv", "ffn in", "ffn out"} | ({"o"} if square else set())
    assert len(layers) == (3 + square) * 2 and all(map(quantised, layers.values()))
    d, config = low.config.generator.dim, low.config.generator
    numbers = config.layers * ((3 + square) * d * d + 2 * d * config.ffn_dim)
    rows = config.layers * ((4 + square) * d + config.ffn_dim)
    saved = 3 * numbers - 4 * rows
    if precision == "nvfp4":  # half a byte each; a tile of scales a layer, these being small
        saved = 4 * numbers - numbers // 2 - 512 * len(layers) - 4 * rows

    def size(world: World) -> int:
        state = world.generator.state_dict().values()
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state}
        return sum(storages.values())

    assert size(full) - size(low) == saved
    for (block, kind), layer in layers.items():
        own = low_bit.parts(full.generator.blocks[block])[kind]
        x = drawn(3, 20, layer.in_features)
        wanted = torch.cat([F.linear(x, part.weight, part.bias) for part in own], -1)
        assert apart(layer(x), wanted) < BOUNDS[precision]


def test_cross_attention_is_low_bit_too(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    save_world_config(random_world("causal-forcing", small=True))
    worlds = [World.load("causal-forcing-tiny", "cpu", torch.float32, precision=p) for p in (None, precision)]
    kinds = {kind for _, kind in low_bit_layers(worlds[1].generator)}
    square = {"o", "cross q", "cross o"}  # of few channels they are slower in fp8
    assert kinds == {"qkv", "ffn in", "ffn out"} | (square if precision != "fp8" else set())
    full, low = (Session(world, random_context(world.config), 1).step(Action()) for world in worlds)
    assert 0 < np.abs(full.astype(int) - low).mean() < (24 if precision == "nvfp4" else 12)


def test_snapshots_forks_and_returns_are_exact(low: World) -> None:
    session = Session(low, make_tiny_context(), 5)
    session.step(WALK[0])
    kept, twin = session.snapshot(), session.fork()
    first = [session.step(action) for action in WALK]
    assert all(np.array_equal(frames, twin.step(action)) for frames, action in zip(first, WALK, strict=True))
    session.restore(kept)
    assert all(
        np.array_equal(frames, session.step(action)) for frames, action in zip(first, WALK, strict=True)
    )


def test_a_recording_names_the_precision_and_another_is_told_in_a_sentence(
    precision: str, low: World, tmp_path: Path, tiny_world_folder: Path
) -> None:
    said = precision if precision != "fp8" else "fp8, but for o"  # which of few channels is left in full
    record_play(tmp_path / "low.playhead", low)
    kept = Recording.read(tmp_path / "low.playhead")
    assert verify(kept, low) is None
    full = World.load(tiny_world_folder, "cpu", torch.float32)
    found = verify(kept, full)
    assert found is not None and found.causes == [f"the precision (recorded {said}, here full)"]
    record_play(tmp_path / "full.playhead", full)
    found = verify(Recording.read(tmp_path / "full.playhead"), low)
    assert found is not None and found.causes == [f"the precision (recorded full, here {said})"]


def test_it_is_the_same_world_by_its_weights(low: World, tiny_world_folder: Path) -> None:
    full = World.load(tiny_world_folder, "cpu", torch.float32)
    assert fingerprint(low) == fingerprint(full) and "precision" not in environment(full)


def test_a_pickled_world_comes_back_in_its_precision(low: World, precision: str) -> None:
    again = pickle.loads(pickle.dumps(low))
    assert again.precision == precision
    first, second = (Session(world, make_tiny_context(), 5).step(WALK[0]) for world in (low, again))
    assert np.array_equal(first, second)


def test_every_generator_of_a_world_is_low_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    save_world_config(random_world("sgf-plus", small=True))
    world = World.load("sgf-plus-tiny", "cpu", torch.float32, precision="int8")
    assert len(world.generators) == 2 and all(low_bit_layers(g) for g in world.generators.values())


def test_the_memory_that_is_planned_for_is_that_of_low_bit(
    precision: str, tiny_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = msgspec.structs.replace(tiny_world.config.generator, dim=512, ffn_dim=2048)
    config = msgspec.structs.replace(tiny_world.config, generator=wide)
    with without_memory():
        model = Generator(wide)
    low = sum(p.numel() for p in model.parameters()) * 4 - low_bit.saved_bytes(model, 4, precision)

    def fits(there: int, **how: str) -> bool:
        monkeypatch.setattr("playhead.world.size.memory", lambda device: there)
        try:
            check_size(config, [model], torch.device("cpu"), torch.float32, sessions=0, **how)
        except WorldError:
            return False
        return True

    assert fits(low, precision=precision) and not fits(low - 1, precision=precision) and not fits(2 * low)


def test_what_cannot_be_had_is_one_sentence(tiny_world_folder: Path) -> None:
    with pytest.raises(WorldError, match="no precision `fp4`; there are fp8, int8 and nvfp4"):
        World.load(tiny_world_folder, "cpu", precision="fp4")
    with pytest.raises(WorldError, match="--precision fp8 needs an NVIDIA GPU or the CPU, not mps"):
        low_bit.check_precision("fp8", torch.device("mps"))


def test_where_there_is_no_kernel_it_is_said_that_this_is_slower(
    tiny_world_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    World.load(tiny_world_folder, "cpu", precision="int8")
    assert "int8 is computed the long way" in caplog.text and "slower" in caplog.text


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_a_state_dict_is_as_published_checkpoints_are(low: World, precision: str, tmp_path: Path) -> None:
    """And what an import makes of it is rounded to the same numbers again."""
    from playhead.world.scaled import unscaled

    state = low.generator.state_dict()
    assert state["blocks.0.self_attn.k.weight"].dtype == PRECISIONS[precision]
    assert state["blocks.0.self_attn.k.weight_scale"].shape == (low.config.generator.dim, 1)
    found = unscaled(tmp_path, state)
    assert not any("scale" in key for key in found)
    for key in found:
        if f"{key}_scale" in state:
            again, scale = quantise(found[key], precision)
            assert torch.equal(again.float(), state[key].float())
            assert torch.allclose(scale, state[f"{key}_scale"], rtol=2**-8)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_world_of_either_kind_plays_in_low_bit(precision: str, one_pass: bool, tmp_path: Path) -> None:
    full = make_tiny_world(one_pass=one_pass)
    low = World.load(save_world(full, tmp_path / "world"), "cpu", torch.float32, precision=precision)
    sessions = [Session(world, make_tiny_context(), 3) for world in (full, low)]
    for session in sessions:
        session.step(Action(frozenset({"forward"})))
    wanted, found = (torch.from_numpy(session.latents) for session in sessions)
    assert 0 < apart(found, wanted) < 0.2


def test_square_layers_of_few_channels_stay_full_in_fp8_alone() -> None:
    """Those of 1,536 are slower so on a GPU that has nearly as many multiprocessors as they have tiles."""
    square, wide, joined = [(1536, 1536)], [(8960, 1536)], [(1536, 1536)] * 3
    assert low_bit.number_type(square, "fp8", torch.bfloat16) == torch.bfloat16
    for many, precision in (
        (square, "int8"), (square, "nvfp4"), (wide, "fp8"), (joined, "fp8"), ([(5120, 5120)], "fp8"),
    ):  # fmt: skip
        assert low_bit.number_type(many, precision, torch.bfloat16) == low_bit.PRECISIONS[precision]
    assert low_bit.number_type(wide, None, torch.float32) == torch.float32
