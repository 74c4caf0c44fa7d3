"""How long a device takes for some work, as play would have it done: what choices between kernels go by."""

import time
from collections.abc import Callable

import torch

from playhead.world.acceleration import recording

COUNT = 3


def seconds(work: Callable[[], object], device: torch.device, recorded: bool = True) -> float:
    """The shortest of a few times that `work` takes, after one that does not count.

    On a GPU it is `recorded` as a CUDA graph where that can be done, as passes of play are: else a host that
    is busy, or slow beside its GPU, decides. That takes its memory once more.
    """
    work()
    cuda = device.type == "cuda"
    run = _recorded(work, device) if cuda and recorded else work
    times = []
    for _ in range(COUNT):
        if cuda:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def least_seconds(work: Callable[[], object], count: int, warm: int) -> float:
    """The mean of the faster half of `count` runs of `work`, which waits for its device.

    After `warm` ones that do not count.
    """
    times = []
    for n in range(warm + count):
        began = time.perf_counter()
        work()
        if n >= warm:
            times.append(time.perf_counter() - began)
    faster = sorted(times)[: (count + 1) // 2]
    return sum(faster) / len(faster)


def _recorded(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`work` as a CUDA graph that has run once, or itself where it cannot be recorded."""
    graph = torch.cuda.CUDAGraph()
    try:
        with recording(graph, device):
            work()
    except RuntimeError:
        return work
    graph.replay()
    return graph.replay
