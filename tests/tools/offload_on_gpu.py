"""What is said of offload, on a GPU: part of `python -m tests.tools.on_gpu`, alone with `--only offload`.

Each world is played resident, without a limit, then within a budget that torch is held to by
`torch.cuda.set_per_process_memory_fraction`: frames have to be equal bit for bit, and memory may not run out.
Printed are the speed against resident, what a tick moves against the measured link, and the peak. Then the
same of an fp8 cache: its kernel against the twin, its speed, and its frames beside those of a full one.
"""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import torch

from playhead.engine.session import Session
from playhead.engine.stats import percentile
from playhead.world.action import Action
from playhead.world.checkpoint import save_weights
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.home import worlds_folder
from playhead.world.metrics import psnr
from playhead.world.offload.memory_budget import MemoryBudget, told
from playhead.world.offload.traffic import link_rate, offload_line, tick_bytes
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.size import cache_bytes
from playhead.world.training.pipeline import write_config
from playhead.world.world import World

GB = 2**30
SMALL = ("causal-forcing", "sgf-plus", "matrix-game-2")


@dataclass(frozen=True)
class Case:
    """A catalogue world with a window of so many latents, None: its own, within a budget of GPU memory."""

    name: str
    window: int | None
    vram: int
    compared: bool = True  # with the resident world, where that fits the card


CASES = (
    Case("causal-forcing", None, 8 * GB),
    Case("causal-forcing", 9, 4 * GB),
    Case("sgf-plus", 9, 6 * GB),
    Case("matrix-game-2", None, 4 * GB),
    Case("wan-14b", None, 24 * GB),
)


def act(config: WorldConfig, count: int) -> list[Action]:
    """Actions, a switch of the prompt among them where there is one."""
    space = config.action
    names = [{"prompt_2"} & set(space.buttons) if n == 2 else set(space.seen[:1]) for n in range(count)]
    return [Action(frozenset(held)) for held in names]


@dataclass(frozen=True)
class Played:
    """Frames of the first ticks, seconds of a tick once the window is full, and the peak in bytes."""

    frames: list[np.ndarray]
    tick: float
    peak: int


def play(world: World, exact: int, measured: int) -> Played:
    """Plays until every slot of the cache was seen twice, and measures ticks after that."""
    config = world.config
    torch.cuda.reset_peak_memory_stats(world.device)
    session = Session(world, random_context(config), 3)
    frames = [session.step(action) for action in act(config, exact)]
    for _ in range(2 * config.sampling.window // config.sampling.latents_per_tick + 2):
        session.step(Action())
    times = []
    for _ in range(measured):
        began = time.perf_counter()
        frames.append(session.step(Action()))
        session.finish()
        torch.cuda.synchronize(world.device)
        times.append(time.perf_counter() - began)
    passes = session._state.passes
    assert passes is None or not passes.graphs.failure, passes.graphs.failure
    return Played(frames, percentile(times, 50) or 0.0, torch.cuda.max_memory_reserved(world.device))


def equal(one: Played, other: Played) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def full(case: Case, device: str) -> None:
    """A full-size world resident and within a budget."""
    config = random_world(case.name)
    save_world_config(config)
    resident = None
    if case.compared:
        world = World.load(config.name, device, memory=case.window)
        resident, fused = play(world, 5, 10), world.fused.fused
        del world
        _free()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(case.vram / total, torch.device(device).index or 0)
    try:
        budget = MemoryBudget(vram=case.vram)
        choice = fused if resident is not None and fused else None
        world = World.load(config.name, device, memory=case.window, budget=budget, fused=choice)
        offloaded = play(world, 5, 10)
        rate = link_rate(world) or float("inf")
        moved = tick_bytes(world, world.steps)
        used = moved / offloaded.tick / rate
        print(f"{config.name}, window {world.config.sampling.window}, within {told(case.vram)}:")
        print(f"  {offload_line(world, world.steps) or 'all resident'}")
        print(f"  {1000 * offloaded.tick:.1f} ms a tick; peak {told(offloaded.peak)} reserved by torch")
        print(f"  link {rate / 1e9:.1f} GB/s measured, {100 * used:.0f} % of it reached")
        assert offloaded.peak <= case.vram
        assert all(frames.any() for frames in offloaded.frames[-2:])
        if resident is not None:
            same = equal(resident, offloaded)
            share, usual = 100 * resident.tick / offloaded.tick, 1000 * resident.tick
            print(f"  resident {usual:.1f} ms a tick, so {share:.0f} % of its speed; equal: {same}")
            assert same
        del world
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.device(device).index or 0)
        _free()


