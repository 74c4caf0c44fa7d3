"""Offload: worlds that memory does not hold dream what they dream where it does, bit for bit."""

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from playhead.engine.fingerprint import fingerprint
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.checkpoint import fill_randomly, read_weights, without_memory
from playhead.world.errors import WorldError
from playhead.world.generator import Generator
from playhead.world.offload.memory_budget import MemoryBudget
from playhead.world.offload.needs import session_bytes
from playhead.world.offload.placing import whole_state
from playhead.world.offload.plan import OffloadPlan, spread
from playhead.world.offload.traffic import link_rate, offload_line, tick_bytes
from playhead.world.randomise import random_context, save_world_config
from playhead.world.world import World
from tests.world.offloading import LAYERS, budget_of, build, dream, make_world, needs_of, same

WORLDS = ("causal-forcing", "sgf-plus", "matrix-game-2")
"""A prompt's; one whose commit has weights of its own; one with keyboard and mouse modules."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))


def load(folder: Path, budget: MemoryBudget | None = None, dtype: torch.dtype = torch.float32) -> World:
    return World.load(folder, "cpu", dtype, budget=budget)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float32) for name in WORLDS), (WORLDS[0], torch.bfloat16)]
)
def test_a_world_in_its_file_dreams_what_it_dreams_in_memory(name: str, dtype: torch.dtype) -> None:
    folder, config = make_world(name)
    wanted = dream(load(folder, dtype=dtype))
    for count in (4, LAYERS):
        world = load(folder, budget_of(config, count, dtype), dtype)
        assert world.plan is not None and len(world.plan.layers) == len(world.plan.mapped) == count
        assert same(dream(world), wanted), count


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, None) for name in WORLDS), (WORLDS[1], "int8"), (WORLDS[0], "fp8")]
)
def test_blocks_that_were_packed_dream_what_they_dream_resident(name: str, precision: str | None) -> None:
    """From one "device" to another, as from page-locked memory to a GPU: low bit goes that way too."""
    folder, config = make_world(name)
    wanted = dream(build(folder, config, None, precision))
    needs = needs_of(config, precision=precision)
    for count in (1, 2, 3, LAYERS) if name == WORLDS[0] else (LAYERS,):
        world = build(folder, config, OffloadPlan(needs, spread(count, LAYERS)), precision)
        assert same(dream(world), wanted), count


@pytest.mark.parametrize("name", WORLDS)
def test_fused_passes_of_an_offloaded_world_are_those_of_the_resident_one(name: str) -> None:
    folder, config = make_world(name)
    found = []
    for plan in (None, OffloadPlan(needs_of(config), spread(5, LAYERS))):
        world = build(folder, config, plan)
        world._flow.fuse()
        found.append(dream(world))
    assert same(*found)


def test_blocks_may_lie_in_memory_and_in_the_file_at_once() -> None:
    folder, config = make_world("causal-forcing")
    wanted = dream(load(folder))
    plan = OffloadPlan(needs_of(config), (0, 1, 3, 4, 6), frozenset({1, 4}))
    assert same(dream(build(folder, config, plan)), wanted)


def test_sessions_that_take_turns_keep_their_pasts() -> None:
    folder, config = make_world("causal-forcing")
    resident, offloaded = load(folder), load(folder, budget_of(config, 5))
    found = []
    for world in (resident, offloaded):
        sessions = [Session(world, random_context(config, seed), seed) for seed in (1, 2)]
        kept = sessions[0].snapshot()
        frames = [session.step(Action()) for _ in range(3) for session in sessions]
        sessions[0].restore(kept)
        assert np.array_equal(sessions[0].step(Action()), frames[0])
        found.append([*frames, sessions[1].fork().step(Action())])
    assert same(*found)


def test_what_a_tick_moves_is_what_is_counted() -> None:
    for name in WORLDS:
        folder, config = make_world(name)
        world = load(folder, budget_of(config, 5))
        session = Session(world, random_context(config), 3)
        session.step(Action())
        session.finish()
        assert world.buffers is not None
        for _ in range(2):
            before = world.buffers.moved
            session.step(Action())
            session.finish()
            assert world.buffers.moved - before == tick_bytes(world, session.steps) > 0
        session.finish()
        assert session.offloaded == offload_line(world, session.steps)
        assert session.offloaded.startswith(f"5 of {LAYERS} blocks on the disk, ")
        assert (link_rate(world) or 0) > 0
        after = session.step(Action())  # measuring a link leaves nothing behind that is not brought again
        assert np.isfinite(session.latents).all() and after.any()


def test_of_a_resident_world_nothing_is_said_and_nothing_moves() -> None:
    folder, _ = make_world("causal-forcing")
    for world in (load(folder), load(folder, MemoryBudget(ram=2**33))):
        assert world.plan is None and world.buffers is None
        assert not offload_line(world, 4) and not tick_bytes(world, 4) and link_rate(world) is None


def owned(world: World) -> int:
    """Bytes of memory that a world's models and buffers have for themselves: what is mapped is a file's."""
    tensors = [t for model in world.generators.values() for t in model.parameters()]
    tensors += [*world.autoencoder.parameters(), *(world.buffers.bytes if world.buffers else ())]
    for model in world.generators.values():
        assert model.offloaded is None or not any(hasattr(slab, "buffer") for slab in model.offloaded.passes)
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("name", WORLDS)
def test_it_has_no_more_memory_than_it_was_given(name: str) -> None:
    folder, config = make_world(name)
    whole = owned(load(folder))
    for count in (3, LAYERS):
        budget = budget_of(config, count)
        world = load(folder, budget)
        session = Session(world, random_context(config), 1)
        needs = needs_of(config)
        assert owned(world) <= needs.on_device(count) - needs.cache - needs.work < whole
        state = session._state
        caches = [state.cache, *((state.memory.keyboard, state.memory.mouse) if state.memory else ())]
        held = [t for cache in caches for t in (cache.k, cache.v, cache.sink_base)]
        held += [t for pairs in state.keys_values.values() for pair in pairs for t in pair]
        held += [state.latent, state.noises, state.recent, *(state.decoder_memory or ())]
        planned = session_bytes(config, 4, len(world.generators))
        assert sum(t.numel() * t.element_size() for t in held) <= planned


def test_a_file_of_another_number_type_is_widened_on_its_way() -> None:
    folder, config = make_world("causal-forcing")
    kept = read_weights(folder / config.generator_weights)
    assert {t.dtype for t in kept.values()} == {torch.bfloat16}
    world = load(folder, budget_of(config, 4))
    found = whole_state(world.generator)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[key], kept[key].float()) for key in kept)


def test_it_is_the_same_world_by_its_fingerprint_and_comes_back_from_a_pickle() -> None:
    folder, config = make_world("sgf-plus")
    resident, offloaded = load(folder), load(folder, budget_of(config, 4))
    Session(offloaded, random_context(config), 1).step(Action())
    assert fingerprint(offloaded) == fingerprint(resident)
    again = pickle.loads(pickle.dumps(offloaded))
    assert again.plan is not None and again.plan.layers == offloaded.plan.layers
    assert same(dream(again), dream(resident))


def test_a_pass_that_breaks_off_spoils_none_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = make_world("causal-forcing")
    wanted, world = dream(load(folder)), load(folder, budget_of(config, 5))
    session = Session(world, random_context(config), 3)
    block = world.generator.blocks[3]
    with monkeypatch.context() as broken:
        broken.setattr(block, "forward", lambda *given: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError, match="broken"):
            session.step(Action())
    assert same(dream(world), wanted)


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_too_little_is_refused_with_the_least_that_would_do(name: str) -> None:
    folder, _ = make_world(name)
    with pytest.raises(WorldError, match=r"the least that would do is \d+ MB, of which") as refused:
        load(folder, MemoryBudget(ram=2**16))
    least = str(refused.value).partition("would do is ")[2].split(",")[0]
    budget = MemoryBudget.parse(None, least.replace(" ", ""))
    assert same(dream(load(folder, budget)), dream(load(folder)))


def test_random_weights_are_refused_where_they_would_have_to_be_read() -> None:
    _, config = make_world("causal-forcing")
    seeds = {"generator_weights": "random:0", "autoencoder_weights": "random:1"}
    save_world_config(msgspec.structs.replace(config, name="drawn", **seeds))
    with pytest.raises(WorldError, match="random weights, and low-bit ones, have no file"):
        World.load("drawn", "cpu", torch.float32, budget=budget_of(config, 5))
    with pytest.raises(WorldError, match="have no file"):
        World.load(config.name, "cpu", torch.float32, precision="int8", budget=MemoryBudget(ram=2**16))
    # All in memory, without the copies that a CPU's kernels have otherwise: that is less than usual.
    needs = needs_of(config)
    world = World.load("drawn", "cpu", torch.float32, budget=MemoryBudget(ram=needs.on_device(0)))
    assert world.plan is not None and not world.plan.layers and needs.as_ever() > needs.on_device(0)
    assert same(dream(world), dream(World.load("drawn", "cpu", torch.float32)))


def test_a_world_that_a_cpu_lays_out_whole_is_refused_whole(tiny_world_folder: Path) -> None:
    with pytest.raises(WorldError, match="is for an NVIDIA GPU, and this is cpu"):
        World.load(tiny_world_folder, "cpu", budget=MemoryBudget(vram=2**30))
    with pytest.raises(WorldError, match="`freedoom` does not fit --ram 20 MB: none of its blocks can leave"):
        World.load("freedoom", "cpu", budget=MemoryBudget(ram=20 * 2**20))


@pytest.mark.parametrize("text", ["6", "GB", "-6GB", "0GB", "6 TB", "nanGB", "1e9GB", "6GB8", ""])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WorldError, match=r"--vram is a size such as 6GB or 800MB, not"):
        MemoryBudget.parse(text, None)


def test_sizes_are_read_as_memory_is_sold() -> None:
    found = MemoryBudget.parse(" 1.5gb", "800 MiB")
    assert found == MemoryBudget(3 * 2**29, 800 * 2**20)
    assert MemoryBudget.parse(None, None) is None


def test_random_weights_are_drawn_one_after_the_other_and_the_same_ones_wherever_they_are_kept() -> None:
    _, config = make_world("causal-forcing")
    found = []
    for kept in (None, torch.device("cpu")):
        with without_memory():
            model = Generator(config.generator)
        fill_randomly(model, 3, torch.device("cpu"), torch.bfloat16, kept)
        found.append(model.state_dict())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    first, second = (found[0][f"blocks.{number}.ffn.0.weight"] for number in (0, 1))
    assert not torch.equal(first, second)
