"""Proofs that need a GPU: `python -m tests.tools.on_gpu`.

The noise of many sessions is the CPU's. Wan VAEs decode what the CPU decodes, but for rounding. Low-bit
kernels give what the twin gives, recorded too (where a GPU has no product for NVFP4, its rounding alone), and
a full-size world in low bit goes on bit for bit. Small worlds, whose tick path is recorded as CUDA graphs,
dream what the CPU dreams in float32; full-size ones dream recorded what they dream unrecorded; and snapshots
and forks of all of them go on bit for bit. Sparse attention is right under its mask, and recorded the same.
Full-size worlds of random weights take 10 GB of disk. Numbers of the reference implementations are met by
plain passes and by fused ones. Worlds that are offloaded within a budget of memory, which torch is held to,
dream what they dream resident (`tests.tools.offload_on_gpu`). A proof that fails does not keep the others
from running; `--only offload` runs those whose names begin so. Sessions of the shipped world share passes of
one width (`tests.tools.wide_on_gpu`). Fused passes and decodes are as near to float32 as plain ones
(`tests.tools.fused_on_gpu`).
"""

import argparse
import copy
import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch

from playhead.engine.session import Session
from playhead.world import acceleration, attention_check, low_bit
from playhead.world.action import Action
from playhead.world.checkpoint import fill_randomly, save_weights, without_memory
from playhead.world.config import WorldConfig
from playhead.world.errors import PlayheadError
from playhead.world.fused import ops
from playhead.world.home import worlds_folder
from playhead.world.noise import noises
from playhead.world.nvfp4 import Packed
from playhead.world.nvfp4 import quantise as quantise_nvfp4
from playhead.world.nvfp4_product import missing, quantise_fast
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.rounding import EIGHT_BIT, quantise
from playhead.world.sparse_attention import SPARSE
from playhead.world.training.pipeline import write_config
from playhead.world.wan_vae import WIDTH, WanDecoder, WanVAE
from playhead.world.world import World
from tests.tools import fused_on_gpu, golden_format, offload_on_gpu, parity, wide_on_gpu

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("matrix-game-2", "self-forcing", "sgf", "longlive")
FULL = ("matrix-game-2", "causal-forcing", "self-forcing")
LARGE = ((4608, 1536), (1536, 1536), (8960, 1536), (1536, 8960))
"""Outputs and inputs of the large layers of the 1.3 B family."""
CLOSE = 2
"""Grey levels of 255 that two devices, or two ways of one, may be apart."""
FAR = 0.03
"""Relative L1 error that bfloat16 may make in a Wan VAE of random weights, which add their errors up."""


def draw_actions(config: WorldConfig, count: int) -> list[Action]:
    """Random buttons one at a time, prompts among them, and random axes."""
    draw = np.random.default_rng(0)
    space = config.action
    names = [b for b in space.buttons if b in {*space.seen, "prompt_1", "prompt_2"}]
    return [
        Action(
            frozenset(draw.choice(names, 1).tolist() if names else ()),
            {axis: float(draw.uniform(-1, 1)) for axis in space.axes},
        )
        for _ in range(count)
    ]


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def exact(session: Session, ticks: int) -> bool:
    """Whether a fork, and the session itself after a return, dream on what it dreams on, bit for bit."""
    kept, twin = session.snapshot(), session.fork()
    first = [session.step(Action()) for _ in range(ticks)]
    forked = all(np.array_equal(frames, twin.step(Action())) for frames in first)
    session.restore(kept)
    return forked and all(np.array_equal(frames, session.step(Action())) for frames in first)


def same_noise(device: str) -> None:
    """A GPU draws the noise of many sessions itself: the same numbers as on a CPU."""
    seeds, shape = range(64), (1, 64, 10, 16)
    wrong = [
        tick
        for tick in range(0, 20_000, 200)
        if not torch.equal(
            noises(seeds, tick, 1, shape, torch.device(device)).cpu(), noises(seeds, tick, 1, shape)
        )
    ]
    assert not wrong, f"the noise of ticks {wrong} is another"
    print("noise: 100 ticks of 64 sessions are the CPU's, bit for bit")


