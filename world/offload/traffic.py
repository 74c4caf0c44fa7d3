"""What a tick of an offloaded world moves: counted, told in a line, and how fast it could be moved."""

import time

import torch

from playhead.world.flow import expert_name
from playhead.world.offload.memory_budget import told
from playhead.world.ticks import COMMIT
from playhead.world.world import World


def tick_bytes(world: World, steps: int) -> int:
    """Bytes that a tick of so many denoise steps brings to the device; 0 if all are there."""
    if world.plan is None:
        return 0
    who = [expert_name(world.experts.number(1000 * sigma)) for sigma in world.schedule(steps).sigmas]
    if not world.last_pass_commits:
        last = expert_name(world.experts.number(world.config.sampling.context_noise))
        who.append(COMMIT if COMMIT in world.generators else last)
    turns = sum(one != before for one, before in zip(who, [who[-1], *who], strict=False))
    return world.plan.tick_bytes(len(who), turns)


def offload_line(world: World, steps: int) -> str:
    """`23 of 30 blocks in main memory, 9.6 GB a tick`, or nothing where all are resident."""
    if world.plan is None or not world.plan.layers:
        return ""
    return f"{world.plan}, {told(tick_bytes(world, steps))} a tick"


def link_rate(world: World) -> float | None:
    """Bytes a second at which slabs come to the device one after the other, while nothing is computed.

    From where each of them is kept, the best of three rounds; None where all blocks are resident.
    """
    models = [model.offloaded for model in world.generators.values() if model.offloaded is not None]
    if not models or world.buffers is None:
        return None
    slabs = [slab for offloaded in models for slab in offloaded.passes]
    best = float("inf")
    with world.buffers.lock:
        for _ in range(3):
            _wait(world)
            began = time.perf_counter()
            for number, slab in enumerate(slabs):
                world.buffers.bring(number % 2, slab, anew=True)
                world.buffers.wait(number % 2)
            _wait(world)
            best = min(best, time.perf_counter() - began)
    return sum(slab.layout.size for slab in slabs) / best


def _wait(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
