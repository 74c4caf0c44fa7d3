"""Whether a world's passes, and its decoder, are fused: measured when it loads, on this device, both ways.

What is fused has to make of an input what the plain way does, but for rounding, and in less time. What was
found is remembered in the user's folder, so that later loads take the same way.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from playhead.world import remembered
from playhead.world.action_module import ActionMemory
from playhead.world.config import WorldConfig
from playhead.world.errors import WorldError
from playhead.world.fused import ops
from playhead.world.fused.fused_decoder import FusedDecoder, fits
from playhead.world.fused.fused_generator import FusedGenerator
from playhead.world.generator import Generator, linear_layers
from playhead.world.kv_cache import KVCache
from playhead.world.lighttae import Decoder, in_grey_levels
from playhead.world.low_bit import PRECISIONS
from playhead.world.timing import seconds

LIMIT = 0.05
"""Relative L1 distance of the two flows up to which they are one.

Rounding makes 0.013 in bfloat16, where each of them is 0.016 from float32, and 0.03 where layers have 8 bits.
"""
LIMIT_4_BITS = 0.15
"""The same where layers are NVFP4: of rounding they make three times what fp8 makes of it."""


KERNELS = 2
"""Counted up when kernels change, of which what is remembered is to be found anew."""
LIMIT_PICTURES = 1.0
"""How far frames of the two may be apart on average, of 255 grey levels."""


@dataclass(frozen=True)
class FusedChoice:
    """Whether passes, or decodes, are fused, and in a sentence why."""

    fused: bool
    finding: str = ""


def choose_fused(
    generator: Generator,
    config: WorldConfig,
    device: torch.device,
    dtype: torch.dtype,
    wanted: bool | None = None,
    recorded: bool = True,
) -> FusedChoice:
    """The faster right way for a world whose passes are those of `generator`, or the one that is `wanted`.

    `recorded`: passes may be recorded to be timed, as those of play are. Outside CUDA, and where there is no
    Triton, all passes are plain. Raises WorldError where fused ones are wanted and cannot be had, or are
    wrong.
    """
    if not ops.available(device):
        if wanted:
            raise WorldError(
                "--fused needs an NVIDIA GPU and Triton, which comes with torch for CUDA; leave it out"
            )
        return FusedChoice(False)
    limit = LIMIT_4_BITS if _large(generator) == PRECISIONS["nvfp4"] else LIMIT
    key = _key(generator, config, device, dtype)
    compare = partial(_compare, generator, config, device, dtype, recorded)
    return _choose(wanted, key, compare, limit, "relative L1 error {:.4f}", "a pass", tight=not recorded)


def choose_fused_decoder(
    decoder: Decoder, latents: Tensor, size: tuple[int, int], wanted: bool | None = None
) -> tuple[FusedChoice, FusedDecoder | None]:
    """The same for a tiny autoencoder's decoder, and what it is fused to.

    `latents` `(1, F, C, h, w)`: what it is tried with, which may be smaller than those of play, of `size`.
    Raises WorldError where a fused one is wanted and is wrong.
    """
    device, dtype = latents.device, latents.dtype
    if not ops.available(device) or not fits(decoder):
        return FusedChoice(False), None
    found: list[FusedDecoder] = []

    @torch.no_grad()
    def compare(timed: bool) -> tuple[float, float, float]:
        _, memory = decoder(latents, None)
        found.append(FusedDecoder(decoder))
        found[0].compile(latents)
        return _both_ways(
            lambda: in_grey_levels(decoder(latents, memory)[0]).float(),
            lambda: found[0](latents, memory)[0].float(),
            lambda plain, fused: (plain - fused).abs().mean(),
            device if timed else None,
            recorded=False,  # there may be no room for what it takes once more
        )

    shape = "x".join(map(str, (*latents.shape[1:3], *size)))
    key = f"{_device(device)}, {dtype}, {decoder.config}, {shape}"
    said = "{:.3f} of 255 grey levels from plain"
    tight = latents.shape[-2:] != size
    choice = _choose(wanted, key, compare, LIMIT_PICTURES, said, "a decode", tight)
    return choice, found[0] if choice.fused else None


@contextlib.contextmanager
def compiling(
    generator: Generator, config: WorldConfig, decoder: Decoder | None, dtype: torch.dtype
) -> Iterator[None]:
    """Meanwhile the kernels that are about to be compared are compiled, on a thread of their own.

    Of the decoder they are compiled alone; a pass, of which each kernel takes as long as the next, is run.
    Raises nothing: who compares will meet what fails again.
    """
    device, latent = next(generator.parameters()).device, config.latent
    known = remembered.read(remembered.note("fused.json"), FusedChoice).get(
        _key(generator, config, device, dtype)
    )

    @torch.no_grad()
    def work() -> None:
        with contextlib.suppress(Exception):
            if decoder is not None and fits(decoder):
                shape = 1, config.sampling.latents_per_tick, latent.channels, latent.height, latent.width
                FusedDecoder(decoder).compile(torch.empty(shape, device=device, dtype=dtype))
            if known is None or known.fused:
                draw_pass(generator, config, device, dtype, True)()

    thread = threading.Thread(target=work, name="compile", daemon=True)
    if ops.available(device):
        thread.start()
    try:
        yield
    finally:
        if thread.ident is not None:
            thread.join()


def _choose(
    wanted: bool | None,
    key: str,
    compare: Callable[[bool], tuple[float, float, float]],
    limit: float,
    error: str,
    what: str,
    tight: bool,
) -> FusedChoice:
    """The faster right way by what was found for `key` before, or by `compare`: its error, and seconds plain
    and fused of `what`, if it is told to take them.

    What is remembered holds however long it takes this time, since numbers hang on it; but it has to be right
    again. `tight`: of a world within a budget, or by small pictures; what is found so serves where nothing
    else is known.
    """
    if wanted is False:
        return FusedChoice(False, "plain, as asked")
    memory = remembered.note("fused.json")
    known = remembered.read(memory, FusedChoice)
    if tight and key not in known:
        key += ", within a budget"
    before = known.get(key) if wanted is None else None
    if before is not None and not before.fused:
        return before
    found = _measured(partial(compare, before is None))
    if isinstance(found, Exception) or not found[0] <= limit:
        said = (
            _first_line(found) if isinstance(found, Exception) else f"{error.format(found[0])}, above {limit}"
        )
        if wanted:
            raise WorldError(f"--fused is refused here: {said}; leave it out")
        choice = FusedChoice(False, said)
    elif before is not None:
        return before
    else:
        far, plain, fused = found
        said = f"{error.format(far)}, {1000 * fused:.1f} ms {what}, {1000 * plain:.1f} plain"
        choice = FusedChoice(bool(wanted) or fused < plain, said)
    # For want of memory another time may find otherwise.
    if wanted is None and not isinstance(found, torch.OutOfMemoryError):
        remembered.write(memory, {**known, key: choice})
    return choice


def _measured(compare: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float] | Exception:
    """What `compare` finds, or why it finds nothing."""
    try:
        return compare()
    except Exception as problem:  # of a library's own kinds, where it cannot compile a kernel
        return problem


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def _compare(
    generator: Generator,
    config: WorldConfig,
    device: torch.device,
    dtype: torch.dtype,
    recorded: bool,
    timed: bool,
) -> tuple[float, float, float]:
    """How far a fused first pass is from a plain one, relative L1, and the seconds of both, plain first."""
    return _both_ways(
        draw_pass(generator, config, device, dtype, False),
        draw_pass(generator, config, device, dtype, True),
        lambda plain, fused: (plain - fused).abs().sum() / plain.abs().sum(),
        device if timed else None,
        recorded,
    )


def _both_ways(
    plain: Callable[[], Tensor],
    fused: Callable[[], Tensor],
    apart: Callable[[Tensor, Tensor], Tensor],
    timed: torch.device | None,
    recorded: bool,
) -> tuple[float, float, float]:
    """How far what is made fused is from what is made plain, and, if `timed` on a device, seconds of both."""
    error = float(apart(plain(), fused()))
    if timed is None:
        return error, 0.0, 0.0
    return error, seconds(plain, timed, recorded), seconds(fused, timed, recorded)


@torch.no_grad()
def draw_pass(
    generator: Generator, config: WorldConfig, device: torch.device, dtype: torch.dtype, fused: bool
) -> Callable[[], Tensor]:
    """A session's first pass over random numbers, the same ones every time, with a cache of that alone."""
    g, latent, count = config.generator, config.latent, config.sampling.latents_per_tick
    tokens = generator.tokens(latent.height, latent.width)
    draw = torch.Generator(device).manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device)

    cache = KVCache(
        layers=g.layers,
        batch=1,
        heads=g.heads,
        frames=count,
        sink=0,
        tokens=tokens,
        head_dim=g.head_dim,
        device=device,
        dtype=dtype,
    )
    cache.begin(count)
    memory = None
    if g.action is not None:
        memory = ActionMemory(
            g.action, batch=1, tokens=tokens, frames=count, latents=count, device=device, dtype=dtype
        )
        memory.hold(noise(1, count, g.action.inputs))
        memory.begin(count)
    context = None
    if g.text_dim or g.image_dim:
        rows = noise(1, g.text_length, g.text_dim) if g.text_dim else noise(1, 257, g.image_dim)
        context = generator.embed_context(rows.to(dtype))
    x = noise(1, count, g.in_channels, latent.height, latent.width)
    timesteps = torch.full((1, count), 900.0, device=device)
    cos_sin = generator.rope_table(range(count), latent.height, latent.width).to(device)
    action = noise(1, count, g.told) if g.buttons else None
    if fused:
        passes = FusedGenerator(generator)
        return torch.no_grad()(lambda: passes(x, timesteps, cos_sin, cache, action, context, memory))
    given = memory.given() if memory is not None else None
    return torch.no_grad()(lambda: generator(x, timesteps, cos_sin, cache.attend, action, context, given))


def _key(generator: Generator, config: WorldConfig, device: torch.device, dtype: torch.dtype) -> str:
    g, latent, count = config.generator, config.latent, config.sampling.latents_per_tick
    sizes = (
        f"{g.layers}x{g.dim}x{g.ffn_dim}, {count}x{latent.height}x{latent.width}, actions {bool(g.action)}"
    )
    return f"{_device(device)}, {dtype}, {_large(generator)}, {sizes}"


def _device(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, torch {torch.__version__}, kernels {KERNELS}"


def _large(generator: Generator) -> torch.dtype:
    """The number type of a generator's large layers, another one where they are low bit."""
    return linear_layers(generator.blocks[0].ffn)[0].weight.dtype