def rounding_kernels(precision: str, device: str) -> None:
    """Norms and GELUs that round for a low-bit product against those that a product rounds itself."""
    draw = torch.Generator(device).manual_seed(0)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=draw, device=device).bfloat16()

    x, y, gate = noise(1560, 1536), noise(1560, 1536), noise(1, 1536)
    by = ops.Norm(noise(1, 1536), noise(1, 1536), 1e-6, one=True)
    wide = 3 * noise(1560, 8960)
    pairs = [
        (ops.add_norm(x, y, by, gate)[1], ops.add_norm(x, y, replace(by, precision=precision), gate)[1]),
        (torch.nn.functional.gelu(wide, approximate="tanh"), ops.gelu_round(wide, precision)),
    ]
    for full, rounded in pairs:
        wanted = quantise(full, precision)
        other = float((rounded.rows.float() != wanted.rows.float()).float().mean())
        assert other < 0.002, f"{precision}: {other} of the numbers are others"
    print(f"{precision}: norms and GELUs round as products do, {other:.5f} of the last to a neighbour")


def low_bit_product(precision: str, size: tuple[int, int], device: str) -> None:
    """A layer's kernels against the twin, of few rows, odd numbers of them and a tick's; and recorded."""
    out, inside = size
    draw = torch.Generator(device).manual_seed(0)
    full, bias = (torch.randn(*n, generator=draw, device=device).bfloat16() for n in (size, (out,)))
    reason = low_bit.unusable(precision, torch.device(device), torch.bfloat16, out, inside)
    assert not reason, f"{precision} {out} x {inside}: {reason}"
    weight, scale = quantise(full, precision)
    fast, twin = (low_bit.LowBitProduct(weight, scale, bias, precision, fast) for fast in (True, False))
    worst = 0.0
    for rows in (1, 16, 17, 333, 1560, 4680):
        x = torch.randn(rows, inside, generator=draw, device=device).bfloat16()
        x[0] = 0  # a row of zeros,
        x[-1, 7] = 300  # and one with an outlier
        rounded, by_row = low_bit.quantise_fast(x, precision)
        again, wanted_scale = quantise(x, precision)
        # A scale that is another in its last bit may round a few numbers to their neighbours.
        other = float((rounded.float() != again.float()).float().mean())
        assert other < 0.001 and torch.allclose(by_row, wanted_scale, rtol=1e-6), (
            f"{precision}: {other} rounded"
        )
        found, wanted = fast(x).float(), twin(x).float()
        worst = max(worst, float((found - wanted).abs().sum() / wanted.abs().sum()))
        assert torch.isfinite(found).all()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = fast(x)
        kept.zero_()
        graph.replay()
        assert torch.equal(kept.float(), found), f"{precision} recorded gives other numbers"
    # Both round to bfloat16 once; fp8 is summed in fewer bits than float32 has.
    print(f"{precision} {out} x {inside}: {worst:.5f} from the twin (relative L1), recorded the same")
    assert worst < (low_bit.LIMIT if precision == "fp8" else 0.002)


def nvfp4_layer(size: tuple[int, int], device: str) -> None:
    """Rounding by the kernel is the twin's to the bit; a product of its own is near the twin's."""
    out, inside = size
    draw = torch.Generator(device).manual_seed(0)
    full, bias = (torch.randn(*n, generator=draw, device=device).bfloat16() for n in (size, (out,)))
    lacking = low_bit.unusable("nvfp4", torch.device(device), torch.bfloat16, out, inside)
    fast, twin = (low_bit.product(full, bias, "nvfp4", fast) for fast in (not lacking, False))
    worst = 0.0
    for rows in (1, 16, 17, 333, 1560, 4680):
        x = torch.randn(rows, inside, generator=draw, device=device).bfloat16()
        x[0] = 0  # a row of zeros,
        x[-1, 7] = 300  # and one with an outlier
        for name, found, wanted in zip(Packed._fields, quantise_fast(x), quantise_nvfp4(x), strict=True):
            assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8)), f"{name} of {rows} rows"
        found, wanted = fast(x).float(), twin(x).float()
        worst = max(worst, float((found - wanted).abs().sum() / wanted.abs().sum()))
        assert torch.isfinite(found).all()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = fast(x)
        kept.zero_()
        graph.replay()
        assert torch.equal(kept.float(), found), "nvfp4 recorded gives other numbers"
    said = (
        f"no product: {lacking}" if lacking else f"{worst:.5f} from the twin (relative L1), recorded the same"
    )
    print(f"nvfp4 {out} x {inside}: rounded as the twin does, bit for bit; {said}")
    assert worst < low_bit.LIMIT and lacking == missing(torch.device(device))


