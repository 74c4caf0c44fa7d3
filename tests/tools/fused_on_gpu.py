"""Proofs of fused passes and decodes that need a GPU: `python -m tests.tools.on_gpu --only fused`.

Each is as near to float32 as the plain way is, at full size; and frames of whole ticks are those of unfused
ones, but for rounding.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.checkpoint import fill_randomly, without_memory
from playhead.world.fused import choice
from playhead.world.fused.fused_decoder import FusedDecoder
from playhead.world.lighttae import Decoder, LightTAEConfig, in_grey_levels
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World

TICKS = 5
CLOSE = 2
"""Grey levels of 255 that frames of both ways may be apart on average."""


def fused_pass(name: str, device: str) -> None:
    """A fused pass is as near to float32 as a plain one is, and so are a few ticks to unfused ones."""
    config = random_world(name)
    save_world_config(config)
    world = World.load(config.name, device, fused=True)
    shown = _played(world)
    with world.plain(), world.frame_decoder.plain():
        away = np.abs(_played(world).astype(int) - shown)
    fused = choice.draw_pass(world.generator, config, world.device, world.dtype, True)()
    plain = choice.draw_pass(world.generator, config, world.device, world.dtype, False)()
    for block in world.generator.blocks:
        block.self_attn._joined = None  # whose weights would stay in bfloat16
    exact = choice.draw_pass(world.generator.float(), config, world.device, torch.float32, False)()
    far, near = (float((x - exact).abs().sum() / exact.abs().sum()) for x in (fused, plain))
    print(
        f"{config.name}: a fused pass is {far:.4f} from float32 (relative L1), a plain one {near:.4f}; "
        f"{TICKS} ticks are {away.mean():.2f} of 255 from unfused ones, {away.max()} at most"
    )
    assert world.fused.fused and far < 1.1 * near and away.mean() <= CLOSE


def _played(world: World) -> np.ndarray:
    session = Session(world, random_context(world.config), 3)
    return np.concatenate([session.step(Action()) for _ in range(TICKS)])


@torch.no_grad()
def fused_decoder(device: str) -> None:
    """The public decoder at 480 x 832 in bfloat16, both ways, against float32; and recorded the same."""
    with without_memory():
        exact = Decoder(LightTAEConfig()).eval()
    fill_randomly(exact, 0, torch.device(device), torch.float32)
    exact[-1].bias.add_(0.5)  # so that pixels are neither all black nor all white
    quick = copy.deepcopy(exact).bfloat16()
    fused = FusedDecoder(quick)
    draw = torch.Generator(device).manual_seed(0)
    z = torch.randn(2, 1, 1, 16, 60, 104, generator=draw, device=device)
    short = z.bfloat16()
    memories = [exact(z[0], None)[1], quick(short[0], None)[1], fused(short[0], None)[1]]
    wanted = exact(z[1], memories[0])[0].clamp(0, 1) * 255
    wanted = wanted.permute(0, 1, 3, 4, 2)
    plain = in_grey_levels(quick(short[1], memories[1])[0])
    found, _ = fused(short[1], memories[2])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept, _ = fused(short[1], memories[2])
    kept.zero_()
    graph.replay()
    far, near = (float((x.float() - wanted).abs().mean()) for x in (found, plain))
    most, those = (float((x.float() - wanted).abs().max()) for x in (found, plain))
    print(
        f"decoder at 480 x 832: fused {far:.3f} of 255 from float32 on average and {most:.1f} at most, plain "
        f"{near:.3f} and {those:.1f}; frames vary by {float(wanted.std()):.1f}"
    )
    assert torch.equal(kept, found), "recorded it gives other frames"
    assert torch.equal(found, fused(short[1], memories[2])[0]), "it is not twice the same"
    assert far < 1.1 * near + 0.01 and float(wanted.std()) > 1


def proofs(names: tuple[str, ...], device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "decoder", partial(fused_decoder, device)
    for name in names:
        yield name, partial(fused_pass, name, device)
