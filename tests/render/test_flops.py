"""The operations of a tick are counted, whatever kernels they go through."""

from pathlib import Path

import pytest
import torch

from playhead.render.bench import flops
from playhead.scenes.scene import load_scene
from playhead.world import packed
from playhead.world.world import World
from tests.conftest import make_tiny_world

TOKENS, DIM, FFN, TOLD, PATCH = 4, 32, 64, 8, 4


def one_pass_flops(in_channels: int, keys: tuple[int, ...]) -> int:
    """A pass of the tiny world's generator by hand, each of its layers seeing so many keys."""
    once = 256 * DIM + DIM * DIM + TOLD * DIM + DIM * DIM + 6 * DIM * DIM  # level, action, their projection
    ends = TOKENS * DIM * PATCH * (in_channels + 8)
    layers = [TOKENS * (4 * DIM * DIM + 2 * DIM * FFN) + 2 * TOKENS * k * DIM for k in keys]
    return 2 * (once + ends + sum(layers))


def decode_flops(grown: bool) -> int:
    """The tiny world's decoder by hand; `grown`: with the products that grow time by one."""
    square = 9 * 8 * 8  # products of a convolution at one position
    blocks = 3 * 4 * square  # three, their first convolution twice as wide
    grow = 8 * 8 if grown else 0
    # Time grows before space does; the last stage does not double.
    small = 16 * (square + blocks + grow)
    middle = 64 * (square + blocks + grow)
    large = 256 * (square + blocks) + 256 * (grow + square + 9 * 8 * 48)
    return 2 * (small + middle + large)


def test_a_tick_of_two_passes_and_a_commit(tiny_world: World, tiny_scene: Path) -> None:
    found = flops.count(tiny_world, load_scene(tiny_scene))
    a_pass = one_pass_flops(8, (6 * TOKENS,) * 2)
    read = 4 * TOKENS * 6 * TOKENS * DIM * 2  # scores and values of both layers, an operation twice each
    assert [n.attention for n in found.values()] == [2 * read, 0, read]
    assert {name: n.all for name, n in found.items()} == {
        "denoise": 2 * a_pass,
        "decode": decode_flops(grown=True),
        "commit": a_pass,
    }


@pytest.mark.parametrize("laid_out", [True, False])
def test_a_tick_of_one_pass(tiny_scene: Path, monkeypatch: pytest.MonkeyPatch, laid_out: bool) -> None:
    """The commit of what is laid out for a CPU is the half of the next decode that can be made ahead."""
    if not laid_out:
        monkeypatch.setattr(packed, "available", lambda dtype: False)
    elif not packed.available(torch.float32):
        pytest.skip("this torch has no kernels that take packed weights")
    world = make_tiny_world(one_pass=True, steps=(1000.0,))
    found = flops.count(world, load_scene(tiny_scene))
    ahead = 2 * 9 * 8 * 8 * 3 * (16 + 64 + 256) if laid_out else 0
    a_pass = one_pass_flops(16, (6 * TOKENS, 9 * TOKENS))
    known = 256 * DIM + DIM * DIM + TOLD * DIM + DIM * DIM + 6 * DIM * DIM  # kept of the ticks before
    assert {name: n.all for name, n in found.items()} == {
        "denoise": a_pass - (2 * known if laid_out else 0),
        "decode": decode_flops(grown=not laid_out) - ahead,
        "commit": ahead,
    }
