"""What each of a world's decoders takes and gives: time, memory, and PSNR against its full Wan VAE.

All decode the same latents, tick by tick: those of a session, or random ones where weights are random. As in
play, but that nothing is laid out for a CPU, as a small world's own decoder is.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from playhead.engine.session import Session
from playhead.render.bench import machine
from playhead.render.bench.figures import Spread
from playhead.render.bench.play_speed import RandomSource
from playhead.scenes.scene import Scene
from playhead.world import acceleration
from playhead.world.checkpoint import random_seed
from playhead.world.config import OWN_DECODER, WorldConfig, load_config
from playhead.world.decoding import FrameDecoder, load_decoder
from playhead.world.lighttae import Memory
from playhead.world.metrics import psnr
from playhead.world.world import World
from playhead.world.world_folders import find_world

WARM = 3
"""Ticks that are not counted: the first is of another length, the next find everything cold."""


class DecoderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One decoder; memory in MB. `carried`: what a session keeps for it from tick to tick.

    `device_memory`: at most, its weights, what is carried and its work; CUDA alone. `psnr`: dB against the
    full one, the mean of all frames and the least of one (60 for equal ones); None without one, and for
    random weights.
    """

    name: str
    fused: bool = False
    finding: str = ""
    parameters: int
    tick: Spread
    weights: float
    carried: float
    device_memory: float | None = None
    psnr: tuple[float, float] | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.name:13} {self.tick} ms p50 / p95 / p99, {self.parameters / 1e6:.2f} M parameters"
        peak = f", {self.device_memory:.0f} MB at most" if self.device_memory is not None else ""
        if self.finding:
            yield f"{'':13} {'fused' if self.fused else 'plain'}: {self.finding}"
        yield f"{'':13} {self.weights:.1f} MB of weights, {self.carried:.1f} MB carried by a session{peak}"
        if self.psnr is not None:
            yield f"{'':13} PSNR {self.psnr[0]:.1f} dB, of the worst frame {self.psnr[1]:.1f}"


class DecodeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A run of `bench decode`. `full`: the decoder that PSNR is against, the widest Wan VAE; "" for none."""

    hardware: str
    world: str
    width: int
    height: int
    latents: int
    frames: int
    dtype: str
    source: str
    ticks: int
    full: str
    decoders: tuple[DecoderFigures, ...]

    def lines(self) -> Iterator[str]:
        """As it is printed: a name of at most 13 letters and what was found, a line each."""
        yield f"hardware      {self.hardware}"
        yield (
            f"world         {self.world}, {self.width} x {self.height}, {self.latents} latents and "
            f"{self.frames} frames a tick, {self.dtype}"
        )
        against = f", PSNR against {self.full}" if any(d.psnr is not None for d in self.decoders) else ""
        yield f"measured      {self.ticks} ticks of {self.source}{against}"
        for decoder in self.decoders:
            yield from decoder.lines()


def bench_decode(name: str, device: str, ticks: int, scene: Scene | None) -> DecodeFigures:
    """Measures every decoder of the world `name` over `ticks` ticks of `scene`; None: of random latents."""
    folder = find_world(name)
    config = load_config(folder / "world.toml")
    target = acceleration.pick_device(device)
    dtype = acceleration.pick_dtype(target)
    count = WARM + ticks
    latents = _dreamed(name, device, count, scene) if scene is not None else _drawn(config, count)
    full = max(config.decoders, key=lambda one: config.decoders[one].width, default="")
    told = {
        one for one in (OWN_DECODER, *config.decoders) if scene is not None and not is_random(config, one)
    }
    wanted: list[Tensor] = []
    found: dict[str, DecoderFigures] = {}
    for one in sorted([OWN_DECODER, *config.decoders], key=lambda one: one != full):  # the full one first
        found[one], frames = _measure(folder, config, one, latents, target, dtype)
        if one == full and one in told:
            wanted = frames
        if wanted and one in told:
            found[one] = msgspec.structs.replace(found[one], psnr=_psnr(frames, wanted))
    return DecodeFigures(
        hardware=machine.hardware(target),
        world=config.name,
        width=config.frame_width,
        height=config.frame_height,
        latents=config.sampling.latents_per_tick,
        frames=config.frames_per_tick,
        dtype=str(dtype).removeprefix("torch."),
        source=f"the scene {scene.name}" if scene is not None else "random latents",
        ticks=ticks,
        full=full,
        decoders=tuple(found[one] for one in [OWN_DECODER, *config.decoders]),
    )


def is_random(config: WorldConfig, name: str = "") -> bool:
    """Whether a decoder has random weights; without a name, whether the generator has."""
    if not name:
        return random_seed(config.generator_weights) is not None
    chosen = config.further_decoder(name)
    return random_seed(chosen.weights if chosen else config.autoencoder_weights) is not None


def _drawn(config: WorldConfig, ticks: int) -> list[Tensor]:
    """Latents `(1, F, C, h, w)` of so many ticks, normal numbers."""
    draw = torch.Generator().manual_seed(0)
    shape = (1, config.sampling.latents_per_tick, *config.latent_shape)
    return [torch.randn(shape, generator=draw) for _ in range(ticks)]


def _dreamed(name: str, device: str, ticks: int, scene: Scene) -> list[Tensor]:
    """The same, of a session under random keys."""
    world = World.load(name, device)
    session = Session(world, scene.context, scene.seed, scene)
    source = RandomSource(world.config.action)
    found = []
    for _ in range(ticks):
        session.step(source.sample())
        found.append(torch.from_numpy(session.latents)[None])
    session.finish()
    return found


@torch.no_grad()
def _measure(
    folder: Path,
    config: WorldConfig,
    name: str,
    latents: list[Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[DecoderFigures, list[Tensor]]:
    """One decoder, and the frames that it makes, uint8 `(n, H, W, 3)` of each tick in main memory."""
    before = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
    decoder = load_decoder(folder, config, name, device, dtype)
    choice = decoder.fuse(None)
    if device.type == "cuda":  # loading takes more than decoding
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    times, frames, memory = _decode(decoder, [z.to(device) for z in latents])
    peak = machine.device_memory(device)
    weights = list(decoder.network.parameters())
    figures = DecoderFigures(
        name=name,
        fused=choice.fused,
        finding=choice.finding,
        parameters=sum(p.numel() for p in weights),
        tick=Spread.of(times),
        weights=sum(p.numel() * p.element_size() for p in weights) / 1e6,
        carried=sum(m.numel() * m.element_size() for m in memory) / 1e6,
        device_memory=peak - before / 1e6 if peak is not None else None,
    )
    return figures, frames


def _decode(decoder: FrameDecoder, latents: list[Tensor]) -> tuple[list[float], list[Tensor], Memory]:
    """Seconds of each tick after the first few, all frames in main memory, and what is carried at the end.

    Once there is a memory a decode goes from buffers to buffers, as a session's does.
    """
    times, frames = [], []
    held, graphs = latents[0].clone(), acceleration.Graphs(latents[0].device)
    shown, memory = decoder.pictures(held, None)
    frames.append(shown[0].cpu())
    memory = [part.clone() for part in memory]
    shown = torch.empty(0, device=held.device)

    def work() -> None:
        nonlocal shown
        found, carried = decoder.pictures(held, memory)
        if shown.shape != found.shape:
            shown = torch.empty_like(found)
        shown.copy_(found)
        for kept, part in zip(memory, carried, strict=True):
            kept.copy_(part)

    for z in latents[1:]:
        held.copy_(z)
        _wait(z.device)
        began = time.perf_counter()
        graphs.run("decode", work)
        _wait(z.device)
        times.append(time.perf_counter() - began)
        frames.append(shown[0].cpu())
    return times[WARM - 1 :], frames, memory


def _psnr(frames: list[Tensor], wanted: list[Tensor]) -> tuple[float, float]:
    each = torch.cat([psnr(a, b) for a, b in zip(frames, wanted, strict=True)])
    return float(each.mean()), float(each.min())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