def low_bit_cache(device: str) -> None:
    """The fp8 cache: its memory, speed and frames beside the full one's, and a budget too small for that."""
    config = random_world("causal-forcing")
    save_world_config(config)
    world = World.load(config.name, device)
    full = play(world, 5, 10)
    del world
    _free()
    world = World.load(config.name, device, cache="fp8")
    assert world.reader is not None
    resident = play(world, 5, 10)
    passes = Session(world, random_context(config), 3)
    passes.step(Action())
    kept, twin = passes.snapshot(), passes.fork()
    first = passes.step(Action())
    exact = np.array_equal(first, twin.step(Action()))
    passes.restore(kept)
    exact = exact and np.array_equal(first, passes.step(Action()))
    finding, fused = world.reader.finding, world.fused.fused
    del world, passes, twin, kept
    _free()
    pairs = zip(full.frames, resident.frames, strict=True)
    apart = [float(psnr(torch.from_numpy(one), torch.from_numpy(other)).mean()) for one, other in pairs]
    sizes = [cache_bytes(config, 2, low_bit) for low_bit in (False, True)]
    print(f"{config.name} with an fp8 cache: {finding}")
    less, ms, usual = 100 * (1 - sizes[1] / sizes[0]), 1000 * resident.tick, 1000 * full.tick
    print(f"  {told(sizes[1])} of cache in place of {told(sizes[0])}, {less:.0f} % less")
    print(f"  {ms:.1f} ms a tick, {usual:.1f} with a full one; fork and return exact: {exact}")
    print(f"  PSNR {' '.join(f'{value:.1f}' for value in apart[:5])} dB, by tick; {apart[-1]:.1f} at the end")
    assert exact and all(frames.any() for frames in resident.frames)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(6 * GB / total, torch.device(device).index or 0)
    try:
        budget = MemoryBudget(vram=6 * GB)
        world = World.load(config.name, device, budget=budget, cache="fp8", fused=fused or None)
        within = play(world, 5, 10)
        print(f"  within {told(6 * GB)}: {offload_line(world, world.steps) or 'all resident'}")
        same, ms = equal(resident, within), 1000 * within.tick
        print(f"  {ms:.1f} ms a tick, peak {told(within.peak)}, equal: {same}")
        assert same and within.peak <= 6 * GB
        del world
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.device(device).index or 0)
        _free()


def small(name: str, device: str) -> None:
    """A small world in files: resident, from page-locked memory, from the disk, and from both."""
    config = random_world(name, small=True)
    g = msgspec.structs.replace(config.generator, layers=16)
    config = msgspec.structs.replace(config, name=f"{name}-offload", generator=g)
    save_world_config(config)
    folder = worlds_folder() / config.name
    drawn = World.load(folder, "cpu", torch.float32)
    files = {"generator_weights": drawn.generator, "autoencoder_weights": drawn.autoencoder}
    if config.commit_weights:
        files["commit_weights"] = drawn.generators["commit"]
    for field, module in files.items():
        save_weights(folder / f"{field}.safetensors", module.state_dict())
    kept = {field: f"{field}.safetensors" for field in files}
    write_config(folder / "world.toml", msgspec.structs.replace(config, **kept))
    least = _least(folder, device)
    wanted = play(World.load(folder, device), 5, 10)
    for ram in (None, 64 * 2**20, 2**20, 3 * 2**18):
        try:
            world = World.load(folder, device, budget=MemoryBudget(least, ram))
        except WorldError as error:
            print(f"{config.name}, {told(ram or 0)} of main memory: {error}")
            continue
        found = play(world, 5, 10)
        graphs = world.new_state().passes
        recorded = "passes recorded" if graphs is not None else "passes not recorded"
        same = equal(wanted, found)
        print(f"{config.name}: {offload_line(world, world.steps)}, {recorded}, equal: {same}")
        assert same and world.plan is not None and world.plan.layers


def _least(folder: object, device: str) -> int:
    """The least budget of a world, as the refusal of a smaller one has it."""
    try:
        World.load(str(folder), device, budget=MemoryBudget(vram=2**20))
    except WorldError as error:
        size = str(error).partition("would do is ")[2].split(",")[0].replace(" ", "")
        found = MemoryBudget.parse(size, None)
        assert found is not None and found.vram is not None
        return found.vram
    raise AssertionError("a budget of 1 MB was met")


def proofs(device: str, only_small: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is said of offload, by name; a proof raises AssertionError where it is not so."""
    for name in SMALL:
        yield f"small {name}", partial(small, name, device)
    if only_small:
        return
    for case in CASES:
        yield f"{case.name} {told(case.vram)}", partial(full, case, device)
    yield "fp8 cache", partial(low_bit_cache, device)
