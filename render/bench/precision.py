"""What low bit costs and saves: each layer's error, the frames against those of the full world, time, memory.

Both worlds are loaded and play the same actions from the same start, tick by tick in turns.
"""

import time
from collections.abc import Iterator
from functools import partial

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from playhead.engine.session import Session
from playhead.engine.stats import percentile
from playhead.render.bench import machine
from playhead.render.bench.play_speed import RandomSource, settle
from playhead.scenes.scene import Scene
from playhead.world.action import Action
from playhead.world.low_bit import low_bit_layers, number_types, parts
from playhead.world.metrics import psnr
from playhead.world.past import enter
from playhead.world.size import cache_bytes
from playhead.world.terminal import plural
from playhead.world.world import World

CPU_SETTLE = 2
"""Ticks that are not counted on a CPU, where the twin computes them: their times are no promise anyway."""
LAYER_TICKS = 2
"""Ticks whose passes give the layers their inputs."""


class LayerError(msgspec.Struct, frozen=True):
    """Relative L1 error of a layer's outputs against float32 products of its weights in full, same inputs."""

    generator: str
    block: int
    kind: str
    error: float


class PrecisionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A run of `bench precision`; of two values the first is in full.

    `psnr`: dB, a value a tick, 60 for equal frames; `ticks`: p50 of a tick in ms; `weights`: MB of the
    generators' weights; `caches`: of a session's KV cache, where that is low bit, and `reads`: how it is read
    then. `device_memory`: MB at most while a world and its session are there, without the other; CUDA alone.
    """

    hardware: str
    world: str
    steps: int
    precisions: tuple[str, str]
    layers: tuple[LayerError, ...]
    psnr: tuple[float, ...]
    ticks: tuple[float, float]
    weights: tuple[float, float]
    caches: tuple[float, ...] = ()
    reads: str = ""
    device_memory: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """How long a tick takes, low bit over in full."""
        return self.ticks[1] / self.ticks[0]

    def lines(self) -> Iterator[str]:
        """As it is printed: a name of at most 13 letters and what was found, a line each."""
        yield f"hardware      {self.hardware}"
        full, low = self.precisions
        yield f"world         {self.world}, {plural(self.steps, 'step')} a tick, {full} against {low}"
        for generator, block in dict.fromkeys((e.generator, e.block) for e in self.layers):
            errors = [e for e in self.layers if (e.generator, e.block) == (generator, block)]
            each = ", ".join(f"{e.kind} {e.error:.4f}" for e in errors)
            named = f", {generator}" if len({e.generator for e in self.layers}) > 1 else ""
            yield f"{f'block {block}':13} {each}: relative L1 error{named}"
        values = " ".join(f"{value:.1f}" for value in self.psnr)
        yield f"PSNR          {sum(self.psnr) / len(self.psnr):.1f} dB, by tick: {values}"
        before, after = self.ticks
        yield f"tick          {before:.1f} and {after:.1f} ms p50, in turns: {self.ratio:.3f} times as long"
        yield f"weights       {self.weights[0]:.1f} and {self.weights[1]:.1f} MB of the generators"
        if self.caches:
            yield f"caches        {self.caches[0]:.1f} and {self.caches[1]:.1f} MB of a session"
        if self.reads:
            yield f"cache read    {self.reads}"
        if self.device_memory is not None:
            yield f"device memory {self.device_memory[0]:.0f} and {self.device_memory[1]:.0f} MB at most"


def bench_precision(
    name: str, device: str, precision: str | None, ticks: int, scene: Scene, cache: str | None = None
) -> PrecisionFigures:
    """Compares the world `name` in `precision`, with such a `cache`, with itself in full over some ticks."""
    worlds: list[World] = []
    sessions: list[Session] = []
    peaks: list[float] = []
    for wanted, held in ((None, None), (precision, cache)):
        before = _allocated(worlds[0].device) if worlds else 0
        worlds.append(World.load(name, device, precision=wanted, cache=held))
        if worlds[-1].device.type == "cuda":  # loading takes more than play
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(worlds[-1].device)
        sessions.append(Session(worlds[-1], scene.context, scene.seed, scene))
        sessions[-1].warm_up()
        sessions[-1].step(Action())  # where passes are large, only ticks show what they take
        sessions[-1].reset()
        peaks.append((machine.device_memory(worlds[-1].device) or 0.0) - before / 1e6)
    full, low = worlds
    low.share_cores()
    apart, times = _play_in_turns(sessions, ticks, settle(low) if low.device.type == "cuda" else CPU_SETTLE)
    del sessions
    return PrecisionFigures(
        hardware=machine.hardware(low.device),
        world=low.config.name,
        steps=low.steps,
        precisions=(number_types(full.dtype, None), number_types(low.dtype, precision, cache)),
        layers=tuple(layer_errors(full, low, scene, min(ticks, LAYER_TICKS))),
        psnr=tuple(apart),
        ticks=(times[0], times[1]),
        weights=(_weights(full), _weights(low)),
        caches=tuple(session_cache(world) for world in worlds) if cache else (),
        reads=low.reader.finding if low.reader is not None else "",
        device_memory=(peaks[0], peaks[1]) if low.device.type == "cuda" else None,
    )


def _play_in_turns(sessions: list[Session], ticks: int, uncounted: int) -> tuple[list[float], list[float]]:
    """PSNR of the first `ticks` ticks; each session's p50 in ms of as many, after `uncounted` ones."""
    source = RandomSource(sessions[0].world.config.action)
    apart: list[float] = []
    times: tuple[list[float], ...] = ([], [])
    for number in range(uncounted + ticks):
        action = source.sample()
        shown = []
        for session, taken in zip(sessions, times, strict=True):
            began = time.perf_counter()
            shown.append(session.step(action))
            session.finish()
            if session.world.device.type == "cuda":
                torch.cuda.synchronize(session.world.device)
            if number >= uncounted:
                taken.append(time.perf_counter() - began)
        if number < ticks:
            apart.append(float(psnr(*map(torch.from_numpy, shown)).mean()))
    return apart, [1000 * (percentile(taken, 50) or 0.0) for taken in times]


