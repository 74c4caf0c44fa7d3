"""Counting: how many floating-point operations a tick is, stage by stage.

Those of products, convolutions and attention, a multiplication and an addition each, as torch counts them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from playhead.scenes.scene import Scene
from playhead.world.action import Action
from playhead.world.past import enter
from playhead.world.world import World


class Operations(NamedTuple):
    """How many there are, and how many of them are attention's."""

    all: int
    attention: int


def count(world: World, scene: Scene) -> dict[str, Operations]:
    """Operations of each stage of a tick that finds every memory full: denoise, decode, commit."""
    state = world.new_state()
    state.graphs.enabled = state.decoding.enabled = False  # what a recorded graph does is not counted
    if state.passes is not None:
        state.passes.graphs.enabled = False
    enter(world, state, scene.context, [scene.seed])
    held = world.config.action.tensor(Action()).expand(1, world.config.sampling.latents_per_tick, -1)
    stages: dict[str, Callable[[int], object]] = {
        "denoise": lambda tick: world.denoise(state, held, [scene.seed], tick),
        "decode": lambda tick: world.decode(state),
        "commit": lambda tick: world.commit(state),
    }
    full = world.config.sampling.reach // world.config.sampling.latents_per_tick + 1
    with world.frame_decoder.plain():  # of which torch counts the operations
        for tick in range(full):
            for stage in stages.values():
                stage(tick)
        return {name: _count(partial(stage, full)) for name, stage in stages.items()}


def _count(work: Callable[[], object]) -> Operations:
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        work()
    each = counter.get_flop_counts().get("Global", {})
    attention = sum(count for operation, count in each.items() if "attention" in str(operation))
    return Operations(sum(each.values()), attention)


def _formulas() -> dict[object, Callable[..., int]]:
    """Those of kernels that torch does not count, where it has them."""
    formulas: dict[tuple[object, str], Callable[..., int]] = {
        (torch.ops.aten, "_int_mm"): _whole_numbers,
        (torch.ops.aten, "_addmm_activation"): _bent,
        (torch.ops.mkldnn, "_linear_pointwise"): _linear,
        (torch.ops.mkldnn, "_convolution_pointwise"): _convolution,
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"): _attention,
    }
    return {getattr(room, name): formula for (room, name), formula in formulas.items() if hasattr(room, name)}


def _whole_numbers(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(x) * weight[1]


def _bent(bias: Sequence[int], x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(x) * weight[1]


def _linear(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(x) * weight[0]


def _convolution(*shapes: object, out_shape: Sequence[int], **_: object) -> int:
    """`shapes`: those of the input, of what is added to the product if anything is, of the weight, …"""
    *_others, weight = (s for s in shapes if isinstance(s, torch.Size) and len(s) == 4)
    return 2 * prod(out_shape) * prod(weight[1:])


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(q[:-1]) * k[-2] * (k[-1] + v[-1])