def low_bit_world(precision: str, device: str) -> None:
    config = random_world("causal-forcing")
    save_world_config(config)
    world = World.load(config.name, device, precision=precision)
    session = Session(world, random_context(config), 3)
    for action in draw_actions(config, 3):
        session.step(action)
    finite = bool(torch.isfinite(session._state.latent).all())
    same = exact(session, 2)
    weights = sum(t.numel() * t.element_size() for t in world.generator.state_dict().values()) / 1e6
    print(f"{config.name} in {precision}: {weights:.0f} MB of weights, fork and return exact: {same}")
    passes = session._state.passes
    assert passes is None or not passes.graphs.failure, passes.graphs.failure
    assert finite and same


@torch.no_grad()
def wan_decoder(width: int, device: str) -> None:
    """A Wan VAE on a GPU against the same on the CPU in float32, twice the same, and recorded the same."""
    with without_memory():
        vae = WanVAE(width)
    fill_randomly(vae, 0, torch.device("cpu"), torch.float32)
    exact = WanDecoder(vae)
    fast = acceleration.channels_innermost(
        WanDecoder(copy.deepcopy(vae)), torch.device(device), torch.bfloat16
    )
    z = torch.randn(1, 4, 16, 12, 20, generator=torch.Generator().manual_seed(0))
    wanted, _ = exact(z)
    given = z.to(device, torch.bfloat16)
    found, memory = fast(given)
    error = float((found.float().cpu() - wanted).abs().sum() / wanted.abs().sum())
    last, _ = fast(given[:, :1], memory)
    same = torch.equal(last, fast(given[:, :1], memory)[0]) and torch.equal(found, fast(given)[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept, _ = fast(given[:, :1], memory)
    kept.zero_()
    graph.replay()
    print(
        f"Wan VAE of width {width}: {error:.4f} from float32 on the CPU (relative L1), twice the same: {same}"
    )
    assert error < FAR and same and torch.equal(kept, last), "recorded it gives other numbers"


def small(name: str, device: str) -> None:
    config = random_world(name, small=True)
    save_world_config(config)
    folder = worlds_folder() / config.name
    # Random weights are drawn where they are used, and devices draw differently: both load the CPU's.
    drawn = World.load(folder, "cpu", torch.float32)
    weights = {"generator.safetensors": drawn.generator, "autoencoder.safetensors": drawn.autoencoder}
    for file, module in weights.items():
        save_weights(folder / file, module.state_dict(), torch.float32)
    kept = dict(zip(("generator_weights", "autoencoder_weights"), weights, strict=True))
    write_config(folder / "world.toml", msgspec.structs.replace(config, **kept))
    worlds = World.load(folder, "cpu", torch.float32), World.load(folder, device, torch.float32)
    worlds[0].side_by_side = False
    sessions = [Session(world, random_context(config), 1) for world in worlds]
    sessions[1].warm_up()
    worst = max(apart(*(s.step(action) for s in sessions)) for action in draw_actions(config, 30))
    graphs = sessions[1]._state.graphs
    same = exact(sessions[1], 4)
    print(
        f"{config.name}: {graphs.recorded} graphs, {worst} of 255 from the CPU, fork and return exact: {same}"
    )
    assert not graphs.failure, graphs.failure
    assert worst <= CLOSE and same


def sparse(backend: str, device: str) -> None:
    """A sparse backend at full size against its mask in float32; and recorded as it is unrecorded.

    A small world's thirty ticks turn its ring over, so that graphs are played again where frames are others.
    """
    config = random_world("causal-forcing")
    tokens = config.latent.height * config.latent.width // config.generator.patch**2
    given = attention_check.draw_inputs(config, tokens, torch.device(device), torch.bfloat16)
    finding = attention_check.measure_sparse(*given, backend, tokens)
    assert finding.right, str(finding)
    config = random_world("self-forcing", small=True)
    save_world_config(config)
    world = World.load(config.name, device, attention=backend)
    recorded, eager = (Session(world, random_context(config), 3) for _ in range(2))
    eager._state.graphs.enabled = False
    recorded.warm_up()
    worst = max(apart(recorded.step(action), eager.step(action)) for action in draw_actions(config, 30))
    graphs, same = recorded._state.graphs, exact(recorded, 4)
    print(
        f"{finding}; {config.name}: {graphs.recorded} graphs, {worst} of 255 from unrecorded, "
        f"fork and return exact: {same}"
    )
    assert not graphs.failure, graphs.failure
    assert worst == 0 and same


def full(name: str, device: str) -> None:
    config = random_world(name)
    save_world_config(config)
    world = World.load(config.name, device)
    context = random_context(config)
    recorded, eager = Session(world, context, 3), Session(world, context, 3)
    eager._state.passes = None
    worst = max(apart(recorded.step(action), eager.step(action)) for action in draw_actions(config, 7))
    del eager
    finite = bool(torch.isfinite(recorded._state.latent).all())
    passes = recorded._state.passes
    count = passes.graphs.recorded if passes is not None else 0
    same = exact(recorded, 2)
    print(
        f"{config.name}: {count} passes recorded, {worst} of 255 from unrecorded, finite: {finite}, "
        f"fork and return exact: {same}"
    )
    assert passes is None or not passes.graphs.failure, passes.graphs.failure
    assert worst <= CLOSE and finite and same


def golden(folder: Path, device: str) -> None:
    """Numbers of the reference implementations, by plain passes and by fused ones, at the folder's limits."""
    kind = golden_format.read_meta(folder / "meta.json", golden_format.Header).kind
    for fused in (False,) if kind == "autoencoder" else (False, True):
        report = parity.check(folder, device=device, fused=fused)
        most, relative = (max(row[at] for row in report.rows) for at in (1, 2))
        way = "fused" if fused else "plain"
        print(f"{folder.name}, {way}: at most {most:.1e} off, {relative:.1e} of a tensor (relative L2)")
        assert report.passes, f"{folder.name}, {way}:\n{report}"


def proofs(device: str, small_alone: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """Everything that is proven here, in order, by name."""
    yield "noise", partial(same_noise, device)
    for precision in EIGHT_BIT:
        yield f"{precision} rounding", partial(rounding_kernels, precision, device)
        for size in LARGE:
            yield f"{precision} product", partial(low_bit_product, precision, size, device)
    for size in LARGE:
        yield "nvfp4 layer", partial(nvfp4_layer, size, device)
    for width in (WIDTH // 4, WIDTH):
        yield f"wan-vae {width}", partial(wan_decoder, width, device)
    for name in SMALL:
        yield f"small {name}", partial(small, name, device)
    for backend in SPARSE:
        yield f"sparse {backend}", partial(sparse, backend, device)
    if not small_alone:
        for name in FULL:
            yield f"full {name}", partial(full, name, device)
        for label, proof in fused_on_gpu.proofs(FULL, device):
            yield f"fused {label}", proof
        lacking = missing(torch.device(device))
        for precision in (*EIGHT_BIT, *(() if lacking else ("nvfp4",))):
            yield f"{precision} world", partial(low_bit_world, precision, device)
    for label, proof in offload_on_gpu.proofs(device, small_alone):
        yield f"offload {label}", proof
    yield "wide", partial(wide_on_gpu.prove, device)
    for folder in sorted(GOLDEN.iterdir()):
        yield f"golden {folder.name}", partial(golden, folder, device)


def main() -> None:
    parser = argparse.ArgumentParser(description="Proofs that need a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="proofs whose names begin so: offload,fused")
    parser.add_argument("--small", action="store_true", help="leave out the full-size worlds")
    given = parser.parse_args()
    try:
        acceleration.pick_device(given.device)
    except PlayheadError as error:
        sys.exit(f"tests.tools.on_gpu: {error}")
    chosen = [
        (label, proof)
        for label, proof in proofs(given.device, given.small)
        if label.startswith(tuple(given.only.split(",")))
    ]
    if not chosen:
        sys.exit(f"tests.tools.on_gpu: no proof begins with {given.only}; without --only all are run")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PLAYHEAD_HOME"] = folder
        for label, proof in chosen:
            try:
                proof()
            except Exception as error:  # a proof that fails says so, and the others still run
                failed.append(label)
                print(f"FAILED {label}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exception(error, limit=-4, file=sys.stdout)
            gc.collect()
            torch.cuda.empty_cache()
    if failed:
        sys.exit(f"tests.tools.on_gpu: {len(failed)} of {len(chosen)} proofs failed: {', '.join(failed)}")
    print(f"all {len(chosen)} proofs hold")


if __name__ == "__main__":
    main()
