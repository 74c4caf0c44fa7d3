"""NVFP4: what it keeps exactly, how far off a number may be, and that it lies as Blackwell GPUs want it.

The format's own words are taken from its definition (`VALUES`, `offset`), not from the code.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from playhead.world import low_bit, nvfp4_product
from playhead.world.errors import WorldError
from playhead.world.nvfp4 import Packed, quantise, quantise_weights, tile, untile, values
from playhead.world.nvfp4_product import Nvfp4Product
from playhead.world.world import World
from tests.command_line import ROOT
from tests.conftest import THOROUGH

VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
SIZES = st.tuples(st.integers(1, 140), st.integers(1, 9).map(lambda n: 16 * n))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().sum() / wanted.abs().sum())


def meant(packed: Packed, columns: int) -> torch.Tensor:
    """What rows in NVFP4 stand for."""
    return values(packed)[:, :columns] * packed.scale


def offset(row: int, block: int, blocks: int) -> int:
    """Where cuBLAS wants the scale of a block of a row."""
    tile = row // 128 * -(-blocks // 4) + block // 4
    return 512 * tile + row % 32 * 16 + row % 128 // 32 * 4 + block % 4


@settings(max_examples=15 * THOROUGH)
@given(seed=st.integers(0, 2**32), size=SIZES, exponent=st.integers(-20, 10), together=st.booleans())
def test_what_is_such_numbers_comes_back_bit_for_bit(
    seed: int, size: tuple[int, int], exponent: int, together: bool
) -> None:
    """Any codes and scales that have a largest: a 6 in each block, a scale of 448 in each row."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = size
    codes = torch.randint(1, 16, size, generator=draw)
    codes[codes == 8] = 0  # zeros have no sign
    codes[:, ::16] = 7
    bits = torch.randint(1, 127, (rows, columns // 16), generator=draw).to(torch.uint8)
    bits[:, 0] = 126
    blocks = bits.view(torch.float8_e4m3fn)
    parts = torch.tensor(VALUES)[codes].unflatten(-1, (-1, 16)) * blocks.float().unsqueeze(-1)
    x = parts.flatten(-2) * 2.0**exponent
    packed = quantise(x, together)
    assert (packed.scale == 2.0**exponent).all() and packed.scale.shape == (rows, 1)
    assert torch.equal(untile(packed.blocks, rows, columns // 16).view(torch.uint8), bits)
    assert torch.equal(meant(packed, columns), x)


@settings(max_examples=30 * THOROUGH)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=16, max_size=16),
    outlier=st.floats(1, 1e5, width=32),
    columns=st.integers(17, 70),
)
def test_no_number_is_further_off_than_a_part_of_its_blocks_largest_whatever_stands_beside(
    values: list[float], outlier: float, columns: int
) -> None:
    """A sixth, and a 17th of that for the scale; of the largest itself a 17th. The row adds a millionth."""
    most = max(map(abs, values))
    row = torch.tensor([[*values, outlier * most]])
    row = F.pad(row, (0, columns - 17))
    error = (meant(quantise(row), columns) - row).abs()[0, :16]
    little = 3e-6 * outlier * most + 1e-12
    assert (error <= most / 6 * 18 / 17 * 1.0001 + little).all()
    assert (error[row[0, :16].abs() == most] <= most / 17 * 1.0001 + little).all()


def test_the_nearest_number_is_taken_and_of_two_the_even_one() -> None:
    wanted = {0.24: 0, 0.25: 0, 0.26: 0.5, 0.75: 1, 1.25: 1, 1.75: 2, 2.5: 2, 2.51: 3, 3.5: 4, 5: 4, 5.01: 6}
    row = torch.zeros(1, 32)
    row[0, : len(wanted)] = torch.tensor(list(wanted))
    row[0, 15], row[0, 16] = 6, 6 * 448  # scales of one
    for sign in (1, -1):
        assert meant(quantise(sign * row), 32)[0, : len(wanted)].tolist() == [
            sign * value for value in wanted.values()
        ]


def test_the_first_of_two_numbers_lies_in_the_low_half_of_its_byte() -> None:
    row = torch.tensor([VALUES + [6 * 448] + 15 * [0]])
    row[0, 8] = 0  # which has no sign
    pairs = [0x10, 0x32, 0x54, 0x76, 0x90, 0xBA, 0xDC, 0xFE]
    assert quantise(row).codes.tolist() == [[*pairs, 0x07, *7 * [0]]]
    every = torch.arange(256, dtype=torch.uint8).view(16, 16)
    ones = tile(torch.ones(16, 2).to(torch.float8_e4m3fn))
    found = values(Packed(every, ones, torch.tensor(1.0))).flatten().tolist()
    assert found == [VALUES[half] for byte in range(256) for half in (byte % 16, byte // 16)]


@settings(max_examples=20 * THOROUGH)
@given(rows=st.integers(1, 400), blocks=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_scales_lie_where_cublas_wants_them(rows: int, blocks: int, seed: int) -> None:
    bits = torch.randint(1, 127, (rows, blocks), generator=torch.Generator().manual_seed(seed))
    scales = bits.to(torch.uint8).view(torch.float8_e4m3fn)
    found = tile(scales).view(torch.uint8)
    assert found.numel() == -(-rows // 128) * 128 * -(-blocks // 4) * 4
    wanted = torch.zeros_like(found)
    for row in range(rows):
        for block in range(blocks):
            wanted[offset(row, block, blocks)] = bits[row, block]
    assert torch.equal(found, wanted), "the rest is zero"
    assert torch.equal(untile(tile(scales), rows, blocks).view(torch.uint8), scales.view(torch.uint8))


@settings(max_examples=10 * THOROUGH)
@given(rows=st.integers(1, 260), columns=st.integers(1, 150), seed=st.integers(0, 2**32))
def test_rows_of_any_number_and_length_are_filled_with_zeros(rows: int, columns: int, seed: int) -> None:
    x = drawn(seed, rows, columns)
    packed, wide = quantise(x), quantise(F.pad(x, (0, 64 - columns % 32)))
    assert packed.codes.shape == (rows, -(-columns // 32) * 16)
    assert not values(packed)[:, columns:].any()
    assert torch.equal(meant(packed, columns), meant(wide, columns))
    with FakeTensorMode():  # torch's own rules for its product
        given, weight = (
            Packed(*(torch.empty(part.shape, dtype=part.dtype, device="cuda") for part in packed))
            for packed in (packed, quantise(drawn(seed, 48, columns)))
        )
        found = nvfp4_product.product(given, weight)
        assert found.shape == (rows, 48) and found.dtype == torch.bfloat16
        with pytest.raises(RuntimeError):
            nvfp4_product.product(given._replace(blocks=given.blocks[:-1]), weight)


@settings(max_examples=10 * THOROUGH)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), columns=st.sampled_from([16, 72, 256]))
def test_the_twin_multiplies_what_the_numbers_stand_for(seed: int, rows: int, columns: int) -> None:
    x, full, bias = drawn(seed, rows, columns), drawn(seed + 1, 20, columns), drawn(seed + 2, 20)
    weight = quantise(full, together=True)
    found = Nvfp4Product(weight, bias)(x)
    wanted = meant(quantise(x), columns).double() @ meant(weight, columns).double().t() + bias
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-4)


def definition(x: Packed, weight: Packed) -> torch.Tensor:
    """What a GPU's product is to give."""
    return (values(x) @ values(weight).t()).bfloat16()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_around_a_gpus_product_all_is_as_in_the_twin(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvfp4_product, "product", definition)
    full, bias = drawn(1, 48, 72).to(dtype), drawn(2, 48).to(dtype)
    weight = quantise(full, together=True)
    for shape in ((1, 72), (2, 3, 17, 72)):
        x = 100 * drawn(0, *shape).to(dtype)
        found, wanted = (Nvfp4Product(weight, bias, fast)(x) for fast in (True, False))
        assert found.shape == wanted.shape and found.dtype == wanted.dtype == dtype
        assert apart(found.float(), wanted.float()) < 0.003


def test_a_tokens_numbers_hang_on_no_other_token() -> None:
    x, full = drawn(0, 8, 256), drawn(1, 32, 256)
    spoilt = x.clone()
    spoilt[3, 5] = 1e6
    layer = Nvfp4Product(quantise(full, together=True), None)
    plain, found = layer(x), layer(spoilt)
    others = torch.arange(8) != 3
    assert torch.allclose(found[others], plain[others], rtol=1e-5, atol=1e-4)
    assert torch.equal(quantise(spoilt).codes[others], quantise(x).codes[others])


def kernel(**env: str) -> dict[str, Any]:
    pytest.importorskip("triton")
    command = [sys.executable, "-W", "ignore", "-m", "tests.world.nvfp4_kernel"]
    env = {**os.environ, **env}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_kernel_rounds_as_the_twin_does_bit_for_bit() -> None:
    found = kernel(TRITON_INTERPRET="1")
    assert found["numbers"] > 26_000 and found["differ"] == []


def test_the_kernel_compiles_for_blackwell(tmp_path: Path) -> None:
    assert kernel(TRITON_CACHE_DIR=str(tmp_path))["bytes"] > 1000


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A GPU as torch describes it, on a torch for CUDA 13; each test has it described as it wants."""
    found = SimpleNamespace(capability=(9, 0), name="NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: found.name)
    nvfp4_product.missing.cache_clear()
    yield found
    nvfp4_product.missing.cache_clear()


def refusal() -> str:
    with pytest.raises(WorldError) as refused:
        low_bit.check_precision("nvfp4", torch.device("cuda"))
    return str(refused.value)


def test_a_card_without_it_is_refused_by_its_name(card: SimpleNamespace) -> None:
    said = "--precision nvfp4 needs an NVIDIA GPU of compute capability 10.0 or more (Blackwell): NVIDIA H200"
    assert refusal() == f"{said} has compute capability 9.0; try --precision fp8"


@pytest.mark.parametrize(("capability", "name"), [((10, 0), "NVIDIA B200"), ((12, 0), "GeForce RTX 5090")])
def test_blackwell_is_not_refused(card: SimpleNamespace, capability: tuple[int, int], name: str) -> None:
    card.capability, card.name = capability, name
    low_bit.check_precision("nvfp4", torch.device("cuda"))


def test_a_torch_without_it_is_refused_by_its_version(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.capability = (10, 0)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    assert "is built for CUDA 12.6; use one for CUDA 12.8 or later" in refusal()
    nvfp4_product.missing.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", None)  # ROCm calls its devices cuda
    assert "is built for no CUDA" in refusal()
    nvfp4_product.missing.cache_clear()
    monkeypatch.delattr(F, "scaled_mm")
    assert f"torch {torch.__version__} has no product for it" in refusal()


def test_layers_that_serve_as_one_product_share_their_tiles_and_not_their_scales(
    tiny_world_folder: Path,
) -> None:
    world = World.load(tiny_world_folder, "cpu", torch.float32, precision="nvfp4")
    state, dim = world.generator.state_dict(), world.config.generator.dim
    assert state["blocks.0.self_attn.k.weight"].shape == (dim, dim // 2)
    own = "blocks.0.self_attn.{}.weight_scale"
    assert state[own.format("q")].numel() == -(-3 * dim // 128) * 128 * -(-dim // 64) * 4
    assert own.format("k") not in state
    parts = drawn(1, 20, 48), 1e4 * drawn(2, 150, 48), 1e-4 * drawn(3, 7, 48)
    whole = quantise_weights(parts)
    ends = [meant(quantise(part, together=True), 48) for part in parts]
    assert torch.equal(meant(whole, 48), torch.cat(ends))
    assert [len(set(part.flatten().tolist())) for part in whole.scale.split([20, 150, 7])] == [1, 1, 1]