@torch.no_grad()
def layer_errors(full: World, low: World, scene: Scene, ticks: int) -> Iterator[LayerError]:
    """Of every low-bit layer, over all passes of some ticks of the low-bit world."""
    sums: dict[tuple[str, int, str], Tensor] = {}

    def compare(
        key: tuple[str, int, str], own: tuple[nn.Linear, ...], _: nn.Module, given: tuple[Tensor], y: Tensor
    ) -> None:
        weight, bias = torch.cat([part.weight for part in own]), torch.cat([part.bias for part in own])
        wanted = F.linear(given[0].float(), weight.float(), bias.float())
        found = torch.stack([(y.float() - wanted).abs().sum(), wanted.abs().sum()]).double()
        sums[key] = sums.get(key, torch.zeros_like(found)) + found

    hooks = []
    for name, model in low.generators.items():
        for (block, kind), layer in low_bit_layers(model).items():
            own = parts(full.generators[name].blocks[block])[kind]
            hooks.append(layer.register_forward_hook(partial(compare, (name, block, kind), own)))
    state = low.new_state()
    state.graphs.enabled = False  # hooks are not recorded
    if state.passes is not None:
        state.passes.graphs.enabled = False
    try:
        with low.plain():
            enter(low, state, scene.context, [scene.seed])
            sums.clear()  # of the past
            held = low.config.action.tensor(Action()).expand(1, low.config.sampling.latents_per_tick, -1)
            for tick in range(ticks):
                low.denoise(state, held, [scene.seed], tick)
                low.decode(state)
                low.commit(state)
    finally:
        for hook in hooks:
            hook.remove()
    for (name, block, kind), found in sorted(sums.items(), key=lambda item: item[0][:2]):
        yield LayerError(name, block, kind, float(found[0] / found[1]))


def session_cache(world: World) -> float:
    """MB of a session's KV cache."""
    return cache_bytes(world.config, world.dtype.itemsize, world.cache is not None) / 1e6


def _weights(world: World) -> float:
    """MB of the generators' weights."""
    tensors = [t for model in world.generators.values() for t in model.state_dict().values()]
    found: int = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return found / 1e6


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
