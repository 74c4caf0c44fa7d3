"""Plans of what is offloaded: as little as a budget asks for, and refusals that say what would do."""

import re
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from playhead.world.checkpoint import without_memory
from playhead.world.errors import WorldError
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE
from playhead.world.offload import needs as counting
from playhead.world.offload.memory_budget import MemoryBudget, told
from playhead.world.offload.needs import Needs, count_needs
from playhead.world.offload.plan import OffloadPlan, make_plan, spread
from playhead.world.offload.slab import SlabLayout
from playhead.world.randomise import random_world
from tests.conftest import make_tiny_world

MB = 2**20


def needs(layers: int = 30, generators: int = 1, slab: int = 80, of_context: int = 9) -> Needs:
    return Needs(
        weights=70 * MB,
        cache=2500 * MB,
        work=900 * MB,
        layout=SlabLayout({"ffn in": ((slab, MB // 2),)}, lambda _: torch.bfloat16),
        contexts=SlabLayout(
            {"cross k": ((of_context, MB // 2),)} if of_context else {}, lambda _: torch.bfloat16
        ),
        layers=layers,
        generators=generators,
        laid_out=0,
        recorded=600 * MB,
        recorded_full=240 * MB,
    )


SIZES = st.builds(
    needs, st.integers(1, 40), st.integers(1, 3), st.integers(1, 300), st.sampled_from([0, 9, 400])
)


def within(given: Needs, share: float) -> int:
    """A budget between the least that would do and all."""
    least = given.least(True)
    return least + int(share * (given.on_device(0) - least))


def on_gpu(given: Needs, vram: int, ram: int | None = None, file: bool = True):
    return make_plan("w", given, MemoryBudget(vram, ram), "cuda", file=file, whole=False, main_memory=2**50)


@given(given=SIZES, share=st.floats(0, 1.1))
def test_a_plan_fits_its_budget_and_offloads_no_block_more(given: Needs, share: float) -> None:
    """But those that make room for the passes of a full window to be recorded."""
    vram = within(given, share)
    plan = on_gpu(given, vram)
    if plan is None:
        assert given.on_device(0) + given.recorded <= vram
        return
    count = len(plan.layers)
    used = given.on_device(count)
    assert used <= vram
    wanted = given.recorded_full if plan.recorded != "nothing" else 0
    assert all(given.on_device(fewer) + wanted > vram for fewer in range(count))
    if plan.recorded == "nothing":
        assert all(given.on_device(n) + given.recorded_full > vram for n in range(given.layers + 1))
    assert list(plan.layers) == sorted(set(plan.layers)) and all(n < given.layers for n in plan.layers)
    if used + given.recorded_full <= vram:
        assert plan.recorded == ("passes" if used + given.recorded <= vram else "full")
    assert not plan.mapped


@given(given=SIZES, share=st.floats(0, 1.1), ram=st.integers(1, 2**36))
def test_what_main_memory_has_no_room_for_stays_in_its_file(given: Needs, share: float, ram: int) -> None:
    vram = within(given, share)
    try:
        plan = on_gpu(given, vram, ram)
    except WorldError as error:
        assert "--ram" in str(error) and ram < 2 * given.buffer
        return
    if plan is None:
        return
    read = 2 * given.buffer if plan.mapped else 0
    assert plan.pinned_bytes + read <= ram and plan.mapped <= set(plan.layers)
    one_less = (plan.pinned_bytes + given.generators * given.slabs) + (2 * given.buffer)
    assert not plan.mapped or one_less > ram or len(plan.mapped) == 1
    assert plan.recorded == "nothing" or not plan.mapped


@given(given=SIZES, share=st.floats(0.01, 0.99))
def test_the_least_that_is_said_to_do_does(given: Needs, share: float) -> None:
    vram = int(share * given.least(True))
    with pytest.raises(WorldError) as refused:
        on_gpu(given, vram)
    said = re.search(r"the least that would do is ([\d.]+) (MB|GB)", str(refused.value))
    assert said is not None
    on_gpu(given, MemoryBudget.parse(f"{said[1]}{said[2]}", None).vram)


@given(among=st.integers(1, 60), count=st.integers(1, 60))
def test_offloaded_blocks_are_spread_evenly(among: int, count: int) -> None:
    assume(count <= among)
    found = spread(count, among)
    assert len(set(found)) == count and found[0] >= 0 and found[-1] < among
    gaps = {b - a for a, b in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_on_a_gpu_a_budget_of_main_memory_alone_says_nothing() -> None:
    with pytest.raises(WorldError, match=r"on a GPU --ram says where blocks may lie .*: give that too"):
        make_plan("w", needs(), MemoryBudget(None, 8 * 2**30), "cuda", file=True, whole=False)


def test_random_weights_have_no_file_to_stay_in() -> None:
    with pytest.raises(WorldError, match=r"random weights, and low-bit ones.* would do is 2\.\d GB"):
        on_gpu(needs(), 4000 * MB, 200 * MB, file=False)


def test_without_a_budget_of_main_memory_a_quarter_of_it_is_left_to_others() -> None:
    def plan(main_memory: int, file: bool = True):
        budget = MemoryBudget(4000 * MB)
        return make_plan("w", needs(), budget, "cuda", file=file, whole=False, main_memory=main_memory)

    assert not plan(2**40).mapped
    found = plan(2000 * MB)
    assert found.mapped and found.pinned_bytes <= 1500 * MB
    with pytest.raises(WorldError, match=r"does not fit what may be locked of main memory, 1\.5 GB"):
        plan(2048 * MB, file=False)


def test_a_device_has_no_more_than_it_has() -> None:
    plan = make_plan(
        "w", needs(), MemoryBudget(2**40), "cuda", file=True, whole=False, device_memory=4500 * MB
    )
    assert plan is not None and needs().on_device(len(plan.layers)) <= 4500 * MB
    with pytest.raises(WorldError, match="is for the CPU or an NVIDIA GPU, and this is mps"):
        make_plan("w", needs(), MemoryBudget(ram=2**40), "mps", file=True, whole=False)


def test_a_tick_moves_each_offloaded_block_once_a_pass() -> None:
    plan = on_gpu(needs(), 4800 * MB)
    assert plan is not None
    count, size = len(plan.layers), needs().layout.size
    assert count > 2 and plan.tick_bytes(5) == 5 * count * size
    assert plan.tick_bytes(5, turns=2) == (5 * count + 4) * size
    assert str(plan) == f"{count} of 30 blocks in main memory"


def test_a_decode_that_will_be_fused_is_planned_as_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, gpu = random_world("causal-forcing"), torch.device("cuda")
    with without_memory():
        models = [Generator(config.generator)], LightTAE(config.autoencoder)
    count = partial(count_needs, config, *models, gpu, torch.bfloat16)
    monkeypatch.setattr(counting, "available", lambda device: False)
    without_triton = count()
    monkeypatch.setattr(counting, "available", lambda device: True)
    fused, plain = count(), count(fused=False)
    assert plain.work == without_triton.work and plain.plain_decode == without_triton.plain_decode == 0
    assert fused.work < plain.work and fused.plain_decode == plain.work - fused.work
    budget = MemoryBudget(vram=8 * 2**30)
    made = [make_plan("w", each, budget, "cuda", file=True, whole=False) for each in (fused, plain)]
    fewer, more = (len(plan.layers) for plan in made if plan is not None)
    assert 0 < fewer < more
    # Where the kernels turn out wrong after all, it says that the budget does not hold.
    world = make_tiny_world()
    world._warn_of_decodes(OffloadPlan(plain, (0,)))
    assert not caplog.messages
    world._warn_of_decodes(OffloadPlan(fused, (0,)))
    (said,) = caplog.messages
    assert "decodes are not fused here" in said and told(fused.plain_decode) in said
