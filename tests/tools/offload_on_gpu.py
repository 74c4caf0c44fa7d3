"""What is said of offload, on a GPU: part of `python -m tests.tools.on_gpu`, alone with `--only offload`.

Each world is played resident, without a limit, then within a budget that torch is held to by
`torch.cuda.set_per_process_memory_fraction`: frames have to be equal bit for bit, and memory may not run out.
Each full-size play has a process of its own. Printed are the speed against resident, what a tick moves
against the measured link, and the peak. Then the same of an fp8 cache: its kernel against the twin, its
speed, and its frames beside those of a full one.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

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
    fused: bool = False
    exact: bool = True  # whether a fork and a return go on as it does
    said: tuple[str, ...] = ()


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


def played(
    case: Case, device: str, budget: MemoryBudget | None, fused: bool | None, cache: str | None = None
) -> Played:
    """A case played in this process, with torch held to the budget."""
    config = random_world(case.name)
    save_world_config(config)
    if budget is not None and budget.vram is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(budget.vram / total, torch.device(device).index or 0)
    world = World.load(config.name, device, memory=case.window, budget=budget, fused=fused, cache=cache)
    world.share_cores()
    found = replace(play(world, 5, 10), fused=world.fused.fused)
    if budget is not None:
        rate = link_rate(world) or float("inf")
        moved = tick_bytes(world, world.steps)
        used = 100 * moved / found.tick / rate
        said = (
            offload_line(world, world.steps) or "all resident",
            f"{1000 * found.tick:.1f} ms a tick; peak {told(found.peak)} reserved by torch",
            f"link {rate / 1e9:.1f} GB/s measured, {used:.0f} % of it reached",
        )
        found = replace(found, said=said)
    elif world.reader is not None:
        session = Session(world, random_context(config), 3)
        session.step(Action())
        kept, twin = session.snapshot(), session.fork()
        first = session.step(Action())
        exact = np.array_equal(first, twin.step(Action()))
        session.restore(kept)
        exact = exact and np.array_equal(first, session.step(Action()))
        found = replace(
            found, said=(str(world.reader.finding), f"fork and return exact: {exact}"), exact=exact
        )
    return found


def alone(*given: object) -> Played:
    """`played` in a process of its own, which starts with nothing of the GPU's memory taken."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(played, *given).result()  # type: ignore[arg-type]


def full(case: Case, device: str) -> None:
    """A full-size world resident and within a budget."""
    resident = alone(case, device, None, None) if case.compared else None
    fused = True if resident is not None and resident.fused else None
    offloaded = alone(case, device, MemoryBudget(vram=case.vram), fused)
    print(f"{case.name}, window {case.window or 'its own'}, within {told(case.vram)}:")
    print(*(f"  {line}" for line in offloaded.said), sep="\n")
    same = True
    if resident is not None:
        same = equal(resident, offloaded)
        share, usual = 100 * resident.tick / offloaded.tick, 1000 * resident.tick
        print(f"  resident {usual:.1f} ms a tick, so {share:.0f} % of its speed; equal: {same}", flush=True)
    assert same and offloaded.peak <= case.vram
    assert all(frames.any() for frames in offloaded.frames[-2:])


def low_bit_cache(device: str) -> None:
    """The fp8 cache: its memory, speed and frames beside the full one's, and a budget too small for that."""
    case = Case("causal-forcing", None, 6 * GB)
    config = random_world(case.name)
    full, resident = (alone(case, device, None, None, cache) for cache in (None, "fp8"))
    pairs = zip(full.frames, resident.frames, strict=True)
    apart = [float(psnr(torch.from_numpy(one), torch.from_numpy(other)).mean()) for one, other in pairs]
    sizes = [cache_bytes(config, 2, low_bit) for low_bit in (False, True)]
    print(f"{config.name} with an fp8 cache: {'; '.join(resident.said)}")
    less, ms, usual = 100 * (1 - sizes[1] / sizes[0]), 1000 * resident.tick, 1000 * full.tick
    print(f"  {told(sizes[1])} of cache in place of {told(sizes[0])}, {less:.0f} % less")
    print(f"  {ms:.1f} ms a tick, {usual:.1f} with a full one")
    print(f"  PSNR {' '.join(f'{value:.1f}' for value in apart[:5])} dB, by tick; {apart[-1]:.1f} at the end")
    assert resident.exact and all(frames.any() for frames in resident.frames)
    within = alone(case, device, MemoryBudget(vram=case.vram), resident.fused or None, "fp8")
    print(f"  within {told(case.vram)}:", *within.said, sep="\n    ")
    same = equal(resident, within)
    print(f"  equal: {same}", flush=True)
    assert same and within.peak <= case.vram


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
